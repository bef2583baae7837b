/* See qemu_bare.h. */
#include "tests/bench/qemu_bare.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"
#include "tests/bench/bench.h"

#define MOST_FDS 32
#define ANSWER_MS 20000

char **qemu_bare_command(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", (int)pid);
    g_autofree char *text = NULL;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    gsize length = 0;

    if (!g_file_get_contents(path, &text, &length, NULL) || length == 0)
        bench_die("%s cannot be read", path);
    for (gsize at = 0; at < length; at += strlen(text + at) + 1)
        g_ptr_array_add(argv, g_strdup(text + at));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&argv), FALSE);
}

static struct sockaddr_un address_in(const char *dir, int number)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    g_snprintf(address.sun_path, sizeof(address.sun_path), "%s/bare%d.sock", dir, number);
    return address;
}

/* What the daemon would have put at this number: a listening socket or a log. */
static int make_fd(const char *argument, const char *dir, int number)
{
    if (!strstr(argument, "server=on")) {
        g_autofree char *path = g_strdup_printf("%s/bare%d.log", dir, number);

        return open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    }
    const struct sockaddr_un address = address_in(dir, number);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    unlink(address.sun_path);
    return fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0 ? fd : -1;
}

/* Makes what the arguments name by number; the highest of them, and that of the first, which is QMP's. */
static int make_fds(char *const *argv, const char *dir, int fds[MOST_FDS], int *ret_qmp)
{
    int most = -1;

    *ret_qmp = -1;
    for (gsize i = 0; argv[i]; i++) {
        const char *at = g_str_has_prefix(argv[i], "fd=") ? argv[i] : strstr(argv[i], ",fd=");
        const int number = at ? (int)g_ascii_strtoll(strchr(at, '=') + 1, NULL, 10) : -1;

        if (number < 0)
            continue;
        if (number >= MOST_FDS)
            bench_die("QEMU has more descriptors than this knows: %s", argv[i]);
        fds[number] = make_fd(argv[i], dir, number);
        if (fds[number] < 0)
            bench_die("no descriptor for %s: %s", argv[i], g_strerror(errno));
        if (*ret_qmp < 0)
            *ret_qmp = number;
        most = MAX(most, number);
    }
    return most;
}

static pid_t spawn(char *const *argv, const int fds[MOST_FDS], int most)
{
    const pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int number = 3; number <= most; number++) {
        /* Out of the way first: all of ours lie above. */
        if (fds[number] >= 0 && dup2(fds[number], number) < 0)
            _exit(126);
    }
    const int null_fd = open("/dev/null", O_RDWR);
    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0 ||
        close_range((unsigned)most + 1, ~0U, 0) < 0)
        _exit(126);
    execv(argv[0], argv);
    _exit(127);
}

/* ---- QMP, as little of it as is needed ---- */

static void say(int fd, const char *command)
{
    g_autofree char *line = g_strdup_printf("{\"execute\":\"%s\",\"id\":\"%s\"}\n", command, command);

    if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
        bench_die("QEMU's QMP: %s", g_strerror(errno));
}

static void hear(int fd, GString *heard, const char *what)
{
    const gint64 deadline_us = vp_now_us() + ANSWER_MS * 1000;
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    char buffer[4096];

    while (!strstr(heard->str, what)) {
        const ssize_t n =
            vp_now_us() < deadline_us && poll(&poll_fd, 1, ANSWER_MS) > 0 ? read(fd, buffer, sizeof(buffer)) : 0;

        if (n <= 0)
            bench_die("the bare QEMU does not say %s: %s", what, heard->str);
        g_string_append_len(heard, buffer, n);
    }
}

gdouble qemu_bare_start(char *const *argv, const char *dir)
{
    int fds[MOST_FDS];
    int qmp = -1;
    g_autoptr(GString) heard = g_string_new(NULL);

    for (int i = 0; i < MOST_FDS; i++)
        fds[i] = -1;
    const int most = make_fds(argv, dir, fds, &qmp);
    if (qmp < 0)
        bench_die("the command line names no QMP socket");
    for (int i = 0; i <= most; i++) {
        const int high = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, MOST_FDS);

        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = high;
    }
    const struct sockaddr_un address = address_in(dir, qmp);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        bench_die("%s: %s", address.sun_path, g_strerror(errno));

    const gint64 start_us = vp_now_us();
    const pid_t pid = spawn(argv, fds, most);
    hear(fd, heard, "\"QMP\"");
    say(fd, "qmp_capabilities");
    say(fd, "cont");
    hear(fd, heard, "\"id\": \"cont\"");
    const gdouble ms = (gdouble)(vp_now_us() - start_us) / 1000.0;

    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fd);
    for (int i = 0; i <= most; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    return ms;
}
