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
#include "tests/bench/bench.h"
#include "tests/bench/libvirt_peer.h"
#include "tests/bench/load.h"
#include "tests/bench/soak.h"
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
        soak_run(bench.dir, (guint)events);

    vp_client_library_shutdown();
    grpc_shutdown_blocking();
    g_free(bench.address);
    g_free(bench.log);
    bench_remove(bench.dir);
    g_free(bench.dir);
    return 0;
}
