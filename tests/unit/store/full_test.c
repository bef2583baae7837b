/*
 * The store on a disk that is full or fails: a small tmpfs in a mount namespace of our own (root, or a user namespace), and, where there is none to be had,
 * a limit on the size of files. What was not committed is told so and is not there; what was there stays readable; and when there is room again the
 * store goes on by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/unit/store/fixture.h"

static gboolean have_mounts;

static gboolean write_file(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const gboolean ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* A mount namespace in which we may mount. Before the first thread. */
static gboolean enter_namespace(void)
{
    const uid_t uid = getuid();
    g_autofree char *map = g_strdup_printf("0 %u 1", uid);

    if (unshare(CLONE_NEWNS) < 0 &&
        (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || !write_file("/proc/self/uid_map", map))) {
        return FALSE;
    }
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static VpTxn *txn_of(const char *key, gsize bytes)
{
    VpTxn *txn = vp_txn_new();
    g_autofree char *value = g_strnfill(bytes, 'v');

    txn_put(txn, key, value);
    txn_event(txn, key);
    return txn;
}

/* Commits until one fails; returns how many succeeded, and the error. */
static int fill_up(VpStore *store, VpError **ret_error)
{
    int done = 0;

    while (done < 10000) {
        g_autofree char *key = g_strdup_printf("/fill/%d", done);

        vp_store_commit_wait(store, txn_of(key, 2000), ret_error);
        if (*ret_error) {
            return done;
        }
        done++;
    }
    fail_msg("the disk never filled up");
    return 0;
}

static void assert_consistent(VpStore *store, int committed, gint64 revision)
{
    VpError *error = NULL;
    g_autoptr(GPtrArray) keys = vp_store_list(store, "/fill/", NULL, 0, &error);
    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = 0;

    assert_null(error);
    assert_int_equal(keys->len, committed);
    assert_null(vp_store_read_journal(store, 1, 100000, entries, &next));
    assert_int_equal(entries->len, revision);
    assert_int_equal(next, revision + 1);
    for (guint i = 0; i < entries->len; i++) {
        assert_int_equal(((VpJournalEntry *)entries->pdata[i])->revision, i + 1);
    }
    assert_int_equal(vp_store_revision(store), revision);
}

static void test_disk_full(void **state)
{
    Fixture *fixture = *state;
    VpError *error = NULL;

    if (!have_mounts) {
        print_message("no mount namespace here: the size limit below is the only test of a failing disk\n");
        skip();
    }
    fixture_close(fixture);
    assert_int_equal(mount("tmpfs", fixture->dir, "tmpfs", 0, "size=3m"), 0);
    g_autofree char *ballast = g_build_filename(fixture->dir, "ballast", NULL);
    g_autofree char *zeros = g_malloc0(1 << 20);
    assert_true(g_file_set_contents(ballast, zeros, 1 << 20, NULL));
    fixture_open(fixture, 0, 0);

    const int committed = fill_up(fixture->store, &error);

    assert_int_equal(error->code, VP_RESOURCE_EXHAUSTED);
    assert_string_equal(error->reason, "STORE_FULL");
    assert_non_null(strstr(error->message, fixture->dir));
    g_clear_pointer(&error, vp_error_free);
    assert_true(committed > 30);
    assert_consistent(fixture->store, committed, committed);

    /* One that never had a chance fails in the same way and leaves nothing. */
    g_autoptr(VpError) large = commit_fails(fixture->store, txn_of("/large", 3 << 20));
    assert_string_equal(large->reason, "STORE_FULL");
    assert_consistent(fixture->store, committed, committed);

    /* A restart on the full disk: what was told to be there is. */
    fixture_close(fixture);
    fixture_open(fixture, 0, 0);
    assert_consistent(fixture->store, committed, committed);

    /* There is room again: the same store goes on, with the next revision. */
    const int more = fill_up(fixture->store, &error);

    assert_string_equal(error->reason, "STORE_FULL");
    g_clear_pointer(&error, vp_error_free);
    assert_int_equal(g_unlink(ballast), 0);
    assert_int_equal(put(fixture->store, "/after", "all"), committed + more + 1);
    assert_value(fixture->store, "/after", "all");
    fixture_close(fixture);
    fixture_open(fixture, 0, 0);
    assert_value(fixture->store, "/after", "all");
    assert_int_equal(vp_store_revision(fixture->store), committed + more + 1);
    fixture_close(fixture);
    assert_int_equal(umount(fixture->dir), 0);
}

static void test_no_room_to_open(void **state)
{
    Fixture *fixture = *state;
    VpError *error = NULL;

    if (!have_mounts) {
        skip();
    }
    fixture_close(fixture);
    assert_int_equal(mount("tmpfs", fixture->dir, "tmpfs", 0, "size=64k"), 0);
    g_autofree char *ballast = g_build_filename(fixture->dir, "ballast", NULL);
    const int fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    g_autofree char *zeros = g_malloc0(4096);

    while (write(fd, zeros, 4096) > 0) {
    }
    close(fd);

    const VpStoreOptions options = {.dir = fixture->dir};

    assert_null(vp_store_open_sqlite(&options, &error));
    assert_int_equal(error->code, VP_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(error->message, fixture->dir));
    vp_error_free(error);
    assert_int_equal(umount(fixture->dir), 0);
}

static void test_read_only(void **state)
{
    Fixture *fixture = *state;
    VpError *error = NULL;

    if (!have_mounts) {
        skip();
    }
    fixture_close(fixture);
    assert_int_equal(mount("tmpfs", fixture->dir, "tmpfs", MS_RDONLY, "size=64k"), 0);

    const VpStoreOptions options = {.dir = fixture->dir};

    assert_null(vp_store_open_sqlite(&options, &error));
    assert_int_equal(error->code, VP_PERMISSION_DENIED);
    assert_non_null(strstr(error->message, g_strerror(EROFS)));
    vp_error_free(error);
    assert_int_equal(umount(fixture->dir), 0);
}

/* No file may grow beyond the limit: writes fail with EFBIG, an I/O error that is not "disk full". */
static void test_io_error(void **state)
{
    Fixture *fixture = *state;
    VpError *error = NULL;
    struct rlimit before;

    put(fixture->store, "/before", "x");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit limit = {.rlim_cur = 600 << 10, .rlim_max = before.rlim_max};

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const int committed = fill_up(fixture->store, &error);

    /* cmocka's report goes to a file as well. */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(error->code, VP_UNAVAILABLE);
    assert_string_equal(error->reason, "STORE_FAILED");
    assert_non_null(strstr(error->message, fixture->dir));
    g_clear_pointer(&error, vp_error_free);
    assert_true(committed > 10);
    assert_consistent(fixture->store, committed, committed + 1);
    assert_int_equal(put(fixture->store, "/after", "all"), committed + 2);
    fixture_close(fixture);
    fixture_open(fixture, 0, 0);
    assert_consistent(fixture->store, committed, committed + 2);
    assert_value(fixture->store, "/after", "all");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_disk_full, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_no_room_to_open, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_read_only, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_io_error, fixture_setup, fixture_teardown),
    };

    signal(SIGXFSZ, SIG_IGN);
    have_mounts = enter_namespace();
    return cmocka_run_group_tests_name("store_full", tests, NULL, NULL);
}
