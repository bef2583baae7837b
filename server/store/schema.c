/* The store's tables and their migrations: see schema.h. */
#include "server/store/schema.h"

/* The columns are SQL's. */
/* clang-format off */
static const char tables[] =
    "CREATE TABLE kv(key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL,"
    "                create_revision INTEGER NOT NULL, mod_revision INTEGER NOT NULL) STRICT;"
    "CREATE TABLE journal(revision INTEGER NOT NULL, seq INTEGER NOT NULL, event BLOB NOT NULL,"
    "                     PRIMARY KEY(revision, seq)) WITHOUT ROWID, STRICT;"
    "CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK(id = 0), revision INTEGER NOT NULL, compacted INTEGER NOT NULL,"
    "                  events INTEGER NOT NULL, bytes INTEGER NOT NULL DEFAULT 0) STRICT;"
    "INSERT INTO meta VALUES(0, 0, 1, 0, 0);"
    "PRAGMA application_id = " G_STRINGIFY(VP_SCHEMA_APPLICATION_ID) ";";

/* migrations[N] makes version N of version N - 1. A new schema: another line here, VP_SCHEMA_VERSION, the tables above, and a dump of the
 * one before in tests/unit/store/schema. */
static const char *const migrations[VP_SCHEMA_VERSION + 1] = {
    [2] = "ALTER TABLE meta ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;"
          "UPDATE meta SET bytes = (SELECT coalesce(sum(length(event)), 0) FROM journal);",
};
/* clang-format on */

static VpError *run(VpDb *db, const char *script, const char *doing)
{
    const int rc = sqlite3_exec(vp_db_handle(db), script, NULL, NULL, NULL);

    if (rc == SQLITE_OK) {
        return NULL;
    }
    VpError *error = vp_db_error(db, rc, doing);

    if (!sqlite3_get_autocommit(vp_db_handle(db))) {
        sqlite3_exec(vp_db_handle(db), "ROLLBACK", NULL, NULL, NULL);
    }
    return error;
}

/* Steps `script` to `version`, all or nothing. */
static VpError *step_to(VpDb *db, const char *script, int version, const char *doing)
{
    g_autofree char *all = g_strdup_printf("BEGIN IMMEDIATE;%s PRAGMA user_version = %d; COMMIT;", script, version);

    return run(db, all, doing);
}

/* The one number that `sql` yields. */
static VpError *read_number(VpDb *db, const char *sql, gint64 *ret_number)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(vp_db_handle(db), sql, -1, &statement, NULL);

    if (rc == SQLITE_OK) {
        rc = sqlite3_step(statement);
    }
    VpError *error = rc == SQLITE_ROW ? NULL : vp_db_error(db, rc, "open the store");

    if (!error) {
        *ret_number = sqlite3_column_int64(statement, 0);
    }
    sqlite3_finalize(statement);
    return error;
}

/* Version 0: an empty database. */
static VpError *read_version(VpDb *db, gint64 *ret_version)
{
    gint64 application_id = 0;
    gint64 version = 0;
    gint64 objects = 0;
    const char *path = sqlite3_db_filename(vp_db_handle(db), NULL);
    VpError *error = read_number(db, "PRAGMA application_id", &application_id);

    if (!error) {
        error = read_number(db, "PRAGMA user_version", &version);
    }
    if (!error) {
        error = read_number(db, "SELECT count(*) FROM sqlite_schema", &objects);
    }
    if (error) {
        return error;
    }
    if (application_id == 0 && version == 0 && objects == 0) {
        *ret_version = 0;
        return NULL;
    }
    if (application_id != VP_SCHEMA_APPLICATION_ID || version < 1) {
        return vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT", "'%s' is a database, but not virtplane's; move it away",
                            path);
    }
    if (version > VP_SCHEMA_VERSION) {
        return vp_error_new(VP_FAILED_PRECONDITION, "STORE_TOO_NEW",
                            "'%s' was written by a newer virtplane (schema %" G_GINT64_FORMAT
                            ", this one knows %d); start that version, or restore a backup made by this one",
                            path, version, VP_SCHEMA_VERSION);
    }
    *ret_version = version;
    return NULL;
}

VpError *vp_schema_prepare(VpDb *db)
{
    gint64 version = 0;
    VpError *error = read_version(db, &version);

    if (error) {
        return error;
    }
    if (version == 0) {
        return step_to(db, tables, VP_SCHEMA_VERSION, "create the store");
    }
    for (int next = (int)version + 1; !error && next <= VP_SCHEMA_VERSION; next++) {
        error = step_to(db, migrations[next], next, "bring the store up to date");
    }
    return error;
}

VpError *vp_schema_check(VpDb *db)
{
    gint64 version = 0;
    VpError *error = read_version(db, &version);

    if (!error && version == 0) {
        return vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT", "'%s' holds no store",
                            sqlite3_db_filename(vp_db_handle(db), NULL));
    }
    if (!error && version < VP_SCHEMA_VERSION) {
        return vp_error_new(VP_FAILED_PRECONDITION, "STORE_TOO_OLD",
                            "'%s' has schema %" G_GINT64_FORMAT
                            " and was not brought up to %d yet: start the daemon on it once",
                            sqlite3_db_filename(vp_db_handle(db), NULL), version, VP_SCHEMA_VERSION);
    }
    return error;
}
