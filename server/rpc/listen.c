/*
 * Unix sockets. The daemon accepts on them itself and gives the connections to the core, because only so the kernel's word on who calls
 * (SO_PEERCRED) can be had: the core's own unix listener does not tell.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/rpc/internal.h"

struct VpListener {
    char *path;
    dev_t device; /* of the socket file, so that we remove ours alone */
    ino_t inode;
    int fd;
    int stop_fd; /* an eventfd */
    pthread_t thread;
    gboolean running;
    void (*accepted)(void *data, int fd);
    void *data;
};

/* What keeps a new socket from being bound: NULL if the path is free now. */
static VpError *clear_path(const struct sockaddr_un *address)
{
    const char *path = address->sun_path;
    struct stat status;

    if (lstat(path, &status) < 0)
        return errno == ENOENT ? NULL : vp_error_errno(errno, "LISTEN_FAILED", "cannot look at %s", path);
    if (!S_ISSOCK(status.st_mode))
        return vp_error_new(VP_FAILED_PRECONDITION, "LISTEN_FAILED",
                            "%s is there and is no socket; choose another address or remove it", path);

    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot make a socket");
    const int r = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    const int why = errno;
    close(fd);
    /* EAGAIN: somebody listens and is busy. */
    if (r == 0 || why == EAGAIN)
        return vp_error_new(VP_FAILED_PRECONDITION, "ADDRESS_IN_USE",
                            "another program answers on unix:%s; stop it or choose another address", path);
    if (why != ECONNREFUSED)
        return vp_error_errno(why, "LISTEN_FAILED", "cannot tell whether anybody answers on unix:%s", path);
    /* Left behind by a daemon that was killed. */
    if (unlink(path) < 0 && errno != ENOENT)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot remove the stale socket %s", path);
    return NULL;
}

static VpError *bind_path(VpListener *listener)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    if (g_strlcpy(address.sun_path, listener->path, sizeof(address.sun_path)) >= sizeof(address.sun_path))
        return vp_error_new(VP_INVALID_ARGUMENT, "LISTEN_FAILED", "the socket's path is longer than %zu bytes: %s",
                            sizeof(address.sun_path) - 1, listener->path);
    VpError *error = clear_path(&address);
    if (error)
        return error;

    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot make a socket");
    /* Nobody can connect before listen(), so the mode is right from the first connection on. */
    if (bind(listener->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot bind unix:%s", listener->path);
    if (chmod(listener->path, 0600) < 0 || lstat(listener->path, &status) < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot set the mode of %s", listener->path);
    listener->device = status.st_dev;
    listener->inode = status.st_ino;
    if (listen(listener->fd, SOMAXCONN) < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot listen on unix:%s", listener->path);
    return NULL;
}

VpListener *vp_listener_new(const char *path, VpError **error)
{
    VpListener *listener = g_new0(VpListener, 1);

    listener->path = g_strdup(path);
    listener->fd = -1;
    listener->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    VpError *failure =
        listener->stop_fd < 0 ? vp_error_errno(errno, "LISTEN_FAILED", "cannot make an eventfd") : bind_path(listener);
    if (failure) {
        *error = failure;
        vp_listener_free(listener);
        return NULL;
    }
    return listener;
}

/* Removes the socket file, if it is still ours. */
static void remove_socket(VpListener *listener)
{
    struct stat status;

    if (listener->inode && lstat(listener->path, &status) == 0 && status.st_dev == listener->device &&
        status.st_ino == listener->inode)
        unlink(listener->path);
    listener->inode = 0;
}

static void *accept_loop(void *data)
{
    VpListener *listener = data;
    struct pollfd fds[2] = {{.fd = listener->stop_fd, .events = POLLIN}, {.fd = listener->fd, .events = POLLIN}};
    gboolean told = FALSE;

    for (;;) {
        /* Without a free descriptor accept() fails at once for ever: look again in a while, and for the stop all the time. */
        const int ready = poll(fds, told ? 1 : 2, told ? 100 : -1);

        if (ready < 0 && errno != EINTR) {
            vp_log(VP_LOG_ERROR, "unix:%s takes no connections any more: poll: %s", listener->path, g_strerror(errno));
            return NULL;
        }
        if (ready > 0 && fds[0].revents)
            return NULL;
        const int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            told = FALSE;
            listener->accepted(listener->data, fd);
            continue;
        }
        const gboolean full = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
        if (full && !told)
            vp_log(VP_LOG_WARNING, "unix:%s: a connection has to wait: %s", listener->path, g_strerror(errno));
        told = full;
    }
}

VpError *vp_listener_start(VpListener *listener, void (*accepted)(void *data, int fd), void *data)
{
    listener->accepted = accepted;
    listener->data = data;
    VpError *error = vp_thread_start(&listener->thread, "vp-accept", accept_loop, listener);
    listener->running = !error;
    return error;
}

void vp_listener_stop(VpListener *listener)
{
    if (!listener->running)
        return;
    listener->running = FALSE;
    /* An eventfd takes a number of this size at once. */
    if (eventfd_write(listener->stop_fd, 1) < 0)
        vp_log(VP_LOG_ERROR, "unix:%s: cannot stop accepting: %s", listener->path, g_strerror(errno));
    pthread_join(listener->thread, NULL);
    remove_socket(listener);
}

void vp_listener_free(VpListener *listener)
{
    if (!listener)
        return;
    vp_listener_stop(listener);
    remove_socket(listener);
    if (listener->fd >= 0)
        close(listener->fd);
    if (listener->stop_fd >= 0)
        close(listener->stop_fd);
    g_free(listener->path);
    g_free(listener);
}
