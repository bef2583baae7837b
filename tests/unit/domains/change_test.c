/* Create, update and delete on the real store: what is answered, what is in the journal, what a retry gets, and what a restart finds. */
#include "world.h"

#include <string.h>

#include "base/thread.h"

static void created_as_asked(void **state)
{
    World *world = *state;
    vp_pb_auto PbCreateDomainRequest *request = create_request("web", LABELS("tier=web"));
    g_auto(Answer) answer = create_with(world, request, "");
    g_autofree char *events = events_of(world, "web");

    succeeded(&answer);
    assert_string_equal(answer.domain->name, "web");
    assert_true(g_uuid_string_is_valid(answer.domain->uid));
    assert_int_equal(answer.domain->spec->vcpus, 1);
    assert_int_equal(answer.domain->status->state, PB_DOMAIN_STATE_SHUTOFF);
    assert_string_equal(answer.domain->status->reason, "CREATED");
    assert_non_null(answer.domain->create_time);
    assert_int_equal(answer.domain->n_labels, 1);
    assert_true(answer.revision > 0);
    assert_int_equal(answer.domain->revision, answer.revision);
    assert_int_equal(answer.revision, settled_revision(world));
    assert_string_equal(events, "CREATED");
    /* The request is the caller's as before. */
    assert_non_null(request->domain->spec);
}

static void found_by_name_and_by_uid(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", NO_LABELS);
    g_autofree char *other = create(world, "db", NO_LABELS);
    VpError *error = NULL;
    g_autoptr(VpDomainView) by_name = vp_domains_get(world->domains, "web", "", &error);
    g_autoptr(VpDomainView) by_uid = vp_domains_get(world->domains, NULL, uid, &error);
    g_autoptr(VpDomainView) by_both = vp_domains_get(world->domains, "web", uid, &error);

    assert_null(error);
    assert_string_equal(by_name->domain->uid, uid);
    assert_string_equal(by_uid->domain->name, "web");
    assert_string_equal(by_both->domain->name, "web");
    vp_pb_auto PbGetDomainResponse *response = vp_pb_unpack(&pb_get_domain_response__descriptor, by_name->get_response);
    assert_string_equal(response->domain->uid, uid);

    static const struct {
        const char *name;
        const char *uid;
        VpCode code;
    } wrong[] = {
        {"", "", VP_INVALID_ARGUMENT},
        {NULL, NULL, VP_INVALID_ARGUMENT},
        {"nobody", NULL, VP_NOT_FOUND},
        {NULL, "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55", VP_NOT_FOUND},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(VpError) why = NULL;

        assert_null(vp_domains_get(world->domains, wrong[i].name, wrong[i].uid, &why));
        assert_int_equal(why->code, wrong[i].code);
    }
    g_autoptr(VpError) disagree = NULL;
    assert_null(vp_domains_get(world->domains, "web", other, &disagree));
    assert_int_equal(disagree->code, VP_NOT_FOUND);
}

static void names_and_uids_are_taken_once(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", NO_LABELS);
    vp_pb_auto PbCreateDomainRequest *same_name = create_request("web", NO_LABELS);
    vp_pb_auto PbCreateDomainRequest *same_uid = create_request("other", NO_LABELS);
    g_auto(Answer) by_name = create_with(world, same_name, "");
    vp_pb_set(&same_uid->domain->uid, uid);
    g_auto(Answer) by_uid = create_with(world, same_uid, "");

    failed(&by_name, VP_ALREADY_EXISTS, "DOMAIN_EXISTS");
    assert_string_equal(vp_error_get(by_name.error, "uid"), uid);
    failed(&by_uid, VP_ALREADY_EXISTS, "DOMAIN_EXISTS");
}

static void a_bad_spec_is_refused(void **state)
{
    World *world = *state;
    vp_pb_auto PbCreateDomainRequest *request = create_request("web", NO_LABELS);
    PbCreateDomainRequest nothing = PB_CREATE_DOMAIN_REQUEST__INIT;

    vp_pb_set(&request->domain->spec->driver, "nothing");
    g_auto(Answer) driver = create_with(world, request, "");
    failed(&driver, VP_INVALID_ARGUMENT, "UNKNOWN_DRIVER");
    g_auto(Answer) empty = create_with(world, &nothing, "");
    failed(&empty, VP_INVALID_ARGUMENT, "INVALID_SPEC");
    g_autofree char *uid = create(world, "web", NO_LABELS);
}

static void validate_only_creates_nothing(void **state)
{
    World *world = *state;
    vp_pb_auto PbCreateDomainRequest *request = create_request("web", NO_LABELS);

    request->validate_only = TRUE;
    g_auto(Answer) answer = create_with(world, request, "");
    succeeded(&answer);
    assert_int_equal(answer.domain->spec->vcpus, 1);
    g_autoptr(VpError) error = NULL;
    assert_null(vp_domains_get(world->domains, "web", NULL, &error));
    assert_int_equal(settled_revision(world), 0);
}

/* ---- request ids ---- */

static void a_retry_is_answered_as_the_first(void **state)
{
    World *world = *state;
    vp_pb_auto PbCreateDomainRequest *request = create_request("web", NO_LABELS);
    vp_pb_auto PbCreateDomainRequest *other = create_request("db", NO_LABELS);
    g_auto(Answer) first = create_with(world, request, "id-1");
    g_auto(Answer) second = create_with(world, request, "id-1");
    g_auto(Answer) reused = create_with(world, other, "id-1");

    succeeded(&first);
    succeeded(&second);
    assert_string_equal(second.domain->uid, first.domain->uid);
    assert_int_equal(second.revision, first.revision);
    failed(&reused, VP_INVALID_ARGUMENT, "REQUEST_ID_REUSED");

    world_restart(world);
    g_auto(Answer) third = create_with(world, request, "id-1");
    succeeded(&third);
    assert_string_equal(third.domain->uid, first.domain->uid);
    assert_int_equal(third.revision, first.revision);
}

/* The domain of a create that is retried after a delete cannot be answered: that is said, not an empty answer given. */
static void a_retry_after_the_delete(void **state)
{
    World *world = *state;
    vp_pb_auto PbCreateDomainRequest *request = create_request("web", NO_LABELS);
    g_auto(Answer) first = create_with(world, request, "id-1");
    g_auto(Answer) deleted = remove_domain(world, "web", 0, "id-2");
    g_auto(Answer) again = create_with(world, request, "id-1");

    succeeded(&first);
    succeeded(&deleted);
    failed(&again, VP_NOT_FOUND, "DOMAIN_NOT_FOUND");
}

static void a_retried_delete(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", NO_LABELS);
    g_auto(Answer) first = remove_domain(world, "web", 0, "id-2");
    g_auto(Answer) second = remove_domain(world, "web", 0, "id-2");
    g_auto(Answer) other = remove_domain(world, "web", 0, "id-3");

    succeeded(&first);
    succeeded(&second);
    assert_true(first.revision > 0);
    assert_int_equal(second.revision, first.revision);
    failed(&other, VP_NOT_FOUND, "DOMAIN_NOT_FOUND");
}

/* A client that retries before it was answered: both get the one change. */
static void a_retry_beside_the_first(void **state)
{
    World *world = *state;
    VpDomainCaller caller = alice;
    caller.request_id = "id-1";
    g_autofree char *uid = create(world, "web", LABELS("test.fault.start=hang"));
    g_autofree char *operation = verb_no_wait(world, VP_VERB_START, "web");

    wait_state(world, "web", PB_DOMAIN_STATE_STARTING);
    vp_pb_auto PbUpdateDomainRequest *request = update_request("web", LABELS("spec.description"));
    vp_pb_set(&request->domain->spec->description, "changed");
    Call *first = call_new();
    Call *second = call_new();

    /* Both wait behind the start. */
    vp_domains_update(world->domains, request, &caller, 0, call_done, first);
    vp_domains_update(world->domains, request, &caller, 0, call_done, second);
    assert_false(call_is_done(first));
    assert_null(vp_jobs_cancel(world->jobs, operation));
    g_auto(Answer) one = call_wait(first);
    g_auto(Answer) two = call_wait(second);
    succeeded(&one);
    succeeded(&two);
    assert_int_equal(one.revision, two.revision);
    g_autofree char *events = events_of(world, "web");
    assert_string_equal(events, "CREATED STARTING START_FAILED UPDATED");
}

/* ---- updates ---- */

static void an_update_is_one_event(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", NO_LABELS);
    vp_pb_auto PbUpdateDomainRequest *request = update_request("web", LABELS("spec.vcpus", "spec.description"));

    request->domain->spec->vcpus = 4;
    vp_pb_set(&request->domain->spec->description, "a note");
    g_auto(Answer) answer = update(world, request, "");
    g_autofree char *events = events_of(world, "web");
    succeeded(&answer);
    assert_int_equal(answer.domain->spec->vcpus, 4);
    assert_string_equal(answer.domain->spec->description, "a note");
    assert_int_equal(answer.domain->revision, answer.revision);
    assert_string_equal(events, "CREATED UPDATED");

    world_restart(world);
    VpError *error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(world->domains, "web", NULL, &error);
    assert_int_equal(view->domain->spec->vcpus, 4);
    assert_int_equal(view->domain->revision, answer.revision);
}

static void the_expected_revision(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", NO_LABELS);
    vp_pb_auto PbUpdateDomainRequest *request = update_request("web", LABELS("spec.vcpus"));

    request->domain->revision = 1;
    request->domain->spec->vcpus = 2;
    g_auto(Answer) right = update(world, request, "");
    succeeded(&right);
    g_auto(Answer) wrong = update(world, request, "");
    failed(&wrong, VP_ABORTED, "REVISION_CONFLICT");
    assert_string_equal(vp_error_get(wrong.error, "revision"), "2");
    g_auto(Answer) deleted = remove_domain(world, "web", 1, "");
    failed(&deleted, VP_ABORTED, "REVISION_CONFLICT");
    g_auto(Answer) deleted_now = remove_domain(world, "web", 2, "");
    succeeded(&deleted_now);
}

static void validate_only_updates_nothing(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", NO_LABELS);
    vp_pb_auto PbUpdateDomainRequest *request = update_request("web", LABELS("spec.vcpus"));
    const gint64 before = settled_revision(world);

    request->validate_only = TRUE;
    request->domain->spec->vcpus = 9;
    g_auto(Answer) answer = update(world, request, "");
    succeeded(&answer);
    assert_int_equal(answer.domain->spec->vcpus, 9);
    VpError *error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(world->domains, "web", NULL, &error);
    assert_int_equal(view->domain->spec->vcpus, 1);
    assert_int_equal(settled_revision(world), before);
    /* And it tells what is wrong. */
    vp_pb_auto PbUpdateDomainRequest *unknown = update_request("web", LABELS("spec.nothing"));
    unknown->validate_only = TRUE;
    g_auto(Answer) refused = update(world, unknown, "");
    failed(&refused, VP_INVALID_ARGUMENT, "UNKNOWN_FIELD");
    vp_pb_auto PbUpdateDomainRequest *stale = update_request("web", LABELS("spec.vcpus"));
    stale->validate_only = TRUE;
    stale->domain->revision = 4711;
    g_auto(Answer) conflict = update(world, stale, "");
    failed(&conflict, VP_ABORTED, "REVISION_CONFLICT");
}

static void of_a_running_domain_little_can_be_changed(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", NO_LABELS);
    g_auto(Answer) started = verb(world, VP_VERB_START, "web");
    vp_pb_auto PbUpdateDomainRequest *labels = update_request("web", LABELS("labels", "spec.description"));
    vp_pb_auto PbUpdateDomainRequest *vcpus = update_request("web", LABELS("labels", "spec.iothreads"));
    vcpus->domain->spec->iothreads = 3;

    succeeded(&started);
    g_auto(Answer) light = update(world, labels, "");
    succeeded(&light);
    g_auto(Answer) heavy = update(world, vcpus, "");
    failed(&heavy, VP_FAILED_PRECONDITION, "DOMAIN_RUNNING");
    g_auto(Answer) deleted = remove_domain(world, "web", 0, "");
    failed(&deleted, VP_FAILED_PRECONDITION, "DOMAIN_RUNNING");
    vp_pb_auto PbUpdateDomainRequest *nobody = update_request("nobody", LABELS("labels"));
    g_auto(Answer) unknown = update(world, nobody, "");
    failed(&unknown, VP_NOT_FOUND, "DOMAIN_NOT_FOUND");
}

/* ---- deletes ---- */

static void a_deleted_domain_is_gone(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", NO_LABELS);
    g_auto(Answer) answer = remove_domain(world, "web", 0, "");
    g_autoptr(VpError) error = NULL;

    succeeded(&answer);
    assert_null(answer.domain);
    assert_true(answer.revision > 1);
    assert_null(vp_domains_get(world->domains, "web", NULL, &error));
    g_autofree char *again = create(world, "web", NO_LABELS);
    assert_string_not_equal(uid, again);
    g_autofree char *events = events_of(world, "web");
    assert_string_equal(events, "CREATED DELETED CREATED");
    world_restart(world);
    assert_int_equal(state_of(world, "web"), PB_DOMAIN_STATE_SHUTOFF);
}

/* What waits behind a delete finds nothing: nothing is started that nobody could ever find again. */
static void what_waits_behind_a_delete(void **state)
{
    World *world = *state;
    g_autofree char *uid = create(world, "web", LABELS("test.fault.start=hang"));
    g_autofree char *operation = verb_no_wait(world, VP_VERB_START, "web");

    wait_state(world, "web", PB_DOMAIN_STATE_STARTING);
    PbDeleteDomainRequest deletion = PB_DELETE_DOMAIN_REQUEST__INIT;
    const VpVerbRequest start = {.verb = VP_VERB_START, .name = "web"};
    vp_pb_auto PbUpdateDomainRequest *change = update_request("web", LABELS("spec.vcpus"));
    Call *deleted = call_new();
    Call *updated = call_new();
    Call *deleted_again = call_new();

    deletion.name = (char *)"web";
    vp_domains_delete(world->domains, &deletion, &alice, call_done, deleted);
    Call *started = verb_begin(world, &start);
    vp_domains_update(world->domains, change, &alice, 0, call_done, updated);
    vp_domains_delete(world->domains, &deletion, &alice, call_done, deleted_again);
    assert_null(vp_jobs_cancel(world->jobs, operation));

    g_auto(Answer) first = call_wait(deleted);
    g_auto(Answer) second = call_wait(started);
    g_auto(Answer) third = call_wait(updated);
    g_auto(Answer) fourth = call_wait(deleted_again);
    succeeded(&first);
    failed(&second, VP_NOT_FOUND, "DOMAIN_NOT_FOUND");
    failed(&third, VP_NOT_FOUND, "DOMAIN_NOT_FOUND");
    failed(&fourth, VP_NOT_FOUND, "DOMAIN_NOT_FOUND");
    g_autofree char *events = events_of(world, "web");
    assert_string_equal(events, "CREATED STARTING START_FAILED DELETED");
}

/* ---- many at once ---- */

typedef struct Racer {
    World *world;
    guint made;
    guint wrong;
} Racer;

static void *race(void *data)
{
    Racer *racer = data;

    for (guint i = 0; i < 40; i++) {
        g_autofree char *name = g_strdup_printf("d%u", i);
        vp_pb_auto PbCreateDomainRequest *request = create_request(name, NO_LABELS);
        g_auto(Answer) answer = create_with(racer->world, request, "");

        if (!answer.error)
            racer->made++;
        else if (answer.error->code != VP_ALREADY_EXISTS && answer.error->code != VP_ABORTED)
            racer->wrong++;
    }
    return NULL;
}

static void racing_creates(void **state)
{
    World *world = *state;
    Racer racers[4];
    pthread_t threads[4];
    guint made = 0;
    gboolean more = FALSE;

    for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
        racers[i] = (Racer){.world = world};
        assert_null(vp_thread_start(&threads[i], "racer", race, &racers[i]));
    }
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
        made += racers[i].made;
        assert_int_equal(racers[i].wrong, 0);
    }
    assert_int_equal(made, 40);
    g_autoptr(GPtrArray) views = vp_domains_list(world->domains, NULL, NULL, 100, &more);
    assert_int_equal(views->len, 40);
    assert_int_equal(settled_revision(world), 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(created_as_asked, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(found_by_name_and_by_uid, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(names_and_uids_are_taken_once, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_bad_spec_is_refused, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(validate_only_creates_nothing, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_retry_is_answered_as_the_first, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_retry_after_the_delete, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_retried_delete, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_retry_beside_the_first, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(an_update_is_one_event, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(the_expected_revision, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(validate_only_updates_nothing, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(of_a_running_domain_little_can_be_changed, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_deleted_domain_is_gone, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(what_waits_behind_a_delete, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(racing_creates, world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
