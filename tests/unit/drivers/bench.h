/* A driver on a bench: a host that records what is reported, and operations that are waited for. For the tests of this folder. */
#pragma once

#include "drivers/driver.h"

typedef struct Seen {
    char *uid;
    PbEventType event;
    PbDomainState state;
    char *reason;
    char *detail;
    gint32 pid;
    guint64 pid_start_ticks;
    PbAccelerator accelerator;
    gsize n_disks;
    gsize n_layers; /* of the first disk */
    gsize n_findings;
} Seen;

typedef struct Bench {
    char *dir;
    char *state_dir;
    char *run_dir;
    VpDriverHost host;
    const VpDriverOps *ops;
    VpDriver *driver;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    GPtrArray *seen;     /* of Seen, in the order of the reports */
    guint taken;         /* those that bench_next() has passed */
    gboolean slow_store; /* what is reported gets to the disk with bench_settle() only */
    void (*settle_done)(void *done_data, VpError *error); /* who waits for that; NULL: nobody */
    void *settle_data;
} Bench;

/* `settings` are the lines of group [ops->name]; may be NULL. */
Bench *bench_new(const VpDriverOps *ops, const char *settings);
/* Powers nothing off: the test does. */
void bench_free(Bench *bench);
/* Closes the driver and opens it again, as a restart of the daemon does. */
void bench_reopen(Bench *bench);

/* With slow_store: waits until the driver waits for the disk. */
void bench_wait_settle(Bench *bench);
/* The same, and then what was reported is on the disk, or the store refuses it with `error` (consumed). */
void bench_settle(Bench *bench, VpError *error);

/* A task under way. */
typedef struct Running {
    VpTask *task;
    pthread_mutex_t mutex;
    pthread_cond_t ended_cond;
    gboolean ended;
    VpError *error;
} Running;

typedef void (*Operation)(VpDriver *driver, VpTask *task);

/* Begins an operation, with `timeout_ms` to its deadline, and waits for its end; the error is the caller's. */
Running *bench_begin(Bench *bench, Operation operation, const PbDomain *domain, guint64 timeout_ms);
/* The same with 30 s, and a message of the method's that says more. */
Running *bench_begin_request(Bench *bench, Operation operation, const PbDomain *domain, const void *request);
VpError *bench_end(Running *running);
void bench_cancel(Running *running);
void bench_expire(Running *running);
VpError *bench_run(Bench *bench, Operation operation, const PbDomain *domain);
/* The same and has to go well. */
void bench_ok(Bench *bench, Operation operation, const PbDomain *domain);
/* The same and has to fail with this code and reason. The error is the caller's. */
VpError *bench_fails(Bench *bench, Operation operation, const PbDomain *domain, VpCode code, const char *reason);
void check_error(const VpError *error, VpCode code, const char *reason);

/* The next report, waited for; it has to be this one. Borrowed until the bench is freed. */
const Seen *bench_next(Bench *bench, PbEventType event, PbDomainState state, const char *reason);
/* Nothing was reported that bench_next() has not passed. */
void bench_nothing_more(Bench *bench);

/* A domain of this driver; name and uid are given. */
PbDomain *bench_domain(const char *driver, guint number);
void bench_label(PbDomain *domain, const char *key, const char *value);
void bench_disk(PbDomain *domain, const char *target, const char *path, PbImageFormat format);
/* Puts into the domain's status what a daemon would have stored at this report. */
void bench_store_status(PbDomain *domain, const Seen *seen);

/* Open descriptors of this process. */
guint count_fds(void);
