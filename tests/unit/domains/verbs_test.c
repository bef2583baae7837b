/* The verbs, on the test driver and its faults: states, waiting and not, cancellation, deadlines, a power off that overtakes, views, and a restart. */
#include "world.h"

#include <string.h>
#include <unistd.h>

static VpDomainView *view_of(World *world, const char *name)
{
    VpError *error = NULL;
    VpDomainView *view = vp_domains_get(world->domains, name, NULL, &error);

    assert_null(error);
    return view;
}

/* Waits until a hanging job is at work, as GetDomain shows it. */
static void wait_job(World *world, const char *name, const char *type)
{
    for (guint i = 0; i < 20000; i++) {
        g_autoptr(VpDomainView) view = view_of(world, name);
        const PbDomainJob *job = view->domain->status->job;

        if (job && strcmp(job->type, type) == 0)
            return;
        usleep(1000);
    }
    fail_msg("%s: no job %s", name, type);
}

static void a_life(void **state)
{
    static const struct {
        VpVerb verb;
        PbDomainState state;
    } steps[] = {
        {VP_VERB_START, PB_DOMAIN_STATE_RUNNING},  {VP_VERB_PAUSE, PB_DOMAIN_STATE_PAUSED},
        {VP_VERB_RESUME, PB_DOMAIN_STATE_RUNNING}, {VP_VERB_REBOOT, PB_DOMAIN_STATE_RUNNING},
        {VP_VERB_RESET, PB_DOMAIN_STATE_RUNNING},  {VP_VERB_POWER_OFF, PB_DOMAIN_STATE_SHUTOFF},
    };
    World *world = *state;
    gint64 revision = 0;

    g_free(create(world, "web", NO_LABELS));
    for (gsize i = 0; i < G_N_ELEMENTS(steps); i++) {
        g_auto(Answer) answer = verb(world, steps[i].verb, "web");

        succeeded(&answer);
        /* What was seen is in the answer, and committed. */
        assert_int_equal(answer.domain->status->state, steps[i].state);
        assert_true(answer.domain->revision > revision);
        revision = answer.domain->revision;
        assert_non_null(answer.operation);
        assert_int_equal(state_of(world, "web"), steps[i].state);
    }
    g_autofree char *events = events_of(world, "web");
    assert_string_equal(events, "CREATED STARTING STARTED PAUSED RESUMED REBOOTING RESET RESET POWERED_OFF");
    g_auto(Answer) started = verb(world, VP_VERB_START, "web");
    succeeded(&started);
    g_auto(Answer) asked = verb(world, VP_VERB_SHUTDOWN, "web");
    succeeded(&asked);
    wait_state(world, "web", PB_DOMAIN_STATE_SHUTOFF);
}

static void wrong_states(void **state)
{
    static const VpVerb of_shut_off[] = {VP_VERB_SHUTDOWN, VP_VERB_REBOOT, VP_VERB_RESET, VP_VERB_PAUSE,
                                         VP_VERB_RESUME};
    static const VpVerb of_paused[] = {VP_VERB_START, VP_VERB_SHUTDOWN, VP_VERB_REBOOT};
    World *world = *state;

    g_free(create(world, "web", NO_LABELS));
    for (gsize i = 0; i < G_N_ELEMENTS(of_shut_off); i++) {
        g_auto(Answer) answer = verb(world, of_shut_off[i], "web");

        failed(&answer, VP_FAILED_PRECONDITION, "WRONG_STATE");
        assert_string_equal(vp_error_get(answer.error, "state"), "SHUTOFF");
        assert_int_equal(answer.operation->state == PB_OPERATION_STATE_PENDING, FALSE);
    }
    const VpVerbRequest paused = {.verb = VP_VERB_START, .name = "web", .paused = TRUE};
    g_auto(Answer) started = call_wait(verb_begin(world, &paused));
    succeeded(&started);
    assert_int_equal(started.domain->status->state, PB_DOMAIN_STATE_PAUSED);
    for (gsize i = 0; i < G_N_ELEMENTS(of_paused); i++) {
        g_auto(Answer) answer = verb(world, of_paused[i], "web");

        failed(&answer, VP_FAILED_PRECONDITION, "WRONG_STATE");
    }
    g_auto(Answer) unknown = verb(world, VP_VERB_START, "nobody");
    failed(&unknown, VP_NOT_FOUND, "DOMAIN_NOT_FOUND");
}

static void what_is_so_already(void **state)
{
    World *world = *state;

    g_free(create(world, "web", NO_LABELS));
    g_auto(Answer) off = verb(world, VP_VERB_POWER_OFF, "web");
    g_auto(Answer) started = verb(world, VP_VERB_START, "web");
    g_auto(Answer) resumed = verb(world, VP_VERB_RESUME, "web");
    g_auto(Answer) paused = verb(world, VP_VERB_PAUSE, "web");
    g_auto(Answer) paused_again = verb(world, VP_VERB_PAUSE, "web");
    g_autofree char *events = events_of(world, "web");

    succeeded(&off);
    succeeded(&started);
    succeeded(&resumed);
    succeeded(&paused);
    succeeded(&paused_again);
    assert_string_equal(events, "CREATED STARTING STARTED PAUSED");
}

static void a_failed_start_is_told(void **state)
{
    World *world = *state;

    g_free(create(world, "web", LABELS("test.fault.start=fail:RESOURCE_EXHAUSTED:no memory")));
    g_auto(Answer) answer = verb(world, VP_VERB_START, "web");
    failed(&answer, VP_RESOURCE_EXHAUSTED, "INJECTED");
    assert_int_equal(state_of(world, "web"), PB_DOMAIN_STATE_SHUTOFF);
    g_autoptr(VpDomainView) view = view_of(world, "web");
    assert_string_equal(view->domain->status->reason, "START_FAILED");
    assert_non_null(strstr(view->domain->status->detail, "no memory"));
    vp_pb_auto PbOperation *operation = wait_operation(world, answer.operation->uid);
    assert_int_equal(operation->state, PB_OPERATION_STATE_FAILED);
    assert_int_equal(operation->error->code, VP_RESOURCE_EXHAUSTED);
}

/* The words of a hypervisor are any bytes. */
static void what_a_driver_says_is_made_text(void **state)
{
    World *world = *state;
    g_autofree char *noise = g_strnfill(12000, 'x');
    g_autofree char *label = g_strdup_printf("test.fault.start=fail:INTERNAL:\xff\xfe%s", noise);
    VpError *error = NULL;
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
    gint64 next = 0;

    g_free(create(world, "web", LABELS(label)));
    g_auto(Answer) answer = verb(world, VP_VERB_START, "web");
    failed(&answer, VP_INTERNAL, "INJECTED");
    g_autoptr(VpDomainView) view = view_of(world, "web");
    assert_int_equal(view->domain->status->state, PB_DOMAIN_STATE_SHUTOFF);
    assert_true(g_utf8_validate(view->domain->status->detail, -1, NULL));
    assert_in_range(strlen(view->domain->status->detail), 8000, 9000);
    settled_revision(world);
    error = vp_store_read_journal(world->store, 1, 100, entries, &next);
    assert_null(error);
    assert_int_equal(entries->len, 4);
    for (guint i = 0; i < entries->len; i++)
        assert_true(g_utf8_validate(((const VpJournalEntry *)entries->pdata[i])->event->detail, -1, NULL));
}

/* ---- jobs that take long ---- */

static void a_job_is_shown_while_it_runs(void **state)
{
    World *world = *state;

    g_autofree char *uid = create(world, "web", LABELS("test.fault.start=hang"));
    g_autofree char *operation = verb_no_wait(world, VP_VERB_START, "web");
    wait_job(world, "web", "domain.start");
    g_autofree char *second = verb_no_wait(world, VP_VERB_PAUSE, "web");
    wait_state(world, "web", PB_DOMAIN_STATE_STARTING);
    g_autoptr(VpDomainView) view = view_of(world, "web");
    const PbDomainJob *job = view->domain->status->job;
    assert_string_equal(job->operation_uid, operation);
    assert_string_equal(job->caller, "alice");
    assert_non_null(job->start_time);
    assert_int_equal(job->waiting, 1);
    vp_pb_auto PbGetDomainResponse *response = vp_pb_unpack(&pb_get_domain_response__descriptor, view->get_response);
    assert_string_equal(response->domain->status->job->operation_uid, operation);

    /* Neither the list nor another domain waits. */
    gboolean more = FALSE;
    g_autoptr(GPtrArray) views = vp_domains_list(world->domains, NULL, NULL, 10, &more);
    assert_int_equal(views->len, 1);
    g_free(create(world, "db", NO_LABELS));
    g_auto(Answer) other = verb(world, VP_VERB_START, "db");
    succeeded(&other);

    assert_null(vp_jobs_cancel(world->jobs, operation));
    vp_pb_auto PbOperation *ended = wait_operation(world, operation);
    assert_int_equal(ended->state, PB_OPERATION_STATE_CANCELLED);
    vp_pb_auto PbOperation *next = wait_operation(world, second);
    assert_int_equal(next->state, PB_OPERATION_STATE_FAILED);
    assert_string_equal(next->error->reason, "WRONG_STATE");
    for (guint i = 0; i < 20000; i++) {
        g_autoptr(VpDomainView) after = view_of(world, "web");
        if (!after->domain->status->job)
            return;
        usleep(1000);
    }
    fail_msg("the view still shows a job that has ended");
}

static void a_cancelled_start(void **state)
{
    World *world = *state;
    const VpVerbRequest request = {.verb = VP_VERB_START, .name = "web"};

    g_free(create(world, "web", LABELS("test.fault.start=hang")));
    Call *call = verb_begin(world, &request);
    wait_state(world, "web", PB_DOMAIN_STATE_STARTING);
    assert_false(call_is_done(call));
    g_autoptr(VpDomainView) view = view_of(world, "web");
    assert_null(vp_jobs_cancel(world->jobs, view->domain->status->job->operation_uid));
    g_auto(Answer) answer = call_wait(call);
    failed(&answer, VP_CANCELLED, "CANCELLED");
    assert_int_equal(answer.domain->status->state, PB_DOMAIN_STATE_SHUTOFF);
    g_autofree char *events = events_of(world, "web");
    assert_string_equal(events, "CREATED STARTING START_FAILED");
}

static void a_start_beyond_its_time(void **state)
{
    World *world = *state;
    const VpVerbRequest request = {.verb = VP_VERB_START, .name = "web", .timeout_ms = 50};

    g_free(create(world, "web", LABELS("test.fault.start=hang")));
    g_auto(Answer) answer = call_wait(verb_begin(world, &request));
    assert_int_equal(answer.error->code, VP_DEADLINE_EXCEEDED);
    assert_int_equal(state_of(world, "web"), PB_DOMAIN_STATE_SHUTOFF);
}

static void a_power_off_overtakes_a_hanging_start(void **state)
{
    World *world = *state;
    const VpVerbRequest start = {.verb = VP_VERB_START, .name = "web"};
    const VpVerbRequest pause = {.verb = VP_VERB_PAUSE, .name = "web"};

    g_free(create(world, "web", LABELS("test.fault.start=hang")));
    Call *starting = verb_begin(world, &start);
    wait_state(world, "web", PB_DOMAIN_STATE_STARTING);
    Call *waiting = verb_begin(world, &pause);
    g_auto(Answer) off = verb(world, VP_VERB_POWER_OFF, "web");
    g_auto(Answer) started = call_wait(starting);
    g_auto(Answer) paused = call_wait(waiting);

    succeeded(&off);
    failed(&started, VP_ABORTED, "OVERTAKEN");
    failed(&paused, VP_ABORTED, "OVERTAKEN");
    wait_state(world, "web", PB_DOMAIN_STATE_SHUTOFF);
    g_auto(Answer) again = verb(world, VP_VERB_POWER_OFF, "web");
    succeeded(&again);
}

static void a_power_off_during_a_hanging_shutdown(void **state)
{
    World *world = *state;
    const VpVerbRequest shutdown = {.verb = VP_VERB_SHUTDOWN, .name = "web"};

    g_free(create(world, "web", LABELS("test.fault.shutdown=hang")));
    g_auto(Answer) started = verb(world, VP_VERB_START, "web");
    succeeded(&started);
    Call *call = verb_begin(world, &shutdown);
    wait_job(world, "web", "domain.shutdown");
    g_auto(Answer) off = verb(world, VP_VERB_POWER_OFF, "web");
    g_auto(Answer) asked = call_wait(call);
    succeeded(&off);
    assert_int_equal(off.domain->status->state, PB_DOMAIN_STATE_SHUTOFF);
    failed(&asked, VP_ABORTED, "OVERTAKEN");
}

static void too_many_jobs(void **state)
{
    World *world = *state;
    Call *calls[20];
    guint refused = 0;
    const VpVerbRequest request = {.verb = VP_VERB_PAUSE, .name = "web"};

    g_free(create(world, "web", LABELS("test.fault.start=hang")));
    g_autofree char *operation = verb_no_wait(world, VP_VERB_START, "web");
    wait_state(world, "web", PB_DOMAIN_STATE_STARTING);
    for (guint i = 0; i < G_N_ELEMENTS(calls); i++)
        calls[i] = verb_begin(world, &request);
    assert_null(vp_jobs_cancel(world->jobs, operation));
    for (guint i = 0; i < G_N_ELEMENTS(calls); i++) {
        g_auto(Answer) answer = call_wait(calls[i]);

        if (answer.error->code == VP_RESOURCE_EXHAUSTED)
            refused++;
        else
            failed(&answer, VP_FAILED_PRECONDITION, "WRONG_STATE");
    }
    assert_int_equal(refused, 4);
}

static void a_crash_is_seen_unasked(void **state)
{
    World *world = *state;

    g_free(create(world, "web", LABELS("test.crash_after=20")));
    g_auto(Answer) started = verb(world, VP_VERB_START, "web");
    succeeded(&started);
    wait_state(world, "web", PB_DOMAIN_STATE_CRASHED);
    g_autofree char *events = events_of(world, "web");
    assert_string_equal(events, "CREATED STARTING STARTED CRASHED");
    g_auto(Answer) deleted = remove_domain(world, "web", 0, "");
    succeeded(&deleted);
}

/* ---- a restart ---- */

static void a_restart_takes_up_what_ran(void **state)
{
    World *world = *state;

    g_free(create(world, "off", NO_LABELS));
    g_free(create(world, "on", NO_LABELS));
    g_free(create(world, "hanging", LABELS("test.fault.start=hang")));
    g_auto(Answer) started = verb(world, VP_VERB_START, "on");
    succeeded(&started);
    g_free(verb_no_wait(world, VP_VERB_START, "hanging"));
    wait_state(world, "hanging", PB_DOMAIN_STATE_STARTING);
    const gint64 revision = settled_revision(world);

    world_restart(world);
    assert_true(settled_revision(world) >= revision);
    vp_domains_adopt(world->domains, G_MAXINT64);
    assert_int_equal(state_of(world, "off"), PB_DOMAIN_STATE_SHUTOFF);
    assert_int_equal(state_of(world, "on"), PB_DOMAIN_STATE_SHUTOFF);
    assert_int_equal(state_of(world, "hanging"), PB_DOMAIN_STATE_SHUTOFF);
    g_autoptr(VpDomainView) view = view_of(world, "on");
    assert_string_equal(view->domain->status->reason, "WHILE_DAEMON_DOWN");
}

static void an_adoption_that_hangs_does_not_keep_the_start(void **state)
{
    World *world = *state;

    g_free(create(world, "web", LABELS("test.fault.adopt=hang")));
    g_auto(Answer) started = verb(world, VP_VERB_START, "web");
    succeeded(&started);
    world_restart(world);
    vp_domains_adopt(world->domains, 0);
    wait_job(world, "web", "domain.adopt");
    g_auto(Answer) off = verb(world, VP_VERB_POWER_OFF, "web");
    succeeded(&off);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_life, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(wrong_states, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(what_is_so_already, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_failed_start_is_told, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(what_a_driver_says_is_made_text, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_job_is_shown_while_it_runs, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_start, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_start_beyond_its_time, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_power_off_overtakes_a_hanging_start, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_power_off_during_a_hanging_shutdown, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(too_many_jobs, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_crash_is_seen_unasked, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_restart_takes_up_what_ran, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(an_adoption_that_hangs_does_not_keep_the_start, world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
