/* Opening a store: what it makes, and each way in which a directory or a file cannot be one. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/store/fixture.h"

static VpError *open_fails(const char *dir)
{
    const VpStoreOptions options = {.dir = dir};
    VpError *error = NULL;

    assert_null(vp_store_open_sqlite(&options, &error));
    assert_non_null(error);
    return error;
}

static char *path_of(const Fixture *fixture, const char *name)
{
    return g_build_filename(fixture->dir, name, NULL);
}

/* Runs SQL on the closed store's file. */
static void tamper(const Fixture *fixture, const char *sql)
{
    g_autofree char *path = path_of(fixture, "store.db");
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void test_modes(void **state)
{
    Fixture *fixture = *state;
    const mode_t mask = umask(0);

    /* One made with a careless mode by someone else is mended. */
    fixture_close(fixture);
    g_autofree char *db = path_of(fixture, "store.db");
    assert_int_equal(chmod(db, 0644), 0);
    fixture_open(fixture, 0, 0);
    put(fixture->store, "/a", "one");
    umask(mask);

    static const char *const names[] = {"store.db", "store.db-wal", "store.db-shm", "lock"};

    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = path_of(fixture, names[i]);
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
}

static void test_second_is_refused(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *pid = g_strdup_printf("%d", (int)getpid());
    g_autoptr(VpError) error = open_fails(fixture->dir);

    assert_int_equal(error->code, VP_FAILED_PRECONDITION);
    assert_string_equal(error->reason, "STORE_LOCKED");
    assert_string_equal(vp_error_get(error, "pid"), pid);
    assert_non_null(strstr(error->message, pid));
    assert_non_null(strstr(error->message, fixture->dir));
    put(fixture->store, "/a", "one"); /* the first is not disturbed */

    /* Another process is refused as well, and told the same pid. */
    const pid_t child = fork();

    if (child == 0) {
        const VpStoreOptions options = {.dir = fixture->dir};
        VpError *refusal = NULL;
        const gboolean refused = !vp_store_open_sqlite(&options, &refusal) &&
                                 !strcmp(refusal->reason, "STORE_LOCKED") && !strcmp(vp_error_get(refusal, "pid"), pid);

        _exit(refused ? 0 : 1);
    }
    int status = -1;

    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_missing_directory(void **state)
{
    g_autofree char *dir = path_of(*state, "nowhere");
    g_autoptr(VpError) error = open_fails(dir);

    assert_int_equal(error->code, VP_NOT_FOUND);
    assert_non_null(strstr(error->message, dir));
}

/* Also as root nothing can be created in /proc. */
static void test_unwritable_directory(void **state)
{
    (void)state;
    g_autoptr(VpError) error = open_fails("/proc/self");

    assert_true(error->code == VP_NOT_FOUND || error->code == VP_PERMISSION_DENIED);
    assert_non_null(strstr(error->message, "/proc/self/lock"));
}

static void test_not_a_file(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *db = path_of(fixture, "store.db");
    g_autofree char *lock = path_of(fixture, "lock");

    fixture_close(fixture);
    assert_int_equal(g_unlink(db), 0);
    assert_int_equal(mkfifo(db, 0600), 0);
    g_autoptr(VpError) fifo = open_fails(fixture->dir);
    assert_string_equal(fifo->reason, "STORE_UNUSABLE");

    assert_int_equal(g_unlink(lock), 0);
    assert_int_equal(symlink("/etc/passwd", lock), 0);
    g_autoptr(VpError) link = open_fails(fixture->dir);
    assert_non_null(strstr(link->message, lock));
}

static void assert_corrupt(const Fixture *fixture)
{
    g_autoptr(VpError) error = open_fails(fixture->dir);

    assert_int_equal(error->code, VP_DATA_LOSS);
    assert_string_equal(error->reason, "STORE_CORRUPT");
    assert_non_null(strstr(error->message, fixture->dir));
}

static void test_garbage(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *db = path_of(fixture, "store.db");
    g_autofree char *garbage = g_strnfill(8192, 'x');

    fixture_close(fixture);
    assert_true(g_file_set_contents(db, garbage, 8192, NULL));
    assert_corrupt(fixture);
}

static void test_truncated(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *db = path_of(fixture, "store.db");
    struct stat st;

    put(fixture->store, "/a", "one");
    fixture_close(fixture);
    assert_int_equal(stat(db, &st), 0);
    assert_int_equal(truncate(db, st.st_size - 4096), 0);
    assert_corrupt(fixture);
}

static void test_contradictions(void **state)
{
    Fixture *fixture = *state;

    put(fixture->store, "/a", "one");
    put(fixture->store, "/a", "two");
    fixture_close(fixture);
    tamper(fixture, "UPDATE meta SET revision = 1"); /* would be handed out twice */
    assert_corrupt(fixture);
    tamper(fixture, "UPDATE meta SET revision = 2, compacted = 9");
    assert_corrupt(fixture);
    tamper(fixture, "DELETE FROM meta");
    assert_corrupt(fixture);
    tamper(fixture, "INSERT INTO meta VALUES(0, 2, 1, 2, (SELECT sum(length(event)) FROM journal))");
    fixture_open(fixture, 0, 0);
    assert_value(fixture->store, "/a", "two");
}

static void test_of_another(void **state)
{
    Fixture *fixture = *state;

    fixture_close(fixture);
    tamper(fixture, "PRAGMA application_id = 252006674"); /* a database of somebody else */
    assert_corrupt(fixture);
}

static void test_too_new(void **state)
{
    Fixture *fixture = *state;

    fixture_close(fixture);
    tamper(fixture, "PRAGMA user_version = 1000");
    g_autoptr(VpError) error = open_fails(fixture->dir);

    assert_int_equal(error->code, VP_FAILED_PRECONDITION);
    assert_string_equal(error->reason, "STORE_TOO_NEW");
}

/* What a crash in the middle of the first start leaves: an empty file. */
static void test_empty_file(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *db = path_of(fixture, "store.db");

    fixture_close(fixture);
    assert_true(g_file_set_contents(db, "", 0, NULL));
    fixture_open(fixture, 0, 0);
    assert_int_equal(put(fixture->store, "/a", "one"), 1);
}

/* The documented backup: while the store is open and written to. */
static void test_backup(void **state)
{
    Fixture *fixture = *state;
    Fixture copy = {.dir = path_of(fixture, "copy")};
    g_autofree char *from = path_of(fixture, "store.db");
    g_autofree char *to = g_build_filename(copy.dir, "store.db", NULL);
    sqlite3 *source = NULL;
    sqlite3 *target = NULL;

    put(fixture->store, "/a", "one");
    assert_int_equal(g_mkdir(copy.dir, 0700), 0);
    assert_int_equal(sqlite3_open_v2(from, &source, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_open(to, &target), SQLITE_OK);
    sqlite3_backup *backup = sqlite3_backup_init(target, "main", source, "main");
    assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
    sqlite3_backup_finish(backup);
    sqlite3_close(source);
    sqlite3_close(target);
    put(fixture->store, "/a", "two");

    fixture_open(&copy, 0, 0);
    assert_int_equal(vp_store_revision(copy.store), 1);
    assert_value(copy.store, "/a", "one");
    fixture_close(&copy);
    remove_dir(copy.dir);
    g_free(copy.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_modes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_second_is_refused, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_missing_directory, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_unwritable_directory, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_not_a_file, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_garbage, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_truncated, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_contradictions, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_of_another, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_too_new, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_empty_file, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_backup, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests_name("store_open", tests, NULL, NULL);
}
