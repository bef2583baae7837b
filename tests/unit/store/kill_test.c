/*
 * kill -9 at random moments. A child keeps many commits in flight and reports each acknowledged revision through a pipe;
 * then it is killed. Each time: all that was acknowledged is there, nothing is there by half, no revision was given twice.
 * VP_KILL_ROUNDS sets the number of rounds.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"
#include "tests/unit/store/fixture.h"

#define DEFAULT_ROUNDS 20
/* Few, so that kills come upon the compaction as well. */
#define JOURNAL_MAX 1000

/* One line of the pipe; written in one piece, being smaller than PIPE_BUF. */
typedef struct Report {
    gint64 revision;
    gint64 number;
} Report;

typedef struct Child {
    VpStore *store;
    int pipe;
    gint64 round;
    gint64 next;
} Child;

typedef struct Commit {
    Child *child;
    gint64 number;
} Commit;

static void commit_one(Child *child);

/* On the writer's thread: reports, and keeps as many in flight as before. */
static void on_commit(void *data, gint64 revision, const VpError *error)
{
    Commit *one = data;
    Child *child = one->child;
    const Report report = {.revision = revision, .number = one->number};

    g_free(one);
    if (error || write(child->pipe, &report, sizeof(report)) != sizeof(report)) {
        _exit(1);
    }
    commit_one(child);
}

/* Two keys and two events that belong together, and one key that each transaction overwrites. */
static void commit_one(Child *child)
{
    Commit *one = g_new(Commit, 1);
    VpTxn *txn = vp_txn_new();
    g_autofree char *value = g_strdup_printf("%" G_GINT64_FORMAT, child->next);
    g_autofree char *left = g_strdup_printf("/left/%" G_GINT64_FORMAT "/%s", child->round, value);
    g_autofree char *right = g_strdup_printf("/right/%" G_GINT64_FORMAT "/%s", child->round, value);

    *one = (Commit){.child = child, .number = child->next++};
    txn_put(txn, left, value);
    txn_event(txn, left);
    txn_put(txn, "/latest", value);
    txn_put(txn, right, value);
    txn_event(txn, right);
    vp_store_commit(child->store, txn, on_commit, one);
}

/* Keeps `in_flight` commits going until it is killed. */
static void child_main(const char *dir, int pipe, gint64 round, guint in_flight)
{
    const VpStoreOptions options = {.dir = dir, .journal_max_events = JOURNAL_MAX};
    VpError *error = NULL;
    Child child = {.store = vp_store_open_sqlite(&options, &error), .pipe = pipe, .round = round};

    if (!child.store) {
        dprintf(STDERR_FILENO, "child: %s\n", error->message);
        _exit(1);
    }
    /* Barriers first: the changes then start on the writer's thread, and `next` is its alone. */
    for (guint i = 0; i < in_flight; i++) {
        Commit *one = g_new(Commit, 1);

        *one = (Commit){.child = &child, .number = -1};
        vp_store_commit(child.store, vp_txn_new(), on_commit, one);
    }
    for (;;) {
        pause();
    }
}

/* Reads reports until `count` have come (0: until the pipe ends). */
static void read_reports(int pipe, guint count, GArray *reports)
{
    Report report;

    for (guint i = 0; count == 0 || i < count; i++) {
        const ssize_t got = read(pipe, &report, sizeof(report));

        if (got == 0 && count == 0) {
            return;
        }
        assert_int_equal(got, sizeof(report));
        if (report.number >= 0) {
            g_array_append_val(reports, report);
        }
    }
}

static void assert_key_of(VpStore *store, const char *side, gint64 round, const Report *report)
{
    g_autofree char *key = g_strdup_printf("/%s/%" G_GINT64_FORMAT "/%" G_GINT64_FORMAT, side, round, report->number);
    VpError *error = NULL;
    VpKeyValue *kv = vp_store_get(store, key, &error);

    assert_non_null(kv);
    assert_int_equal(kv->mod_revision, report->revision);
    vp_key_value_free(kv);
}

/* Left and right halves are equal in number and revision, and each revision that the journal still has is there with its two events. Returns the last. */
static gint64 assert_whole(VpStore *store)
{
    VpError *error = NULL;
    g_autoptr(GPtrArray) left = vp_store_list(store, "/left/", NULL, 0, &error);
    g_autoptr(GPtrArray) right = vp_store_list(store, "/right/", NULL, 0, &error);
    g_autoptr(GPtrArray) entries = entries_new();
    gint64 next = 0;

    assert_int_equal(left->len, right->len);
    for (guint i = 0; i < left->len; i++) {
        const VpKeyValue *a = left->pdata[i];
        const VpKeyValue *b = right->pdata[i];

        assert_string_equal(strchr(a->key + 1, '/'), strchr(b->key + 1, '/'));
        assert_int_equal(a->mod_revision, b->mod_revision);
        assert_int_equal(a->create_revision, a->mod_revision);
    }

    const gint64 revision = vp_store_revision(store);

    const gint64 oldest = vp_store_oldest_revision(store);

    assert_int_equal(left->len, revision);
    assert_true(2 * (revision - oldest + 1) >= MIN(2 * revision, JOURNAL_MAX - 2));
    error = vp_store_read_journal(store, oldest, G_MAXUINT, entries, &next);
    if (error) {
        fail_msg("the journal cannot be read from %" G_GINT64_FORMAT ": %s", oldest, error->message);
    }
    assert_int_equal(entries->len, 2 * (revision - oldest + 1));
    for (guint i = 0; i < entries->len; i++) {
        assert_int_equal(((VpJournalEntry *)entries->pdata[i])->revision, oldest + i / 2);
    }
    assert_int_equal(next, revision + 1);
    return revision;
}

static gint64 kill_round(Fixture *fixture, gint64 round, gint64 revision_before)
{
    g_autoptr(GArray) reports = g_array_new(FALSE, FALSE, sizeof(Report));
    const guint in_flight = 1u << (round % 7); /* from one commit a group to large groups */
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();

    if (child == 0) {
        close(ends[0]);
        child_main(fixture->dir, ends[1], round, in_flight);
    }
    close(ends[1]);
    /* Some commits, and then some of a commit: the moment is what is random here, no condition is waited for. */
    read_reports(ends[0], in_flight + (guint)g_random_int_range(1, 400), reports);
    g_usleep((gulong)g_random_int_range(0, 2000));
    assert_int_equal(kill(child, SIGKILL), 0);

    int status = 0;

    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    read_reports(ends[0], 0, reports);
    close(ends[0]);

    fixture_open(fixture, 0, 0);
    gint64 last = revision_before;

    for (guint i = 0; i < reports->len; i++) {
        const Report *report = &g_array_index(reports, Report, i);

        assert_int_equal(report->revision, last + 1);
        last = report->revision;
        assert_key_of(fixture->store, "left", round, report);
        assert_key_of(fixture->store, "right", round, report);
    }
    const gint64 revision = assert_whole(fixture->store);

    assert_true(revision >= last);
    fixture_close(fixture);
    return revision;
}

static void test_kill(void **state)
{
    Fixture *fixture = *state;
    const char *wish = g_getenv("VP_KILL_ROUNDS");
    const int rounds = wish ? atoi(wish) : DEFAULT_ROUNDS;
    gint64 revision = 0;

    fixture_close(fixture);
    for (int round = 0; round < rounds; round++) {
        revision = kill_round(fixture, round, revision);
    }
    fixture_open(fixture, 0, 0);
    assert_true(vp_store_oldest_revision(fixture->store) > 1);
    print_message("%d kills, %" G_GINT64_FORMAT " revisions\n", rounds, revision);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kill, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests_name("store_kill", tests, NULL, NULL);
}
