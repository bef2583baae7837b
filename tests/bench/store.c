/*
 * The store's figures. Over the socket: durable creates beside bare SQLite transactions of the same bytes and libvirt's define in the same run, the list of
 * 10,000 domains, and the start of a daemon that has them. In the process: a long run of events through a journal that is kept short.
 */
#include <glib/gstdio.h>
#include <grpc/grpc.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/c/client.h"
#include "server/store/store.h"
#include "tests/bench/bench.h"
#include "tests/bench/libvirt_peer.h"
#include "tests/bench/load.h"
#include "virtplane/v1/domain_service.pb-c.h"

#define CREATES_1 1000
#define CREATES_32 8000
#define DOMAINS 10000
#define FILL_IN_FLIGHT 64
#define PAGE 1000
#define LIBVIRT_MS 1000
#define CALL_MS 30000
/* What a create stores: the domain's row and its event, as in the daemon's own store. */
#define ROW_BYTES 330
#define EVENT_BYTES 110

#define SOAK_EVENTS 1000000
#define SOAK_STEP 100000
#define SOAK_KEPT 100000
#define SOAK_KEYS 1000
#define SOAK_IN_FLIGHT 256
#define SOAK_PROBES 200

typedef struct Bench {
    char *dir;
    char *address;
    char *log;
    pid_t daemon;
} Bench;

static void start_daemon(Bench *bench)
{
    g_autofree char *daemon = bench_runfile("server/virtplaned");
    g_autofree char *state = g_build_filename(bench->dir, "state", NULL);
    char *const argv[] = {daemon, (char *)"--state-dir", state, (char *)"--listen", bench->address, NULL};

    g_unlink(bench->log);
    bench->daemon = bench_spawn(argv, bench->log);
}

/* ---- creates ---- */

typedef struct Creates {
    const char *prefix;
    guint next;
    guint end;
} Creates;

static GBytes *next_create(void *data)
{
    Creates *creates = data;

    if (creates->next == creates->end)
        return NULL;
    vp_pb_auto PbCreateDomainRequest *request = vp_pb_new(&pb_create_domain_request__descriptor);
    g_autofree char *name = g_strdup_printf("%s-%06u", creates->prefix, creates->next++);

    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_set(&request->domain->name, name);
    vp_pb_set(&request->domain->spec->driver, "test");
    return vp_pb_pack(request);
}

static gdouble create(const Bench *bench, const char *prefix, guint from, guint count, guint in_flight)
{
    Creates creates = {.prefix = prefix, .next = from, .end = from + count};

    return load_each(bench->address, "/virtplane.v1.DomainService/CreateDomain", next_create, &creates, in_flight)
        .calls_per_second;
}

/* A transaction a create, as a program would write them that uses SQLite itself. */
static gdouble bare_sqlite(const Bench *bench, guint count)
{
    g_autofree char *path = g_build_filename(bench->dir, "bare.db", NULL);
    g_autofree char *bytes = g_strnfill(ROW_BYTES, 'x');
    sqlite3 *db = NULL;
    sqlite3_stmt *row = NULL;
    sqlite3_stmt *event = NULL;

    if (sqlite3_open(path, &db) != SQLITE_OK ||
        sqlite3_exec(db,
                     "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; DROP TABLE IF EXISTS kv; DROP TABLE IF "
                     "EXISTS journal;"
                     "CREATE TABLE kv(key TEXT PRIMARY KEY, value BLOB); CREATE TABLE journal(revision INTEGER PRIMARY "
                     "KEY, event BLOB)",
                     NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, "INSERT INTO kv VALUES(?1, ?2)", -1, &row, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, "INSERT INTO journal(event) VALUES(?1)", -1, &event, NULL) != SQLITE_OK)
        bench_die("SQLite: %s", sqlite3_errmsg(db));

    const gint64 start_us = vp_now_us();
    for (guint i = 0; i < count; i++) {
        g_autofree char *uid = g_uuid_string_random();
        g_autofree char *key = g_strconcat("/domains/", uid, NULL);

        sqlite3_bind_text(row, 1, key, -1, SQLITE_STATIC);
        sqlite3_bind_blob(row, 2, bytes, ROW_BYTES, SQLITE_STATIC);
        sqlite3_bind_blob(event, 1, bytes, EVENT_BYTES, SQLITE_STATIC);
        if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK || sqlite3_step(row) != SQLITE_DONE ||
            sqlite3_step(event) != SQLITE_DONE || sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
            bench_die("SQLite: %s", sqlite3_errmsg(db));
        sqlite3_reset(row);
        sqlite3_reset(event);
    }
    const gdouble per_second = count / ((gdouble)(vp_now_us() - start_us) / G_USEC_PER_SEC);

    sqlite3_finalize(row);
    sqlite3_finalize(event);
    sqlite3_close(db);
    return per_second;
}

static void measure_creates(Bench *bench, LibvirtPeer *libvirt, guint in_flight, guint count)
{
    g_autofree char *name = g_strdup_printf("create_%u", in_flight);
    g_autofree char *versus = g_strdup_printf("%s_vs_libvirt", name);
    BenchSamples ours = {0};
    BenchSamples bare = {0};
    BenchSamples define = {0};

    for (guint i = 0; i < BENCH_RUNS; i++) {
        bench_add(&ours, create(bench, name, i * count, count, in_flight));
        bench_add(&bare, bare_sqlite(bench, CREATES_1));
        if (libvirt)
            bench_add(&define, libvirt_peer_define(libvirt, in_flight, LIBVIRT_MS));
    }
    bench_figure(name, bench_median(&ours), "creates/s", bench_median(&ours) / bench_median(&bare), "bare_sqlite");
    if (libvirt)
        bench_figure(versus, bench_median(&ours), "creates/s", bench_median(&ours) / bench_median(&define),
                     "libvirt_define");
}

/* ---- lists and restarts ---- */

/* Turns all pages, as a client does that unpacks them; answers how many domains there were. */
static guint list_all(VpClient *client)
{
    vp_pb_auto PbListDomainsRequest *request = vp_pb_new(&pb_list_domains_request__descriptor);
    guint count = 0;

    request->page_size = PAGE;
    do {
        VpError *error = NULL;
        vp_pb_auto PbListDomainsResponse *answer =
            vp_client_call(client, &pb_domain_service__descriptor, "ListDomains", request, CALL_MS, &error);

        if (!answer)
            bench_die("ListDomains: %s", error->message);
        count += (guint)answer->n_domains;
        vp_pb_set(&request->page_token, answer->next_page_token);
    } while (request->page_token[0] != '\0');
    return count;
}

static void first_answer(const Bench *bench)
{
    VpError *error = NULL;
    VpClient *client = vp_client_new(bench->address, &error);
    vp_pb_auto PbListDomainsRequest *request = vp_pb_new(&pb_list_domains_request__descriptor);

    bench_wait_line(bench->log, "ready");
    request->page_size = 1;
    vp_pb_auto PbListDomainsResponse *answer =
        vp_client_call(client, &pb_domain_service__descriptor, "ListDomains", request, CALL_MS, &error);
    if (!answer || answer->n_domains != 1)
        bench_die("no answer after the restart");
    vp_client_free(client);
}

static void measure_10000(Bench *bench)
{
    BenchSamples list = {0};
    BenchSamples restart = {0};

    g_autofree char *state = g_build_filename(bench->dir, "state", NULL);
    g_autofree char *old = g_build_filename(bench->dir, "state.old", NULL);
    bench_stop(bench->daemon);
    if (g_rename(state, old) < 0)
        bench_die("the state of the creates cannot be put away");
    start_daemon(bench);
    bench_wait_line(bench->log, "ready");
    create(bench, "list", 0, DOMAINS, FILL_IN_FLIGHT);

    VpError *error = NULL;
    VpClient *client = vp_client_new(bench->address, &error);
    list_all(client); /* connects */
    for (guint i = 0; i < BENCH_RUNS; i++) {
        const gint64 start_us = vp_now_us();

        if (list_all(client) != DOMAINS)
            bench_die("the list is not whole");
        bench_add(&list, (gdouble)(vp_now_us() - start_us) / 1000.0);
    }
    vp_client_free(client);
    bench_figure("list_10000", bench_median(&list), "ms", 0, NULL);

    for (guint i = 0; i < BENCH_RUNS; i++) {
        kill(bench->daemon, SIGKILL);
        waitpid(bench->daemon, NULL, 0);
        const gint64 start_us = vp_now_us();

        start_daemon(bench);
        first_answer(bench);
        bench_add(&restart, (gdouble)(vp_now_us() - start_us) / 1000.0);
    }
    bench_figure("restart_10000", bench_median(&restart), "ms", 0, NULL);
}

/* ---- the long run ---- */

typedef struct Soak {
    VpStore *store;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    guint in_flight;
    gint64 woken_us;
    gint64 longest_us; /* from a commit to its answer */
} Soak;

typedef struct SoakCommit {
    Soak *soak;
    gint64 start_us;
} SoakCommit;

static void soak_done(void *data, gint64 revision, const VpError *error)
{
    g_autofree SoakCommit *commit = data;
    Soak *soak = commit->soak;

    if (error)
        bench_die("commit at %" G_GINT64_FORMAT ": %s", revision, error->message);
    VP_LOCK(&soak->lock);
    soak->in_flight--;
    soak->longest_us = MAX(soak->longest_us, vp_now_us() - commit->start_us);
    pthread_cond_signal(&soak->changed);
}

static void soak_woken(void *data)
{
    Soak *soak = data;

    VP_LOCK(&soak->lock);
    soak->woken_us = vp_now_us();
}

static VpTxn *soak_txn(guint number)
{
    VpTxn *txn = vp_txn_new();
    g_autofree char *key = g_strdup_printf("/domains/%u", number % SOAK_KEYS);
    char *value = g_strnfill(ROW_BYTES, 'x');
    g_autoptr(GBytes) bytes = g_bytes_new_take(value, ROW_BYTES);
    PbEvent event = PB_EVENT__INIT;

    event.type = PB_EVENT_TYPE_DOMAIN_UPDATED;
    event.resource_type = (char *)"domain";
    event.name = key;
    event.uid = (char *)"00000000-0000-4000-8000-000000000000";
    event.reason = (char *)"REQUESTED";
    vp_txn_put(txn, key, bytes);
    vp_txn_event(txn, &event);
    return txn;
}

static void soak_commit(Soak *soak, guint number)
{
    SoakCommit *commit = g_new(SoakCommit, 1);

    pthread_mutex_lock(&soak->lock);
    while (soak->in_flight >= SOAK_IN_FLIGHT)
        pthread_cond_wait(&soak->changed, &soak->lock);
    soak->in_flight++;
    pthread_mutex_unlock(&soak->lock);
    *commit = (SoakCommit){.soak = soak, .start_us = vp_now_us()};
    vp_store_commit(soak->store, soak_txn(number), soak_done, commit);
}

static gdouble soak_list_ms(Soak *soak)
{
    VpError *error = NULL;
    const gint64 start_us = vp_now_us();
    g_autoptr(GPtrArray) list = vp_store_list(soak->store, "/domains/", NULL, 0, &error);

    if (!list || list->len != SOAK_KEYS)
        bench_die("the list is not whole");
    return (gdouble)(vp_now_us() - start_us) / 1000.0;
}

/* From the commit of one event until a watcher was woken and has read it: the median. */
static gdouble soak_watch_us(Soak *soak, guint number)
{
    g_autoptr(GArray) times = g_array_new(FALSE, FALSE, sizeof(gint64));

    for (guint i = 0; i < SOAK_PROBES; i++) {
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
        const gint64 start_us = vp_now_us();
        VpError *error = NULL;
        const gint64 revision = vp_store_commit_wait(soak->store, soak_txn(number + i), &error);
        gint64 next = 0;

        if (!vp_store_read_tail(soak->store, revision, 1, entries, &next) || entries->len != 1)
            bench_die("the event of revision %" G_GINT64_FORMAT " is not there", revision);
        const gint64 took_us = vp_now_us() - start_us;
        guint at = 0;

        while (at < times->len && g_array_index(times, gint64, at) < took_us)
            at++;
        g_array_insert_val(times, at, took_us);
    }
    return (gdouble)g_array_index(times, gint64, times->len / 2);
}

static gdouble files_mib(const char *dir)
{
    static const char *const names[] = {"store.db", "store.db-wal"};
    gdouble bytes = 0;

    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(dir, names[i], NULL);
        GStatBuf st;

        if (g_stat(path, &st) == 0)
            bytes += (gdouble)st.st_size;
    }
    return bytes / 1048576.0;
}

static void soak_step(Soak *soak, const char *dir, guint done)
{
    VpStoreStats stats;

    pthread_mutex_lock(&soak->lock);
    while (soak->in_flight > 0)
        pthread_cond_wait(&soak->changed, &soak->lock);
    pthread_mutex_unlock(&soak->lock);
    const gdouble list_ms = soak_list_ms(soak);
    const gdouble watch_us = soak_watch_us(soak, done);

    vp_store_stats(soak->store, &stats);
    printf("soak %8u events: files %6.1f MiB, kept %" G_GINT64_FORMAT
           ", list of %u %5.2f ms, commit to watcher %5.0f us,"
           " longest so far: wait %.1f ms, group %.1f ms, compaction step %.2f ms, log upkeep %.1f ms\n",
           done, files_mib(dir), stats.journal_events, SOAK_KEYS, list_ms, watch_us, (gdouble)soak->longest_us / 1000.0,
           (gdouble)stats.commit_longest_us / 1000.0, (gdouble)stats.compact_longest_us / 1000.0,
           (gdouble)stats.upkeep_longest_us / 1000.0);
    fflush(stdout);
}

static void measure_soak(const Bench *bench, guint events)
{
    g_autofree char *dir = g_build_filename(bench->dir, "soak", NULL);
    const VpStoreOptions options = {.dir = dir, .journal_max_events = SOAK_KEPT, .journal_keep_events = SOAK_KEPT / 10};
    VpError *error = NULL;
    VpStoreStats stats;
    Soak soak = {0};

    g_mkdir(dir, 0700);
    pthread_mutex_init(&soak.lock, NULL);
    vp_cond_init(&soak.changed);
    soak.store = vp_store_open_sqlite(&options, &error);
    if (!soak.store)
        bench_die("%s", error->message);
    VpStoreWatch *watch = vp_store_watch(soak.store, soak_woken, &soak);
    const gint64 start_us = vp_now_us();

    for (guint i = 0; i < events; i++) {
        soak_commit(&soak, i);
        if ((i + 1) % SOAK_STEP == 0 || i + 1 == events)
            soak_step(&soak, dir, i + 1);
    }
    vp_store_stats(soak.store, &stats);
    g_autofree char *name = g_strdup_printf("soak_%u", events);
    g_autofree char *size = g_strconcat(name, "_files", NULL);
    g_autofree char *stall = g_strconcat(name, "_compaction_longest", NULL);

    bench_figure(name, events / ((gdouble)(vp_now_us() - start_us) / G_USEC_PER_SEC), "events/s", 0, NULL);
    bench_figure(size, files_mib(dir), "MiB", 0, NULL);
    bench_figure(stall, (gdouble)stats.compact_longest_us / 1000.0, "ms", 0, NULL);
    vp_store_unwatch(soak.store, watch);
    vp_store_close(soak.store);
}

int main(int argc, char **argv)
{
    gint events = SOAK_EVENTS;
    const GOptionEntry entries[] = {
        {"events", 0, 0, G_OPTION_ARG_INT, &events, "The long run's events (1,000,000); 0 leaves it out", "N"},
        {0},
    };
    g_autoptr(GOptionContext) options = g_option_context_new(NULL);
    Bench bench = {.dir = g_dir_make_tmp("vpbench-XXXXXX", NULL)};

    g_option_context_add_main_entries(options, entries, NULL);
    if (!bench.dir || !g_option_context_parse(options, &argc, &argv, NULL))
        bench_die("usage: store [--events N]");
    grpc_init();
    vp_client_library_init();
    bench.address = g_strdup_printf("unix:%s/d.sock", bench.dir);
    bench.log = g_build_filename(bench.dir, "daemon.log", NULL);
    start_daemon(&bench);
    bench_wait_line(bench.log, "ready");
    LibvirtPeer *libvirt = libvirt_peer_new(bench.dir);

    measure_creates(&bench, libvirt, 1, CREATES_1);
    measure_creates(&bench, libvirt, 32, CREATES_32);
    libvirt_peer_free(libvirt);
    measure_10000(&bench);
    bench_stop(bench.daemon);
    if (events > 0)
        measure_soak(&bench, (guint)events);

    vp_client_library_shutdown();
    grpc_shutdown_blocking();
    g_free(bench.address);
    g_free(bench.log);
    bench_remove(bench.dir);
    g_free(bench.dir);
    return 0;
}
