/* Request ids, on a real store: remembered with the change they made, over a restart too; refused for another request. */
#include "tests/unit/store/fixture.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/pb.h"
#include "server/domains/requests.h"

#define UID "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55"

static VpRequests *load_for(Fixture *fixture, gint64 keep_seconds)
{
    VpError *error = NULL;
    VpRequests *requests = vp_requests_new(fixture->store, "/requests/", keep_seconds, &error);

    assert_null(error);
    return requests;
}

static VpRequests *load(Fixture *fixture)
{
    return load_for(fixture, VP_REQUESTS_KEEP_SECONDS);
}

static char *fingerprint_of(const char *name)
{
    PbEvent event = PB_EVENT__INIT;

    event.name = (char *)name;
    return vp_request_fingerprint(&event);
}

/* Commits a change with this request id. */
static gint64 make(Fixture *fixture, VpRequests *requests, const char *identity, const char *id,
                   const char *fingerprint)
{
    VpTxn *txn = vp_txn_new();

    txn_put(txn, "/x", id);
    vp_requests_add(requests, txn, identity, id, fingerprint, UID);
    const gint64 revision = commit(fixture->store, txn);
    vp_requests_done(requests, identity, id, fingerprint, UID, revision);
    return revision;
}

static void is_found(VpRequests *requests, const char *identity, const char *id, const char *fingerprint,
                     gint64 revision)
{
    g_autofree char *uid = NULL;
    gint64 found = 0;
    VpError *error = NULL;

    assert_true(vp_requests_find(requests, identity, id, fingerprint, &uid, &found, &error));
    assert_null(error);
    assert_string_equal(uid, UID);
    assert_int_equal(found, revision);
}

static void is_unknown(VpRequests *requests, const char *identity, const char *id, const char *fingerprint)
{
    char *uid = NULL;
    gint64 revision = 0;
    VpError *error = NULL;

    assert_false(vp_requests_find(requests, identity, id, fingerprint, &uid, &revision, &error));
    assert_null(error);
    assert_null(uid);
}

static void is_refused(VpRequests *requests, const char *identity, const char *id, const char *fingerprint)
{
    char *uid = NULL;
    gint64 revision = 0;
    g_autoptr(VpError) error = NULL;

    assert_true(vp_requests_find(requests, identity, id, fingerprint, &uid, &revision, &error));
    assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    assert_string_equal(error->reason, "REQUEST_ID_REUSED");
    assert_null(uid);
}

static void remembered_with_its_fingerprint(void **state)
{
    Fixture *fixture = *state;
    VpRequests *requests = load(fixture);
    g_autofree char *one = fingerprint_of("one");
    g_autofree char *other = fingerprint_of("other");

    assert_string_not_equal(one, other);
    is_unknown(requests, "uid:1", "a", one);
    const gint64 revision = make(fixture, requests, "uid:1", "a", one);
    is_found(requests, "uid:1", "a", one, revision);
    is_refused(requests, "uid:1", "a", other);
    /* Ids of others, and other ids. */
    is_unknown(requests, "uid:11", "a", one);
    is_unknown(requests, "uid:1", "aa", one);
    vp_requests_free(requests);
}

/* Names from certificates have slashes in them, and may be long; the store's keys have a bound. */
static void of_identities_that_look_alike(void **state)
{
    Fixture *fixture = *state;
    VpRequests *requests = load(fixture);
    g_autofree char *one = fingerprint_of("one");
    g_autofree char *many = g_strnfill(512, 'x');
    g_autofree char *longest = g_strconcat("uri:", many, NULL);
    g_autofree char *id = g_strnfill(128, 'y');

    const gint64 revision = make(fixture, requests, "uri:spiffe://a", "b/c", one);
    is_unknown(requests, "uri:spiffe://a/b", "c", one);
    is_found(requests, "uri:spiffe://a", "b/c", one, revision);
    is_found(requests, longest, id, one, make(fixture, requests, longest, id, one));
    vp_requests_free(requests);
}

static void over_a_restart(void **state)
{
    Fixture *fixture = *state;
    VpRequests *requests = load(fixture);
    g_autofree char *one = fingerprint_of("one");
    g_autofree char *other = fingerprint_of("other");
    const gint64 first = make(fixture, requests, "uid:1", "a", one);
    const gint64 second = make(fixture, requests, "uid:1", "b/\xc3\xa4 c", other);

    vp_requests_free(requests);
    fixture_close(fixture);
    fixture_open(fixture, 0, 0);
    requests = load(fixture);
    is_found(requests, "uid:1", "a", one, first);
    is_found(requests, "uid:1", "b/\xc3\xa4 c", other, second);
    is_refused(requests, "uid:1", "a", other);
    vp_requests_free(requests);
}

static void no_id_is_no_request(void **state)
{
    Fixture *fixture = *state;
    VpRequests *requests = load(fixture);
    g_autofree char *one = fingerprint_of("one");

    make(fixture, requests, "uid:1", "", one);
    make(fixture, requests, "uid:1", "", one);
    is_unknown(requests, "uid:1", "", one);
    vp_requests_free(requests);
}

/* Two at once: the second transaction finds the first one's key and changes nothing. */
static void of_two_at_once_one_is_done(void **state)
{
    Fixture *fixture = *state;
    VpRequests *requests = load(fixture);
    g_autofree char *one = fingerprint_of("one");
    VpTxn *first = vp_txn_new();
    VpTxn *second = vp_txn_new();

    vp_requests_add(requests, first, "uid:1", "a", one, UID);
    vp_requests_add(requests, second, "uid:1", "a", one, UID);
    txn_put(second, "/y", "2");
    commit(fixture->store, first);
    g_autoptr(VpError) error = commit_fails(fixture->store, second);
    assert_string_equal(error->reason, "REVISION_CONFLICT");
    assert_value(fixture->store, "/y", NULL);
    vp_requests_free(requests);
}

/* What is older than a day is dropped, from memory and from the store; what is younger stays. */
static void old_ones_are_dropped(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *one = fingerprint_of("one");
    g_autofree char *old = g_strdup_printf("%s " UID " 1000", one);

    put(fixture->store, "/requests/uid:1/old", old);
    put(fixture->store, "/requests/uid:1/garbage", "what is this");
    VpRequests *requests = load(fixture);
    is_found(requests, "uid:1", "old", one, 1);
    make(fixture, requests, "uid:1", "new", one);
    is_unknown(requests, "uid:1", "old", one);
    assert_value(fixture->store, "/requests/uid:1/old", NULL);
    const gint64 newer = make(fixture, requests, "uid:1", "newer", one);
    is_found(requests, "uid:1", "newer", one, newer);
    g_autoptr(GPtrArray) stored = vp_store_list(fixture->store, "/requests/", NULL, 0, &(VpError *){NULL});
    assert_int_equal(stored->len, 3);
    vp_requests_free(requests);
}

/* With an age of 0 each is too old at once: the next one drops it, and its id is as good as new. */
static void an_id_can_be_used_again_after_its_time(void **state)
{
    Fixture *fixture = *state;
    VpRequests *requests = load_for(fixture, 0);
    g_autofree char *one = fingerprint_of("one");
    g_autofree char *other = fingerprint_of("other");
    const gint64 first = make(fixture, requests, "uid:1", "a", one);

    is_found(requests, "uid:1", "a", one, first);
    make(fixture, requests, "uid:1", "", one);
    is_unknown(requests, "uid:1", "a", one);
    const gint64 again = make(fixture, requests, "uid:1", "a", other);
    is_found(requests, "uid:1", "a", other, again);
    vp_requests_free(requests);
}

/* Many are dropped in steps, and none that is not too old. */
static void many_old_ones(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *one = fingerprint_of("one");

    for (int i = 0; i < 200; i++) {
        g_autofree char *key = g_strdup_printf("/requests/uid:1/old-%03d", i);
        g_autofree char *value = g_strdup_printf("%s " UID " %d", one, 1000 + i);

        put(fixture->store, key, value);
    }
    VpRequests *requests = load(fixture);
    for (int i = 0; i < 4; i++) {
        g_autofree char *next = g_strdup_printf("old-%03d", MIN(64 * i, 199));

        is_found(requests, "uid:1", next, one, MIN(64 * i, 199) + 1);
        make(fixture, requests, "uid:1", "", one);
        is_unknown(requests, "uid:1", next, one);
    }
    is_unknown(requests, "uid:1", "old-199", one);
    vp_requests_free(requests);
}

/* The deletion fails: a retry is answered still, and never finds an id that is neither known nor free. */
static void stays_known_while_it_cannot_be_dropped(void **state)
{
    Fixture *fixture = *state;
    VpRequests *requests = load_for(fixture, 0);
    g_autofree char *one = fingerprint_of("one");
    const gint64 first = make(fixture, requests, "uid:1", "a", one);
    struct rlimit before;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit limit = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    VpTxn *txn = vp_txn_new();
    txn_put(txn, "/x", "b");
    vp_requests_add(requests, txn, "uid:1", "b", one, UID);
    g_autoptr(VpError) error = commit_fails(fixture->store, txn);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_string_equal(error->reason, "STORE_FAILED");
    is_found(requests, "uid:1", "a", one, first);

    make(fixture, requests, "uid:1", "", one);
    is_unknown(requests, "uid:1", "a", one);
    make(fixture, requests, "uid:1", "a", one);
    vp_requests_free(requests);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(remembered_with_its_fingerprint, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(of_identities_that_look_alike, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(over_a_restart, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(no_id_is_no_request, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(of_two_at_once_one_is_done, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(old_ones_are_dropped, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(an_id_can_be_used_again_after_its_time, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(many_old_ones, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(stays_known_while_it_cannot_be_dropped, fixture_setup, fixture_teardown),
    };

    signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
