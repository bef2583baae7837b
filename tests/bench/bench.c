/* See bench.h. */
#include "tests/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"

void bench_die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

void bench_add(BenchSamples *samples, gdouble value)
{
    if (samples->n < BENCH_RUNS)
        samples->values[samples->n++] = value;
}

static int compare(const void *a, const void *b)
{
    const gdouble x = *(const gdouble *)a;
    const gdouble y = *(const gdouble *)b;

    return x < y ? -1 : x > y;
}

gdouble bench_median(const BenchSamples *samples)
{
    BenchSamples sorted = *samples;

    qsort(sorted.values, sorted.n, sizeof(sorted.values[0]), compare);
    return sorted.n ? sorted.values[sorted.n / 2] : 0;
}

void bench_figure(const char *name, gdouble value, const char *unit, gdouble ratio, const char *peer)
{
    if (peer)
        printf("figure %s %.1f %s ratio %.2f %s\n", name, value, unit, ratio, peer);
    else
        printf("figure %s %.1f %s\n", name, value, unit);
    fflush(stdout);
}

pid_t bench_spawn(char *const *argv, const char *log)
{
    const pid_t parent = getpid();
    const pid_t pid = fork();

    if (pid < 0)
        bench_die("fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    const int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || getppid() != parent || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        _exit(126);
    execvp(argv[0], argv);
    _exit(127);
}

void bench_stop(pid_t pid)
{
    kill(pid, SIGTERM);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

void bench_wait_line(const char *log, const char *word)
{
    const gint64 deadline_us = vp_now_us() + 10 * G_USEC_PER_SEC;

    while (vp_now_us() < deadline_us) {
        g_autofree char *text = NULL;

        if (g_file_get_contents(log, &text, NULL, NULL)) {
            g_autofree char *inner = g_strdup_printf("\n%s", word);

            if (g_str_has_prefix(text, word) || strstr(text, inner))
                return;
        }
        g_usleep(10000);
    }
    g_autofree char *text = NULL;
    g_file_get_contents(log, &text, NULL, NULL);
    bench_die("%s: no \"%s\" in time:\n%s", log, word, text ? text : "");
}

gsize bench_rss(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/statm", (int)pid);
    g_autofree char *text = NULL;
    unsigned long long pages = 0;

    if (!g_file_get_contents(path, &text, NULL, NULL) || sscanf(text, "%*u %llu", &pages) != 1)
        bench_die("%s cannot be read", path);
    return (gsize)pages * (gsize)sysconf(_SC_PAGESIZE);
}

char *bench_runfile(const char *path)
{
    const char *root = g_getenv("RUNFILES_DIR");
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *own = root ? g_strdup(root) : g_strdup_printf("%s.runfiles", self);
    char *found = g_build_filename(own, "virtplane", path, NULL);

    if (access(found, X_OK) < 0)
        bench_die("%s is not there; run this by `bazel run`", found);
    return found;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

void bench_remove(const char *dir)
{
    if (nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        bench_die("%s cannot be removed: %s", dir, strerror(errno));
}
