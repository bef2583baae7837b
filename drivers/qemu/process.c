/* QEMU processes: see process.h. */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"

#define EXEC_TIMEOUT_MS 30000

/* Field 22 of /proc/PID/stat. FALSE: no such process. */
static gboolean read_start_ticks(pid_t pid, guint64 *ret_ticks)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return FALSE;
    /* Field 2 is the program's name in parentheses and may hold anything; field 3 follows the last one. */
    const char *rest = strrchr(text, ')');
    if (!rest || rest[1] != ' ')
        return FALSE;
    g_auto(GStrv) fields = g_strsplit(rest + 2, " ", 24);
    if (g_strv_length(fields) <= 19)
        return FALSE;
    /* A zombie has ended. */
    if (fields[0][0] == 'Z' || fields[0][0] == 'X')
        return FALSE;
    *ret_ticks = g_ascii_strtoull(fields[19], NULL, 10);
    return TRUE;
}

/* ---- the child: async-signal-safe calls only, the daemon has many threads ---- */

typedef struct Child {
    const VpProcessSpec *spec;
    int *fds; /* scratch, of n_fds + 4 */
    int go_fd;
    int fail_fd;
} Child;

/* What a child that fails says: why, and at which step of its confinement. */
typedef struct Failure {
    int errnum;
    char step[92]; /* empty: at its exec, or before all that */
} Failure;

static G_GNUC_NORETURN void child_fail_at(int fail_fd, const char *step)
{
    Failure failure = {.errnum = errno};

    if (step)
        memcpy(failure.step, step, strnlen(step, sizeof(failure.step) - 1));
    if (write(fail_fd, &failure, sizeof(failure)) < 0)
        _exit(126);
    _exit(127);
}

static G_GNUC_NORETURN void child_fail(int fail_fd)
{
    child_fail_at(fail_fd, NULL);
}

/* Moves what the program is to have to 0, 1, 2 and on, and closes all else: also the ends of pipes that other threads' children wait on. */
static void child_descriptors(Child *child, int null_fd)
{
    const gsize n = child->spec->n_fds;
    const int first_free = VP_PROCESS_FIRST_FD + (int)n + 2;

    /* First out of the way of the numbers that are to be given, then into place. */
    for (gsize i = 0; i < n; i++)
        child->fds[i] = fcntl(child->spec->fds[i], F_DUPFD, first_free);
    const int output_fd = fcntl(child->spec->output_fd, F_DUPFD, first_free);
    const int go_fd = fcntl(child->go_fd, F_DUPFD, first_free);
    const int fail_fd = fcntl(child->fail_fd, F_DUPFD, first_free);
    null_fd = fcntl(null_fd, F_DUPFD, first_free);
    if (output_fd < 0 || go_fd < 0 || fail_fd < 0 || null_fd < 0)
        child_fail(child->fail_fd);
    for (gsize i = 0; i < n; i++) {
        if (child->fds[i] < 0 || dup2(child->fds[i], VP_PROCESS_FIRST_FD + (int)i) < 0)
            child_fail(fail_fd);
    }
    child->go_fd = VP_PROCESS_FIRST_FD + (int)n;
    child->fail_fd = child->go_fd + 1;
    if (dup2(null_fd, 0) < 0 || dup2(output_fd, 1) < 0 || dup2(output_fd, 2) < 0 || dup2(go_fd, child->go_fd) < 0 ||
        dup2(fail_fd, child->fail_fd) < 0)
        child_fail(fail_fd);
    if (close_range((unsigned)first_free, ~0U, 0) < 0)
        child_fail(child->fail_fd);
    fcntl(child->go_fd, F_SETFD, FD_CLOEXEC);
    fcntl(child->fail_fd, F_SETFD, FD_CLOEXEC);
}

static void child_signals(void)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* While the parent writes down who it is. */
static void child_separate(const Child *child)
{
    const char *step = child->spec->confine ? vp_confine_separate(child->spec->confine) : NULL;

    if (step)
        child_fail_at(child->fail_fd, step);
}

static void child_drop(const Child *child)
{
    if (child->spec->confine) {
        const char *step = vp_confine_drop(child->spec->confine);

        if (step)
            child_fail_at(child->fail_fd, step);
    } else if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        child_fail_at(child->fail_fd, "no_new_privs");
    }
}

static G_GNUC_NORETURN void child_run(Child *child, int null_fd)
{
    static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    char *const environment[] = {path, NULL};
    char go;

    child_descriptors(child, null_fd);
    child_signals();
    setsid();
    if (chdir("/") < 0)
        child_fail(child->fail_fd);
    child_separate(child);
    /* The end of the pipe without a byte: the daemon died or gave up. */
    if (read(child->go_fd, &go, 1) != 1)
        _exit(127);
    child_drop(child);
    execve(child->spec->argv[0], (char *const *)child->spec->argv, environment);
    child_fail(child->fail_fd);
}

/* ---- the parent ---- */

static void close_pipe(int fds[2])
{
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

static void kill_child(const VpProcess *process)
{
    siginfo_t info;

    pidfd_send_signal(process->pidfd, SIGKILL, NULL, 0);
    while (waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED) < 0 && errno == EINTR)
        ;
}

/* Waits for the exec: the pipe ends with it, or brings its errno. */
static VpError *wait_exec(const VpProcessSpec *spec, int fail_fd)
{
    struct pollfd poll_fd = {.fd = fail_fd, .events = POLLIN};
    const gint64 deadline_us = vp_now_us() + EXEC_TIMEOUT_MS * 1000;
    Failure failure = {0};

    for (;;) {
        const gint64 left_ms = (deadline_us - vp_now_us()) / 1000;
        const int r = poll(&poll_fd, 1, (int)MAX(0, left_ms));

        if (r > 0)
            break;
        if (r < 0 && errno == EINTR)
            continue;
        return vp_error_new(VP_DEADLINE_EXCEEDED, "EXEC_FAILED", "cannot execute %s: the file system does not answer",
                            spec->argv[0]);
    }
    if (read(fail_fd, &failure, sizeof(failure)) != sizeof(failure))
        return NULL;
    if (!failure.step[0])
        return vp_error_errno(failure.errnum, "EXEC_FAILED", "cannot execute %s", spec->argv[0]);
    failure.step[sizeof(failure.step) - 1] = '\0';
    return vp_error_new(VP_FAILED_PRECONDITION, "CONTAINMENT", "%s cannot be contained: %s: %s", spec->argv[0],
                        failure.step, g_strerror(failure.errnum));
}

/* With the child waiting for its go. */
static VpError *release_child(const VpProcessSpec *spec, VpProcess *process, int go_fd, int fail_fd)
{
    VpError *error = NULL;

    if (!read_start_ticks(process->pid, &process->start_ticks)) {
        error = wait_exec(spec, fail_fd);
        return error ? error
                     : vp_error_new(VP_INTERNAL, "SPAWN_FAILED", "cannot start %s: the new process ended at once",
                                    spec->argv[0]);
    }
    error = spec->record ? spec->record(spec->data, process->pid, process->start_ticks) : NULL;
    if (error)
        return error;
    /* SIGPIPE is ignored: a child that has failed already tells why below. */
    if (write(go_fd, "g", 1) != 1 && errno != EPIPE)
        return vp_error_errno(errno, "SPAWN_FAILED", "cannot start %s", spec->argv[0]);
    return wait_exec(spec, fail_fd);
}

static VpError *spawn(const VpProcessSpec *spec, int null_fd, int go[2], int fail[2], VpProcess *process)
{
    if (pipe2(go, O_CLOEXEC) < 0 || pipe2(fail, O_CLOEXEC) < 0)
        return vp_error_errno(errno, "SPAWN_FAILED", "cannot start %s", spec->argv[0]);
    g_autofree int *fds = g_new0(int, spec->n_fds + 1);
    Child child = {.spec = spec, .fds = fds, .go_fd = go[0], .fail_fd = fail[1]};

    process->pid = fork();
    if (process->pid < 0)
        return vp_error_errno(errno, "SPAWN_FAILED", "cannot start %s", spec->argv[0]);
    if (process->pid == 0)
        child_run(&child, null_fd);
    /* Our ends alone stay open here, so that each side sees the other go. */
    close(fail[1]);
    fail[1] = -1;
    close(go[0]);
    go[0] = -1;
    process->pidfd = pidfd_open(process->pid, 0);
    if (process->pidfd < 0) {
        VpError *error = vp_error_errno(errno, "SPAWN_FAILED", "cannot watch the process of %s", spec->argv[0]);

        close(go[1]);
        go[1] = -1;
        while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return error;
    }
    VpError *error = release_child(spec, process, go[1], fail[0]);
    if (error)
        kill_child(process);
    return error;
}

VpError *vp_process_spawn(const VpProcessSpec *spec, VpProcess *ret_process)
{
    VpProcess process = {.pidfd = -1};
    int go[2] = {-1, -1};
    int fail[2] = {-1, -1};
    const int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null_fd < 0)
        return vp_error_errno(errno, "SPAWN_FAILED", "cannot open /dev/null");
    VpError *error = spawn(spec, null_fd, go, fail, &process);
    close(null_fd);
    close_pipe(go);
    close_pipe(fail);
    if (error) {
        vp_process_clear(&process);
        return error;
    }
    *ret_process = process;
    return NULL;
}

static VpError *process_gone(pid_t pid)
{
    return vp_error_new(VP_NOT_FOUND, "PROCESS_GONE", "process %d has ended", pid);
}

VpError *vp_process_open(pid_t pid, guint64 start_ticks, VpProcess *ret_process)
{
    VpProcess process = {.pid = pid, .start_ticks = start_ticks};
    guint64 ticks;

    if (pid <= 1)
        return process_gone(pid);
    process.pidfd = pidfd_open(pid, 0);
    if (process.pidfd < 0)
        return errno == ESRCH ? process_gone(pid)
                              : vp_error_errno(errno, "ADOPT_FAILED", "cannot watch process %d", pid);
    /* Read after the pidfd holds the process: the pid cannot have changed hands between the two unseen. */
    if (!read_start_ticks(pid, &ticks) || ticks != start_ticks) {
        close(process.pidfd);
        return process_gone(pid);
    }
    *ret_process = process;
    return NULL;
}

VpError *vp_process_kill(const VpProcess *process, int signal)
{
    if (pidfd_send_signal(process->pidfd, signal, NULL, 0) < 0 && errno != ESRCH)
        return vp_error_errno(errno, "KILL_FAILED", "cannot send signal %d to process %d", signal, process->pid);
    return NULL;
}

char *vp_process_reap(const VpProcess *process)
{
    siginfo_t info = {0};

    if (waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return g_strdup("ended");
    if (info.si_code == CLD_EXITED)
        return g_strdup_printf("exited with status %d", info.si_status);
    return g_strdup_printf("was killed by signal %d (%s)", info.si_status, g_strsignal(info.si_status));
}

void vp_process_clear(VpProcess *process)
{
    if (process->pidfd >= 0)
        close(process->pidfd);
    process->pidfd = -1;
}
