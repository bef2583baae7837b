/* Connections to the store's database: see db.h. */
#include "server/store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/schema.h"

struct VpDb {
    sqlite3 *handle;
    char *path;
    gboolean hasty; /* commits do not wait for the disk */
    sqlite3_stmt *statements[VP_DB_SQL_MAX];
};

static const char *const sql_texts[VP_DB_SQL_MAX] = {
    [VP_DB_BEGIN] = "BEGIN IMMEDIATE",
    [VP_DB_BEGIN_READ] = "BEGIN",
    [VP_DB_COMMIT] = "COMMIT",
    [VP_DB_ROLLBACK] = "ROLLBACK",
    [VP_DB_SAVEPOINT] = "SAVEPOINT txn",
    [VP_DB_SAVEPOINT_RELEASE] = "RELEASE txn",
    [VP_DB_SAVEPOINT_ROLLBACK] = "ROLLBACK TO txn",
    [VP_DB_META_GET] = "SELECT revision, compacted, events, bytes FROM meta",
    [VP_DB_META_SET] = "UPDATE meta SET revision = ?1, compacted = ?2, events = ?3, bytes = ?4",
    [VP_DB_KEY_REVISION] = "SELECT mod_revision FROM kv WHERE key = ?1",
    [VP_DB_KEY_PUT] = "INSERT INTO kv(key, value, create_revision, mod_revision) VALUES(?1, ?2, ?3, ?3) "
                      "ON CONFLICT(key) DO UPDATE SET value = ?2, mod_revision = ?3",
    [VP_DB_KEY_DELETE] = "DELETE FROM kv WHERE key = ?1",
    [VP_DB_KEY_GET] = "SELECT key, value, create_revision, mod_revision FROM kv WHERE key = ?1",
    [VP_DB_LIST_FROM] =
        "SELECT key, value, create_revision, mod_revision FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3",
    [VP_DB_LIST_AFTER] =
        "SELECT key, value, create_revision, mod_revision FROM kv WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3",
    [VP_DB_JOURNAL_PUT] = "INSERT INTO journal(revision, seq, event) VALUES(?1, ?2, ?3)",
    [VP_DB_JOURNAL_READ] =
        "SELECT revision, event FROM journal WHERE revision >= ?1 AND revision <= ?2 ORDER BY revision, seq",
    [VP_DB_JOURNAL_ALL] = "SELECT revision, length(event), event, seq FROM journal ORDER BY revision, seq",
    [VP_DB_JOURNAL_LAST] = "SELECT revision FROM journal ORDER BY revision DESC, seq DESC LIMIT 1",
    [VP_DB_JOURNAL_TRIM] = "DELETE FROM journal WHERE revision < ?1",
};

/* What each connection is told. cell_size_check finds a torn page when it is read, not when it is used. */
static const char common_pragmas[] = "PRAGMA synchronous = FULL;"
                                     "PRAGMA cache_size = -1024;"
                                     "PRAGMA temp_store = MEMORY;"
                                     "PRAGMA cell_size_check = ON;"
                                     "PRAGMA trusted_schema = OFF;";

sqlite3 *vp_db_handle(VpDb *db)
{
    return db->handle;
}

VpError *vp_db_error(VpDb *db, int rc, const char *doing)
{
    const int primary = rc & 0xff;
    const int errnum = primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN ? sqlite3_system_errno(db->handle) : 0;

    if (primary == SQLITE_FULL || errnum == ENOSPC || errnum == EDQUOT) {
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "STORE_FULL",
                            "cannot %s: no space left for '%s'; free some and try again", doing, db->path);
    }
    if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB) {
        return vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT", "cannot %s: '%s' is damaged (%s); restore it from a backup",
                            doing, db->path, sqlite3_errmsg(db->handle));
    }
    return vp_error_new(VP_UNAVAILABLE, "STORE_FAILED", "cannot %s: '%s': %s%s%s", doing, db->path,
                        sqlite3_errmsg(db->handle), errnum ? ": " : "", errnum ? g_strerror(errnum) : "");
}

sqlite3_stmt *vp_db_take(VpDb *db, VpDbSql sql, VpError **error)
{
    if (!db->statements[sql]) {
        const int rc =
            sqlite3_prepare_v3(db->handle, sql_texts[sql], -1, SQLITE_PREPARE_PERSISTENT, &db->statements[sql], NULL);

        if (rc != SQLITE_OK) {
            *error = vp_db_error(db, rc, "use the store");
            return NULL;
        }
    }
    return db->statements[sql];
}

VpError *vp_db_step(VpDb *db, sqlite3_stmt *statement, const char *doing)
{
    const int rc = sqlite3_step(statement);

    return rc == SQLITE_DONE ? NULL : vp_db_error(db, rc, doing);
}

VpError *vp_db_run(VpDb *db, VpDbSql sql, const char *doing)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, sql, &error);

    return statement ? vp_db_step(db, statement, doing) : error;
}

static VpError *run_script(VpDb *db, const char *script, const char *doing)
{
    const int rc = sqlite3_exec(db->handle, script, NULL, NULL, NULL);

    return rc == SQLITE_OK ? NULL : vp_db_error(db, rc, doing);
}

VpError *vp_db_set_durable(VpDb *db, gboolean durable)
{
    if (db->hasty == !durable) {
        return NULL;
    }
    VpError *error = run_script(db, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL",
                                "set how changes get to the disk");

    if (!error) {
        db->hasty = !durable;
    }
    return error;
}

void vp_db_bind_text(sqlite3_stmt *statement, int index, const char *text)
{
    sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
}

void vp_db_bind_bytes(sqlite3_stmt *statement, int index, GBytes *bytes)
{
    gsize size = 0;
    const void *data = g_bytes_get_data(bytes, &size);

    /* A NULL pointer would bind NULL, not an empty blob. */
    sqlite3_bind_blob64(statement, index, size ? data : "", size, SQLITE_STATIC);
}

GBytes *vp_db_column_bytes(sqlite3_stmt *statement, int column)
{
    const void *data = sqlite3_column_blob(statement, column);

    return g_bytes_new(data, (gsize)sqlite3_column_bytes(statement, column));
}

VpError *vp_db_meta_get(VpDb *db, VpDbMeta *ret_meta)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, VP_DB_META_GET, &error);

    if (!statement) {
        return error;
    }
    const int rc = sqlite3_step(statement);

    if (rc == SQLITE_DONE) {
        return vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT", "'%s' has lost its revision; restore it from a backup",
                            db->path);
    }
    if (rc != SQLITE_ROW) {
        return vp_db_error(db, rc, "read the store's revision");
    }
    ret_meta->revision = sqlite3_column_int64(statement, 0);
    ret_meta->compacted = sqlite3_column_int64(statement, 1);
    ret_meta->events = sqlite3_column_int64(statement, 2);
    ret_meta->bytes = sqlite3_column_int64(statement, 3);
    return NULL;
}

VpError *vp_db_meta_set(VpDb *db, const VpDbMeta *meta)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, VP_DB_META_SET, &error);

    if (!statement) {
        return error;
    }
    sqlite3_bind_int64(statement, 1, meta->revision);
    sqlite3_bind_int64(statement, 2, meta->compacted);
    sqlite3_bind_int64(statement, 3, meta->events);
    sqlite3_bind_int64(statement, 4, meta->bytes);
    return vp_db_step(db, statement, "write the store's revision");
}

/* Makes the file with its mode before SQLite opens it (SQLite's -wal and -shm take the mode over), and makes its name durable. */
static VpError *prepare_file(const char *dir, const char *path)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    struct stat st;

    if (fd < 0) {
        return vp_error_errno(errno, "STORE_UNUSABLE", "cannot open '%s' for writing", path);
    }
    VpError *error = NULL;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        error = vp_error_new(VP_FAILED_PRECONDITION, "STORE_UNUSABLE", "'%s' is no regular file", path);
    } else if ((st.st_mode & 0777) != 0600 && fchmod(fd, 0600) < 0) {
        error = vp_error_errno(errno, "STORE_UNUSABLE", "cannot keep others out of '%s' (mode 0600)", path);
    }
    close(fd);
    if (error) {
        return error;
    }

    const int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir_fd < 0) {
        return vp_error_errno(errno, "STORE_UNUSABLE", "cannot open the directory '%s'", dir);
    }
    if (fsync(dir_fd) < 0) {
        error = vp_error_errno(errno, "STORE_UNUSABLE", "cannot write the directory '%s' to the disk", dir);
    }
    close(dir_fd);
    return error;
}

static VpDb *open_connection(const char *path, int flags, VpError **error)
{
    g_autoptr(VpDb) db = g_new0(VpDb, 1);

    db->path = g_strdup(path);
    const int rc = sqlite3_open_v2(db->path, &db->handle, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);

    if (!db->handle) {
        *error = vp_error_new(VP_RESOURCE_EXHAUSTED, "STORE_FAILED", "cannot open '%s': out of memory", db->path);
        return NULL;
    }
    if (rc != SQLITE_OK) {
        *error = vp_db_error(db, rc, "open the store");
        return NULL;
    }
    sqlite3_busy_timeout(db->handle, VP_DB_BUSY_TIMEOUT_MS);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    *error = run_script(db, common_pragmas, "open the store");
    return *error ? NULL : g_steal_pointer(&db);
}

/* Cheap: one row of each table's end, not the whole file. */
static VpError *check_meta(VpDb *db, const VpDbMeta *meta)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(db, VP_DB_JOURNAL_LAST, &error);

    if (!statement) {
        return error;
    }
    const int rc = sqlite3_step(statement);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        return vp_db_error(db, rc, "read the journal's end");
    }
    const gint64 last = rc == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;

    if (meta->revision < last || meta->compacted < 1 || meta->compacted > meta->revision + 1 ||
        meta->events < (last ? 1 : 0) || meta->bytes < 0) {
        return vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT",
                            "'%s' contradicts itself (revision %" G_GINT64_FORMAT ", compacted to %" G_GINT64_FORMAT
                            ", journal up to %" G_GINT64_FORMAT "); restore it from a backup",
                            db->path, meta->revision, meta->compacted, last);
    }
    return NULL;
}

VpDb *vp_db_open_writer(const char *dir, VpDbMeta *ret_meta, VpError **error)
{
    g_autofree char *path = g_build_filename(dir, VP_DB_FILE_NAME, NULL);

    *error = prepare_file(dir, path);
    if (*error) {
        return NULL;
    }

    g_autoptr(VpDb) db = open_connection(path, SQLITE_OPEN_READWRITE, error);

    if (!db) {
        return NULL;
    }
    /* Checkpoints are the writer's, between groups: within COMMIT they would delay those who wait for it. */
    *error = run_script(db,
                        "PRAGMA journal_mode = WAL;"
                        "PRAGMA wal_autocheckpoint = 0;"
                        "PRAGMA journal_size_limit = 16777216;",
                        "open the store");
    VpDbMeta meta = {0};

    if (!*error) {
        *error = vp_schema_prepare(db);
    }
    if (!*error) {
        *error = vp_db_meta_get(db, &meta);
    }
    if (!*error) {
        *error = check_meta(db, &meta);
    }
    if (*error) {
        return NULL;
    }
    *ret_meta = meta;
    return g_steal_pointer(&db);
}

VpDb *vp_db_open_reader(const char *dir, VpError **error)
{
    g_autofree char *path = g_build_filename(dir, VP_DB_FILE_NAME, NULL);

    return vp_db_open_file(path, error);
}

VpDb *vp_db_open_file(const char *path, VpError **error)
{
    return open_connection(path, SQLITE_OPEN_READONLY, error);
}

VpError *vp_db_bring_up(const char *path)
{
    VpError *error = NULL;
    g_autoptr(VpDb) db = open_connection(path, SQLITE_OPEN_READWRITE, &error);

    if (!db) {
        return error;
    }
    error = vp_schema_check(db);
    if (!error || !g_str_equal(error->reason, "STORE_TOO_OLD")) {
        return error;
    }
    vp_error_free(error);
    return vp_schema_prepare(db);
}

void vp_db_close(VpDb *db)
{
    if (!db) {
        return;
    }
    for (int i = 0; i < VP_DB_SQL_MAX; i++) {
        sqlite3_finalize(db->statements[i]);
    }
    sqlite3_close(db->handle);
    g_free(db->path);
    g_free(db);
}
