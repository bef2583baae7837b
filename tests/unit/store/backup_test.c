/* Backup while others write, restore, check, and stores of earlier schemas (schema/vN.sql). */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "server/store/offline.h"
#include "server/store/schema.h"
#include "tests/unit/store/fixture.h"

static char *path_of(const Fixture *fixture, const char *name)
{
    return g_build_filename(fixture->dir, name, NULL);
}

static void tamper(const char *path, const char *sql)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* A backup of the store as a file in its directory; owned by the caller. */
static char *backup(Fixture *fixture, gint64 *ret_revision)
{
    g_autofree char *link = NULL;
    g_autofree char *bytes = NULL;
    char *path = path_of(fixture, "backup.db");
    gsize size = 0;
    VpError *error = NULL;
    const int fd = vp_store_backup(fixture->store, NULL, NULL, ret_revision, &error);

    if (fd < 0) {
        fail_msg("%s", error->message);
    }
    link = g_strdup_printf("/proc/self/fd/%d", fd);
    assert_true(g_file_get_contents(link, &bytes, &size, NULL));
    assert_true(g_file_set_contents(path, bytes, (gssize)size, NULL));
    close(fd);
    return path;
}

static void assert_no_problem(const VpStoreReport *report)
{
    if (report->problems->len) {
        fail_msg("%s", (char *)report->problems->pdata[0]);
    }
}

static void restore(Fixture *fixture, const char *file, VpStoreReport *report)
{
    VpError *error = vp_store_restore(fixture->dir, file, report);

    if (error) {
        fail_msg("%s", error->message);
    }
    assert_no_problem(report);
}

static void test_restore(void **state)
{
    Fixture *fixture = *state;
    g_auto(VpStoreReport) report = {0};
    gint64 revision = 0;

    put(fixture->store, "/a", "one");
    put(fixture->store, "/b", "one");
    g_autofree char *file = backup(fixture, &revision);
    assert_int_equal(revision, 2);
    put(fixture->store, "/a", "two");
    fixture_close(fixture);

    restore(fixture, file, &report);
    assert_int_equal(report.revision, 2);
    assert_int_equal(report.keys, 2);
    assert_int_equal(report.events, 2);
    fixture_open(fixture, 0, 0);
    assert_value(fixture->store, "/a", "one");
    assert_int_equal(put(fixture->store, "/a", "three"), 3);

    /* The one before is whole, with what was in its log. */
    fixture_close(fixture);
    g_autofree char *before = path_of(fixture, "store.db.before-restore");
    g_auto(VpStoreReport) old = {0};

    restore(fixture, before, &old);
    assert_int_equal(old.revision, 3);
    fixture_open(fixture, 0, 0);
    assert_value(fixture->store, "/a", "two");
}

/* Asked in between two steps of the copy: commits, as another client would. */
static gboolean write_more(void *data)
{
    put(((Fixture *)data)->store, "/later", "x");
    return FALSE;
}

static void test_one_moment(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *large = g_strnfill(100000, 'x');
    g_auto(VpStoreReport) report = {0};
    gint64 revision = 0;
    VpError *error = NULL;

    for (guint i = 0; i < 40; i++) {
        g_autofree char *key = g_strdup_printf("/large/%u", i);

        put(fixture->store, key, large);
    }
    const int fd = vp_store_backup(fixture->store, write_more, fixture, &revision, &error);

    assert_null(error);
    assert_int_equal(revision, 40);
    assert_true(vp_store_revision(fixture->store) > 41);
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);

    fixture_close(fixture);
    restore(fixture, link, &report);
    close(fd);
    assert_int_equal(report.revision, 40);
    assert_int_equal(report.keys, 40);
    fixture_open(fixture, 0, 0);
    assert_value(fixture->store, "/later", NULL);
}

static gboolean at_once(void *data)
{
    (void)data;
    return TRUE;
}

static void test_backup_cancelled(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *left = path_of(fixture, "backup.tmp");
    g_autoptr(VpError) error = NULL;
    gint64 revision = 0;

    put(fixture->store, "/a", "one");
    assert_int_equal(vp_store_backup(fixture->store, at_once, NULL, &revision, &error), -1);
    assert_int_equal(error->code, VP_CANCELLED);
    assert_int_equal(g_access(left, F_OK), -1);
    g_free(backup(fixture, &revision));
}

static void test_in_use(void **state)
{
    Fixture *fixture = *state;
    g_auto(VpStoreReport) report = {0};
    gint64 revision = 0;

    put(fixture->store, "/a", "one");
    g_autofree char *file = backup(fixture, &revision);
    g_autoptr(VpError) restored = vp_store_restore(fixture->dir, file, &report);

    assert_string_equal(restored->reason, "STORE_LOCKED");
    g_autoptr(VpError) checked = vp_store_check_dir(fixture->dir, &report);

    assert_string_equal(checked->reason, "STORE_LOCKED");
    assert_value(fixture->store, "/a", "one");
}

static void test_bad_backups(void **state)
{
    Fixture *fixture = *state;
    gint64 revision = 0;
    static const char *const damages[] = {
        "UPDATE journal SET event = x'ff' WHERE revision = 1",
        "UPDATE journal SET seq = 1 WHERE revision = 1",
        "DELETE FROM journal WHERE revision = 1",
        "UPDATE kv SET mod_revision = 77",
        "INSERT INTO kv VALUES('/domains/77', x'ff', 1, 1)",
        "INSERT INTO kv VALUES('/domains/77', x'', 1, 1)",
        "UPDATE meta SET bytes = bytes + 1",
        "UPDATE meta SET revision = 0",
        "PRAGMA application_id = 5",
        "PRAGMA user_version = 1000",
    };

    put(fixture->store, "/a", "one");
    put(fixture->store, "/a", "two");
    for (gsize i = 0; i < G_N_ELEMENTS(damages); i++) {
        g_autofree char *file = backup(fixture, &revision);
        g_auto(VpStoreReport) report = {0};

        fixture_close(fixture);
        tamper(file, damages[i]);
        g_autoptr(VpError) error = vp_store_restore(fixture->dir, file, &report);

        if (!error) {
            fail_msg("not seen: %s", damages[i]);
        }
        assert_true(error->code == VP_DATA_LOSS || error->code == VP_FAILED_PRECONDITION);
        fixture_open(fixture, 0, 0);
        assert_value(fixture->store, "/a", "two");
    }
    fixture_close(fixture);
    g_autofree char *text = path_of(fixture, "text");
    g_auto(VpStoreReport) report = {0};

    assert_true(g_file_set_contents(text, "no database", -1, NULL));
    g_autoptr(VpError) error = vp_store_restore(fixture->dir, text, &report);

    assert_non_null(error);
    g_autoptr(VpError) absent = vp_store_restore(fixture->dir, "/nonesuch/file", &report);

    assert_int_equal(absent->code, VP_NOT_FOUND);
}

/* Flips a byte in each page of a closed store: the check sees it, or it changed nothing that counts. */
static void test_check_sees_torn_pages(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *path = path_of(fixture, "store.db");
    guint seen = 0;
    guint pages = 0;

    for (guint i = 0; i < 60; i++) {
        g_autofree char *key = g_strdup_printf("/k/%u", i);

        put(fixture->store, key, key);
    }
    fixture_close(fixture);
    const int fd = open(path, O_RDWR);
    char page[4096];

    for (off_t at = 4096; pread(fd, page, sizeof(page), at) == (ssize_t)sizeof(page); at += 4096, pages++) {
        char torn[4096];
        g_auto(VpStoreReport) report = {0};

        memset(torn, 0x5a, sizeof(torn));
        assert_int_equal(pwrite(fd, torn, sizeof(torn), at), sizeof(torn));
        g_autoptr(VpError) error = vp_store_check_dir(fixture->dir, &report);

        seen += error || report.problems->len;
        assert_int_equal(pwrite(fd, page, sizeof(page), at), sizeof(page));
    }
    close(fd);
    assert_true(pages >= 4);
    assert_int_equal(seen, pages);
    g_auto(VpStoreReport) report = {0};

    assert_null(vp_store_check_dir(fixture->dir, &report));
    assert_no_problem(&report);
}

/* ---- earlier schemas ---- */

static void make_old_store(Fixture *fixture, int version, const char *name)
{
    g_autofree char *script = g_strdup_printf("tests/unit/store/schema/v%d.sql", version);
    g_autofree char *path = path_of(fixture, name);
    g_autofree char *sql = NULL;

    assert_true(g_file_get_contents(script, &sql, NULL, NULL));
    g_unlink(path);
    tamper(path, sql);
}

static void assert_as_dumped(Fixture *fixture)
{
    g_autoptr(GPtrArray) entries = entries_new();
    g_auto(VpStoreReport) report = {0};
    VpError *error = NULL;
    gint64 next = 0;

    assert_int_equal(vp_store_revision(fixture->store), 8);
    assert_null(vp_store_read_journal(fixture->store, 1, 100, entries, &next));
    assert_int_equal(entries->len, 8);
    g_autoptr(GPtrArray) domains = vp_store_list(fixture->store, "/domains/", NULL, 0, &error);

    assert_int_equal(domains->len, 1);
    assert_null(vp_store_check(fixture->store, NULL, NULL, &report));
    assert_no_problem(&report);
    assert_int_equal(report.domains, 1);
    assert_int_equal(put(fixture->store, "/a", "new"), 9);
}

static void test_old_schemas(void **state)
{
    Fixture *fixture = *state;

    for (int version = 1; version < VP_SCHEMA_VERSION; version++) {
        fixture_close(fixture);
        make_old_store(fixture, version, "store.db");
        fixture_open(fixture, 0, 0);
        assert_as_dumped(fixture);
        /* And once more, with nothing left to do. */
        fixture_close(fixture);
        fixture_open(fixture, 0, 0);
        assert_int_equal(vp_store_revision(fixture->store), 9);

        /* A backup from then. */
        g_auto(VpStoreReport) report = {0};
        g_autofree char *old = path_of(fixture, "old.db");

        fixture_close(fixture);
        make_old_store(fixture, version, "old.db");
        restore(fixture, old, &report);
        assert_int_equal(report.revision, 8);
        fixture_open(fixture, 0, 0);
        assert_as_dumped(fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_restore, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_one_moment, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_backup_cancelled, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_in_use, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_bad_backups, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_check_sees_torn_pages, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_old_schemas, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests_name("store_backup", tests, NULL, NULL);
}
