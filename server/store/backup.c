/* Copies of a store in use: see backup.h. */
#include "server/store/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "server/store/db.h"

#define COPY_NAME "backup.tmp"
/* Pages between two questions whether to stop: a few milliseconds. */
#define STEP_PAGES 256
/* What a copy leaves free for the store itself. */
#define LEAVE_BYTES (8u << 20)

static VpError *check_room(VpDb *source, const char *dir)
{
    sqlite3_int64 pages = 0;
    struct statvfs fs;

    sqlite3_stmt *statement = NULL;

    if (sqlite3_prepare_v2(vp_db_handle(source),
                           "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", -1, &statement,
                           NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        pages = sqlite3_column_int64(statement, 0);
    }
    sqlite3_finalize(statement);
    if (statvfs(dir, &fs) < 0) {
        return vp_error_errno(errno, "STORE_UNUSABLE", "cannot look at the file system of '%s'", dir);
    }
    if ((guint64)fs.f_bavail * fs.f_frsize < (guint64)pages + LEAVE_BYTES) {
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "STORE_FULL",
                            "a copy of the store needs %" G_GINT64_FORMAT
                            " bytes in '%s' for a while, and there are not so many; free some and try again",
                            (gint64)pages, dir);
    }
    return NULL;
}

static VpError *copy_pages(VpDb *source, sqlite3 *target, gboolean (*stop)(void *data), void *data)
{
    sqlite3_backup *backup = sqlite3_backup_init(target, "main", vp_db_handle(source), "main");
    int rc = backup ? SQLITE_OK : sqlite3_errcode(target);

    while (rc == SQLITE_OK) {
        if (stop && stop(data)) {
            sqlite3_backup_finish(backup);
            return vp_error_new(VP_CANCELLED, "BACKUP_CANCELLED", "the backup was given up");
        }
        rc = sqlite3_backup_step(backup, STEP_PAGES);
    }
    const int finished = backup ? sqlite3_backup_finish(backup) : rc;

    if (rc == SQLITE_DONE && finished == SQLITE_OK) {
        return NULL;
    }
    if ((rc & 0xff) == SQLITE_FULL) {
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "STORE_FULL", "there is no room for a copy of the store: %s",
                            sqlite3_errstr(rc));
    }
    return vp_error_new(VP_UNAVAILABLE, "STORE_FAILED", "cannot copy the store: %s", sqlite3_errstr(rc));
}

/* The copy is of rollback-journal kind: it can be read on a medium that cannot be written. */
static VpError *fill(VpDb *source, const char *path, gboolean (*stop)(void *data), void *data)
{
    sqlite3 *target = NULL;
    int rc = sqlite3_open_v2(path, &target, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    VpError *error = NULL;

    if (rc == SQLITE_OK) {
        rc = sqlite3_exec(target, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK) {
        error = copy_pages(source, target, stop, data);
        rc = error ? SQLITE_OK : sqlite3_exec(target, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    }
    if (rc != SQLITE_OK) {
        error =
            vp_error_new(VP_UNAVAILABLE, "STORE_FAILED", "cannot copy the store to '%s': %s", path, sqlite3_errstr(rc));
    }
    sqlite3_close(target);
    return error;
}

static VpError *copy_moment(VpDb *source, const char *dir, const char *path, gboolean (*stop)(void *data), void *data,
                            gint64 *ret_revision)
{
    VpDbMeta meta = {0};
    VpError *error = vp_db_run(source, VP_DB_BEGIN_READ, "begin a backup");

    if (error) {
        return error;
    }
    error = vp_db_meta_get(source, &meta);
    if (!error) {
        error = check_room(source, dir);
    }
    if (!error) {
        error = fill(source, path, stop, data);
    }
    vp_error_free(vp_db_run(source, VP_DB_ROLLBACK, "end a backup"));
    *ret_revision = meta.revision;
    return error;
}

int vp_backup_make(const char *dir, gboolean (*stop)(void *data), void *data, gint64 *ret_revision, VpError **error)
{
    g_autofree char *path = g_build_filename(dir, COPY_NAME, NULL);
    g_autoptr(VpDb) source = vp_db_open_reader(dir, error);

    if (!source) {
        return -1;
    }
    unlink(path); /* of a daemon that was killed */
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0) {
        *error = vp_error_errno(errno, "STORE_UNUSABLE", "cannot make '%s'", path);
        return -1;
    }
    VpError *failure = copy_moment(source, dir, path, stop, data, ret_revision);

    unlink(path);
    if (failure) {
        close(fd);
        *error = failure;
        return -1;
    }
    return fd;
}
