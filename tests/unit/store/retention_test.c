/* What is kept of the journal: by count, bytes and age, with a floor under all three. */
#include "tests/unit/store/fixture.h"

static void open_with(Fixture *fixture, VpStoreOptions options)
{
    VpError *error = NULL;

    fixture_close(fixture);
    options.dir = fixture->dir;
    fixture->store = vp_store_open_sqlite(&options, &error);
    assert_non_null(fixture->store);
}

static void put_many(VpStore *store, guint count)
{
    for (guint i = 0; i < count; i++) {
        put(store, "/a", "x");
    }
}

static VpStoreStats stats_of(VpStore *store)
{
    VpStoreStats stats;

    vp_store_stats(store, &stats);
    return stats;
}

/* Compaction runs behind the commits: waits until `most` events are left. */
static void wait_for_events(VpStore *store, gint64 most)
{
    const gint64 deadline = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;

    while (stats_of(store).journal_events > most) {
        assert_true(g_get_monotonic_time() < deadline);
        g_usleep(1000);
    }
}

static void wait_for_bytes(VpStore *store, gint64 most)
{
    const gint64 deadline = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;

    while (stats_of(store).journal_bytes > most) {
        assert_true(g_get_monotonic_time() < deadline);
        g_usleep(1000);
    }
}

/* The journal, from its oldest revision on, has as many events and bytes as it believes. */
static void assert_counts(VpStore *store)
{
    g_auto(VpStoreReport) report = {0};
    VpError *error = NULL;

    /* A commit is told before the numbers know of it; they do when the next one is told. */
    vp_store_commit_wait(store, vp_txn_new(), &error);
    assert_null(error);
    assert_null(vp_store_check(store, NULL, NULL, &report));
    if (report.problems->len) {
        fail_msg("%s", (char *)report.problems->pdata[0]);
    }
    assert_int_equal(report.events, stats_of(store).journal_events);
    assert_int_equal(report.events, vp_store_revision(store) - vp_store_oldest_revision(store) + 1);
}

static void test_count(void **state)
{
    Fixture *fixture = *state;

    open_with(fixture, (VpStoreOptions){.journal_max_events = 20});
    put_many(fixture->store, 100);
    wait_for_events(fixture->store, 25);
    assert_true(stats_of(fixture->store).journal_events >= 20);
    assert_counts(fixture->store);
}

static void test_bytes(void **state)
{
    Fixture *fixture = *state;

    put_many(fixture->store, 10);
    const gint64 each = stats_of(fixture->store).journal_bytes / 10;

    open_with(fixture, (VpStoreOptions){.journal_max_bytes = (guint64)each * 30});
    put_many(fixture->store, 200);
    /* Revisions of three digits take a byte or two more than those that `each` was taken of. */
    wait_for_bytes(fixture->store, each * 33);
    assert_true(stats_of(fixture->store).journal_bytes >= each * 25);
    assert_counts(fixture->store);
}

static void test_age(void **state)
{
    Fixture *fixture = *state;

    put_many(fixture->store, 30);
    /* Without a further commit: the writer looks by itself. The last one stays. */
    open_with(fixture, (VpStoreOptions){.journal_max_age_s = 1});
    wait_for_events(fixture->store, 1);
    assert_int_equal(vp_store_oldest_revision(fixture->store), 30);
    assert_counts(fixture->store);
}

static void test_floor_by_count(void **state)
{
    Fixture *fixture = *state;

    open_with(fixture, (VpStoreOptions){.journal_max_events = 5,
                                        .journal_max_bytes = 1,
                                        .journal_max_age_s = 1,
                                        .journal_keep_events = 40});
    put_many(fixture->store, 100);
    wait_for_events(fixture->store, 41);
    g_usleep(1500 * 1000); /* nothing to wait for: it is about what does not happen once all are too old */
    put_many(fixture->store, 1);
    assert_true(stats_of(fixture->store).journal_events >= 40);
    assert_counts(fixture->store);
}

static void test_floor_by_age(void **state)
{
    Fixture *fixture = *state;

    open_with(fixture, (VpStoreOptions){.journal_max_events = 5, .journal_max_bytes = 1, .journal_keep_age_s = 3600});
    put_many(fixture->store, 100);
    assert_int_equal(vp_store_oldest_revision(fixture->store), 1);
    assert_true(stats_of(fixture->store).compactions > 0);
    assert_counts(fixture->store);
}

/* Events of one transaction go together. */
static void test_whole_transactions(void **state)
{
    Fixture *fixture = *state;

    open_with(fixture, (VpStoreOptions){.journal_max_events = 10});
    for (guint i = 0; i < 10; i++) {
        VpTxn *txn = vp_txn_new();

        for (guint j = 0; j < 7; j++) {
            txn_event(txn, "many");
        }
        commit(fixture->store, txn);
    }
    wait_for_events(fixture->store, 12);
    assert_int_equal(stats_of(fixture->store).journal_events % 7, 0);
    assert_true(stats_of(fixture->store).journal_events > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_count, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_bytes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_age, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_floor_by_count, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_floor_by_age, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_whole_transactions, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests_name("store_retention", tests, NULL, NULL);
}
