/*
 * Steps of the compaction that fail: nothing has changed then, in the database or in what is known of it, and the next commit waits for the disk as
 * every commit does. SQLite itself is asked to refuse: by its authorizer, or by its hook in front of each commit.
 */
#include <string.h>

#include "base/thread.h"
#include "server/store/apply.h"
#include "tests/unit/store/fixture.h"

#define KEPT 10

typedef struct Database {
    char *dir;
    VpDb *db;
    VpDbMeta meta;
} Database;

static int refuse(void *data)
{
    (void)data;
    return 1;
}

static int refuse_pragmas(void *data, int action, const char *first, const char *second, const char *name,
                          const char *trigger)
{
    (void)data;
    (void)first;
    (void)second;
    (void)name;
    (void)trigger;
    return action == SQLITE_PRAGMA ? SQLITE_DENY : SQLITE_OK;
}

static int refuse_deletes(void *data, int action, const char *first, const char *second, const char *name,
                          const char *trigger)
{
    (void)data;
    (void)second;
    (void)name;
    (void)trigger;
    return action == SQLITE_DELETE && g_str_equal(first, "journal") ? SQLITE_DENY : SQLITE_OK;
}

static void add(Database *database)
{
    g_autoptr(VpTxn) txn = vp_txn_new();
    g_autoptr(GPtrArray) entries = entries_new();

    txn_event(txn, "vm");
    assert_null(vp_db_set_durable(database->db, TRUE));
    assert_null(vp_db_run(database->db, VP_DB_BEGIN, "begin"));
    assert_null(vp_apply_txn(database->db, txn, vp_wall_us(), &database->meta, entries));
    assert_null(vp_db_meta_set(database->db, &database->meta));
    assert_null(vp_db_run(database->db, VP_DB_COMMIT, "commit"));
}

static gint64 number(Database *database, const char *sql)
{
    sqlite3_stmt *statement = NULL;

    assert_int_equal(sqlite3_prepare_v2(vp_db_handle(database->db), sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    const gint64 found = sqlite3_column_int64(statement, 0);

    sqlite3_finalize(statement);
    return found;
}

static int setup(void **state)
{
    Database *database = g_new0(Database, 1);
    VpError *error = NULL;

    database->dir = g_dir_make_tmp("vp-store-XXXXXX", NULL);
    database->db = vp_db_open_writer(database->dir, &database->meta, &error);
    assert_null(error);
    for (int i = 0; i < 2 * KEPT; i++) {
        add(database);
    }
    *state = database;
    return 0;
}

static int teardown(void **state)
{
    Database *database = *state;

    vp_db_close(database->db);
    remove_dir(database->dir);
    g_free(database->dir);
    g_free(database);
    return 0;
}

static VpError *trim(Database *database)
{
    const VpRetention keep = {.max_events = KEPT};
    gboolean more = FALSE;

    return vp_apply_trim(database->db, &keep, vp_wall_us(), &database->meta, &more);
}

/* What is known of the database is what is in it, with so many events. */
static void assert_known(Database *database, gint64 events)
{
    VpDbMeta meta = {0};

    assert_null(vp_db_meta_get(database->db, &meta));
    assert_memory_equal(&meta, &database->meta, sizeof(meta));
    assert_int_equal(meta.events, events);
    assert_int_equal(number(database, "SELECT count(*) FROM journal"), events);
    assert_int_equal(number(database, "SELECT min(revision) FROM journal"), meta.compacted);
    assert_true(sqlite3_get_autocommit(vp_db_handle(database->db)));
}

/* The next commit waits for the disk, and the next step does what this one could not. */
static void assert_goes_on(Database *database)
{
    assert_known(database, 2 * KEPT);
    add(database);
    assert_int_equal(number(database, "PRAGMA synchronous"), 2);
    assert_null(trim(database));
    assert_known(database, KEPT);
    add(database);
    assert_int_equal(number(database, "PRAGMA synchronous"), 2);
}

static void fails_at_the_commit(void **state)
{
    Database *database = *state;

    sqlite3_commit_hook(vp_db_handle(database->db), refuse, NULL);
    g_autoptr(VpError) error = trim(database);
    assert_non_null(error);
    sqlite3_commit_hook(vp_db_handle(database->db), NULL, NULL);
    assert_goes_on(database);
}

static void fails_at_the_deletion(void **state)
{
    Database *database = *state;

    sqlite3_set_authorizer(vp_db_handle(database->db), refuse_deletes, NULL);
    g_autoptr(VpError) error = trim(database);
    assert_non_null(error);
    sqlite3_set_authorizer(vp_db_handle(database->db), NULL, NULL);
    assert_goes_on(database);
}

static void fails_before_it_begins(void **state)
{
    Database *database = *state;

    sqlite3_set_authorizer(vp_db_handle(database->db), refuse_pragmas, NULL);
    g_autoptr(VpError) error = trim(database);
    assert_non_null(error);
    sqlite3_set_authorizer(vp_db_handle(database->db), NULL, NULL);
    assert_goes_on(database);
}

/* The step is done, but commits cannot be made durable again: no commit is let through until they can. */
static void fails_after_it(void **state)
{
    Database *database = *state;

    assert_null(trim(database));
    assert_known(database, KEPT);
    sqlite3_set_authorizer(vp_db_handle(database->db), refuse_pragmas, NULL);
    g_autoptr(VpError) error = vp_db_set_durable(database->db, TRUE);
    assert_non_null(error);
    sqlite3_set_authorizer(vp_db_handle(database->db), NULL, NULL);
    assert_int_equal(number(database, "PRAGMA synchronous"), 1);
    assert_null(vp_db_set_durable(database->db, TRUE));
    assert_int_equal(number(database, "PRAGMA synchronous"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(fails_at_the_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(fails_at_the_deletion, setup, teardown),
        cmocka_unit_test_setup_teardown(fails_before_it_begins, setup, teardown),
        cmocka_unit_test_setup_teardown(fails_after_it, setup, teardown),
    };

    return cmocka_run_group_tests_name("store_trim", tests, NULL, NULL);
}
