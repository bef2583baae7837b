/* See console_log.h. */
#include "server/services/console_log.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The end of one file in front of what `tail` has. */
static void prepend_end(GByteArray *tail, const char *path, gsize size)
{
    struct stat status;
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
        const gsize wanted = MIN(size, (guint64)status.st_size);
        g_autofree guint8 *bytes = g_malloc(wanted);
        const ssize_t n = pread(fd, bytes, wanted, status.st_size - (off_t)wanted);

        if (n > 0)
            g_byte_array_prepend(tail, bytes, (guint)n);
    }
    close(fd);
}

GByteArray *vp_console_log_tail(const char *path, gsize size)
{
    g_autofree char *older = g_strconcat(path, ".1", NULL);
    GByteArray *tail = g_byte_array_new();

    prepend_end(tail, path, size);
    if (tail->len < size)
        prepend_end(tail, older, size - tail->len);
    return tail;
}

gsize vp_console_log_overlap(const GByteArray *log, const GByteArray *live)
{
    for (gsize n = MIN(log->len, live->len); n > 0; n--) {
        if (memcmp(log->data + log->len - n, live->data, n) == 0)
            return n;
    }
    return 0;
}
