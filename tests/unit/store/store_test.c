/* The store's transactions, keys and watches, on a real file. */
#include <stdlib.h>
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "tests/unit/store/fixture.h"

static void test_revisions(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;
    VpError *error = NULL;

    assert_int_equal(vp_store_revision(store), 0);
    assert_int_equal(vp_store_oldest_revision(store), 1);
    assert_int_equal(put(store, "/a", "one"), 1);
    assert_int_equal(put(store, "/b", ""), 2);
    assert_int_equal(put(store, "/a", "two"), 3);
    assert_int_equal(vp_store_revision(store), 3);

    VpKeyValue *kv = vp_store_get(store, "/a", &error);

    assert_int_equal(kv->create_revision, 1);
    assert_int_equal(kv->mod_revision, 3);
    vp_key_value_free(kv);
    assert_value(store, "/a", "two");
    assert_value(store, "/b", "");
    assert_value(store, "/c", NULL);

    VpTxn *txn = vp_txn_new();

    vp_txn_delete(txn, "/a");
    assert_int_equal(commit(store, txn), 4);
    assert_value(store, "/a", NULL);

    /* A key that comes back is a new one. */
    assert_int_equal(put(store, "/a", "three"), 5);
    kv = vp_store_get(store, "/a", &error);
    assert_int_equal(kv->create_revision, 5);
    vp_key_value_free(kv);
}

static void test_no_change_no_revision(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;

    put(store, "/a", "one");
    assert_int_equal(commit(store, vp_txn_new()), 1);

    VpTxn *txn = vp_txn_new();

    vp_txn_delete(txn, "/nothing");
    assert_int_equal(commit(store, txn), 1);

    txn = vp_txn_new();
    vp_txn_compare(txn, "/a", 1);
    assert_int_equal(commit(store, txn), 1);
    assert_int_equal(vp_store_revision(store), 1);
}

static void test_survives_reopen(void **state)
{
    Fixture *fixture = *state;

    put(fixture->store, "/a", "one");
    put(fixture->store, "/b", "two");
    fixture_close(fixture);
    fixture_open(fixture, 0, 0);
    assert_int_equal(vp_store_revision(fixture->store), 2);
    assert_value(fixture->store, "/a", "one");
    assert_int_equal(put(fixture->store, "/c", "three"), 3);
}

static void test_compare(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;

    put(store, "/other", "");
    put(store, "/a", "one");

    VpTxn *txn = vp_txn_new();

    vp_txn_compare(txn, "/a", 0);
    txn_put(txn, "/a", "again");
    txn_event(txn, "never");

    g_autoptr(VpError) exists = commit_fails(store, txn);

    assert_int_equal(exists->code, VP_ABORTED);
    assert_string_equal(exists->reason, "REVISION_CONFLICT");
    assert_string_equal(vp_error_get(exists, "key"), "/a");
    assert_string_equal(vp_error_get(exists, "revision"), "2");
    assert_value(store, "/a", "one");

    txn = vp_txn_new();
    vp_txn_compare(txn, "/gone", 1);
    txn_put(txn, "/a", "again");

    g_autoptr(VpError) absent = commit_fails(store, txn);

    assert_string_equal(vp_error_get(absent, "revision"), "0");
    assert_value(store, "/a", "one");
    assert_int_equal(vp_store_revision(store), 2);

    txn = vp_txn_new();
    vp_txn_compare(txn, "/a", 2);
    vp_txn_compare(txn, "/new", 0);
    txn_put(txn, "/a", "two");
    txn_put(txn, "/new", "x");
    assert_int_equal(commit(store, txn), 3);
    assert_value(store, "/a", "two");
    assert_value(store, "/new", "x");
}

/* ---- groups ---- */

/* Holds the writer thread in a `done` (which real callers must never do), so that what is queued meanwhile becomes one group. */
typedef struct Gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    gboolean entered;
    gboolean open;
    GArray *revisions; /* of gint64: what each commit was told, in the order of the calls; -1: an error */
    GString *reasons;
    pthread_t writer;
} Gate;

static void gate_hold(void *data, gint64 revision, const VpError *error)
{
    Gate *gate = data;

    (void)revision;
    assert_null(error);
    VP_LOCK(&gate->lock);
    gate->entered = TRUE;
    gate->writer = pthread_self();
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
}

static void gate_note(void *data, gint64 revision, const VpError *error)
{
    Gate *gate = data;
    const gint64 told = error ? -1 : revision;

    VP_LOCK(&gate->lock);
    assert_true(pthread_equal(pthread_self(), gate->writer));
    g_array_append_val(gate->revisions, told);
    if (error) {
        g_string_append_printf(gate->reasons, "%s ", error->reason);
    }
    pthread_cond_broadcast(&gate->changed);
}

static void gate_close(Gate *gate, VpStore *store)
{
    memset(gate, 0, sizeof(*gate));
    pthread_mutex_init(&gate->lock, NULL);
    vp_cond_init(&gate->changed);
    gate->revisions = g_array_new(FALSE, FALSE, sizeof(gint64));
    gate->reasons = g_string_new(NULL);
    vp_store_commit(store, vp_txn_new(), gate_hold, gate);
    VP_LOCK(&gate->lock);
    while (!gate->entered) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
}

/* Lets the writer go on, and waits until it has told `count` commits. */
static void gate_open(Gate *gate, guint count)
{
    VP_LOCK(&gate->lock);
    gate->open = TRUE;
    pthread_cond_broadcast(&gate->changed);
    while (gate->revisions->len < count) {
        assert_true(vp_cond_wait_until(&gate->changed, &gate->lock, vp_now_us() + 60 * G_USEC_PER_SEC));
    }
}

static void gate_clear(Gate *gate)
{
    g_array_unref(gate->revisions);
    g_string_free(gate->reasons, TRUE);
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

static void test_group(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;
    Gate gate;

    put(store, "/taken", "by another");
    gate_close(&gate, store);
    for (int i = 0; i < 10; i++) {
        g_autofree char *key = g_strdup_printf("/%d", i);
        VpTxn *txn = vp_txn_new();

        if (i == 4) {
            txn_put(txn, "/half", "done");
            vp_txn_compare(txn, "/taken", 0);
        }
        if (i == 6) {
            /* Sees what the ones before it in the group have written. */
            vp_txn_compare(txn, "/5", 6);
        }
        txn_put(txn, key, "value");
        txn_event(txn, key);
        vp_store_commit(store, txn, gate_note, &gate);
    }
    vp_store_commit(store, vp_txn_new(), gate_note, &gate);

    static const gint64 expected[] = {2, 3, 4, 5, -1, 6, 7, 8, 9, 10, 10};

    gate_open(&gate, G_N_ELEMENTS(expected));
    assert_memory_equal(gate.revisions->data, expected, sizeof(expected));
    assert_string_equal(gate.reasons->str, "REVISION_CONFLICT ");
    assert_value(store, "/half", NULL);
    assert_value(store, "/4", NULL);
    assert_value(store, "/9", "value");

    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = 0;

    assert_null(vp_store_read_journal(store, 2, 100, entries, &next));
    g_autofree char *text = entries_text(entries);

    assert_string_equal(text, "2:/0 3:/1 4:/2 5:/3 6:/5 7:/6 8:/7 9:/8 10:/9");
    gate_clear(&gate);
}

static void test_queue_is_bounded(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;
    Gate gate;

    gate_close(&gate, store);
    for (int i = 0; i < 4100; i++) {
        VpTxn *txn = vp_txn_new();

        txn_put(txn, "/a", "one");
        vp_store_commit(store, txn, gate_note, &gate);
    }
    gate_open(&gate, 4100);
    assert_int_equal(g_array_index(gate.revisions, gint64, 4095), 4096);
    assert_string_equal(gate.reasons->str, "STORE_BUSY STORE_BUSY STORE_BUSY STORE_BUSY ");
    gate_clear(&gate);
}

/* What is queued when the store is closed is committed. */
static void test_close_commits(void **state)
{
    Fixture *fixture = *state;
    Gate gate;

    gate_close(&gate, fixture->store);
    for (int i = 0; i < 600; i++) {
        VpTxn *txn = vp_txn_new();

        txn_put(txn, "/a", i == 599 ? "last" : "one");
        vp_store_commit(fixture->store, txn, gate_note, &gate);
    }
    gate_open(&gate, 0);
    fixture_close(fixture);
    assert_int_equal(gate.revisions->len, 600);
    assert_int_equal(g_array_index(gate.revisions, gint64, 599), 600);
    gate_clear(&gate);
    fixture_open(fixture, 0, 0);
    assert_int_equal(vp_store_revision(fixture->store), 600);
    assert_value(fixture->store, "/a", "last");
}

typedef struct Order {
    VpStore *store;
    gboolean checked;
} Order;

static void order_check(void *data, gint64 revision, const VpError *error)
{
    Order *order = data;
    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = 0;

    assert_null(error);
    assert_int_equal(revision, 1);
    assert_true(vp_store_read_tail(order->store, 1, 10, entries, &next));
    assert_int_equal(entries->len, 1);
    assert_int_equal(next, 2);
    assert_int_equal(vp_store_revision(order->store), 0);
    order->checked = TRUE;
}

/* The order that makes "list, then watch from its revision" safe: events, callers, revision. */
static void test_publish_order(void **state)
{
    Order order = {.store = ((Fixture *)*state)->store};
    VpTxn *txn = vp_txn_new();

    txn_event(txn, "a");
    vp_store_commit(order.store, txn, order_check, &order);
    commit(order.store, vp_txn_new());
    assert_true(order.checked);
    assert_int_equal(vp_store_revision(order.store), 1);
}

/* ---- bounds ---- */

static void assert_refused(VpStore *store, VpTxn *txn, const char *reason)
{
    g_autoptr(VpError) error = commit_fails(store, txn);

    assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    assert_string_equal(error->reason, reason);
}

static void test_bounds(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;
    g_autofree char *long_key = g_strnfill(1025, 'k');
    g_autofree char *big = g_malloc0((4 << 20) + 1);
    g_autoptr(GBytes) just_fits = g_bytes_new(big, 4 << 20);
    g_autoptr(GBytes) too_big = g_bytes_new(big, (4 << 20) + 1);
    VpTxn *txn = vp_txn_new();

    txn_put(txn, long_key, "");
    assert_refused(store, txn, "KEY_INVALID");
    txn = vp_txn_new();
    vp_txn_delete(txn, "");
    assert_refused(store, txn, "KEY_INVALID");
    txn = vp_txn_new();
    vp_txn_compare(txn, "/\xc3(", 0);
    assert_refused(store, txn, "KEY_INVALID");

    txn = vp_txn_new();
    txn_put(txn, "/first", "");
    vp_txn_put(txn, "/a", too_big);
    txn_put(txn, "/last", "");
    assert_refused(store, txn, "VALUE_TOO_LARGE");
    assert_value(store, "/first", NULL);
    assert_value(store, "/last", NULL);

    long_key[1024] = '\0';
    txn = vp_txn_new();
    vp_txn_put(txn, long_key, just_fits);
    assert_int_equal(commit(store, txn), 1);

    txn = vp_txn_new();
    for (int i = 0; i < 4097; i++) {
        vp_txn_delete(txn, "/a");
    }
    assert_refused(store, txn, "TRANSACTION_TOO_LARGE");
    txn = vp_txn_new();
    for (int i = 0; i < 8; i++) {
        vp_txn_put(txn, "/a", just_fits);
    }
    assert_refused(store, txn, "TRANSACTION_TOO_LARGE");

    g_autofree char *long_name = g_strnfill(64 << 10, 'n');

    txn = vp_txn_new();
    txn_event(txn, long_name);
    assert_refused(store, txn, "EVENT_TOO_LARGE");
    assert_int_equal(vp_store_revision(store), 1);
}

/* ---- lists ---- */

static void assert_list(VpStore *store, const char *prefix, const char *after, guint limit, const char *expected)
{
    VpError *error = NULL;
    g_autoptr(GPtrArray) list = vp_store_list(store, prefix, after, limit, &error);
    g_autoptr(GString) text = g_string_new(NULL);

    assert_null(error);
    assert_non_null(list);
    for (guint i = 0; i < list->len; i++) {
        const VpKeyValue *kv = list->pdata[i];

        g_string_append_printf(text, "%s%s", i ? " " : "", kv->key);
    }
    assert_string_equal(text->str, expected);
}

static void test_list(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;
    VpTxn *txn = vp_txn_new();

    txn_put(txn, "/d/b", "");
    txn_put(txn, "/d/a", "");
    txn_put(txn, "/d/c", "");
    txn_put(txn, "/d", "");
    txn_put(txn, "/d0", "");
    txn_put(txn, "/d/\xf4\x8f\xbf\xbf", ""); /* the last character there is */
    txn_put(txn, "/e", "");
    commit(store, txn);

    assert_list(store, "/d/", NULL, 0, "/d/a /d/b /d/c /d/\xf4\x8f\xbf\xbf");
    assert_list(store, "/d/", NULL, 2, "/d/a /d/b");
    assert_list(store, "/d/", "/d/b", 1, "/d/c");
    assert_list(store, "/d/", "/d/bb", 1, "/d/c");
    assert_list(store, "/d/", "/a", 1, "/d/a");
    assert_list(store, "/d/", "/e", 0, "");
    assert_list(store, "/d/\xf4\x8f\xbf\xbf", NULL, 0, "/d/\xf4\x8f\xbf\xbf");
    assert_list(store, "", NULL, 0, "/d /d/a /d/b /d/c /d/\xf4\x8f\xbf\xbf /d0 /e");
    assert_list(store, "/x", NULL, 0, "");

    VpError *error = NULL;

    assert_null(vp_store_list(store, "\xff", NULL, 0, &error));
    assert_string_equal(error->reason, "KEY_INVALID");
    vp_error_free(error);
    error = NULL;
    assert_null(vp_store_get(store, "", &error));
    assert_string_equal(error->reason, "KEY_INVALID");
    vp_error_free(error);
}

/* ---- watches ---- */

typedef struct Woken {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    guint count;
    gboolean hold;
} Woken;

static void woken_wake(void *data)
{
    Woken *woken = data;

    VP_LOCK(&woken->lock);
    woken->count++;
    pthread_cond_broadcast(&woken->changed);
    while (woken->hold) {
        pthread_cond_wait(&woken->changed, &woken->lock);
    }
}

static void woken_wait(Woken *woken, guint count)
{
    VP_LOCK(&woken->lock);
    while (woken->count < count) {
        assert_true(vp_cond_wait_until(&woken->changed, &woken->lock, vp_now_us() + 30 * G_USEC_PER_SEC));
    }
}

static guint woken_count(Woken *woken)
{
    VP_LOCK(&woken->lock);
    return woken->count;
}

static void *release_woken(void *data)
{
    Woken *woken = data;

    VP_LOCK(&woken->lock);
    woken->hold = FALSE;
    pthread_cond_broadcast(&woken->changed);
    return NULL;
}

static void test_watch(void **state)
{
    VpStore *store = ((Fixture *)*state)->store;
    Woken a = {.lock = PTHREAD_MUTEX_INITIALIZER};
    Woken b = {.lock = PTHREAD_MUTEX_INITIALIZER};

    vp_cond_init(&a.changed);
    vp_cond_init(&b.changed);

    VpStoreWatch *watch_a = vp_store_watch(store, woken_wake, &a);
    VpStoreWatch *watch_b = vp_store_watch(store, woken_wake, &b);

    put(store, "/a", "one");
    woken_wait(&a, 1);
    woken_wait(&b, 1);
    commit(store, vp_txn_new()); /* changes nothing, wakes nobody */
    vp_store_unwatch(store, watch_a);
    put(store, "/a", "two");
    woken_wait(&b, 2);
    assert_int_equal(woken_count(&a), 1);

    /* A call that is under way is waited for. */
    pthread_mutex_lock(&b.lock);
    b.hold = TRUE;
    pthread_mutex_unlock(&b.lock);
    put(store, "/a", "three");
    woken_wait(&b, 3);

    pthread_t releaser;

    assert_null(vp_thread_start(&releaser, "releaser", release_woken, &b));
    vp_store_unwatch(store, watch_b);
    assert_false(b.hold); /* no lock: nobody else is there any more */
    pthread_join(releaser, NULL);
    put(store, "/a", "four");
    assert_int_equal(b.count, 3);
}

/* ---- many threads ---- */

#define INCREMENTS 50
#define WRITERS 4

static void *increment(void *data)
{
    VpStore *store = data;

    for (int done = 0; done < INCREMENTS;) {
        VpError *error = NULL;
        VpKeyValue *kv = vp_store_get(store, "/counter", &error);

        assert_null(error);
        const int value = kv ? atoi(g_bytes_get_data(kv->value, NULL)) : 0;
        g_autofree char *text = g_strdup_printf("%d", value + 1);
        g_autoptr(GBytes) bytes = g_bytes_new(text, strlen(text) + 1);
        VpTxn *txn = vp_txn_new();

        vp_txn_compare(txn, "/counter", kv ? kv->mod_revision : 0);
        vp_txn_put(txn, "/counter", bytes);
        txn_event(txn, text);
        vp_store_commit_wait(store, txn, &error);
        if (!error) {
            done++;
        } else {
            assert_string_equal(error->reason, "REVISION_CONFLICT");
            vp_error_free(error);
        }
        vp_key_value_free(kv);
    }
    return NULL;
}

/* Follows the journal as a stream does: from memory where it can, from the disk where it must; no gap, no repeat, in order. */
static void *follow(void *data)
{
    VpStore *store = data;
    gint64 next = 1;

    for (int seen = 0; seen < INCREMENTS * WRITERS;) {
        g_autoptr(GPtrArray) entries = entries_new();

        if (!vp_store_read_tail(store, next, 7, entries, &next)) {
            assert_null(vp_store_read_journal(store, next, 7, entries, &next));
        }
        for (guint i = 0; i < entries->len; i++) {
            const VpJournalEntry *entry = entries->pdata[i];

            seen++;
            assert_int_equal(entry->revision, seen);
            assert_int_equal(atoi(entry->event->name), seen);
        }
        if (entries->len == 0) {
            sched_yield();
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    Fixture *fixture = *state;
    pthread_t threads[WRITERS + 2];

    fixture_close(fixture);
    fixture_open(fixture, 0, 2000); /* a tail of a few entries, so that both ways are taken */
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
        assert_null(vp_thread_start(&threads[i], "tester", i < WRITERS ? increment : follow, fixture->store));
    }
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(vp_store_revision(fixture->store), INCREMENTS * WRITERS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_revisions, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_no_change_no_revision, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_survives_reopen, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_compare, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_group, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_queue_is_bounded, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_close_commits, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_publish_order, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_bounds, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_list, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_watch, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_threads, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
