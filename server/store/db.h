/*
 * One connection to the store's database file, with the statements it needs, prepared once. For one thread at a time; who shares a
 * connection guards it. The rules of the file (WAL, synchronous=FULL, schema, version) are here.
 */
#pragma once

#include <sqlite3.h>

#include "server/store/store.h"

/* An outside `sqlite3 .backup` may hold the database for a moment. */
#define VP_DB_BUSY_TIMEOUT_MS 5000

/* The database in the store's directory. */
#define VP_DB_FILE_NAME "store.db"

typedef struct VpDb VpDb;

/* What the one row of `meta` says. */
typedef struct VpDbMeta {
    gint64 revision;  /* of the last transaction */
    gint64 compacted; /* the oldest revision that can be read from the journal */
    gint64 events;    /* rows in the journal, those included that are compacted but not yet deleted */
    gint64 bytes;     /* of those rows' events */
} VpDbMeta;

typedef enum VpDbSql {
    VP_DB_BEGIN,
    VP_DB_BEGIN_READ,
    VP_DB_COMMIT,
    VP_DB_ROLLBACK,
    VP_DB_SAVEPOINT,
    VP_DB_SAVEPOINT_RELEASE,
    VP_DB_SAVEPOINT_ROLLBACK,
    VP_DB_META_GET,
    VP_DB_META_SET,
    VP_DB_KEY_REVISION,
    VP_DB_KEY_PUT,
    VP_DB_KEY_DELETE,
    VP_DB_KEY_GET,
    VP_DB_LIST_FROM,
    VP_DB_LIST_AFTER,
    VP_DB_JOURNAL_PUT,
    VP_DB_JOURNAL_READ,
    VP_DB_JOURNAL_ALL,
    VP_DB_JOURNAL_LAST,
    VP_DB_JOURNAL_TRIM,
    VP_DB_SQL_MAX,
} VpDbSql;

/* Opens DIR/store.db for writing: creates it with its schema if it is not there, checks whose it is, its version and its meta row. */
VpDb *vp_db_open_writer(const char *dir, VpDbMeta *ret_meta, VpError **error);

/* Opens the same for reading; a writer has it open. */
VpDb *vp_db_open_reader(const char *dir, VpError **error);

/* Opens any file as a store for reading. */
VpDb *vp_db_open_file(const char *path, VpError **error);

/* Gives a store in any file the present schema; it must be a store already. */
VpError *vp_db_bring_up(const char *path);

void vp_db_close(VpDb *db);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpDb, vp_db_close)

/* The connection, for what is not a statement. */
sqlite3 *vp_db_handle(VpDb *db);

/* A statement, ready to be bound; NULL with `error` set if it cannot be prepared. Give it back with vp_db_done() (VP_DB_AUTO does). */
sqlite3_stmt *vp_db_take(VpDb *db, VpDbSql sql, VpError **error);

static inline void vp_db_done(sqlite3_stmt **statement)
{
    if (*statement) {
        sqlite3_reset(*statement);
        sqlite3_clear_bindings(*statement);
    }
}
#define VP_DB_AUTO __attribute__((cleanup(vp_db_done)))

/* Steps a statement that yields no row. `doing` names the work in the error: "commit". */
VpError *vp_db_step(VpDb *db, sqlite3_stmt *statement, const char *doing);

/* Whether commits wait for the disk, as they do from the start. Does nothing if it is so already; not within a transaction. After an error it is as before. */
VpError *vp_db_set_durable(VpDb *db, gboolean durable);

/* Takes and steps a statement without parameters and rows. */
VpError *vp_db_run(VpDb *db, VpDbSql sql, const char *doing);

/* What went wrong, as the error of the project: STORE_FULL, STORE_CORRUPT or STORE_FAILED. */
VpError *vp_db_error(VpDb *db, int rc, const char *doing);

VpError *vp_db_meta_get(VpDb *db, VpDbMeta *ret_meta);
VpError *vp_db_meta_set(VpDb *db, const VpDbMeta *meta);

/* Binds text or a blob that outlives the step. */
void vp_db_bind_text(sqlite3_stmt *statement, int index, const char *text);
void vp_db_bind_bytes(sqlite3_stmt *statement, int index, GBytes *bytes);

/* A copy of a blob column. */
GBytes *vp_db_column_bytes(sqlite3_stmt *statement, int column);
