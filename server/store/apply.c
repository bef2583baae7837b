/* Transactions and compaction steps on the database: see apply.h. */
#include "server/store/apply.h"

#include "base/pb.h"
#include "server/store/tail.h"

#define TRIM_ROWS 256

static VpError *conflict_error(const VpTxnCompare *compare, gint64 present)
{
    g_autofree char *text = g_strdup_printf("%" G_GINT64_FORMAT, present);
    g_autofree char *is =
        present ? g_strdup_printf("was last changed at revision %s", text) : g_strdup("does not exist");
    g_autofree char *expected =
        compare->mod_revision
            ? g_strdup_printf("the change was made for revision %" G_GINT64_FORMAT, compare->mod_revision)
            : g_strdup("it must not exist yet");
    VpError *error = vp_error_new(VP_ABORTED, "REVISION_CONFLICT", "'%s' %s, but %s; read it again and retry",
                                  compare->key, is, expected);

    return vp_error_with(vp_error_with(error, "key", compare->key), "revision", text);
}

static VpError *check_compare(VpDb *db, const VpTxnCompare *compare)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, VP_DB_KEY_REVISION, &error);

    if (!statement) {
        return error;
    }
    vp_db_bind_text(statement, 1, compare->key);
    const int rc = sqlite3_step(statement);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        return vp_db_error(db, rc, "read a key's revision");
    }
    const gint64 present = rc == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;

    return present == compare->mod_revision ? NULL : conflict_error(compare, present);
}

static VpError *make_change(VpDb *db, const VpTxnChange *change, gint64 revision, gboolean *changed)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, change->value ? VP_DB_KEY_PUT : VP_DB_KEY_DELETE, &error);

    if (!statement) {
        return error;
    }
    vp_db_bind_text(statement, 1, change->key);
    if (change->value) {
        vp_db_bind_bytes(statement, 2, change->value);
        sqlite3_bind_int64(statement, 3, revision);
    }
    error = vp_db_step(db, statement, "write a key");
    if (!error && sqlite3_changes(vp_db_handle(db)) > 0) {
        *changed = TRUE;
    }
    return error;
}

static VpError *append_event(VpDb *db, const PbEvent *event, guint seq, gint64 revision, gint64 wall_us,
                             GPtrArray *entries)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, VP_DB_JOURNAL_PUT, &error);

    if (!statement) {
        return error;
    }
    PbEvent *stamped = vp_pb_dup(event);

    stamped->revision = revision;
    vp_pb_free(stamped->time);
    stamped->time = vp_pb_timestamp(wall_us);
    VpJournalEntry *entry = vp_journal_entry_new(revision, stamped, vp_pb_pack(stamped));

    g_ptr_array_add(entries, entry);
    sqlite3_bind_int64(statement, 1, revision);
    sqlite3_bind_int64(statement, 2, seq);
    vp_db_bind_bytes(statement, 3, entry->packed);
    return vp_db_step(db, statement, "append to the journal");
}

static VpError *make_changes(VpDb *db, const VpTxn *txn, gint64 wall_us, VpDbMeta *meta, GPtrArray *entries)
{
    const gint64 revision = meta->revision + 1;
    gboolean changed = txn->events->len > 0;

    for (guint i = 0; i < txn->compares->len; i++) {
        VpError *error = check_compare(db, &g_array_index(txn->compares, VpTxnCompare, i));

        if (error) {
            return error;
        }
    }
    for (guint i = 0; i < txn->changes->len; i++) {
        VpError *error = make_change(db, &g_array_index(txn->changes, VpTxnChange, i), revision, &changed);

        if (error) {
            return error;
        }
    }
    for (guint i = 0; i < txn->events->len; i++) {
        VpError *error = append_event(db, txn->events->pdata[i], i, revision, wall_us, entries);

        if (error) {
            return error;
        }
    }
    if (changed) {
        meta->revision = revision;
        meta->events += txn->events->len;
    }
    return NULL;
}

VpError *vp_apply_txn(VpDb *db, const VpTxn *txn, gint64 wall_us, VpDbMeta *meta, GPtrArray *entries)
{
    const guint entries_before = entries->len;
    VpDbMeta after = *meta;
    VpError *error = vp_db_run(db, VP_DB_SAVEPOINT, "begin a transaction");

    if (error) {
        return error;
    }
    error = make_changes(db, txn, wall_us, &after, entries);
    if (!error) {
        error = vp_db_run(db, VP_DB_SAVEPOINT_RELEASE, "end a transaction");
    }
    if (!error) {
        *meta = after;
        return NULL;
    }

    g_ptr_array_set_size(entries, (gint)entries_before);
    if (!sqlite3_get_autocommit(vp_db_handle(db))) {
        VpError *failed = vp_db_run(db, VP_DB_SAVEPOINT_ROLLBACK, "undo a transaction");

        if (!failed) {
            failed = vp_db_run(db, VP_DB_SAVEPOINT_RELEASE, "undo a transaction");
        }
        if (failed) {
            /* Half of it might be left: then nothing of the group may be committed, and this is what all of them are told. */
            vp_error_free(vp_db_run(db, VP_DB_ROLLBACK, "undo a group of transactions"));
            vp_error_free(error);
            return failed;
        }
    }
    return error;
}

/* ---- compaction ---- */

/* The revision in one row of a statement with one parameter; 0 if there is no row. */
static VpError *find_revision(VpDb *db, VpDbSql sql, gint64 parameter, gint64 *ret_revision)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, sql, &error);

    if (!statement) {
        return error;
    }
    sqlite3_bind_int64(statement, 1, parameter);
    const int rc = sqlite3_step(statement);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        return vp_db_error(db, rc, "compact the journal");
    }
    *ret_revision = rc == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    return NULL;
}

/* Up to which revision (exclusive) this step deletes: 0 if nothing is to be deleted. `rows` are to go at most, but for a single transaction that has more. */
static VpError *trim_end(VpDb *db, gint64 rows, gint64 *ret_end)
{
    gint64 first = 0;
    gint64 end = 0;
    VpError *error = find_revision(db, VP_DB_JOURNAL_NTH, 0, &first);

    if (!error) {
        error = find_revision(db, VP_DB_JOURNAL_NTH, rows, &end);
    }
    if (!error && end && end == first) {
        error = find_revision(db, VP_DB_JOURNAL_NEXT, first, &end);
    }
    if (!error) {
        *ret_end = end;
    }
    return error;
}

static VpError *trim_rows(VpDb *db, guint64 max_events, VpDbMeta *meta, gboolean *ret_more)
{
    gint64 first = 0;
    VpError *error = find_revision(db, VP_DB_JOURNAL_NTH, 0, &first);

    if (error) {
        return error;
    }
    const gboolean compacted_left = first && first < meta->compacted;
    const gint64 excess = meta->events > (gint64)max_events ? meta->events - (gint64)max_events : 0;

    *ret_more = FALSE;
    if (!compacted_left && !excess) {
        return NULL;
    }

    gint64 end = 0;

    error = trim_end(db, compacted_left ? TRIM_ROWS : MIN(TRIM_ROWS, excess), &end);
    if (error) {
        return error;
    }
    if (compacted_left && (!end || end > meta->compacted)) {
        end = meta->compacted;
    }
    if (!end) {
        return NULL; /* a single transaction is left: it stays, however large */
    }

    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, VP_DB_JOURNAL_TRIM, &error);

    if (!statement) {
        return error;
    }
    sqlite3_bind_int64(statement, 1, end);
    error = vp_db_step(db, statement, "compact the journal");
    if (error) {
        return error;
    }
    meta->events -= sqlite3_changes(vp_db_handle(db));
    meta->compacted = MAX(meta->compacted, end);
    *ret_more = TRUE;
    return vp_db_meta_set(db, meta);
}

VpError *vp_apply_trim(VpDb *db, guint64 max_events, VpDbMeta *meta, gboolean *ret_more)
{
    VpDbMeta after = *meta;
    VpError *error = vp_db_run(db, VP_DB_BEGIN, "compact the journal");

    if (error) {
        return error;
    }
    error = trim_rows(db, max_events, &after, ret_more);
    if (!error) {
        error = vp_db_run(db, *ret_more ? VP_DB_COMMIT : VP_DB_ROLLBACK, "compact the journal");
    }
    if (error) {
        if (!sqlite3_get_autocommit(vp_db_handle(db))) {
            vp_error_free(vp_db_run(db, VP_DB_ROLLBACK, "compact the journal"));
        }
        return error;
    }
    *meta = after;
    return NULL;
}
