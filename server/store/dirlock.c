/* The lock file of a state directory: see dirlock.h. It is never removed: whoever unlinks a lock file lets two processes lock two files. */
#include "server/store/dirlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Fixed in width: overwritten in place, so that a new pid needs no room on a full disk. */
#define PID_WIDTH 11

static VpError *locked_error(int fd, const char *dir)
{
    char text[PID_WIDTH + 1] = "";
    const ssize_t got = pread(fd, text, PID_WIDTH, 0);
    const long pid = got > 0 ? strtol(text, NULL, 10) : 0;
    g_autofree char *holder = pid > 0 ? g_strdup_printf("%ld", pid) : NULL;
    VpError *error =
        vp_error_new(VP_FAILED_PRECONDITION, "STORE_LOCKED",
                     "the state directory '%s' is in use by process %s; stop it or choose another directory", dir,
                     holder ? holder : "(unknown)");

    return holder ? vp_error_with(error, "pid", holder) : error;
}

static VpError *write_pid(int fd, const char *path)
{
    char text[PID_WIDTH + 1];

    g_snprintf(text, sizeof(text), "%10d\n", (int)getpid());
    const ssize_t put = pwrite(fd, text, PID_WIDTH, 0);

    if (put == PID_WIDTH) {
        return NULL;
    }
    return vp_error_errno(put < 0 ? errno : ENOSPC, "STORE_UNUSABLE", "cannot write '%s'", path);
}

int vp_dirlock_take(const char *dir, VpError **error)
{
    g_autofree char *path = g_build_filename(dir, "lock", NULL);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    struct stat st;

    if (fd < 0) {
        *error = vp_error_errno(errno, "STORE_UNUSABLE",
                                "cannot create '%s'; the state directory must exist and be writable", path);
        return -1;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        *error = vp_error_new(VP_FAILED_PRECONDITION, "STORE_UNUSABLE", "'%s' is no regular file; remove it", path);
    } else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        *error = errno == EWOULDBLOCK ? locked_error(fd, dir)
                                      : vp_error_errno(errno, "STORE_UNUSABLE", "cannot lock '%s'", path);
    } else if (!(*error = write_pid(fd, path))) {
        return fd;
    }
    close(fd);
    return -1;
}
