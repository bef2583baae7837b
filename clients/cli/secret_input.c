/* See secret_input.h. */
#include "clients/cli/secret_input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

/* All of a file, at most what a value may have and one byte more. */
static VpError *read_all(int fd, const char *name, guint8 *bytes, gsize max, gsize *ret_length)
{
    gsize length = 0;

    while (length <= max) {
        const ssize_t got = read(fd, bytes + length, max + 1 - length);

        if (got < 0)
            return vp_error_errno(errno, NULL, "cannot read %s", name);
        if (got == 0)
            break;
        length += (gsize)got;
        /* From a terminal one line is the value. */
        if (isatty(fd) && bytes[length - 1] == '\n') {
            length--;
            break;
        }
    }
    if (length > max)
        return vp_error_new(VP_INVALID_ARGUMENT, NULL, "%s has more than %zu bytes", name, max);
    *ret_length = length;
    return NULL;
}

static VpError *read_typed(const char *what, guint8 *bytes, gsize max, gsize *ret_length)
{
    struct termios before;
    const gboolean terminal = tcgetattr(STDIN_FILENO, &before) == 0;

    if (terminal) {
        struct termios quiet = before;

        quiet.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
        fprintf(stderr, "%s: ", what);
    }
    VpError *error = read_all(STDIN_FILENO, "the standard input", bytes, max, ret_length);
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    return error;
}

VpError *vp_secret_input(const char *file, const char *what, guint8 *bytes, gsize max, gsize *ret_length)
{
    if (!file)
        return read_typed(what, bytes, max, ret_length);
    const int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return vp_error_errno(errno, NULL, "cannot open %s", file);
    VpError *error = read_all(fd, file, bytes, max, ret_length);
    close(fd);
    return error;
}
