/* See fixture.h. */
#include "tests/unit/store/fixture.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pb.h"

void remove_dir(const char *dir)
{
    g_autoptr(GDir) open = g_dir_open(dir, 0, NULL);
    const char *name;

    while (open && (name = g_dir_read_name(open))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);

        g_unlink(path);
    }
    g_rmdir(dir);
}

int fixture_setup(void **state)
{
    Fixture *fixture = g_new0(Fixture, 1);

    fixture->dir = g_dir_make_tmp("vp-store-XXXXXX", NULL);
    assert_non_null(fixture->dir);
    fixture_open(fixture, 0, 0);
    *state = fixture;
    return 0;
}

int fixture_teardown(void **state)
{
    Fixture *fixture = *state;

    fixture_close(fixture);
    remove_dir(fixture->dir);
    g_free(fixture->dir);
    g_free(fixture);
    return 0;
}

void fixture_open(Fixture *fixture, guint64 journal_max_events, gsize tail_max_bytes)
{
    const VpStoreOptions options = {
        .dir = fixture->dir,
        .journal_max_events = journal_max_events,
        .tail_max_bytes = tail_max_bytes,
    };
    VpError *error = NULL;

    fixture->store = vp_store_open_sqlite(&options, &error);
    if (!fixture->store) {
        fail_msg("cannot open the store: %s", error->message);
    }
    assert_null(error);
}

void fixture_close(Fixture *fixture)
{
    vp_store_close(g_steal_pointer(&fixture->store));
}

gint64 commit(VpStore *store, VpTxn *txn)
{
    VpError *error = NULL;
    const gint64 revision = vp_store_commit_wait(store, txn, &error);

    if (error) {
        fail_msg("commit: %s", error->message);
    }
    return revision;
}

VpError *commit_fails(VpStore *store, VpTxn *txn)
{
    VpError *error = NULL;

    assert_int_equal(vp_store_commit_wait(store, txn, &error), 0);
    assert_non_null(error);
    return error;
}

void txn_put(VpTxn *txn, const char *key, const char *value)
{
    g_autoptr(GBytes) bytes = g_bytes_new(value, strlen(value));

    vp_txn_put(txn, key, bytes);
}

void txn_event(VpTxn *txn, const char *name)
{
    vp_pb_auto PbEvent *event = vp_pb_new(&pb_event__descriptor);

    event->type = PB_EVENT_TYPE_DOMAIN_CREATED;
    vp_pb_set(&event->resource_type, "domain");
    vp_pb_set(&event->name, name);
    vp_txn_event(txn, event);
}

gint64 put(VpStore *store, const char *key, const char *value)
{
    VpTxn *txn = vp_txn_new();

    txn_put(txn, key, value);
    txn_event(txn, key);
    return commit(store, txn);
}

void assert_value(VpStore *store, const char *key, const char *value)
{
    VpError *error = NULL;
    VpKeyValue *kv = vp_store_get(store, key, &error);

    assert_null(error);
    if (!value) {
        assert_null(kv);
        return;
    }
    assert_non_null(kv);
    assert_string_equal(kv->key, key);
    assert_int_equal(g_bytes_get_size(kv->value), strlen(value));
    assert_memory_equal(g_bytes_get_data(kv->value, NULL), value, strlen(value));
    vp_key_value_free(kv);
}

GPtrArray *entries_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
}

char *entries_text(const GPtrArray *entries)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < entries->len; i++) {
        const VpJournalEntry *entry = entries->pdata[i];

        assert_int_equal(entry->event->revision, entry->revision);
        assert_non_null(entry->event->time);
        g_string_append_printf(text, "%s%" G_GINT64_FORMAT ":%s", i ? " " : "", entry->revision, entry->event->name);
    }
    return g_string_free(text, FALSE);
}
