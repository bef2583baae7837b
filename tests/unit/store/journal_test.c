/* The journal: reading from memory and from the disk, its ends, compaction and retention. */
#include <semaphore.h>

#include <sqlite3.h>

#include "base/pb.h"
#include "tests/unit/store/fixture.h"

/* Three transactions: two events, none, three. */
static void fill(VpStore *store)
{
    VpTxn *txn = vp_txn_new();

    txn_event(txn, "a");
    txn_event(txn, "b");
    assert_int_equal(commit(store, txn), 1);
    txn = vp_txn_new();
    txn_put(txn, "/silent", "");
    assert_int_equal(commit(store, txn), 2);
    txn = vp_txn_new();
    txn_event(txn, "c");
    txn_event(txn, "d");
    txn_event(txn, "e");
    assert_int_equal(commit(store, txn), 3);
}

/* Reads from both places, which must agree where memory has it. */
static void assert_read(VpStore *store, gboolean in_tail, gint64 from, guint max, const char *expected,
                        gint64 expected_next)
{
    g_autoptr(GPtrArray) disk = entries_new();
    g_autoptr(GPtrArray) memory = entries_new();
    gint64 next = -1;

    assert_null(vp_store_read_journal(store, from, max, disk, &next));
    g_autofree char *text = entries_text(disk);

    assert_string_equal(text, expected);
    assert_int_equal(next, expected_next);

    next = -1;
    assert_int_equal(vp_store_read_tail(store, from, max, memory, &next), in_tail);
    assert_int_equal(memory->len, in_tail ? disk->len : 0);
    assert_int_equal(next, in_tail ? expected_next : -1);
    for (guint i = 0; i < memory->len; i++) {
        assert_true(
            g_bytes_equal(((VpJournalEntry *)memory->pdata[i])->packed, ((VpJournalEntry *)disk->pdata[i])->packed));
    }
}

static void assert_reads(VpStore *store, gboolean in_tail)
{
    assert_read(store, in_tail, 1, 100, "1:a 1:b 3:c 3:d 3:e", 4);
    assert_read(store, in_tail, 0, 100, "1:a 1:b 3:c 3:d 3:e", 4);
    /* Whole transactions only. */
    assert_read(store, in_tail, 1, 1, "1:a 1:b", 3);
    assert_read(store, in_tail, 1, 2, "1:a 1:b", 3);
    assert_read(store, in_tail, 1, 3, "1:a 1:b 3:c 3:d 3:e", 4);
    assert_read(store, in_tail, 2, 1, "3:c 3:d 3:e", 4);
    /* The last one exactly, the one to come, and one far off. */
    assert_read(store, in_tail, 3, 100, "3:c 3:d 3:e", 4);
    assert_read(store, TRUE, 4, 100, "", 4);
    assert_read(store, TRUE, 1000, 100, "", 1000);
}

static void test_read(void **state)
{
    Fixture *fixture = *state;

    assert_read(fixture->store, TRUE, 1, 100, "", 1);
    fill(fixture->store);
    assert_reads(fixture->store, TRUE);

    /* After a restart memory has nothing of it. */
    fixture_close(fixture);
    fixture_open(fixture, 0, 0);
    assert_reads(fixture->store, FALSE);
    put(fixture->store, "/f", "");
    assert_read(fixture->store, TRUE, 4, 100, "4:/f", 5);
    assert_read(fixture->store, FALSE, 3, 100, "3:c 3:d 3:e 4:/f", 5);
}

static void test_event_is_kept_whole(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;
    vp_pb_auto PbEvent *event = vp_pb_new(&pb_event__descriptor);
    VpTxn *txn = vp_txn_new();

    event->revision = 4711; /* both are the store's to set */
    event->time = vp_pb_timestamp(1);
    event->type = PB_EVENT_TYPE_DOMAIN_CRASHED;
    vp_pb_set(&event->name, "web");
    vp_pb_set(&event->uid, "2f1c");
    vp_pb_set(&event->reason, "PROCESS_EXITED");
    vp_pb_set(&event->detail, "signal 9");
    event->state = PB_DOMAIN_STATE_CRASHED;
    vp_txn_event(txn, event);
    assert_int_equal(commit(store, txn), 1);

    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = 0;

    assert_null(vp_store_read_journal(store, 1, 1, entries, &next));
    const VpJournalEntry *entry = entries->pdata[0];
    vp_pb_auto PbEvent *unpacked = vp_pb_unpack(&pb_event__descriptor, entry->packed);

    assert_int_equal(unpacked->revision, 1);
    assert_int_equal(entry->event->revision, 1);
    assert_true(vp_pb_timestamp_us(entry->event->time) > G_USEC_PER_SEC);
    assert_int_equal(entry->event->type, PB_EVENT_TYPE_DOMAIN_CRASHED);
    assert_string_equal(entry->event->name, "web");
    assert_string_equal(entry->event->uid, "2f1c");
    assert_string_equal(entry->event->reason, "PROCESS_EXITED");
    assert_string_equal(entry->event->detail, "signal 9");
    assert_int_equal(entry->event->state, PB_DOMAIN_STATE_CRASHED);
}

static void assert_gone(VpStore *store, gint64 from, const char *oldest)
{
    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = -1;
    g_autoptr(VpError) error = vp_store_read_journal(store, from, 10, entries, &next);

    assert_non_null(error);
    assert_int_equal(error->code, VP_OUT_OF_RANGE);
    assert_string_equal(error->reason, "REVISION_COMPACTED");
    assert_string_equal(vp_error_get(error, "oldest_revision"), oldest);
    assert_int_equal(entries->len, 0);
    assert_int_equal(next, -1);
    assert_false(vp_store_read_tail(store, from, 10, entries, &next));
}

typedef struct Told {
    VpStore *store;
    gint64 revision;
    gint64 end;
    gint64 counted;
    sem_t done;
} Told;

static void note_told(void *data, gint64 revision, const VpError *error)
{
    Told *told = data;

    assert_null(error);
    told->revision = revision;
    told->end = vp_store_journal_end(told->store);
    told->counted = vp_store_revision(told->store);
    sem_post(&told->done);
}

/* Who was told of a change and then watches from now on does not get that change: its end is past it, though the count is not yet. */
static void test_end_when_told(void **state)
{
    Fixture *fixture = *state;
    Told told = {.store = fixture->store};
    VpTxn *txn = vp_txn_new();

    sem_init(&told.done, 0, 0);
    txn_put(txn, "a", "1");
    txn_event(txn, "a");
    vp_store_commit(fixture->store, txn, note_told, &told);
    sem_wait(&told.done);
    sem_destroy(&told.done);
    assert_int_equal(told.end, told.revision);
    assert_int_equal(told.counted, told.revision - 1);
}

static void test_compact(void **state)
{
    Fixture *fixture = *state;

    fill(fixture->store);
    assert_null(vp_store_compact(fixture->store, 2));
    assert_int_equal(vp_store_oldest_revision(fixture->store), 2);
    assert_gone(fixture->store, 1, "2");
    assert_read(fixture->store, TRUE, 2, 10, "3:c 3:d 3:e", 4);
    assert_value(fixture->store, "/silent", "");

    /* Backwards is no change, the future is refused, the very end is allowed. */
    assert_null(vp_store_compact(fixture->store, 1));
    assert_int_equal(vp_store_oldest_revision(fixture->store), 2);

    g_autoptr(VpError) future = vp_store_compact(fixture->store, 5);

    assert_int_equal(future->code, VP_OUT_OF_RANGE);
    assert_string_equal(future->reason, "REVISION_FUTURE");
    assert_int_equal(vp_store_oldest_revision(fixture->store), 2);
    assert_null(vp_store_compact(fixture->store, 4));
    assert_gone(fixture->store, 3, "4");
    assert_read(fixture->store, TRUE, 4, 10, "", 4);

    fixture_close(fixture);
    fixture_open(fixture, 0, 0);
    assert_int_equal(vp_store_oldest_revision(fixture->store), 4);
    assert_int_equal(vp_store_revision(fixture->store), 3);
    assert_gone(fixture->store, 3, "4");
    put(fixture->store, "/f", "");
    assert_read(fixture->store, TRUE, 4, 10, "4:/f", 5);
}

/* How many rows the journal has on the disk. */
static gint64 journal_rows(Fixture *fixture)
{
    g_autofree char *path = g_build_filename(fixture->dir, "store.db", NULL);
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM journal", -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    const gint64 rows = sqlite3_column_int64(statement, 0);

    sqlite3_finalize(statement);
    sqlite3_close(db);
    return rows;
}

static void fill_many(VpStore *store, int transactions, int events)
{
    for (int i = 0; i < transactions; i++) {
        VpTxn *txn = vp_txn_new();

        for (int j = 0; j < events; j++) {
            txn_event(txn, "many");
        }
        vp_store_commit(store, txn, NULL, NULL);
    }
    commit(store, vp_txn_new());
}

/* The rows go in steps, in the background; commits go on meanwhile, and a restart goes on with what is left. */
static void test_compact_deletes(void **state)
{
    Fixture *fixture = *state;

    fill_many(fixture->store, 500, 4);
    assert_null(vp_store_compact(fixture->store, 400));
    put(fixture->store, "/a", "one");
    fixture_close(fixture);
    fixture_open(fixture, 0, 0);
    while (journal_rows(fixture) != 101 * 4 + 1) {
        commit(fixture->store, vp_txn_new());
    }
    assert_gone(fixture->store, 399, "400");

    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = 0;

    assert_null(vp_store_read_journal(fixture->store, 400, 10000, entries, &next));
    assert_int_equal(entries->len, 101 * 4 + 1);
    assert_int_equal(next, 502);
}

static void test_retention(void **state)
{
    Fixture *fixture = *state;

    fixture_close(fixture);
    fixture_open(fixture, 40, 0);
    fill_many(fixture->store, 100, 3);
    while (journal_rows(fixture) > 50) {
        commit(fixture->store, vp_txn_new());
    }
    /* A start tidies up what is beyond the limit, to the last one: 13 transactions of 3 are left. */
    fixture_close(fixture);
    fixture_open(fixture, 40, 0);
    while (vp_store_oldest_revision(fixture->store) < 88) {
        commit(fixture->store, vp_txn_new());
    }
    assert_int_equal(vp_store_oldest_revision(fixture->store), 88);
    assert_int_equal(journal_rows(fixture), 39);
    assert_gone(fixture->store, 87, "88");

    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = 0;

    assert_null(vp_store_read_journal(fixture->store, 88, 10000, entries, &next));
    assert_int_equal(entries->len, 39);
    assert_int_equal(vp_store_revision(fixture->store), 100);
}

/* A transaction that is larger than the whole journal may be still is not lost, and goes once there is another. */
static void test_retention_of_a_large_one(void **state)
{
    Fixture *fixture = *state;

    fixture_close(fixture);
    fixture_open(fixture, 10, 0);
    fill_many(fixture->store, 1, 600);
    commit(fixture->store, vp_txn_new());
    assert_int_equal(vp_store_oldest_revision(fixture->store), 1);
    assert_int_equal(journal_rows(fixture), 600);
    put(fixture->store, "/a", "one");
    while (journal_rows(fixture) != 1) {
        commit(fixture->store, vp_txn_new());
    }
    assert_read(fixture->store, TRUE, 2, 10, "2:/a", 3);
}

static void test_tail_is_bounded(void **state)
{
    Fixture *fixture = *state;
    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = 0;

    fixture_close(fixture);
    fixture_open(fixture, 0, 20000);
    fill_many(fixture->store, 300, 2);
    assert_false(vp_store_read_tail(fixture->store, 1, 10, entries, &next));
    assert_true(vp_store_read_tail(fixture->store, 300, 10, entries, &next));
    assert_int_equal(entries->len, 2);

    /* What is in it is its end, without a gap. */
    gint64 first = 300;

    while (vp_store_read_tail(fixture->store, first - 1, 1, entries, &next)) {
        first--;
    }
    assert_in_range(first, 200, 295);
    g_ptr_array_set_size(entries, 0);
    assert_true(vp_store_read_tail(fixture->store, first, 10000, entries, &next));
    assert_int_equal(entries->len, (301 - first) * 2);

    /* One that does not fit at all: readers go to the disk for it. */
    fill_many(fixture->store, 1, 600);
    assert_false(vp_store_read_tail(fixture->store, 301, 10, entries, &next));
    g_ptr_array_set_size(entries, 0);
    assert_null(vp_store_read_journal(fixture->store, 301, 10, entries, &next));
    assert_int_equal(entries->len, 600);
    assert_true(vp_store_read_tail(fixture->store, 302, 10, entries, &next));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_event_is_kept_whole, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_end_when_told, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_compact, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_compact_deletes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_retention, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_retention_of_a_large_one, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_tail_is_bounded, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
