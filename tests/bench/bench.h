/* What the benchmarks share: processes in a temporary folder, clocks, medians, and the lines that scripts read. */
#pragma once

#include <glib.h>
#include <sys/types.h>

/* Runs of each measurement; the figure is their median. */
#define BENCH_RUNS 5

typedef struct BenchSamples {
    gdouble values[BENCH_RUNS];
    guint n;
} BenchSamples;

void bench_add(BenchSamples *samples, gdouble value);
gdouble bench_median(const BenchSamples *samples);

/* Prints `figure NAME VALUE UNIT`, with ` ratio R PEER` if `peer` is not NULL. */
void bench_figure(const char *name, gdouble value, const char *unit, gdouble ratio, const char *peer);

/* Starts `argv`, which dies with us; its output goes to `log`. Ends the benchmark if it cannot. */
pid_t bench_spawn(char *const *argv, const char *log);

/* SIGTERM, then waits for the end. */
void bench_stop(pid_t pid);

/* Waits for a line with `word` at its start in `log`, at most 10 s; ends the benchmark if it does not come. */
void bench_wait_line(const char *log, const char *word);

/* Resident memory of a process in bytes. */
gsize bench_rss(pid_t pid);

/* A file that the build made, by its path below the workspace ("server/virtplaned"): bazel's runfiles, wherever we are run from. Owned by the caller. */
char *bench_runfile(const char *path);

/* Removes a folder and all that is in it. */
void bench_remove(const char *dir);

/* Says what went wrong and ends. */
void bench_die(const char *format, ...) G_GNUC_PRINTF(1, 2) G_GNUC_NORETURN;
