/* Watching by inotify: see watch.h. */
#include "server/auth/watch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

struct VpFileWatch {
    int fd;
    int stop_fd; /* an eventfd */
    pthread_t thread;
    gboolean running;
    GHashTable *names; /* of the files, and of what links that lead to them are called by some tools */
    void (*changed)(void *data);
    void *data;
};

/* Whether an event is about one of the files. "..data" is the link that Kubernetes puts in the place of all of a folder's files. */
static gboolean concerns(const VpFileWatch *watch, const struct inotify_event *event)
{
    return event->len == 0 || g_str_equal(event->name, "..data") || g_hash_table_contains(watch->names, event->name);
}

static gboolean read_events(const VpFileWatch *watch)
{
    _Alignas(struct inotify_event) char buffer[4096];
    gboolean any = FALSE;
    ssize_t got;

    while ((got = read(watch->fd, buffer, sizeof(buffer))) > 0) {
        for (const char *at = buffer; at < buffer + got;) {
            const struct inotify_event *event = (const void *)at;

            any = concerns(watch, event) || any;
            at += sizeof(*event) + event->len;
        }
    }
    return any;
}

static void *run(void *data)
{
    VpFileWatch *watch = data;
    struct pollfd fds[] = {{.fd = watch->stop_fd, .events = POLLIN}, {.fd = watch->fd, .events = POLLIN}};

    for (;;) {
        if (poll(fds, G_N_ELEMENTS(fds), -1) < 0 && errno != EINTR) {
            vp_log(VP_LOG_ERROR, "changed files are not seen any more: poll: %s", g_strerror(errno));
            return NULL;
        }
        if (fds[0].revents)
            return NULL;
        if (fds[1].revents && read_events(watch))
            watch->changed(watch->data);
    }
}

static VpError *start(VpFileWatch *watch, const char *const *files, gsize n_files)
{
    watch->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    watch->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->fd < 0 || watch->stop_fd < 0)
        return vp_error_errno(errno, "WATCH_FAILED", "cannot watch files");
    for (gsize i = 0; i < n_files; i++) {
        g_autofree char *folder = files[i] ? g_path_get_dirname(files[i]) : NULL;

        if (!folder)
            continue;
        g_hash_table_add(watch->names, g_path_get_basename(files[i]));
        if (inotify_add_watch(watch->fd, folder, IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ATTRIB) < 0)
            return vp_error_errno(errno, "WATCH_FAILED", "cannot watch the folder %s", folder);
    }
    if (g_hash_table_size(watch->names) == 0)
        return NULL;
    VpError *error = vp_thread_start(&watch->thread, "vp-watch", run, watch);
    watch->running = !error;
    return error;
}

VpFileWatch *vp_file_watch_new(const char *const *files, gsize n_files, void (*changed)(void *data), void *data,
                               VpError **error)
{
    VpFileWatch *watch = g_new0(VpFileWatch, 1);

    watch->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    watch->changed = changed;
    watch->data = data;
    VpError *failure = start(watch, files, n_files);
    if (failure) {
        *error = failure;
        vp_file_watch_free(watch);
        return NULL;
    }
    return watch;
}

void vp_file_watch_free(VpFileWatch *watch)
{
    if (!watch)
        return;
    /* An eventfd takes a number of this size at once. */
    if (watch->running && eventfd_write(watch->stop_fd, 1) == 0)
        pthread_join(watch->thread, NULL);
    if (watch->fd >= 0)
        close(watch->fd);
    if (watch->stop_fd >= 0)
        close(watch->stop_fd);
    g_hash_table_unref(watch->names);
    g_free(watch);
}
