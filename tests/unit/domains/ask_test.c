/* Questions to a driver, on the test driver's counters and its faults: answers, refusals, bounds, cancellation, deadlines, and an end in their midst. */
#include "world.h"

#include <string.h>

#include "base/thread.h"
#include "drivers/task.h"
#include "server/domains/internal.h"
#include "virtplane/v1/domain_stats.pb-c.h"

/* How a question was answered. */
typedef struct Told {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    guint times;
    VpError *error;
    PbDomainStats *stats;
} Told;

static void told_init(Told *told)
{
    *told = (Told){0};
    pthread_mutex_init(&told->mutex, NULL);
    vp_cond_init(&told->changed);
}

static void told_clear(Told *told)
{
    vp_error_free(told->error);
    vp_pb_free(told->stats);
    pthread_cond_destroy(&told->changed);
    pthread_mutex_destroy(&told->mutex);
}

static void answered(void *data, const VpError *error, const void *answer)
{
    Told *told = data;

    VP_LOCK(&told->mutex);
    told->times++;
    told->error = vp_error_copy(error);
    told->stats = vp_pb_dup(answer);
    pthread_cond_broadcast(&told->changed);
}

static VpTask *ask(World *world, const char *name, guint64 timeout_ms, Told *told)
{
    const VpAsk question = {.question = VP_QUESTION_STATS, .name = name, .timeout_ms = timeout_ms};

    told_init(told);
    return vp_domains_ask(world->domains, &question, answered, told);
}

static gboolean is_told(Told *told)
{
    VP_LOCK(&told->mutex);
    return told->times > 0;
}

static void wait_told(Told *told)
{
    const gint64 deadline_us = vp_now_us() + SOON_US;

    VP_LOCK(&told->mutex);
    while (told->times == 0) {
        if (!vp_cond_wait_until(&told->changed, &told->mutex, deadline_us))
            fail_msg("a question was not answered");
    }
    assert_int_equal(told->times, 1);
}

static void refused(Told *told, VpCode code, const char *reason)
{
    wait_told(told);
    if (!told->error)
        fail_msg("no error, where %s was expected", reason);
    assert_int_equal(told->error->code, code);
    assert_string_equal(told->error->reason, reason);
    assert_null(told->stats);
    told_clear(told);
}

static void start(World *world, const char *name, const char *const *labels)
{
    g_free(create(world, name, labels));
    g_auto(Answer) answer = verb(world, VP_VERB_START, name);

    succeeded(&answer);
}

static void an_answer(void **state)
{
    World *world = *state;
    Told told;

    start(world, "web", NO_LABELS);
    g_autoptr(VpTask) task = ask(world, "web", 0, &told);
    assert_non_null(task);
    wait_told(&told);
    assert_null(told.error);
    assert_non_null(told.stats->memory);
    assert_int_equal(told.stats->n_vcpus, 1);
    told_clear(&told);
}

static void an_error(void **state)
{
    World *world = *state;
    Told told;

    start(world, "web", LABELS("test.fault.stats=fail:DATA_LOSS:no counters"));
    g_autoptr(VpTask) task = ask(world, "web", 0, &told);
    refused(&told, VP_DATA_LOSS, "INJECTED");
}

/* Refused before there is a task. */
static void in_vain(World *world, const char *name, VpCode code, const char *reason)
{
    Told told;

    assert_null(ask(world, name, 0, &told));
    refused(&told, code, reason);
}

static void wrong_states(void **state)
{
    World *world = *state;
    Told told;

    in_vain(world, "web", VP_NOT_FOUND, "DOMAIN_NOT_FOUND");
    g_free(create(world, "web", LABELS("test.fault.start=hang")));
    in_vain(world, "web", VP_FAILED_PRECONDITION, "WRONG_STATE");
    g_autofree char *operation = verb_no_wait(world, VP_VERB_START, "web");
    wait_state(world, "web", PB_DOMAIN_STATE_STARTING);
    in_vain(world, "web", VP_FAILED_PRECONDITION, "WRONG_STATE");
    assert_null(vp_jobs_cancel(world->jobs, operation));
    wait_state(world, "web", PB_DOMAIN_STATE_SHUTOFF);
    /* Paused is as good as running. */
    const VpVerbRequest paused = {.verb = VP_VERB_START, .name = "db", .paused = TRUE};
    g_free(create(world, "db", NO_LABELS));
    g_auto(Answer) started = call_wait(verb_begin(world, &paused));
    succeeded(&started);
    g_autoptr(VpTask) task = ask(world, "db", 0, &told);
    wait_told(&told);
    assert_null(told.error);
    told_clear(&told);
}

/* A driver without the operation: the test driver, as it would be. */
static void unimplemented(void **state)
{
    World *world = *state;
    VpDriverOps without;

    start(world, "web", NO_LABELS);
    VpDriver *driver = vp_domains_driver(world->domains, "test");
    const VpDriverOps *ops = driver->ops;
    without = *ops;
    without.stats = NULL;
    driver->ops = &without;
    in_vain(world, "web", VP_UNIMPLEMENTED, "DRIVER_CANNOT");
    driver->ops = ops;
}

/* It waits behind no job, and a job not behind it. */
static void beside_a_job(void **state)
{
    World *world = *state;
    Told hanging;
    Told told;

    start(world, "web", LABELS("test.fault.reset=hang"));
    start(world, "db", LABELS("test.fault.stats=hang"));
    g_free(verb_no_wait(world, VP_VERB_RESET, "web"));
    g_autoptr(VpTask) task = ask(world, "web", 0, &told);
    wait_told(&told);
    assert_null(told.error);
    told_clear(&told);
    g_autoptr(VpTask) hangs = ask(world, "db", 60000, &hanging);
    g_auto(Answer) paused = verb(world, VP_VERB_PAUSE, "db");
    succeeded(&paused);
    assert_false(is_told(&hanging));
    g_auto(Answer) off = verb(world, VP_VERB_POWER_OFF, "db");
    succeeded(&off);
    refused(&hanging, VP_CANCELLED, "POWERED_OFF");
}

static void too_many(void **state)
{
    World *world = *state;
    Told told[16];
    VpTask *tasks[G_N_ELEMENTS(told)];
    Told other;

    start(world, "web", LABELS("test.fault.stats=hang"));
    start(world, "db", NO_LABELS);
    for (gsize i = 0; i < G_N_ELEMENTS(told); i++) {
        tasks[i] = ask(world, "web", 60000, &told[i]);
        assert_non_null(tasks[i]);
    }
    in_vain(world, "web", VP_RESOURCE_EXHAUSTED, "TOO_MANY_QUESTIONS");
    g_autoptr(VpTask) well = ask(world, "db", 0, &other);
    wait_told(&other);
    assert_null(other.error);
    told_clear(&other);
    vp_task_cancel(tasks[0]);
    refused(&told[0], VP_CANCELLED, "CANCELLED");
    /* There is room again once the one that was told of its end is let go. */
    const gint64 deadline_us = vp_now_us() + SOON_US;
    VpTask *again;
    while (!(again = ask(world, "web", 60000, &told[0]))) {
        assert_true(vp_now_us() < deadline_us);
        refused(&told[0], VP_RESOURCE_EXHAUSTED, "TOO_MANY_QUESTIONS");
    }
    vp_task_unref(tasks[0]);
    tasks[0] = again;
    for (gsize i = 0; i < G_N_ELEMENTS(told); i++) {
        vp_task_cancel(tasks[i]);
        refused(&told[i], VP_CANCELLED, "CANCELLED");
        vp_task_unref(tasks[i]);
    }
}

static void beyond_its_time(void **state)
{
    World *world = *state;
    Told told;

    start(world, "web", LABELS("test.fault.stats=hang"));
    const gint64 began_us = vp_now_us();
    g_autoptr(VpTask) task = ask(world, "web", 50, &told);
    refused(&told, VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT");
    assert_true(vp_now_us() - began_us >= 40 * 1000);
    /* Without a time of its own it has a second. */
    g_autoptr(VpTask) other = ask(world, "web", 0, &told);
    refused(&told, VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT");
    assert_in_range(vp_now_us() - began_us, 900 * 1000, SOON_US);
}

/* At the daemon's end those under way are told, and nothing of theirs is used after. */
static void an_end_in_their_midst(void **state)
{
    World *world = *state;
    Told told[3];
    VpTask *tasks[G_N_ELEMENTS(told)];

    start(world, "web", LABELS("test.fault.stats=hang"));
    for (gsize i = 0; i < G_N_ELEMENTS(told); i++)
        tasks[i] = ask(world, "web", 60000, &told[i]);
    world_restart(world);
    for (gsize i = 0; i < G_N_ELEMENTS(told); i++) {
        assert_true(is_told(&told[i]));
        refused(&told[i], VP_UNAVAILABLE, "DAEMON_STOPPING");
        vp_task_unref(tasks[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_answer, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(an_error, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(wrong_states, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(unimplemented, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(beside_a_job, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(too_many, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(beyond_its_time, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(an_end_in_their_midst, world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
