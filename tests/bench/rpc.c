/*
 * The RPC figures: GetDomain on the unix socket beside a bare C core echo server and libvirt in the same run, beside a greedy neighbour, and the
 * daemon's memory. /
 */
#include <glib/gstdio.h>
#include <grpc/grpc.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/pb.h"
#include "tests/bench/bench.h"
#include "tests/bench/libvirt_peer.h"
#include "tests/bench/load.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"

#define RUN_MS 1000
#define STREAMS 1000
#define STREAM_CONNECTIONS 10

typedef struct Bench {
    char *dir;
    char *daemon_address;
    char *echo_address;
    pid_t daemon;
    pid_t echo;
    GBytes *get_request;
    GBytes *echo_request;
    LibvirtPeer *libvirt;
} Bench;

static void start_servers(Bench *bench)
{
    g_autofree char *daemon = bench_runfile("server/virtplaned");
    g_autofree char *echo = bench_runfile("tests/bench/echo_server");
    g_autofree char *state = g_build_filename(bench->dir, "state", NULL);
    g_autofree char *daemon_log = g_build_filename(bench->dir, "daemon.log", NULL);
    g_autofree char *echo_log = g_build_filename(bench->dir, "echo.log", NULL);

    bench->daemon_address = g_strdup_printf("unix:%s/d.sock", bench->dir);
    bench->echo_address = g_strdup_printf("unix:%s/e.sock", bench->dir);
    char *const daemon_argv[] = {daemon, (char *)"--state-dir", state, (char *)"--listen", bench->daemon_address, NULL};
    char *const echo_argv[] = {echo, bench->echo_address, NULL};
    bench->daemon = bench_spawn(daemon_argv, daemon_log);
    bench->echo = bench_spawn(echo_argv, echo_log);
    bench_wait_line(daemon_log, "ready");
    bench_wait_line(echo_log, "ready");
}

static void create_domain(const Bench *bench)
{
    vp_pb_auto PbCreateDomainRequest *request = vp_pb_new(&pb_create_domain_request__descriptor);

    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_set(&request->domain->name, "bench");
    vp_pb_set(&request->domain->spec->driver, "test");
    vp_pb_set(&request->request_id, "bench");
    g_autoptr(GBytes) packed = vp_pb_pack(request);
    /* Idempotent by its request id, so that it can be made with the tool for loads. */
    load_run(bench->daemon_address, "/virtplane.v1.DomainService/CreateDomain", packed, 1, 100);
}

static GBytes *request_for(const char *name)
{
    PbGetDomainRequest request = PB_GET_DOMAIN_REQUEST__INIT;

    request.name = (char *)name;
    return vp_pb_pack(&request);
}

static void measure_calls(Bench *bench, guint in_flight)
{
    g_autofree char *name = g_strdup_printf("rpc_get_domain_%u", in_flight);
    g_autofree char *p50 = g_strdup_printf("%s_p50", name);
    g_autofree char *p99 = g_strdup_printf("%s_p99", name);
    g_autofree char *versus = g_strdup_printf("%s_vs_libvirt", name);
    const gboolean with_libvirt = bench->libvirt && in_flight <= 8;
    BenchSamples ours[3] = {0};
    BenchSamples peers[3] = {0};
    BenchSamples libvirt = {0};

    for (guint i = 0; i < BENCH_RUNS; i++) {
        const LoadResult own = load_run(bench->daemon_address, "/virtplane.v1.DomainService/GetDomain",
                                        bench->get_request, in_flight, RUN_MS);
        const LoadResult peer =
            load_run(bench->echo_address, "/bench.Echo/Echo", bench->echo_request, in_flight, RUN_MS);

        bench_add(&ours[0], own.calls_per_second);
        bench_add(&ours[1], own.p50_us);
        bench_add(&ours[2], own.p99_us);
        bench_add(&peers[0], peer.calls_per_second);
        bench_add(&peers[1], peer.p50_us);
        bench_add(&peers[2], peer.p99_us);
        if (with_libvirt)
            bench_add(&libvirt, libvirt_peer_domain_info(bench->libvirt, in_flight, RUN_MS));
    }
    const gdouble own = bench_median(&ours[0]);
    bench_figure(name, own, "calls/s", own / bench_median(&peers[0]), "bare_ccore_echo");
    bench_figure(p50, bench_median(&ours[1]), "us", bench_median(&peers[1]) / bench_median(&ours[1]),
                 "bare_ccore_echo");
    bench_figure(p99, bench_median(&ours[2]), "us", bench_median(&peers[2]) / bench_median(&ours[2]),
                 "bare_ccore_echo");
    if (with_libvirt)
        bench_figure(versus, own, "calls/s", own / bench_median(&libvirt), "libvirt");
}

/* ---- a greedy neighbour: another process that keeps 64 calls under way; "rpc --load ADDRESS METHOD MS" is that process ---- */

#define GREEDY_CALLS 64

static int be_greedy(char *const *argv)
{
    const struct sched_param none = {0};
    GBytes *request = request_for("bench");

    /* It may be greedy with the daemon, not with the processors: on two of them who waits would wait for the kernel's turn (3 ms), whatever the daemon does. */
    if (sched_setscheduler(0, SCHED_IDLE, &none) != 0)
        bench_die("no idle turn");

    grpc_init();
    puts("ready");
    fflush(stdout);
    load_run(argv[2], argv[3], request, GREEDY_CALLS, (guint)g_ascii_strtoull(argv[4], NULL, 10));
    g_bytes_unref(request);
    grpc_shutdown_blocking();
    return 0;
}

static gdouble p99_beside(const Bench *bench, const char *address, const char *method)
{
    g_autofree char *log = g_build_filename(bench->dir, "greedy.log", NULL);
    g_autofree char *ms = g_strdup_printf("%d", 10 * RUN_MS);
    char *const argv[] = {(char *)"/proc/self/exe", (char *)"--load", (char *)address, (char *)method, ms, NULL};

    g_unlink(log);
    const pid_t greedy = bench_spawn(argv, log);
    bench_wait_line(log, "ready");
    const LoadResult result =
        load_run(bench->daemon_address, "/virtplane.v1.DomainService/GetDomain", bench->get_request, 1, RUN_MS);
    bench_stop(greedy);
    return result.p99_us;
}

/* The p99 of a client with one call under way, alone, beside one that is greedy with the same daemon, and beside one that is as greedy with another program. */
static void measure_greedy_neighbour(const Bench *bench)
{
    BenchSamples alone = {0};
    BenchSamples beside = {0};
    BenchSamples elsewhere = {0};

    for (guint i = 0; i < BENCH_RUNS; i++) {
        const LoadResult result =
            load_run(bench->daemon_address, "/virtplane.v1.DomainService/GetDomain", bench->get_request, 1, RUN_MS);

        bench_add(&alone, result.p99_us);
        bench_add(&beside, p99_beside(bench, bench->daemon_address, "/virtplane.v1.DomainService/GetDomain"));
        bench_add(&elsewhere, p99_beside(bench, bench->echo_address, "/bench.Echo/Echo"));
    }
    bench_figure("greedy_neighbour_p99", bench_median(&beside), "us", bench_median(&alone) / bench_median(&beside),
                 "alone");
    bench_figure("greedy_neighbour_p99_by_load", bench_median(&beside), "us",
                 bench_median(&elsewhere) / bench_median(&beside), "same_load_elsewhere");
}

static void rss_with_streams(void *data)
{
    const Bench *bench = data;

    bench_figure("rss_per_1000_streams", (gdouble)bench_rss(bench->daemon) / 1048576.0, "MiB", 0, NULL);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "--load") == 0)
        return be_greedy(argv);

    Bench bench = {.dir = g_dir_make_tmp("vpbench-XXXXXX", NULL)};
    PbWatchEventsRequest watch = PB_WATCH_EVENTS_REQUEST__INIT;
    char payload[101];

    if (!bench.dir)
        bench_die("no temporary folder");
    grpc_init();
    start_servers(&bench);
    bench_figure("rss_idle", (gdouble)bench_rss(bench.daemon) / 1048576.0, "MiB", 0, NULL);
    bench_figure("rss_idle_bare", (gdouble)bench_rss(bench.echo) / 1048576.0, "MiB", 0, NULL);
    create_domain(&bench);
    memset(payload, 'x', 100);
    payload[100] = '\0';
    bench.get_request = request_for("bench");
    bench.echo_request = request_for(payload);
    bench.libvirt = libvirt_peer_new(bench.dir);

    measure_calls(&bench, 1);
    measure_calls(&bench, 8);
    measure_calls(&bench, 64);
    measure_greedy_neighbour(&bench);
    g_autoptr(GBytes) watch_request = vp_pb_pack(&watch);
    load_streams(bench.daemon_address, "/virtplane.v1.EventService/WatchEvents", watch_request, STREAMS,
                 STREAM_CONNECTIONS, rss_with_streams, &bench);

    libvirt_peer_free(bench.libvirt);
    bench_stop(bench.daemon);
    bench_stop(bench.echo);
    g_bytes_unref(bench.get_request);
    g_bytes_unref(bench.echo_request);
    g_free(bench.daemon_address);
    g_free(bench.echo_address);
    grpc_shutdown_blocking();
    bench_remove(bench.dir);
    g_free(bench.dir);
    return 0;
}
