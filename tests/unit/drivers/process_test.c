/* Processes and their folder: what the child gets, what is written down and when, and that nobody else is taken for it. */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench.h"
#include "drivers/qemu/folder.h"
#include "drivers/qemu/process.h"

typedef struct Noted {
    pid_t pid;
    guint64 start_ticks;
    gboolean refuse;
    gboolean exec_done; /* the program ran before it was noted */
} Noted;

static VpError *take_note(void *data, pid_t pid, guint64 start_ticks)
{
    Noted *noted = data;
    g_autofree char *path = g_strdup_printf("/proc/%d/exe", pid);
    g_autofree char *program = g_file_read_link(path, NULL);

    noted->pid = pid;
    noted->start_ticks = start_ticks;
    noted->exec_done = program && strstr(program, "process_test") == NULL;
    return noted->refuse ? vp_error_new(VP_RESOURCE_EXHAUSTED, "STATE_DIR", "no room") : NULL;
}

static void wait_end(const VpProcess *process)
{
    struct pollfd fd = {.fd = process->pidfd, .events = POLLIN};

    assert_int_equal(poll(&fd, 1, 30000), 1);
}

/* Runs a shell command with these descriptors; returns what it wrote. */
static char *shell(const char *command, const int *fds, gsize n_fds, char **how)
{
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    char *text = g_malloc0(4096);
    VpProcess process;
    Noted noted = {0};
    int output[2];

    assert_int_equal(pipe2(output, O_CLOEXEC), 0);
    const VpProcessSpec spec =
        {.argv = argv, .fds = fds, .n_fds = n_fds, .output_fd = output[1], .record = take_note, .data = &noted};
    assert_null(vp_process_spawn(&spec, &process));
    close(output[1]);
    assert_int_equal(noted.pid, process.pid);
    assert_int_equal(noted.start_ticks, process.start_ticks);
    assert_false(noted.exec_done);
    for (gsize length = 0; length < 4095;) {
        const ssize_t n = read(output[0], text + length, 4095 - length);

        if (n <= 0)
            break;
        length += (gsize)n;
    }
    wait_end(&process);
    *how = vp_process_reap(&process);
    vp_process_clear(&process);
    close(output[0]);
    return text;
}

static void test_descriptors(void **state)
{
    const int before = (int)count_fds();
    FILE *files[5];
    int fds[5];
    char *how;

    (void)state;
    /* In an order that needs moving about, and others open beside them. */
    for (int i = 0; i < 5; i++) {
        files[i] = tmpfile();
        fprintf(files[i], "file%d\n", i);
        fflush(files[i]);
        fds[4 - i] = fileno(files[i]);
        rewind(files[i]);
    }
    g_autofree char *text =
        shell("cat <&3; cat <&4; cat <&5; cat <&6; cat <&7; ls -m /proc/$$/fd; cat; exit 5", fds, 5, &how);
    /* The shell's own script and ls's folder aside: 0 to 7, nothing else of ours. */
    assert_string_equal(text, "file4\nfile3\nfile2\nfile1\nfile0\n0, 1, 2, 3, 4, 5, 6, 7\n");
    assert_string_equal(how, "exited with status 5");
    g_free(how);
    for (int i = 0; i < 5; i++)
        fclose(files[i]);
    assert_int_equal(count_fds(), before);
}

static void test_session_and_signals(void **state)
{
    char *how;
    sigset_t all;
    sigset_t old;

    (void)state;
    /* The daemon's threads block signals; QEMU must not inherit that. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    signal(SIGPIPE, SIG_IGN);
    /* 32 and above are the C library's own. */
    g_autofree char *text = shell("grep SigBlk /proc/self/status; grep -c 'SigIgn:.*[08]0000000$' /proc/self/status; "
                                  "pwd; ps -o pid=,sid= $$ | awk '{print $1 == $2}'; kill -9 $$",
                                  NULL, 0, &how);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    signal(SIGPIPE, SIG_DFL);
    assert_string_equal(text, "SigBlk:\t0000000000000000\n1\n/\n1\n");
    assert_string_equal(how, "was killed by signal 9 (Killed)");
    g_free(how);
}

static void test_exec_fails(void **state)
{
    const char *const argv[] = {"/nowhere/program", NULL};
    const guint before = count_fds();
    Noted noted = {0};
    const VpProcessSpec spec = {.argv = argv, .output_fd = 2, .record = take_note, .data = &noted};
    VpProcess process;

    (void)state;
    g_autoptr(VpError) error = vp_process_spawn(&spec, &process);
    check_error(error, VP_NOT_FOUND, "EXEC_FAILED");
    assert_true(noted.pid > 0);
    assert_int_equal(kill(noted.pid, 0), -1);
    assert_int_equal(count_fds(), before);
}

/* Who cannot be written down does not run. */
static void test_not_recorded(void **state)
{
    g_autofree char *dir = g_dir_make_tmp("vp-process-XXXXXX", NULL);
    g_autofree char *mark = g_build_filename(dir, "ran", NULL);
    const char *const argv[] = {"/usr/bin/touch", mark, NULL};
    Noted noted = {.refuse = TRUE};
    const VpProcessSpec spec = {.argv = argv, .output_fd = 2, .record = take_note, .data = &noted};
    VpProcess process;

    (void)state;
    g_autoptr(VpError) error = vp_process_spawn(&spec, &process);
    check_error(error, VP_RESOURCE_EXHAUSTED, "STATE_DIR");
    assert_int_equal(kill(noted.pid, 0), -1);
    assert_false(g_file_test(mark, G_FILE_TEST_EXISTS));
    g_rmdir(dir);
}

static VpError *die(void *data, pid_t pid, guint64 start_ticks)
{
    (void)start_ticks;
    assert_true(write(*(int *)data, &pid, sizeof(pid)) == sizeof(pid));
    kill(getpid(), SIGKILL);
    return NULL;
}

/* A daemon that is killed before the process was written down leaves none behind. */
static void test_daemon_dies(void **state)
{
    g_autofree char *dir = g_dir_make_tmp("vp-process-XXXXXX", NULL);
    g_autofree char *mark = g_build_filename(dir, "ran", NULL);
    int pipe_fds[2];
    pid_t orphan;

    (void)state;
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    const pid_t daemon = fork();
    if (daemon == 0) {
        const char *const argv[] = {"/usr/bin/touch", mark, NULL};
        const VpProcessSpec spec = {.argv = argv, .output_fd = 2, .record = die, .data = &pipe_fds[1]};
        VpProcess process;

        vp_process_spawn(&spec, &process);
        _exit(0);
    }
    close(pipe_fds[1]);
    assert_int_equal(read(pipe_fds[0], &orphan, sizeof(orphan)), sizeof(orphan));
    waitpid(daemon, NULL, 0);
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", orphan);
    for (;;) {
        g_autofree char *text = NULL;
        gsize length = 0;

        /* Gone, or a zombie that nobody reaps. */
        if (!g_file_get_contents(path, &text, &length, NULL) || length == 0)
            break;
        g_usleep(1000);
    }
    assert_false(g_file_test(mark, G_FILE_TEST_EXISTS));
    close(pipe_fds[0]);
    g_rmdir(dir);
}

static void test_open(void **state)
{
    const char *const argv[] = {"/bin/sleep", "1000", NULL};
    Noted noted = {0};
    const VpProcessSpec spec = {.argv = argv, .output_fd = 2, .record = take_note, .data = &noted};
    VpProcess process;
    VpProcess again;
    VpError *error;

    (void)state;
    assert_null(vp_process_spawn(&spec, &process));
    assert_null(vp_process_open(process.pid, process.start_ticks, &again));
    vp_process_clear(&again);
    error = vp_process_open(process.pid, process.start_ticks + 1, &again);
    check_error(error, VP_NOT_FOUND, "PROCESS_GONE");
    vp_error_free(error);
    assert_null(vp_process_kill(&process, SIGKILL));
    wait_end(&process);
    /* A zombie is gone. */
    error = vp_process_open(process.pid, process.start_ticks, &again);
    check_error(error, VP_NOT_FOUND, "PROCESS_GONE");
    vp_error_free(error);
    g_free(vp_process_reap(&process));
    error = vp_process_open(process.pid, process.start_ticks, &again);
    check_error(error, VP_NOT_FOUND, "PROCESS_GONE");
    vp_error_free(error);
    assert_null(vp_process_kill(&process, SIGKILL));
    vp_process_clear(&process);
    for (pid_t pid = -1; pid <= 1; pid++) {
        error = vp_process_open(pid, 0, &again);
        check_error(error, VP_NOT_FOUND, "PROCESS_GONE");
        vp_error_free(error);
    }
}

/* ---- the folder ---- */

static void test_folder(void **state)
{
    g_autofree char *top = g_dir_make_tmp("vp-folder-XXXXXX", NULL);
    g_autofree char *name = g_strnfill(200, 'x');
    g_autofree char *dir = g_build_filename(top, name, NULL);
    const VpRecord record = {.pid = 4711,
                             .start_ticks = G_MAXUINT64,
                             .paused = TRUE,
                             .accelerator = PB_ACCELERATOR_TCG};
    VpRecord read_back = {0};
    VpError *error;
    int listen_fd;
    int fd;

    (void)state;
    assert_null(vp_folder_make(dir));
    error = vp_folder_read_record(dir, &read_back);
    check_error(error, VP_NOT_FOUND, "PROCESS_GONE");
    vp_error_free(error);
    assert_null(vp_folder_write_record(dir, &record));
    assert_null(vp_folder_read_record(dir, &read_back));
    assert_int_equal(read_back.pid, 4711);
    assert_true(read_back.start_ticks == G_MAXUINT64);
    assert_true(read_back.paused);
    assert_int_equal(read_back.accelerator, PB_ACCELERATOR_TCG);

    /* The path is longer than a socket's address may be. */
    assert_null(vp_folder_listen(dir, &listen_fd));
    assert_null(vp_folder_connect(dir, &fd));
    close(fd);
    close(listen_fd);
    error = vp_folder_connect(dir, &fd);
    assert_non_null(error);
    vp_error_free(error);

    /* A record of another run of the host is none. */
    g_autofree char *path = g_build_filename(dir, "process", NULL);
    assert_true(g_file_set_contents(path, "[process]\npid=1\nstart_ticks=1\nboot_id=other\n", -1, NULL));
    error = vp_folder_read_record(dir, &read_back);
    check_error(error, VP_NOT_FOUND, "PROCESS_GONE");
    vp_error_free(error);
    vp_folder_remove(dir);
    assert_int_equal(g_rmdir(top), 0);
}

static void test_log(void **state)
{
    g_autofree char *dir = g_dir_make_tmp("vp-folder-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "qemu.log", NULL);
    g_autofree char *old = g_build_filename(dir, "qemu.log.1", NULL);
    static const char words[] = "first\n2026-01-02T03:04:05.678901Z second \xff\nthird\n";
    g_autofree char *line = g_strnfill(1023, 'x');
    struct stat status;
    int fd;

    (void)state;
    assert_null(vp_folder_log_tail(dir, 5));
    assert_null(vp_folder_open_log(dir, &fd));
    assert_null(vp_folder_log_tail(dir, 5));
    assert_int_equal(write(fd, words, sizeof(words) - 1), sizeof(words) - 1);
    g_autofree char *two = vp_folder_log_tail(dir, 2);
    assert_string_equal(two, "second \xef\xbf\xbd; third");

    vp_folder_bound_log(dir);
    assert_false(g_file_test(old, G_FILE_TEST_EXISTS));
    for (guint i = 0; i < 1100; i++)
        assert_int_equal(dprintf(fd, "%s\n", line), 1024);
    assert_int_equal(dprintf(fd, "the end\n"), 8);
    vp_folder_bound_log(dir);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 0);
    assert_int_equal(stat(old, &status), 0);
    assert_int_equal(status.st_size, VP_LOG_MAX_BYTES / 2);
    assert_int_equal(dprintf(fd, "goes on\n"), 8);
    g_autofree char *last = vp_folder_log_tail(dir, 5);
    assert_string_equal(last, "goes on");
    close(fd);
    vp_folder_remove(dir);
    assert_false(g_file_test(dir, G_FILE_TEST_EXISTS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptors), cmocka_unit_test(test_session_and_signals),
        cmocka_unit_test(test_exec_fails),  cmocka_unit_test(test_not_recorded),
        cmocka_unit_test(test_daemon_dies), cmocka_unit_test(test_open),
        cmocka_unit_test(test_folder),      cmocka_unit_test(test_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
