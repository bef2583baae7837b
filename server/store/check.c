/* The check of a store's file: see check.h. */
#include "server/store/check.h"

#include <string.h>

#include "base/pb.h"
#include "server/store/schema.h"
#include "server/store/txn.h"
#include "virtplane/v1/domain.pb-c.h"

#define MAX_PROBLEMS 100
/* SQLite's instructions between two questions whether to stop. */
#define STOP_STEPS 100000
#define DOMAINS "/domains/"

typedef struct Check {
    VpDb *db;
    VpDbMeta meta;
    GHashTable *names; /* of domains: char * -> char *, the key */
    VpStoreReport report;
    gint64 bytes;
    gboolean (*stop)(void *data);
    void *data;
} Check;

void vp_store_report_clear(VpStoreReport *report)
{
    g_clear_pointer(&report->problems, g_ptr_array_unref);
}

static void problem(Check *check, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void problem(Check *check, const char *format, ...)
{
    va_list arguments;

    if (check->report.problems->len >= MAX_PROBLEMS) {
        return;
    }
    va_start(arguments, format);
    g_ptr_array_add(check->report.problems, g_strdup_vprintf(format, arguments));
    va_end(arguments);
}

static int asked_to_stop(void *data)
{
    Check *check = data;

    return check->stop && check->stop(check->data);
}

static VpError *failed(Check *check, int rc)
{
    if ((rc & 0xff) == SQLITE_INTERRUPT) {
        return vp_error_new(VP_CANCELLED, "CHECK_CANCELLED", "the check was given up");
    }
    if ((rc & 0xff) == SQLITE_CORRUPT) {
        problem(check, "the database cannot be read on: %s", sqlite3_errmsg(vp_db_handle(check->db)));
        return NULL;
    }
    return vp_db_error(check->db, rc, "check the store");
}

static VpError *check_integrity(Check *check)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(vp_db_handle(check->db), "PRAGMA integrity_check", -1, &statement, NULL);

    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(statement);
        if (rc != SQLITE_ROW) {
            break;
        }
        const char *said = (const char *)sqlite3_column_text(statement, 0);

        if (said && strcmp(said, "ok") != 0) {
            problem(check, "the database: %s", said);
        }
    }
    VpError *error = rc == SQLITE_DONE ? NULL : failed(check, rc);

    sqlite3_finalize(statement);
    return error;
}

static void check_entry(Check *check, sqlite3_stmt *statement, gint64 *last, gint64 *next_seq)
{
    const gint64 revision = sqlite3_column_int64(statement, 0);
    const gint64 seq = sqlite3_column_int64(statement, 3);
    g_autoptr(GBytes) packed = vp_db_column_bytes(statement, 2);
    vp_pb_auto PbEvent *event = vp_pb_unpack(&pb_event__descriptor, packed);

    check->report.events++;
    check->bytes += sqlite3_column_int64(statement, 1);
    *next_seq = revision == *last ? *next_seq : 0;
    if (seq != *next_seq) {
        problem(check, "the journal lacks entry %" G_GINT64_FORMAT " of revision %" G_GINT64_FORMAT, *next_seq,
                revision);
    }
    *last = revision;
    *next_seq = seq + 1;
    if (revision < 1 || revision > check->meta.revision) {
        problem(check, "the journal has revision %" G_GINT64_FORMAT ", the store is at %" G_GINT64_FORMAT, revision,
                check->meta.revision);
    }
    if (!event) {
        problem(check, "the journal's entry %" G_GINT64_FORMAT " of revision %" G_GINT64_FORMAT " cannot be read", seq,
                revision);
    } else if (event->revision != revision) {
        problem(check, "the journal's entry at revision %" G_GINT64_FORMAT " says %" G_GINT64_FORMAT " of itself",
                revision, event->revision);
    }
}

static VpError *check_journal(Check *check)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(check->db, VP_DB_JOURNAL_ALL, &error);
    gint64 last = 0;
    gint64 next_seq = 0;
    int rc;

    if (!statement) {
        return error;
    }
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        check_entry(check, statement, &last, &next_seq);
    }
    if (rc != SQLITE_DONE) {
        return failed(check, rc);
    }
    if (check->report.events != check->meta.events || check->bytes != check->meta.bytes) {
        problem(check,
                "the journal has %" G_GINT64_FORMAT " entries of %" G_GINT64_FORMAT
                " bytes, and is counted as %" G_GINT64_FORMAT " of %" G_GINT64_FORMAT,
                check->report.events, check->bytes, check->meta.events, check->meta.bytes);
    }
    return NULL;
}

static void check_domain(Check *check, const char *key, sqlite3_stmt *statement)
{
    g_autoptr(GBytes) packed = vp_db_column_bytes(statement, 1);
    vp_pb_auto PbDomain *domain = vp_pb_unpack(&pb_domain__descriptor, packed);

    check->report.domains++;
    if (!domain || !domain->spec || !domain->status) {
        problem(check, "%s cannot be read", key);
        return;
    }
    if (strcmp(domain->uid, key + strlen(DOMAINS)) != 0) {
        problem(check, "%s has the domain with the uid %s", key, domain->uid);
    }
    const char *other = g_hash_table_lookup(check->names, domain->name);

    if (other) {
        problem(check, "%s and %s both have the name %s", other, key, domain->name);
        return;
    }
    g_hash_table_insert(check->names, g_strdup(domain->name), g_strdup(key));
}

static void check_key(Check *check, sqlite3_stmt *statement)
{
    const char *key = (const char *)sqlite3_column_text(statement, 0);
    const gint64 created = sqlite3_column_int64(statement, 2);
    const gint64 changed = sqlite3_column_int64(statement, 3);

    check->report.keys++;
    if (!vp_store_key_valid(key)) {
        problem(check, "there is a key that is none");
        return;
    }
    if (created < 1 || created > changed || changed > check->meta.revision) {
        problem(check,
                "%s was made at revision %" G_GINT64_FORMAT " and changed at %" G_GINT64_FORMAT
                ", the store is at %" G_GINT64_FORMAT,
                key, created, changed, check->meta.revision);
    }
    if (g_str_has_prefix(key, DOMAINS)) {
        check_domain(check, key, statement);
    }
}

static VpError *check_keys(Check *check)
{
    VpError *error = NULL;
    VP_DB_AUTO sqlite3_stmt *statement = vp_db_take(check->db, VP_DB_LIST_FROM, &error);
    int rc;

    if (!statement) {
        return error;
    }
    vp_db_bind_text(statement, 1, "");
    vp_db_bind_text(statement, 2, "\xff");
    sqlite3_bind_int64(statement, 3, -1);
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        check_key(check, statement);
    }
    return rc == SQLITE_DONE ? NULL : failed(check, rc);
}

static VpError *check_all(Check *check)
{
    VpError *error = vp_db_run(check->db, VP_DB_BEGIN_READ, "check the store");

    if (error) {
        return error;
    }
    error = vp_schema_check(check->db);
    if (!error) {
        error = vp_db_meta_get(check->db, &check->meta);
    }
    if (!error) {
        error = check_integrity(check);
    }
    if (!error) {
        error = check_journal(check);
    }
    if (!error) {
        error = check_keys(check);
    }
    vp_error_free(vp_db_run(check->db, VP_DB_ROLLBACK, "check the store"));
    return error;
}

VpError *vp_check_file(const char *path, gboolean (*stop)(void *data), void *data, VpStoreReport *ret_report)
{
    VpError *error = NULL;
    Check check = {.db = vp_db_open_file(path, &error), .stop = stop, .data = data};

    if (!check.db) {
        return error;
    }
    check.names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    check.report.problems = g_ptr_array_new_with_free_func(g_free);
    sqlite3_progress_handler(vp_db_handle(check.db), STOP_STEPS, asked_to_stop, &check);
    error = check_all(&check);
    sqlite3_progress_handler(vp_db_handle(check.db), 0, NULL, NULL);
    g_hash_table_unref(check.names);
    vp_db_close(check.db);
    if (error) {
        vp_store_report_clear(&check.report);
        return error;
    }
    check.report.revision = check.meta.revision;
    *ret_report = check.report;
    return NULL;
}
