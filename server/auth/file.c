/* Reading small files: see file.h. */
#include "server/auth/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static VpError *check(const char *path, int fd, gsize max_bytes, VpFileKind kind, const char *reason)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return vp_error_errno(errno, reason, "cannot look at %s", path);
    if (!S_ISREG(status.st_mode))
        return vp_error_new(VP_FAILED_PRECONDITION, reason, "%s is no regular file", path);
    if ((gsize)status.st_size > max_bytes)
        return vp_error_new(VP_FAILED_PRECONDITION, reason, "%s is larger than %" G_GSIZE_FORMAT " bytes", path,
                            max_bytes);
    if (kind == VP_FILE_ANY)
        return NULL;
    if ((status.st_uid != 0 && status.st_uid != geteuid()) || (status.st_mode & (S_IWGRP | S_IWOTH)))
        return vp_error_new(VP_FAILED_PRECONDITION, reason,
                            "others than root and the daemon's own user can write %s; chown and chmod it", path);
    if (kind == VP_FILE_SECRET && (status.st_mode & S_IROTH))
        return vp_error_new(VP_FAILED_PRECONDITION, reason, "everyone can read %s; chmod it to 0600", path);
    return NULL;
}

VpError *vp_file_read(const char *path, gsize max_bytes, VpFileKind kind, const char *reason, char **ret_text,
                      gsize *ret_length)
{
    g_autofree char *text = NULL;
    gsize length = 0;
    /* A FIFO must not keep us waiting. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return vp_error_errno(errno, reason, "cannot open %s", path);
    VpError *error = check(path, fd, max_bytes, kind, reason);
    if (!error)
        text = g_malloc(max_bytes + 2);
    while (!error && length <= max_bytes) {
        const ssize_t got = read(fd, text + length, max_bytes + 1 - length);

        if (got < 0)
            error = vp_error_errno(errno, reason, "cannot read %s", path);
        if (got <= 0)
            break;
        length += (gsize)got;
    }
    close(fd);
    if (error)
        return error;
    text[length] = '\0';
    if (length > max_bytes || (!ret_length && strlen(text) != length))
        return vp_error_new(VP_FAILED_PRECONDITION, reason, "%s is too large, or no text", path);
    *ret_text = g_realloc(g_steal_pointer(&text), length + 1);
    if (ret_length)
        *ret_length = length;
    return NULL;
}
