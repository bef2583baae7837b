/* Jobs and operations, with a real pool and a real loop. What happens is written to a log, in the order in which it happens; tests wait for lines of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/jobs/jobs.h"

#define WAIT_US (60 * G_USEC_PER_SEC)

typedef struct Bench {
    VpPool *pool;
    VpLoop *loop;
    VpJobs *jobs;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    GString *log; /* "run a\n", "cancel a\n", "done a CANCELLED\n", "free a\n" */
    atomic_uint listened;
} Bench;

/* What a job of the tests does. */
typedef enum Habit {
    FINISHES_IN_RUN,
    FINISHES_LATER,          /* when the test says so */
    FINISHES_WHEN_CANCELLED, /* with CANCELLED, from within cancel() */
    IGNORES_CANCEL,          /* has a cancel(), which only notes it */
    BLOCKS_IN_RUN,           /* until vp_job_cancelled(), and then finishes from cancel() */
} Habit;

typedef struct Work {
    Bench *bench;
    Habit habit;
    const char *name;
    VpJob *job; /* once it runs; under bench->lock */
} Work;

static void bench_log(Bench *bench, const char *verb, const char *name, const char *result)
{
    VP_LOCK(&bench->lock);
    g_string_append_printf(bench->log, "%s %s%s%s\n", verb, name, result ? " " : "", result ? result : "");
    pthread_cond_broadcast(&bench->changed);
}

/* A copy of the log: assertions jump out of the function, so none is made with the lock held. */
static char *bench_read(Bench *bench)
{
    VP_LOCK(&bench->lock);
    return g_strdup(bench->log->str);
}

static gboolean bench_has(Bench *bench, const char *text)
{
    g_autofree char *log = bench_read(bench);

    return strstr(log, text) != NULL;
}

static gboolean bench_wait_until(Bench *bench, const char *text, gint64 deadline_us)
{
    VP_LOCK(&bench->lock);
    while (!strstr(bench->log->str, text)) {
        if (!vp_cond_wait_until(&bench->changed, &bench->lock, deadline_us)) {
            return FALSE;
        }
    }
    return TRUE;
}

static void bench_wait(Bench *bench, const char *line)
{
    g_autofree char *whole = g_strconcat(line, "\n", NULL);

    if (!bench_wait_until(bench, whole, vp_now_us() + WAIT_US)) {
        fail_msg("'%s' never happened; this did:\n%s", line, bench_read(bench));
    }
}

static void assert_order(Bench *bench, const char *first, const char *second)
{
    g_autofree char *log = bench_read(bench);
    const char *a = strstr(log, first);
    const char *b = strstr(log, second);

    if (!a || !b || a >= b) {
        fail_msg("'%s' is not before '%s':\n%s", first, second, log);
    }
}

static void work_run(VpJob *job, void *data)
{
    Work *work = data;

    pthread_mutex_lock(&work->bench->lock);
    work->job = job;
    pthread_mutex_unlock(&work->bench->lock);
    bench_log(work->bench, "run", work->name, NULL);
    while (work->habit == BLOCKS_IN_RUN && !vp_job_cancelled(job)) {
        sched_yield();
    }
    if (work->habit == FINISHES_IN_RUN) {
        vp_job_finish(job, NULL);
    }
    bench_log(work->bench, "ran", work->name, NULL);
}

static void work_cancel(VpJob *job, void *data)
{
    Work *work = data;

    assert_true(vp_job_cancelled(job));
    bench_log(work->bench, "cancel", work->name, NULL);
    if (work->habit == FINISHES_WHEN_CANCELLED || work->habit == BLOCKS_IN_RUN) {
        vp_job_finish(job, vp_error_new(VP_CANCELLED, "CANCELLED", "stopped half way"));
    }
    bench_log(work->bench, "told", work->name, NULL);
}

static void work_done(VpJob *job, void *data, const VpError *error)
{
    Work *work = data;

    (void)job;
    bench_log(work->bench, "done", work->name, error ? vp_code_name(error->code) : "OK");
}

static void work_destroy(void *data)
{
    Work *work = data;

    bench_log(work->bench, "free", work->name, NULL);
    g_free(work);
}

static VpJobSpec spec_for(Bench *bench, const char *name, const char *resource, Habit habit)
{
    Work *work = g_new0(Work, 1);

    *work = (Work){.bench = bench, .habit = habit, .name = name};
    return (VpJobSpec){
        .type = "domain.start",
        .resource_type = "domain",
        .resource_name = "web",
        .resource_uid = resource,
        .caller = "uid=1000 pid=4711",
        .run = work_run,
        .cancel = habit == FINISHES_LATER ? NULL : work_cancel,
        .done = work_done,
        .destroy = work_destroy,
        .data = work,
    };
}

/* Submits, which must succeed; returns the operation's uid. */
static char *submit_spec(Bench *bench, const VpJobSpec *spec)
{
    vp_pb_auto PbOperation *operation = NULL;

    assert_null(vp_jobs_submit(bench->jobs, spec, &operation));
    assert_string_equal(operation->resource_uid, spec->resource_uid);
    return g_strdup(operation->uid);
}

static char *submit(Bench *bench, const char *name, const char *resource, Habit habit)
{
    const VpJobSpec spec = spec_for(bench, name, resource, habit);

    return submit_spec(bench, &spec);
}

static char *submit_jump(Bench *bench, const char *name, const char *resource, Habit habit)
{
    VpJobSpec spec = spec_for(bench, name, resource, habit);

    spec.type = "domain.power-off";
    spec.jump_queue = TRUE;
    return submit_spec(bench, &spec);
}

/* Ends a job that FINISHES_LATER or IGNORES_CANCEL. */
static void finish(const VpJobSpec *spec, VpError *error)
{
    Work *work = spec->data;

    pthread_mutex_lock(&work->bench->lock);
    VpJob *job = work->job;
    pthread_mutex_unlock(&work->bench->lock);
    assert_non_null(job);
    vp_job_finish(job, error);
}

static PbOperation *operation_of(Bench *bench, const char *uid)
{
    PbOperation *operation = vp_jobs_get_operation(bench->jobs, uid);

    assert_non_null(operation);
    return operation;
}

/* Waits until the operation has ended, which is just before `done` is told. */
static PbOperation *ended_operation(Bench *bench, const char *uid)
{
    const gint64 deadline_us = vp_now_us() + WAIT_US;

    for (;;) {
        PbOperation *operation = operation_of(bench, uid);

        if (operation->state >= PB_OPERATION_STATE_SUCCEEDED) {
            assert_non_null(operation->end_time);
            assert_false(operation->cancellable);
            return operation;
        }
        vp_pb_free(operation);
        assert_true(vp_now_us() < deadline_us);
        sched_yield();
    }
}

static void assert_ended(Bench *bench, const char *uid, PbOperationState state, gint32 code, const char *reason)
{
    vp_pb_auto PbOperation *operation = ended_operation(bench, uid);

    assert_int_equal(operation->state, state);
    if (!reason) {
        assert_null(operation->error);
        return;
    }
    assert_int_equal(operation->error->code, code);
    assert_string_equal(operation->error->reason, reason);
}

static void on_changed(void *data, const char *resource_uid)
{
    Bench *bench = data;

    assert_non_null(resource_uid);
    atomic_fetch_add(&bench->listened, 1);
}

static int setup(void **state)
{
    Bench *bench = g_new0(Bench, 1);
    VpError *error = NULL;

    pthread_mutex_init(&bench->lock, NULL);
    vp_cond_init(&bench->changed);
    bench->log = g_string_new(NULL);
    bench->pool = vp_pool_new("vp-test", 3, 100, &error);
    bench->loop = vp_loop_new("vp-test-loop", &error);
    assert_null(error);
    bench->jobs = vp_jobs_new(bench->pool, bench->loop, 10, 3);
    vp_jobs_set_listener(bench->jobs, on_changed, bench);
    *state = bench;
    return 0;
}

/* The tests leave nothing running but what vp_jobs_free() can end. */
static int teardown(void **state)
{
    Bench *bench = *state;

    vp_jobs_free(bench->jobs, vp_now_us() + WAIT_US);
    vp_loop_free(bench->loop);
    vp_pool_free(bench->pool);
    g_string_free(bench->log, TRUE);
    pthread_cond_destroy(&bench->changed);
    pthread_mutex_destroy(&bench->lock);
    g_free(bench);
    return 0;
}

/* ---- turns ---- */

static void test_one_at_a_time_in_order(void **state)
{
    Bench *bench = *state;
    const VpJobSpec first = spec_for(bench, "a", "r1", FINISHES_LATER);
    g_autofree char *a = submit_spec(bench, &first);
    g_autofree char *b = submit(bench, "b", "r1", FINISHES_IN_RUN);
    g_autofree char *c = submit(bench, "c", "r1", FINISHES_IN_RUN);
    g_autofree char *other = submit(bench, "other", "r2", FINISHES_IN_RUN);

    bench_wait(bench, "run a");
    bench_wait(bench, "done other OK"); /* another resource is not held up */
    assert_false(bench_has(bench, "run b"));

    vp_pb_auto PbOperation *running = operation_of(bench, a);
    vp_pb_auto PbOperation *pending = operation_of(bench, b);

    assert_int_equal(running->state, PB_OPERATION_STATE_RUNNING);
    assert_non_null(running->start_time);
    assert_null(running->deadline_time);
    assert_false(running->cancellable);
    assert_string_equal(running->type, "domain.start");
    assert_string_equal(running->resource_type, "domain");
    assert_string_equal(running->resource_name, "web");
    assert_string_equal(running->caller, "uid=1000 pid=4711");
    assert_int_equal(pending->state, PB_OPERATION_STATE_PENDING);
    assert_non_null(pending->create_time);
    assert_null(pending->start_time);
    assert_true(pending->cancellable);

    finish(&first, NULL);
    bench_wait(bench, "free c");
    assert_order(bench, "done a OK", "run b");
    assert_order(bench, "done b OK", "run c");
    assert_order(bench, "ran b", "done b OK"); /* not from within run() */
    assert_order(bench, "done b OK", "free b");
    assert_ended(bench, a, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
    assert_ended(bench, c, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);

    vp_pb_auto PbOperation *ended = operation_of(bench, a);

    assert_int_equal(ended->progress_percent, 100);
    assert_ended(bench, other, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
}

typedef struct Successor {
    Bench *bench;
    char *own_uid;
    PbOperationState own_state; /* all as seen from within done() */
    PbOperationState next_state;
    gboolean busy;
} Successor;

static void successor_run(VpJob *job, void *data)
{
    Successor *successor = data;

    successor->own_uid = g_strdup(vp_job_uid(job));
    vp_job_finish(job, NULL);
}

static void successor_done(VpJob *job, void *data, const VpError *error)
{
    Successor *successor = data;
    Bench *bench = successor->bench;
    const VpJobSpec next = spec_for(bench, "next", "r1", FINISHES_IN_RUN);
    vp_pb_auto PbOperation *own = vp_jobs_get_operation(bench->jobs, successor->own_uid);
    vp_pb_auto PbOperation *operation = NULL;
    VpJobInfo info;

    (void)job;
    (void)error;
    successor->own_state = own->state;
    successor->busy = vp_jobs_current(bench->jobs, "r1", &info);
    g_autoptr(VpError) refused = vp_jobs_submit(bench->jobs, &next, &operation);
    successor->next_state = refused ? PB_OPERATION_STATE_FAILED : operation->state;
    bench_log(bench, "done", "first", NULL);
}

/* Whoever is told of the end sees it, and the resource free; but also a job that comes just then starts only afterwards. */
static void test_end_is_told_before_the_next(void **state)
{
    Bench *bench = *state;
    Successor successor = {.bench = bench};
    const VpJobSpec spec = {
        .type = "domain.start",
        .resource_type = "domain",
        .resource_name = "web",
        .resource_uid = "r1",
        .caller = "tester",
        .run = successor_run,
        .done = successor_done,
        .data = &successor,
    };

    assert_null(vp_jobs_submit(bench->jobs, &spec, NULL));
    bench_wait(bench, "done next OK");
    assert_int_equal(successor.own_state, PB_OPERATION_STATE_SUCCEEDED);
    assert_false(successor.busy);
    assert_int_equal(successor.next_state, PB_OPERATION_STATE_PENDING);
    assert_order(bench, "done first", "run next");
    g_free(successor.own_uid);
}

static void test_failure(void **state)
{
    Bench *bench = *state;
    const VpJobSpec spec = spec_for(bench, "a", "r1", FINISHES_LATER);
    g_autofree char *uid = submit_spec(bench, &spec);

    bench_wait(bench, "ran a");
    finish(&spec, vp_error_with(vp_error_new(VP_UNAVAILABLE, "QEMU_EXITED", "QEMU ended at once"), "status", "1"));
    bench_wait(bench, "done a UNAVAILABLE");

    vp_pb_auto PbOperation *operation = ended_operation(bench, uid);

    assert_int_equal(operation->state, PB_OPERATION_STATE_FAILED);
    assert_int_equal(operation->error->code, VP_UNAVAILABLE);
    assert_string_equal(operation->error->reason, "QEMU_EXITED");
    assert_string_equal(operation->error->message, "QEMU ended at once");
    assert_int_equal(operation->error->n_metadata, 1);
    assert_string_equal(operation->error->metadata[0]->key, "status");
    assert_string_equal(operation->error->metadata[0]->value, "1");
}

static void test_too_many(void **state)
{
    Bench *bench = *state;
    const VpJobSpec spec = spec_for(bench, "a", "r1", FINISHES_LATER);
    g_autofree char *a = submit_spec(bench, &spec);
    g_autofree char *b = submit(bench, "b", "r1", FINISHES_IN_RUN);
    g_autofree char *c = submit(bench, "c", "r1", FINISHES_IN_RUN);
    g_autofree char *d = submit(bench, "d", "r1", FINISHES_IN_RUN);
    const VpJobSpec fifth = spec_for(bench, "e", "r1", FINISHES_IN_RUN);
    vp_pb_auto PbOperation *none = NULL;
    g_autoptr(VpError) error = vp_jobs_submit(bench->jobs, &fifth, &none);

    assert_int_equal(error->code, VP_RESOURCE_EXHAUSTED);
    assert_string_equal(error->reason, "TOO_MANY_JOBS");
    assert_non_null(strstr(error->message, "3 jobs wait for domain 'web'"));
    assert_non_null(strstr(error->message, "domain.start runs, asked for by uid=1000 pid=4711, for 0."));
    assert_string_equal(vp_error_get(error, "operation"), a);
    assert_true(error->retry_after_ms > 0);
    assert_null(none);
    assert_true(bench_has(bench, "free e"));
    assert_false(bench_has(bench, "done e"));

    bench_wait(bench, "ran a");
    finish(&spec, NULL);
    bench_wait(bench, "done d OK");
}

static void test_current(void **state)
{
    Bench *bench = *state;
    VpJobInfo info;

    assert_false(vp_jobs_current(bench->jobs, "r1", &info));
    const VpJobSpec spec = spec_for(bench, "a", "r1", FINISHES_LATER);
    const gint64 before_us = vp_wall_us();
    g_autofree char *a = submit_spec(bench, &spec);
    g_autofree char *b = submit(bench, "b", "r1", FINISHES_IN_RUN);

    assert_true(vp_jobs_current(bench->jobs, "r1", &info));
    assert_string_equal(info.type, "domain.start");
    assert_string_equal(info.caller, "uid=1000 pid=4711");
    assert_string_equal(info.operation_uid, a);
    assert_true(info.start_wall_us >= before_us);
    assert_int_equal(info.waiting, 1);
    vp_job_info_clear(&info);
    bench_wait(bench, "ran a");
    finish(&spec, NULL);
    bench_wait(bench, "free b");
    assert_false(vp_jobs_current(bench->jobs, "r1", &info));

    /* Two came, two ended: the listener heard of each. */
    assert_true(atomic_load(&bench->listened) >= 4);
}

/* ---- cancelling ---- */

static void test_cancel(void **state)
{
    Bench *bench = *state;
    g_autofree char *a = submit(bench, "a", "r1", FINISHES_WHEN_CANCELLED);
    g_autofree char *b = submit(bench, "b", "r1", FINISHES_IN_RUN);
    g_autofree char *c = submit(bench, "c", "r1", FINISHES_IN_RUN);

    bench_wait(bench, "ran a");
    assert_null(vp_jobs_cancel(bench->jobs, b)); /* waits: ends at once */
    assert_true(bench_has(bench, "done b CANCELLED"));
    assert_ended(bench, b, PB_OPERATION_STATE_CANCELLED, VP_CANCELLED, "CANCELLED");
    assert_null(vp_jobs_cancel(bench->jobs, a));
    bench_wait(bench, "done c OK");
    assert_order(bench, "told a", "done a CANCELLED"); /* not from within cancel() */
    assert_false(bench_has(bench, "run b"));
    assert_ended(bench, a, PB_OPERATION_STATE_CANCELLED, VP_CANCELLED, "CANCELLED");

    /* Ended ones are let be; unknown ones are told. */
    assert_null(vp_jobs_cancel(bench->jobs, a));
    g_autoptr(VpError) unknown = vp_jobs_cancel(bench->jobs, "nobody");
    assert_int_equal(unknown->code, VP_NOT_FOUND);
}

static void test_cancel_waits_for_run(void **state)
{
    Bench *bench = *state;
    g_autofree char *a = submit(bench, "a", "r1", BLOCKS_IN_RUN);

    bench_wait(bench, "run a");
    assert_null(vp_jobs_cancel(bench->jobs, a));
    bench_wait(bench, "done a CANCELLED");
    assert_order(bench, "ran a", "cancel a");
}

static void test_not_cancellable(void **state)
{
    Bench *bench = *state;
    const VpJobSpec spec = spec_for(bench, "a", "r1", FINISHES_LATER);
    g_autofree char *a = submit_spec(bench, &spec);

    bench_wait(bench, "ran a");
    g_autoptr(VpError) error = vp_jobs_cancel(bench->jobs, a);

    assert_int_equal(error->code, VP_FAILED_PRECONDITION);
    assert_string_equal(error->reason, "NOT_CANCELLABLE");
    finish(&spec, NULL);
    assert_ended(bench, a, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
}

/* Cancelled too late: what was done well stays done well; cancel() is told once. */
static void test_cancel_may_fail(void **state)
{
    Bench *bench = *state;
    const VpJobSpec spec = spec_for(bench, "a", "r1", IGNORES_CANCEL);
    g_autofree char *a = submit_spec(bench, &spec);

    bench_wait(bench, "ran a");
    assert_null(vp_jobs_cancel(bench->jobs, a));
    assert_null(vp_jobs_cancel(bench->jobs, a));
    bench_wait(bench, "told a");
    finish(&spec, NULL);
    assert_ended(bench, a, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
    g_autofree char *log = bench_read(bench);
    assert_ptr_equal(strstr(log, "cancel a"), g_strrstr(log, "cancel a"));
}

/* ---- deadlines ---- */

static void test_deadline(void **state)
{
    Bench *bench = *state;
    VpJobSpec spec = spec_for(bench, "a", "r1", FINISHES_WHEN_CANCELLED);

    spec.timeout_ms = 50;
    g_autofree char *a = submit_spec(bench, &spec);
    vp_pb_auto PbOperation *operation = ended_operation(bench, a);

    assert_int_equal(operation->state, PB_OPERATION_STATE_FAILED);
    assert_int_equal(operation->error->code, VP_DEADLINE_EXCEEDED);
    assert_string_equal(operation->error->reason, "JOB_DEADLINE");
    assert_non_null(strstr(operation->error->message, "domain.start of domain 'web' was given up after 0."));
    assert_non_null(strstr(operation->error->message, "its limit is 0.1 s"));
    assert_non_null(strstr(operation->error->message, "stopped half way"));
    assert_int_equal(vp_pb_timestamp_us(operation->deadline_time) - vp_pb_timestamp_us(operation->start_time), 50000);
    bench_wait(bench, "done a DEADLINE_EXCEEDED");
}

/* Only its own time counts, not that of waiting. */
static void test_deadline_counts_from_turn(void **state)
{
    Bench *bench = *state;
    const VpJobSpec first = spec_for(bench, "a", "r1", FINISHES_LATER);
    VpJobSpec second = spec_for(bench, "b", "r1", FINISHES_IN_RUN);

    second.timeout_ms = 20000;
    g_autofree char *a = submit_spec(bench, &first);
    g_autofree char *b = submit_spec(bench, &second);
    vp_pb_auto PbOperation *waiting = operation_of(bench, b);

    assert_null(waiting->deadline_time);
    bench_wait(bench, "ran a");
    finish(&first, NULL);
    assert_ended(bench, b, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
}

static void on_operation(void *data)
{
    Bench *bench = data;

    bench_log(bench, "changed", "operation", NULL);
}

static void test_late_but_not_cancellable(void **state)
{
    Bench *bench = *state;
    VpJobSpec spec = spec_for(bench, "a", "r1", FINISHES_LATER);

    spec.timeout_ms = 100;
    g_autofree char *a = submit_spec(bench, &spec);
    VpJobWatch *watch = vp_jobs_watch(bench->jobs, a, on_operation, bench);

    bench_wait(bench, "changed operation");

    vp_pb_auto PbOperation *late = operation_of(bench, a);

    assert_int_equal(late->state, PB_OPERATION_STATE_RUNNING);
    assert_string_equal(late->message, "past its deadline of 0.1 s: it cannot be cancelled and goes on");
    finish(&spec, NULL);
    assert_ended(bench, a, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
    vp_jobs_unwatch(bench->jobs, watch);
}

/* ---- power off ---- */

static void test_jump(void **state)
{
    Bench *bench = *state;
    g_autofree char *a = submit(bench, "a", "r1", FINISHES_WHEN_CANCELLED);
    g_autofree char *b = submit(bench, "b", "r1", FINISHES_IN_RUN);
    g_autofree char *c = submit(bench, "c", "r1", FINISHES_IN_RUN);
    g_autofree char *other = submit(bench, "other", "r2", FINISHES_WHEN_CANCELLED);

    bench_wait(bench, "ran a");
    g_autofree char *off = submit_jump(bench, "off", "r1", FINISHES_IN_RUN);

    bench_wait(bench, "done off OK");
    assert_ended(bench, a, PB_OPERATION_STATE_CANCELLED, VP_ABORTED, "OVERTAKEN");
    assert_ended(bench, b, PB_OPERATION_STATE_CANCELLED, VP_ABORTED, "OVERTAKEN");
    assert_ended(bench, c, PB_OPERATION_STATE_CANCELLED, VP_ABORTED, "OVERTAKEN");
    assert_false(bench_has(bench, "run b"));
    assert_false(bench_has(bench, "cancel other"));

    vp_pb_auto PbOperation *operation = operation_of(bench, a);

    assert_string_equal(
        operation->error->message,
        "domain.start of domain 'web' was overtaken by domain.power-off, asked for by uid=1000 pid=4711");
}

/* The case it is for: the running job never ends. Power off works all the same, again and again; what comes after waits for both. */
static void test_jump_over_a_stuck_one(void **state)
{
    Bench *bench = *state;
    const VpJobSpec stuck = spec_for(bench, "stuck", "r1", IGNORES_CANCEL);
    g_autofree char *a = submit_spec(bench, &stuck);
    VpJobInfo info;

    bench_wait(bench, "ran stuck");
    const VpJobSpec off_spec = spec_for(bench, "off1", "r1", FINISHES_LATER);
    VpJobSpec off = off_spec;

    off.jump_queue = TRUE;
    off.type = "domain.power-off";
    g_autofree char *off1 = submit_spec(bench, &off);

    bench_wait(bench, "ran off1");
    bench_wait(bench, "told stuck");
    assert_true(vp_jobs_current(bench->jobs, "r1", &info));
    assert_string_equal(info.type, "domain.power-off");
    vp_job_info_clear(&info);

    g_autofree char *next = submit(bench, "next", "r1", FINISHES_IN_RUN);
    /* A second power off overtakes what waits, but not the first. */
    g_autofree char *off2 = submit_jump(bench, "off2", "r1", FINISHES_IN_RUN);
    g_autofree char *off3 = submit_jump(bench, "off3", "r1", FINISHES_IN_RUN);
    g_autofree char *last = submit(bench, "last", "r1", FINISHES_IN_RUN);

    assert_ended(bench, next, PB_OPERATION_STATE_CANCELLED, VP_ABORTED, "OVERTAKEN");
    assert_false(bench_has(bench, "run off2"));
    finish(&off_spec, NULL);
    bench_wait(bench, "done off3 OK");
    assert_order(bench, "done off1 OK", "run off2");
    assert_order(bench, "done off2 OK", "run off3");
    assert_ended(bench, off3, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
    assert_false(bench_has(bench, "run last"));

    finish(&stuck, NULL);
    bench_wait(bench, "done last OK");
    assert_ended(bench, a, PB_OPERATION_STATE_SUCCEEDED, 0, NULL); /* it was told to stop, and was done nevertheless */
    assert_ended(bench, last, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
}

/* ---- operations ---- */

static void test_progress_and_watch(void **state)
{
    Bench *bench = *state;
    const VpJobSpec spec = spec_for(bench, "a", "r1", FINISHES_LATER);
    g_autofree char *a = submit_spec(bench, &spec);

    assert_null(vp_jobs_watch(bench->jobs, "nobody", on_operation, bench));
    bench_wait(bench, "ran a");
    VpJobWatch *watch = vp_jobs_watch(bench->jobs, a, on_operation, bench);

    assert_false(bench_has(bench, "changed"));
    vp_job_progress(((Work *)spec.data)->job, 250, "copying");
    assert_true(bench_has(bench, "changed"));

    vp_pb_auto PbOperation *operation = operation_of(bench, a);

    assert_int_equal(operation->progress_percent, 100);
    assert_string_equal(operation->message, "copying");
    vp_jobs_unwatch(bench->jobs, watch);
    pthread_mutex_lock(&bench->lock);
    g_string_truncate(bench->log, 0);
    pthread_mutex_unlock(&bench->lock);
    finish(&spec, NULL);
    bench_wait(bench, "done a OK");
    assert_false(bench_has(bench, "changed"));
}

static void assert_list(Bench *bench, const char *resource, gboolean active, const char *after, guint limit,
                        const char *const *expected)
{
    g_autoptr(GPtrArray) list = vp_jobs_list_operations(bench->jobs, resource, active, after, limit);

    g_autoptr(GString) found = g_string_new(NULL);
    g_autofree char *wanted = g_strjoinv(" ", (char **)expected);

    for (guint i = 0; i < list->len; i++) {
        g_string_append_printf(found, "%s%s", i ? " " : "", ((PbOperation *)list->pdata[i])->uid);
    }
    assert_string_equal(found->str, wanted);
}

static void test_list(void **state)
{
    Bench *bench = *state;
    g_autofree char *a = submit(bench, "a", "r1", FINISHES_IN_RUN);

    assert_ended(bench, a, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
    const VpJobSpec spec = spec_for(bench, "b", "r1", FINISHES_LATER);
    g_autofree char *b = submit_spec(bench, &spec);
    g_autofree char *c = submit(bench, "c", "r2", FINISHES_WHEN_CANCELLED);

    bench_wait(bench, "ran b");
    bench_wait(bench, "ran c");
    assert_list(bench, NULL, FALSE, NULL, 0, (const char *[]){c, b, a, NULL});
    assert_list(bench, NULL, FALSE, NULL, 2, (const char *[]){c, b, NULL});
    assert_list(bench, NULL, FALSE, b, 2, (const char *[]){a, NULL});
    assert_list(bench, "r1", FALSE, NULL, 0, (const char *[]){b, a, NULL});
    assert_list(bench, "r1", TRUE, NULL, 0, (const char *[]){b, NULL});
    assert_list(bench, NULL, FALSE, "nobody", 0, (const char *[]){NULL});

    /* Ten ended ones are remembered; those that run are not counted. */
    for (int i = 0; i < 12; i++) {
        g_autofree char *uid = submit(bench, "many", "r3", FINISHES_IN_RUN);

        assert_ended(bench, uid, PB_OPERATION_STATE_SUCCEEDED, 0, NULL);
    }
    g_autoptr(GPtrArray) list = vp_jobs_list_operations(bench->jobs, NULL, FALSE, NULL, 0);

    assert_int_equal(list->len, 12);
    assert_null(vp_jobs_get_operation(bench->jobs, a));
    assert_list(bench, NULL, TRUE, NULL, 0, (const char *[]){c, b, NULL});
    finish(&spec, NULL);
}

/* ---- the end ---- */

static void test_stop(void **state)
{
    Bench *bench = *state;
    const VpJobSpec stuck = spec_for(bench, "stuck", "r1", IGNORES_CANCEL);
    g_autofree char *a = submit_spec(bench, &stuck);
    g_autofree char *b = submit(bench, "waits", "r1", FINISHES_IN_RUN);
    g_autofree char *c = submit(bench, "yields", "r2", FINISHES_WHEN_CANCELLED);

    bench_wait(bench, "ran stuck");
    bench_wait(bench, "ran yields");
    vp_jobs_free(bench->jobs, vp_now_us() + 50000);
    bench->jobs = NULL;
    assert_true(bench_has(bench, "done waits UNAVAILABLE"));
    assert_true(bench_has(bench, "free waits"));
    assert_true(bench_has(bench, "done yields CANCELLED"));
    bench_wait(bench, "cancel stuck");
    assert_true(bench_has(bench, "done stuck UNAVAILABLE"));
    assert_false(bench_has(bench, "run waits"));

    /* Its work may still come to an end; then it is freed, and not told again. */
    assert_false(bench_has(bench, "free stuck"));
    finish(&stuck, NULL);
    bench_wait(bench, "free stuck");
    assert_false(bench_has(bench, "done stuck OK"));
}

static void test_pool_is_full(void **state)
{
    Bench *bench = *state;
    VpError *error = NULL;
    VpPool *pool = vp_pool_new("vp-none", 1, 0, &error); /* takes nothing */
    VpJobs *jobs = vp_jobs_new(pool, bench->loop, 10, 3);
    const VpJobSpec spec = spec_for(bench, "a", "r1", FINISHES_IN_RUN);
    vp_pb_auto PbOperation *operation = NULL;

    assert_null(vp_jobs_submit(jobs, &spec, &operation));
    assert_true(bench_has(bench, "done a RESOURCE_EXHAUSTED"));
    vp_pb_auto PbOperation *ended = vp_jobs_get_operation(jobs, operation->uid);
    assert_string_equal(ended->error->reason, "WORKERS_BUSY");
    vp_jobs_free(jobs, vp_now_us() + WAIT_US);
    vp_pool_free(pool);
}

/* ---- many threads: submit, cancel, overtake, watch, list, with deadlines that fire in between ---- */

#define ROUNDS 150

typedef struct Count {
    atomic_int done;
    atomic_int freed;
    atomic_int running[4];
} Count;

typedef struct Storm {
    Count *count;
    int resource;
    gboolean jump;
} Storm;

static void storm_run(VpJob *job, void *data)
{
    Storm *storm = data;

    /* One at a time, and beside it one power off. */
    assert_true(atomic_fetch_add(&storm->count->running[storm->resource], 1) < 2);
    vp_job_progress(job, 50, "half way");
    if (g_random_boolean()) {
        atomic_fetch_sub(&storm->count->running[storm->resource], 1);
        vp_job_finish(job, NULL);
    }
    /* Otherwise it goes on until it is cancelled, by whoever. */
    vp_job_progress(job, 60, "a bit more");
}

static void storm_cancel(VpJob *job, void *data)
{
    Storm *storm = data;

    atomic_fetch_sub(&storm->count->running[storm->resource], 1);
    vp_job_finish(job, vp_error_new(VP_CANCELLED, "CANCELLED", "cancelled"));
}

static void storm_done(VpJob *job, void *data, const VpError *error)
{
    Storm *storm = data;

    (void)job;
    (void)error;
    atomic_fetch_add(&storm->count->done, 1);
}

static void storm_destroy(void *data)
{
    Storm *storm = data;

    atomic_fetch_add(&storm->count->freed, 1);
    g_free(storm);
}

static void storm_changed(void *data)
{
    atomic_fetch_add((atomic_int *)data, 1);
}

typedef struct Stormer {
    VpJobs *jobs;
    Count *count;
    atomic_int *changes;
    int accepted;
    int refused;
} Stormer;

static void *storm_thread(void *data)
{
    Stormer *stormer = data;

    for (int i = 0; i < ROUNDS;) {
        static const char *const resources[] = {"r0", "r1", "r2", "r3"};
        Storm *storm = g_new0(Storm, 1);

        *storm = (Storm){.count = stormer->count,
                         .resource = g_random_int_range(0, 4),
                         .jump = g_random_int_range(0, 4) == 0};
        const VpJobSpec spec = {
            .type = storm->jump ? "domain.power-off" : "domain.start",
            .resource_type = "domain",
            .resource_name = "web",
            .resource_uid = resources[storm->resource],
            .caller = "tester",
            .timeout_ms = (guint64)g_random_int_range(1, 5),
            .jump_queue = storm->jump,
            .run = storm_run,
            .cancel = storm_cancel,
            .done = storm_done,
            .destroy = storm_destroy,
            .data = storm,
        };
        vp_pb_auto PbOperation *operation = NULL;
        g_autoptr(VpError) error = vp_jobs_submit(stormer->jobs, &spec, &operation);

        if (error) {
            assert_string_equal(error->reason, "TOO_MANY_JOBS");
            stormer->refused++;
            sched_yield();
            continue;
        }
        stormer->accepted++;
        VpJobWatch *watch = vp_jobs_watch(stormer->jobs, operation->uid, storm_changed, stormer->changes);
        g_autoptr(GPtrArray) list = vp_jobs_list_operations(stormer->jobs, spec.resource_uid, i & 1, NULL, 5);
        VpJobInfo info;

        if (vp_jobs_current(stormer->jobs, spec.resource_uid, &info)) {
            vp_job_info_clear(&info);
        }
        if (i % 3 == 0) {
            vp_error_free(vp_jobs_cancel(stormer->jobs, operation->uid));
        }
        vp_jobs_unwatch(stormer->jobs, watch);
        i++;
    }
    return NULL;
}

static void test_storm(void **state)
{
    Bench *bench = *state;
    Count *count = g_new0(Count, 1);
    atomic_int changes = 0;
    Stormer stormers[4];
    pthread_t threads[4];
    int refused = 0;

    for (int i = 0; i < 4; i++) {
        stormers[i] = (Stormer){.jobs = bench->jobs, .count = count, .changes = &changes};
        assert_null(vp_thread_start(&threads[i], "stormer", storm_thread, &stormers[i]));
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        refused += stormers[i].refused;
        assert_int_equal(stormers[i].accepted, ROUNDS);
    }
    vp_jobs_free(g_steal_pointer(&bench->jobs), vp_now_us() + WAIT_US);
    assert_int_equal(atomic_load(&count->done), 4 * ROUNDS);
    /* A worker may still hold the last of them for a moment. */
    vp_pool_free(g_steal_pointer(&bench->pool));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(atomic_load(&count->running[i]), 0);
    }
    assert_int_equal(atomic_load(&count->freed), 4 * ROUNDS + refused);
    g_free(count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_at_a_time_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_is_told_before_the_next, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_current, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_waits_for_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_cancellable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_may_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline_counts_from_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_but_not_cancellable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jump, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jump_over_a_stuck_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_progress_and_watch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pool_is_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_storm, setup, teardown),
    };

    return cmocka_run_group_tests_name("jobs", tests, NULL, NULL);
}
