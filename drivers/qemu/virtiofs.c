/* virtiofsd: see host_parts.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/thread.h"
#include "folder.h"
#include "helper_process.h"
#include "host_parts.h"

#define READY_TIMEOUT_US (5 * G_USEC_PER_SEC)
#define READY_STEP_US 2000

/* ---- readiness ---- */

static gboolean has_root(pid_t pid, const struct stat *folder)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/root/.", pid);
    struct stat root;

    return stat(path, &root) == 0 && root.st_dev == folder->st_dev && root.st_ino == folder->st_ino;
}

/* It, or the child that it makes for its namespaces, has the folder for its root. It was told a path: what matters is where that has led. */
static gboolean serves(const VpProcess *process, const struct stat *folder)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/children", process->pid, process->pid);
    g_autofree char *text = NULL;

    if (has_root(process->pid, folder))
        return TRUE;
    g_file_get_contents(path, &text, NULL, NULL);
    g_auto(GStrv) children = g_strsplit(text ? text : "", " ", -1);
    for (char **child = children; *child; child++) {
        const gint64 pid = g_ascii_strtoll(*child, NULL, 10);

        if (pid > 0 && has_root((pid_t)pid, folder))
            return TRUE;
    }
    return FALSE;
}

/* What it said last, or where to look. */
static VpError *with_words(VpError *error, const char *log)
{
    g_autofree char *words = vp_helper_last_words(log);

    return vp_error_prefix(error, "virtiofsd (%s): %s", log, words[0] ? words : "it said nothing");
}

static VpError *wait_ready(const VpProcess *process, int folder_fd)
{
    const gint64 deadline_us = vp_now_us() + READY_TIMEOUT_US;
    struct stat folder;

    if (fstat(folder_fd, &folder) < 0)
        return vp_error_errno(errno, "VIRTIOFS", "cannot look at the folder");
    while (!serves(process, &folder)) {
        if (vp_helper_wait(process, READY_STEP_US / 1000))
            return vp_error_new(VP_FAILED_PRECONDITION, "VIRTIOFS", "it has ended");
        if (vp_now_us() > deadline_us)
            return vp_error_new(VP_FAILED_PRECONDITION, "VIRTIOFS", "it does not serve this folder; was it moved?");
    }
    return NULL;
}

/* ---- the process ---- */

/* The folder's path as the kernel has it, without links. */
static char *real_path(int folder_fd)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", folder_fd);

    return g_file_read_link(link, NULL);
}

static VpError *start_process(const char *binary, const char *dir, const char *log, int folder_fd, int listen_fd,
                              VpProcess *process)
{
    g_autofree char *path = real_path(folder_fd);
    g_autofree char *source = g_strdup_printf("source=%s", path ? path : "");
    const char *const argv[] = {binary, "-f", "--fd=3", "-o", source, NULL};
    int log_fd = -1;

    /* Its options end at a comma, and nothing stands for one. */
    if (!path || strpbrk(path, ",\\"))
        return vp_error_new(VP_FAILED_PRECONDITION, "VIRTIOFS",
                            "virtiofsd takes no folder with a comma or a backslash in its path");
    VpError *error = vp_folder_open_log_at(dir, log, &log_fd);
    if (error)
        return error;
    error = vp_helper_start(argv, &listen_fd, 1, log_fd, process);
    close(log_fd);
    return error;
}

static VpError *start_with(const char *binary, const char *dir, size_t index, int folder_fd, GArray *helpers,
                           int *ret_fd)
{
    g_autofree char *socket = g_strdup_printf("virtiofsd%zu.sock", index);
    g_autofree char *log = g_strdup_printf("virtiofsd%zu.log", index);
    g_autofree char *log_path = g_build_filename(dir, log, NULL);
    VpProcess process = {.pidfd = -1};
    int listen_fd = -1;
    VpError *error = vp_folder_listen_at(dir, socket, &listen_fd);

    if (error)
        return error;
    /* It waits for us. */
    fcntl(listen_fd, F_SETFL, 0);
    error = start_process(binary, dir, log, folder_fd, listen_fd, &process);
    close(listen_fd);
    if (error)
        return error;
    g_array_append_val(helpers, process);
    error = vp_folder_connect_to(dir, socket, ret_fd);
    if (!error)
        error = wait_ready(&process, folder_fd);
    if (!error)
        return NULL;
    /* It is gone, or is made to go. */
    vp_error_free(vp_process_kill(&process, SIGKILL));
    return with_words(error, log_path);
}

VpError *vp_virtiofs_start(const char *dir, size_t index, int folder_fd, GArray *helpers, int *ret_fd)
{
    g_autofree char *binary = vp_helper_find("virtiofsd");
    int fd = -1;

    if (!binary)
        return vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED",
                            "there is no virtiofsd on this host; install it: apt-get install qemu-system-common, or "
                            "virtiofsd");
    VpError *error = start_with(binary, dir, index, folder_fd, helpers, &fd);
    if (error) {
        if (fd >= 0)
            close(fd);
        return error;
    }
    /* QEMU waits on it. */
    fcntl(fd, F_SETFL, 0);
    *ret_fd = fd;
    return NULL;
}
