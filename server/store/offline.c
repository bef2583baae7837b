/* A store that no daemon has: see offline.h. */
#include "server/store/offline.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/store/check.h"
#include "server/store/db.h"
#include "server/store/dirlock.h"
#include "server/store/schema.h"

#define COPY_BYTES (256u << 10)

VpError *vp_store_check_dir(const char *dir, VpStoreReport *ret_report)
{
    g_autofree char *path = g_build_filename(dir, VP_DB_FILE_NAME, NULL);
    VpError *error = NULL;

    if (access(path, F_OK) < 0) {
        return vp_error_errno(errno, "STORE_UNUSABLE", "there is no store at '%s'", path);
    }
    const int lock = vp_dirlock_take(dir, &error);

    if (lock < 0) {
        return error;
    }
    error = vp_check_file(path, NULL, NULL, ret_report);
    close(lock);
    return error;
}

static VpError *copy_bytes(int from, const char *file, int to, const char *copy)
{
    g_autofree char *buffer = g_malloc(COPY_BYTES);
    ssize_t got;

    while ((got = read(from, buffer, COPY_BYTES)) > 0) {
        for (ssize_t done = 0; done < got;) {
            const ssize_t put = write(to, buffer + done, (gsize)(got - done));

            if (put < 0) {
                return vp_error_errno(errno, "RESTORE_FAILED", "cannot write '%s'", copy);
            }
            done += put;
        }
    }
    if (got < 0) {
        return vp_error_errno(errno, "RESTORE_FAILED", "cannot read '%s'", file);
    }
    return fsync(to) < 0 ? vp_error_errno(errno, "RESTORE_FAILED", "cannot write '%s' to the disk", copy) : NULL;
}

static VpError *copy_file(const char *file, const char *copy)
{
    struct stat st;
    const int from = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (from < 0) {
        return vp_error_errno(errno, "RESTORE_FAILED", "cannot open '%s'", file);
    }
    if (fstat(from, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(from);
        return vp_error_new(VP_INVALID_ARGUMENT, "RESTORE_FAILED", "'%s' is no regular file", file);
    }
    unlink(copy);
    const int to = open(copy, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    VpError *error =
        to < 0 ? vp_error_errno(errno, "RESTORE_FAILED", "cannot make '%s'", copy) : copy_bytes(from, file, to, copy);

    close(from);
    if (to >= 0) {
        close(to);
    }
    return error;
}

/* A backup of an earlier version is brought up to date before it is used. */
static VpError *prove(const char *copy, VpStoreReport *report)
{
    VpError *error = vp_db_bring_up(copy);

    if (!error) {
        error = vp_check_file(copy, NULL, NULL, report);
    }
    if (!error && report->problems->len > 0) {
        error = vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT", "the backup is damaged: %s",
                             (char *)report->problems->pdata[0]);
        vp_store_report_clear(report);
    }
    return error;
}

static VpError *remove_logs(const char *path)
{
    static const char *const suffixes[] = {"-wal", "-shm", "-journal"};

    for (gsize i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        g_autofree char *log = g_strconcat(path, suffixes[i], NULL);

        if (unlink(log) < 0 && errno != ENOENT) {
            return vp_error_errno(errno, "RESTORE_FAILED", "cannot remove '%s'", log);
        }
    }
    return NULL;
}

/* The old log must not meet the new database: SQLite would play it back. */
static VpError *drop_log(const char *dir, const char *path)
{
    VpDbMeta meta = {0};
    VpError *error = NULL;
    g_autoptr(VpDb) old = access(path, F_OK) == 0 ? vp_db_open_writer(dir, &meta, &error) : NULL;

    /* Its close takes the log in, for the one that is kept; a damaged one is replaced all the same. */
    vp_error_free(error);
    g_clear_pointer(&old, vp_db_close);
    return remove_logs(path);
}

static VpError *sync_dir(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const gboolean done = fd >= 0 && fsync(fd) == 0;
    VpError *error =
        done ? NULL : vp_error_errno(errno, "RESTORE_FAILED", "cannot write the directory '%s' to the disk", dir);

    if (fd >= 0) {
        close(fd);
    }
    return error;
}

static VpError *put_in_place(const char *dir, const char *copy, const char *path)
{
    g_autofree char *before = g_strconcat(path, ".before-restore", NULL);
    VpError *error = drop_log(dir, path);

    if (!error) {
        error = sync_dir(dir);
    }
    if (error) {
        return error;
    }
    unlink(before);
    if (link(path, before) < 0 && errno != ENOENT) {
        return vp_error_errno(errno, "RESTORE_FAILED", "cannot keep the old store as '%s'", before);
    }
    if (rename(copy, path) < 0) {
        return vp_error_errno(errno, "RESTORE_FAILED", "cannot put '%s' in its place", path);
    }
    return sync_dir(dir);
}

static VpError *restore_locked(const char *dir, const char *file, VpStoreReport *report)
{
    g_autofree char *path = g_build_filename(dir, VP_DB_FILE_NAME, NULL);
    g_autofree char *copy = g_strconcat(path, ".restore", NULL);
    VpError *error = copy_file(file, copy);

    if (!error) {
        error = prove(copy, report);
    }
    /* Empty ones, which reading leaves beside a copy that SQLite's own tools made. */
    vp_error_free(remove_logs(copy));
    if (error) {
        unlink(copy);
        return error;
    }
    error = put_in_place(dir, copy, path);
    if (error) {
        vp_store_report_clear(report);
        unlink(copy);
    }
    return error;
}

VpError *vp_store_restore(const char *dir, const char *file, VpStoreReport *ret_report)
{
    VpStoreReport report = {0};
    VpError *error = NULL;

    if (g_mkdir_with_parents(dir, 0700) < 0) {
        return vp_error_errno(errno, "RESTORE_FAILED", "cannot make the folder '%s'", dir);
    }
    const int lock = vp_dirlock_take(dir, &error);

    if (lock < 0) {
        return error;
    }
    error = restore_locked(dir, file, &report);
    close(lock);
    if (!error) {
        *ret_report = report;
    }
    return error;
}
