/* See helper_process.h. */
#include "helper_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_WORDS_BYTES 1000
#define END_TIMEOUT_MS 2000
#define KILL_TIMEOUT_MS 1000

gboolean vp_helper_wait(const VpProcess *process, int timeout_ms)
{
    struct pollfd ended = {.fd = process->pidfd, .events = POLLIN};

    return poll(&ended, 1, timeout_ms) > 0;
}

static void wait_end(const VpProcess *process, int timeout_ms)
{
    if (vp_helper_wait(process, timeout_ms))
        return;
    vp_error_free(vp_process_kill(process, SIGKILL));
    vp_helper_wait(process, KILL_TIMEOUT_MS);
}

/* What it wrote, for an error. */
static char *words_of(int fd)
{
    char text[MAX_WORDS_BYTES + 1] = "";
    const ssize_t n = pread(fd, text, MAX_WORDS_BYTES, 0);

    text[MAX(0, n)] = '\0';
    return g_utf8_make_valid(g_strstrip(text), -1);
}

char *vp_helper_last_words(const char *log)
{
    const int fd = open(log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char text[MAX_WORDS_BYTES + 1] = "";
    struct stat status;

    if (fd < 0)
        return g_strdup("");
    const off_t from = fstat(fd, &status) == 0 ? MAX(0, status.st_size - MAX_WORDS_BYTES) : 0;
    const ssize_t n = pread(fd, text, MAX_WORDS_BYTES, from);
    close(fd);
    text[MAX(0, n)] = '\0';
    return g_utf8_make_valid(g_strdelimit(g_strstrip(text), "\n", ';'), -1);
}

static VpError *run(const char *const *argv, int fd, const VpConfine *confine, int output_fd, int timeout_ms,
                    const char *reason)
{
    const VpProcessSpec spec = {.argv = argv,
                                .fds = &fd,
                                .n_fds = fd >= 0 ? 1 : 0,
                                .output_fd = output_fd,
                                .confine = confine};
    VpProcess process;
    VpError *error = vp_process_spawn(&spec, &process);

    if (error)
        return error;
    wait_end(&process, timeout_ms);
    g_autofree char *how = vp_process_reap(&process);
    vp_process_clear(&process);
    if (strcmp(how, "exited with status 0") == 0)
        return NULL;
    g_autofree char *words = words_of(output_fd);
    return vp_error_new(VP_FAILED_PRECONDITION, reason, "%s %s: %s", argv[0], how,
                        words[0] ? words : "it said nothing");
}

VpError *vp_helper_run(const char *const *argv, int fd, const VpConfine *confine, int timeout_ms, const char *reason)
{
    const int output_fd = memfd_create("output", MFD_CLOEXEC);

    if (output_fd < 0)
        return vp_error_errno(errno, "SPAWN_FAILED", "cannot start %s", argv[0]);
    VpError *error = run(argv, fd, confine, output_fd, timeout_ms, reason);
    close(output_fd);
    return error;
}

VpError *vp_helper_start(const char *const *argv, const int *fds, gsize n_fds, int output_fd, VpProcess *ret_process)
{
    const VpProcessSpec spec = {.argv = argv, .fds = fds, .n_fds = n_fds, .output_fd = output_fd};

    return vp_process_spawn(&spec, ret_process);
}

void vp_helpers_end(GArray *helpers)
{
    for (guint i = 0; i < helpers->len; i++) {
        VpProcess *process = &g_array_index(helpers, VpProcess, i);

        wait_end(process, END_TIMEOUT_MS);
        g_free(vp_process_reap(process));
        vp_process_clear(process);
    }
    g_array_set_size(helpers, 0);
}

void vp_helpers_reap(GArray *helpers)
{
    for (guint i = helpers->len; i-- > 0;) {
        VpProcess *process = &g_array_index(helpers, VpProcess, i);

        if (!vp_helper_wait(process, 0))
            continue;
        g_free(vp_process_reap(process));
        vp_process_clear(process);
        g_array_remove_index(helpers, i);
    }
}

char *vp_helper_find(const char *name)
{
    static const char *const folders[] = {"/usr/sbin", "/sbin", "/usr/libexec", "/usr/lib/qemu"};
    char *path = g_find_program_in_path(name);

    for (gsize i = 0; !path && i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *candidate = g_build_filename(folders[i], name, NULL);

        if (access(candidate, X_OK) == 0)
            path = g_steal_pointer(&candidate);
    }
    return path;
}
