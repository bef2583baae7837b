/* Reading keys and the journal from the disk: see reader.h. */
#include "server/store/reader.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/store/db.h"
#include "server/store/tail.h"
#include "server/store/txn.h"

/* Of the journal's events, read at a time; a larger transaction is read whole. */
#define READ_MAX_BYTES (1u << 20)

struct VpReader {
    pthread_mutex_t lock;
    VpDb *db;
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpKeyValue, vp_key_value_free)

VpReader *vp_reader_open(const char *dir, VpError **error)
{
    VpDb *db = vp_db_open_reader(dir, error);

    if (!db) {
        return NULL;
    }
    VpReader *reader = g_new0(VpReader, 1);

    pthread_mutex_init(&reader->lock, NULL);
    reader->db = db;
    return reader;
}

void vp_reader_close(VpReader *reader)
{
    if (!reader) {
        return;
    }
    vp_db_close(reader->db);
    pthread_mutex_destroy(&reader->lock);
    g_free(reader);
}

void vp_key_value_free(VpKeyValue *kv)
{
    if (!kv) {
        return;
    }
    g_free(kv->key);
    g_bytes_unref(kv->value);
    g_free(kv);
}

static VpKeyValue *row_to_kv(sqlite3_stmt *statement)
{
    VpKeyValue *kv = g_new0(VpKeyValue, 1);

    kv->key = g_strdup((const char *)sqlite3_column_text(statement, 0));
    kv->value = vp_db_column_bytes(statement, 1);
    kv->create_revision = sqlite3_column_int64(statement, 2);
    kv->mod_revision = sqlite3_column_int64(statement, 3);
    return kv;
}

static VpError *bad_key(const char *what)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "KEY_INVALID", "%s has 1 to %u bytes of UTF-8", what, VP_STORE_KEY_MAX);
}

VpKeyValue *vp_reader_get(VpReader *reader, const char *key, VpError **error)
{
    if (!vp_store_key_valid(key)) {
        *error = bad_key("a key of the store");
        return NULL;
    }

    VP_LOCK(&reader->lock);
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(reader->db, VP_DB_KEY_GET, error);

    if (!statement) {
        return NULL;
    }
    vp_db_bind_text(statement, 1, key);
    const int rc = sqlite3_step(statement);

    if (rc == SQLITE_ROW) {
        return row_to_kv(statement);
    }
    if (rc != SQLITE_DONE) {
        *error = vp_db_error(reader->db, rc, "read a key");
    }
    return NULL;
}

/* The first text that no key with this prefix reaches: the last byte counted up (there is no 0xff in UTF-8, so it never wraps). */
static char *prefix_end(const char *prefix)
{
    char *end = *prefix ? g_strdup(prefix) : g_strdup("\xff");

    if (*prefix) {
        end[strlen(end) - 1]++;
    }
    return end;
}

/* The reader is locked by the caller. */
static GPtrArray *list_rows(VpDb *db, const char *prefix, const char *after, guint limit, VpError **error)
{
    const gboolean go_on = after && strcmp(after, prefix) >= 0;
    g_autofree char *end = prefix_end(prefix);
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)vp_key_value_free);
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, go_on ? VP_DB_LIST_AFTER : VP_DB_LIST_FROM, error);

    if (!statement) {
        return NULL;
    }
    vp_db_bind_text(statement, 1, go_on ? after : prefix);
    vp_db_bind_text(statement, 2, end);
    sqlite3_bind_int64(statement, 3, limit ? (gint64)limit : -1);

    int rc;

    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        g_ptr_array_add(list, row_to_kv(statement));
    }
    if (rc != SQLITE_DONE) {
        *error = vp_db_error(db, rc, "list keys");
        return NULL;
    }
    return g_steal_pointer(&list);
}

GPtrArray *vp_reader_list(VpReader *reader, const char *prefix, const char *after, guint limit, VpError **error)
{
    if (*prefix && !vp_store_key_valid(prefix)) {
        *error = bad_key("a prefix of keys");
        return NULL;
    }
    VP_LOCK(&reader->lock);
    return list_rows(reader->db, prefix, after, limit, error);
}

GPtrArray *vp_reader_snapshot(VpReader *reader, const char *prefix, gint64 *ret_revision, VpError **error)
{
    VpDbMeta meta = {0};

    if (*prefix && !vp_store_key_valid(prefix)) {
        *error = bad_key("a prefix of keys");
        return NULL;
    }
    VP_LOCK(&reader->lock);
    VpError *failure = vp_db_run(reader->db, VP_DB_BEGIN_READ, "take a snapshot");

    if (failure) {
        *error = failure;
        return NULL;
    }
    failure = vp_db_meta_get(reader->db, &meta);
    GPtrArray *list = failure ? NULL : list_rows(reader->db, prefix, NULL, 0, &failure);

    vp_error_free(vp_db_run(reader->db, VP_DB_ROLLBACK, "take a snapshot"));
    if (!list) {
        *error = failure;
        return NULL;
    }
    *ret_revision = meta.revision;
    return list;
}

/* ---- the journal ---- */

static VpError *compacted_error(gint64 from_revision, gint64 oldest)
{
    g_autofree char *text = g_strdup_printf("%" G_GINT64_FORMAT, oldest);

    return vp_error_with(vp_error_new(VP_OUT_OF_RANGE, "REVISION_COMPACTED",
                                      "the journal is kept from revision %s on; revision %" G_GINT64_FORMAT
                                      " is gone: list the resources anew and watch from the list's revision",
                                      text, from_revision),
                         "oldest_revision", text);
}

static VpError *read_rows(VpDb *db, gint64 from_revision, gint64 end, guint max_entries, GPtrArray *entries,
                          gint64 *ret_next_revision)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, VP_DB_JOURNAL_READ, &error);

    if (!statement) {
        return error;
    }
    sqlite3_bind_int64(statement, 1, from_revision);
    sqlite3_bind_int64(statement, 2, end);

    gint64 last = 0;
    gsize bytes = 0;
    int rc;

    for (guint taken = 0; (rc = sqlite3_step(statement)) == SQLITE_ROW; taken++) {
        const gint64 revision = sqlite3_column_int64(statement, 0);

        if ((taken >= max_entries || bytes >= READ_MAX_BYTES) && revision != last) {
            *ret_next_revision = revision;
            return NULL;
        }
        g_autoptr(GBytes) packed = vp_db_column_bytes(statement, 1);
        PbEvent *event = vp_pb_unpack(&pb_event__descriptor, packed);

        bytes += g_bytes_get_size(packed);
        if (!event) {
            return vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT",
                                "the journal's entry at revision %" G_GINT64_FORMAT " is damaged", revision);
        }
        g_ptr_array_add(entries, vp_journal_entry_new(revision, event, g_steal_pointer(&packed)));
        last = revision;
    }
    if (rc != SQLITE_DONE) {
        return vp_db_error(db, rc, "read the journal");
    }
    *ret_next_revision = end + 1;
    return NULL;
}

/* The oldest revision and the rows come from one snapshot: a step of the compaction in between must not go unseen. */
static VpError *read_snapshot(VpDb *db, gint64 from_revision, gint64 end, guint max_entries, GPtrArray *entries,
                              gint64 *ret_next_revision)
{
    VpDbMeta meta = {0};
    VpError *error = vp_db_meta_get(db, &meta);

    if (error) {
        return error;
    }
    if (from_revision < meta.compacted) {
        return compacted_error(from_revision, meta.compacted);
    }
    return read_rows(db, from_revision, end, max_entries, entries, ret_next_revision);
}

VpError *vp_reader_journal(VpReader *reader, gint64 from_revision, gint64 end, guint max_entries, GPtrArray *entries,
                           gint64 *ret_next_revision)
{
    const guint entries_before = entries->len;

    if (from_revision > end) {
        *ret_next_revision = from_revision;
        return NULL;
    }

    VP_LOCK(&reader->lock);
    VpError *error = vp_db_run(reader->db, VP_DB_BEGIN_READ, "read the journal");

    if (error) {
        return error;
    }
    error = read_snapshot(reader->db, from_revision, end, max_entries, entries, ret_next_revision);
    vp_error_free(vp_db_run(reader->db, VP_DB_ROLLBACK, "read the journal"));
    if (error) {
        g_ptr_array_set_size(entries, (gint)entries_before);
    }
    return error;
}
