/* Transactions and compaction steps on the database: see apply.h. */
#include "server/store/apply.h"

#include "base/pb.h"
#include "server/store/tail.h"

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
                             GPtrArray *entries, gint64 *bytes)
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
    *bytes += (gint64)g_bytes_get_size(entry->packed);
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
        VpError *error = append_event(db, txn->events->pdata[i], i, revision, wall_us, entries, &meta->bytes);

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

/* The entries of one transaction, which go together or stay together. */
typedef struct Batch {
    gint64 revision;
    gint64 wall_us;
    gint64 rows;
    gint64 bytes;
} Batch;

/* When the event in the row was written; 0 if it cannot be read: what is damaged counts as old. */
static gint64 row_wall_us(sqlite3_stmt *statement)
{
    g_autoptr(GBytes) packed = vp_db_column_bytes(statement, 2);
    vp_pb_auto PbEvent *event = vp_pb_unpack(&pb_event__descriptor, packed);

    return event && event->time ? event->time->seconds * G_USEC_PER_SEC + event->time->nanos / 1000 : 0;
}

/* Whether what is oldest may go, `meta` being what is left. */
static gboolean may_go(const VpRetention *keep, gint64 wall_us, const VpDbMeta *meta, const Batch *batch)
{
    if (batch->revision < meta->compacted) {
        return TRUE;
    }
    if (meta->events - batch->rows < (gint64)keep->keep_events) {
        return FALSE;
    }
    const gint64 age_us = wall_us - batch->wall_us;

    if (keep->keep_age_us && age_us < keep->keep_age_us) {
        return FALSE;
    }
    return meta->events > (gint64)keep->max_events || (keep->max_bytes && meta->bytes > (gint64)keep->max_bytes) ||
           (keep->max_age_us && age_us >= keep->max_age_us);
}

static void drop(VpDbMeta *meta, const Batch *batch)
{
    meta->events -= batch->rows;
    meta->bytes -= batch->bytes;
}

/* Walks from the oldest entry on. `ret_end`: up to which revision (exclusive) this step deletes, 0: nothing; `left`: what remains then. */
static VpError *find_end(VpDb *db, const VpRetention *keep, gint64 wall_us, VpDbMeta *left, gint64 *ret_end,
                         gboolean *ret_more)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, VP_DB_JOURNAL_ALL, &error);
    const gboolean timed = keep->max_age_us || keep->keep_age_us;
    const gint64 enough = left->events - VP_TRIM_ROWS;
    Batch batch = {0};
    int rc;

    if (!statement) {
        return error;
    }
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        const gint64 revision = sqlite3_column_int64(statement, 0);

        if (batch.rows && revision != batch.revision) {
            if (!may_go(keep, wall_us, left, &batch)) {
                return NULL;
            }
            drop(left, &batch);
            *ret_end = batch.revision < left->compacted ? MIN(revision, left->compacted) : revision;
            if (left->events <= enough) {
                *ret_more = TRUE;
                return NULL;
            }
            batch = (Batch){0};
        }
        if (!batch.rows) {
            batch.revision = revision;
            batch.wall_us = timed ? row_wall_us(statement) : 0;
        }
        batch.rows++;
        batch.bytes += sqlite3_column_int64(statement, 1);
    }
    if (rc != SQLITE_DONE) {
        return vp_db_error(db, rc, "compact the journal");
    }
    /* The last one goes by order alone: a journal that is not empty tells where it stands. */
    if (batch.rows && batch.revision < left->compacted) {
        drop(left, &batch);
        *ret_end = left->compacted;
    }
    return NULL;
}

static VpError *trim_rows(VpDb *db, const VpRetention *keep, gint64 wall_us, VpDbMeta *meta, gboolean *ret_done,
                          gboolean *ret_more)
{
    gint64 end = 0;
    VpError *error = find_end(db, keep, wall_us, meta, &end, ret_more);

    if (error || !end) {
        return error;
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
    meta->compacted = MAX(meta->compacted, end);
    *ret_done = TRUE;
    return vp_db_meta_set(db, meta);
}

static VpError *trim_step(VpDb *db, const VpRetention *keep, gint64 wall_us, VpDbMeta *meta, gboolean *ret_more)
{
    gboolean done = FALSE;
    VpError *error = vp_db_run(db, VP_DB_BEGIN, "compact the journal");

    if (error) {
        return error;
    }
    error = trim_rows(db, keep, wall_us, meta, &done, ret_more);
    if (!error) {
        error = vp_db_run(db, done ? VP_DB_COMMIT : VP_DB_ROLLBACK, "compact the journal");
    }
    if (error && !sqlite3_get_autocommit(vp_db_handle(db))) {
        vp_error_free(vp_db_run(db, VP_DB_ROLLBACK, "compact the journal"));
    }
    return error;
}

VpError *vp_apply_trim(VpDb *db, const VpRetention *keep, gint64 wall_us, VpDbMeta *meta, gboolean *ret_more)
{
    VpDbMeta after = *meta;
    gboolean more = FALSE;
    /* A step waits for no fsync: one that a power cut takes back is done again. The next commit's fsync makes it durable. */
    VpError *error = vp_db_set_durable(db, FALSE);

    if (!error) {
        error = trim_step(db, keep, wall_us, &after, &more);
    }
    if (error) {
        return error;
    }
    *meta = after;
    *ret_more = more;
    return NULL;
}
