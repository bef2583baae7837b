/*
 * The figures of running QEMU domains, beside libvirt's for the same domain (q35, 64 MiB, no disk) in turn with ours: what a start costs above QEMU's own
 * floor, how long a power off takes, how soon a change is heard of by another client, what a domain feels of others that hang, and a hundred of them at once.
 */
#include <fcntl.h>
#include <grpc/grpc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/c/client.h"
#include "tests/bench/bench.h"
#include "tests/bench/libvirt_domain.h"
#include "tests/bench/load.h"
#include "tests/bench/qemu_bare.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"

#define CALL_MS 60000
#define FLEET_STATS_S 5

static gint starts = 20;   /* of each kind */
static gint events = 200;  /* halts and goes */
static gint domains = 100; /* of the fleet */

typedef struct Bench {
    char *dir;
    char *address;
    pid_t daemon;
    VpClient *client;
    LibvirtDomain *libvirt; /* NULL: left out */
} Bench;

/* ---- samples ---- */

static GArray *samples_new(void)
{
    return g_array_new(FALSE, FALSE, sizeof(gdouble));
}

static int compare(const void *a, const void *b)
{
    const gdouble x = *(const gdouble *)a;
    const gdouble y = *(const gdouble *)b;

    return x < y ? -1 : x > y;
}

static gdouble part(GArray *samples, gdouble at)
{
    g_array_sort(samples, compare);
    return samples->len ? g_array_index(samples, gdouble, (guint)(at * (samples->len - 1) + 0.5)) : 0;
}

static void add(GArray *samples, gdouble value)
{
    g_array_append_val(samples, value);
}

/* How far the middle half lies apart: the noise of what the medians are taken from. */
static void say_noise(const char *name, GArray *samples, const char *unit)
{
    printf("noise %s median %.1f quarters %.1f %.1f least %.1f %s (%u)\n", name, part(samples, 0.5),
           part(samples, 0.25), part(samples, 0.75), part(samples, 0), unit, samples->len);
}

/* ---- calls ---- */

/* The caller frees the answer. */
static void *call(const Bench *bench, const char *method, const void *request)
{
    VpError *error = NULL;
    void *answer = vp_client_call(bench->client, &pb_domain_service__descriptor, method, request, CALL_MS, &error);

    if (!answer)
        bench_die("%s: %s", method, error->message);
    return answer;
}

static gdouble timed(const Bench *bench, const char *method, const void *request)
{
    const gint64 start_us = vp_now_us();

    vp_pb_free(call(bench, method, request));
    return (gdouble)(vp_now_us() - start_us);
}

static void create(const Bench *bench, const char *name, guint64 memory_mib)
{
    vp_pb_auto PbCreateDomainRequest *request = vp_pb_new(&pb_create_domain_request__descriptor);

    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_set(&request->domain->name, name);
    vp_pb_set(&request->domain->spec->driver, "qemu");
    vp_pb_set(&request->domain->spec->machine, "q35");
    request->domain->spec->vcpus = 1;
    request->domain->spec->memory_bytes = memory_mib << 20;
    vp_pb_free(call(bench, "CreateDomain", request));
}

/* The requests of all verbs begin with the same fields. */
static gdouble verb(const Bench *bench, const char *method, const char *name)
{
    const ProtobufCMethodDescriptor *called =
        protobuf_c_service_descriptor_get_method_by_name(&pb_domain_service__descriptor, method);
    vp_pb_auto PbPauseDomainRequest *request = vp_pb_new(called->input);

    vp_pb_set(&request->name, name);
    return timed(bench, method, request);
}

static pid_t pid_of(const Bench *bench, const char *name, gboolean *ret_kvm)
{
    vp_pb_auto PbGetDomainRequest *request = vp_pb_new(&pb_get_domain_request__descriptor);

    vp_pb_set(&request->name, name);
    vp_pb_auto PbGetDomainResponse *answer = call(bench, "GetDomain", request);
    *ret_kvm = answer->domain->status->accelerator == PB_ACCELERATOR_KVM;
    return answer->domain->status->pid;
}

/* ---- start and power off ---- */

static void measure_starts(Bench *bench, char *const *argv)
{
    g_autoptr(GArray) ours = samples_new();
    g_autoptr(GArray) bare = samples_new();
    g_autoptr(GArray) theirs = samples_new();
    g_autoptr(GArray) off = samples_new();
    g_autoptr(GArray) destroy = samples_new();

    for (gint i = 0; i < starts; i++) {
        add(bare, qemu_bare_start(argv, bench->dir));
        add(ours, verb(bench, "StartDomain", "vm") / 1000);
        add(off, verb(bench, "PowerOffDomain", "vm") / 1000);
        if (!bench->libvirt)
            continue;
        add(theirs, libvirt_domain_start(bench->libvirt));
        add(destroy, libvirt_domain_destroy(bench->libvirt));
    }
    const gdouble floor_ms = part(bare, 0.5);
    const gdouble overhead_ms = part(ours, 0.5) - floor_ms;

    say_noise("start", ours, "ms");
    say_noise("bare_start", bare, "ms");
    say_noise("libvirt_start", theirs, "ms");
    bench_figure("start_overhead", overhead_ms, "ms", (part(theirs, 0.5) - floor_ms) / overhead_ms,
                 bench->libvirt ? "libvirt_start" : NULL);
    say_noise("power_off", off, "ms");
    bench_figure("power_off", part(off, 0.5), "ms", part(destroy, 0.5) / part(off, 0.5),
                 bench->libvirt ? "libvirt_destroy" : NULL);
}

/* ---- events ---- */

typedef struct Listener {
    VpClientStream *stream;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t heard;
    gint64 heard_us;
} Listener;

static gboolean is_change(const PbWatchEventsResponse *answer)
{
    return answer->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT &&
           (answer->event->type == PB_EVENT_TYPE_DOMAIN_PAUSED || answer->event->type == PB_EVENT_TYPE_DOMAIN_RESUMED);
}

static void *listen_on(void *data)
{
    Listener *listener = data;

    for (;;) {
        g_autoptr(VpError) error = NULL;
        vp_pb_auto PbWatchEventsResponse *answer = vp_client_stream_read(listener->stream, 0, &error);

        if (!answer)
            return NULL;
        if (!is_change(answer))
            continue;
        VP_LOCK(&listener->mutex);
        listener->heard_us = vp_now_us();
        pthread_cond_signal(&listener->heard);
    }
}

/* The pause or the resume is called by a thread of its own connection; the time is that until another client has the event. */
static gdouble one_event(const Bench *bench, Listener *listener, gboolean pause)
{
    const gint64 start_us = vp_now_us();
    const gint64 deadline_us = start_us + CALL_MS * 1000LL;

    verb(bench, pause ? "PauseDomain" : "ResumeDomain", "vm");
    VP_LOCK(&listener->mutex);
    while (listener->heard_us < start_us) {
        if (!vp_cond_wait_until(&listener->heard, &listener->mutex, deadline_us))
            bench_die("no event came");
    }
    return (gdouble)(listener->heard_us - start_us);
}

static void measure_events(Bench *bench)
{
    g_autoptr(GArray) ours = samples_new();
    g_autoptr(GArray) theirs = samples_new();
    vp_pb_auto PbWatchEventsRequest *request = vp_pb_new(&pb_watch_events_request__descriptor);
    VpError *error = NULL;
    Listener listener = {0};
    VpClient *client = vp_client_new(bench->address, &error);

    pthread_mutex_init(&listener.mutex, NULL);
    vp_cond_init(&listener.heard);
    verb(bench, "StartDomain", "vm");
    listener.stream = vp_client_stream_new(client, &pb_event_service__descriptor, "WatchEvents", request, 0, &error);
    if (!listener.stream || pthread_create(&listener.thread, NULL, listen_on, &listener) != 0)
        bench_die("no stream of events");
    if (bench->libvirt)
        libvirt_domain_start(bench->libvirt);
    /* The stream begins at the first event that comes. */
    one_event(bench, &listener, TRUE);
    for (gint i = 0; i < events; i++) {
        add(ours, one_event(bench, &listener, i % 2 != 0));
        if (bench->libvirt)
            add(theirs, libvirt_domain_event(bench->libvirt));
    }
    say_noise("event_latency", ours, "us");
    bench_figure("event_latency", part(ours, 0.5), "us", part(theirs, 0.5) / part(ours, 0.5),
                 bench->libvirt ? "libvirt_callback" : NULL);
    bench_figure("event_latency_p99", part(ours, 0.99), "us", part(theirs, 0.99) / part(ours, 0.99),
                 bench->libvirt ? "libvirt_callback" : NULL);
    if (bench->libvirt)
        libvirt_domain_destroy(bench->libvirt);
    vp_client_stream_cancel(listener.stream);
    pthread_join(listener.thread, NULL);
    vp_client_stream_free(listener.stream);
    vp_client_free(client);
    verb(bench, "PowerOffDomain", "vm");
}

/* ---- a neighbour that hangs ---- */

static void pause_and_resume(const Bench *bench, GArray *samples, gint count)
{
    for (gint i = 0; i < count; i++) {
        add(samples, verb(bench, "PauseDomain", "vm"));
        add(samples, verb(bench, "ResumeDomain", "vm"));
    }
}

static void measure_hung(Bench *bench)
{
    g_autoptr(GArray) before = samples_new();
    g_autoptr(GArray) beside = samples_new();
    vp_pb_auto PbResetDomainRequest *reset = vp_pb_new(&pb_reset_domain_request__descriptor);
    gboolean kvm;

    create(bench, "hung", 64);
    verb(bench, "StartDomain", "hung");
    verb(bench, "StartDomain", "vm");
    const pid_t pid = pid_of(bench, "hung", &kvm);
    vp_pb_set(&reset->name, "hung");
    reset->no_wait = TRUE;
    for (guint run = 0; run < BENCH_RUNS; run++) {
        pause_and_resume(bench, before, events / (2 * BENCH_RUNS));
        kill(pid, SIGSTOP);
        vp_pb_free(call(bench, "ResetDomain", reset)); /* a call that waits for it */
        pause_and_resume(bench, beside, events / (2 * BENCH_RUNS));
        kill(pid, SIGCONT);
        verb(bench, "ResetDomain", "hung"); /* behind the one that waited */
    }
    say_noise("neighbour", before, "us");
    bench_figure("hung_neighbour_p99", part(beside, 0.99), "us", part(before, 0.99) / part(beside, 0.99),
                 "no_hung_neighbour");
    verb(bench, "PowerOffDomain", "hung");
    verb(bench, "PowerOffDomain", "vm");
}

/* ---- many ---- */

typedef struct Fleet {
    gint next;
    gboolean start;
} Fleet;

static GBytes *next_verb(void *data)
{
    Fleet *fleet = data;

    if (fleet->next == domains)
        return NULL;
    g_autofree char *name = g_strdup_printf("fleet-%03d", fleet->next++);
    vp_pb_auto PbStartDomainRequest *start = vp_pb_new(&pb_start_domain_request__descriptor);
    vp_pb_auto PbPowerOffDomainRequest *off = vp_pb_new(&pb_power_off_domain_request__descriptor);

    vp_pb_set(&start->name, name);
    vp_pb_set(&off->name, name);
    start->paused = TRUE;
    return fleet->start ? vp_pb_pack(start) : vp_pb_pack(off);
}

static gdouble all(const Bench *bench, gboolean start)
{
    Fleet fleet = {.start = start};
    const gint64 start_us = vp_now_us();

    load_each(bench->address,
              start ? "/virtplane.v1.DomainService/StartDomain" : "/virtplane.v1.DomainService/PowerOffDomain",
              next_verb, &fleet, 8);
    return (gdouble)(vp_now_us() - start_us) / G_USEC_PER_SEC;
}

/* CPU time of the daemon, in milliseconds. */
static gdouble cpu_ms(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    unsigned long user = 0;
    unsigned long system = 0;

    if (!g_file_get_contents(path, &text, NULL, NULL) ||
        sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        bench_die("%s cannot be read", path);
    return (gdouble)(user + system) * 1000 / (gdouble)sysconf(_SC_CLK_TCK);
}

/* The counters of all, once a second; answers how many samples came. */
static guint watch_stats(const Bench *bench)
{
    vp_pb_auto PbWatchDomainStatsRequest *request = vp_pb_new(&pb_watch_domain_stats_request__descriptor);
    const gint64 end_us = vp_now_us() + FLEET_STATS_S * G_USEC_PER_SEC;
    guint count = 0;
    VpError *error = NULL;

    g_autoptr(VpClientStream) stream = vp_client_stream_new(bench->client, &pb_domain_service__descriptor,
                                                            "WatchDomainStats", request, CALL_MS, &error);
    while (stream && vp_now_us() < end_us) {
        vp_pb_auto PbWatchDomainStatsResponse *answer = vp_client_stream_read(stream, CALL_MS, &error);

        if (!answer)
            break;
        count++;
    }
    if (error)
        bench_die("WatchDomainStats: %s", error->message);
    vp_client_stream_cancel(stream);
    return count;
}

static void measure_fleet(Bench *bench)
{
    vp_pb_auto PbListDomainsRequest *list = vp_pb_new(&pb_list_domains_request__descriptor);
    const gdouble idle_mib = (gdouble)bench_rss(bench->daemon) / (1 << 20);

    for (gint i = 0; i < domains; i++) {
        g_autofree char *name = g_strdup_printf("fleet-%03d", i);

        create(bench, name, 16);
    }
    bench_figure("fleet_start", all(bench, TRUE), "s", 0, NULL);
    list->page_size = 1000;
    bench_figure("fleet_list", timed(bench, "ListDomains", list), "us", 0, NULL);
    const gdouble before_ms = cpu_ms(bench->daemon);
    const gint64 start_us = vp_now_us();
    const guint samples = watch_stats(bench);
    const gdouble took_s = (gdouble)(vp_now_us() - start_us) / G_USEC_PER_SEC;
    bench_figure("fleet_stats_samples", samples / took_s, "samples/s", 0, NULL);
    bench_figure("fleet_stats_cpu", (cpu_ms(bench->daemon) - before_ms) / took_s / 10, "percent", 0, NULL);
    bench_figure("fleet_rss", (gdouble)bench_rss(bench->daemon) / (1 << 20), "MiB", 0, NULL);
    printf("(%d domains, paused, 16 MiB; the daemon's memory was %.1f MiB before)\n", domains, idle_mib);
    bench_figure("fleet_power_off", all(bench, FALSE), "s", 0, NULL);
}

/* ---- all of it ---- */

static void start_daemon(Bench *bench)
{
    g_autofree char *daemon = bench_runfile("server/virtplaned");
    g_autofree char *state = g_build_filename(bench->dir, "state", NULL);
    g_autofree char *log = g_build_filename(bench->dir, "daemon.log", NULL);
    char *const argv[] = {daemon, (char *)"--state-dir", state, (char *)"--listen", bench->address, NULL};
    VpError *error = NULL;

    bench->daemon = bench_spawn(argv, log);
    bench_wait_line(log, "ready");
    bench->client = vp_client_new(bench->address, &error);
}

int main(int argc, char **argv)
{
    const GOptionEntry entries[] = {
        {"starts", 0, 0, G_OPTION_ARG_INT, &starts, "Starts and ends of each kind (20)", "N"},
        {"events", 0, 0, G_OPTION_ARG_INT, &events, "Halts and goes (200)", "N"},
        {"domains", 0, 0, G_OPTION_ARG_INT, &domains, "Domains at once (100); 0 leaves them out", "N"},
        {0},
    };
    g_autoptr(GOptionContext) options = g_option_context_new(NULL);
    Bench bench = {.dir = g_dir_make_tmp("vpbench-XXXXXX", NULL)};
    gboolean kvm;

    g_option_context_add_main_entries(options, entries, NULL);
    if (!bench.dir || !g_option_context_parse(options, &argc, &argv, NULL) || starts < 1 || events < 1)
        bench_die("usage: qemu [--starts N] [--events N] [--domains N]");
    grpc_init();
    vp_client_library_init();
    bench.address = g_strdup_printf("unix:%s/d.sock", bench.dir);
    start_daemon(&bench);
    create(&bench, "vm", 64);
    verb(&bench, "StartDomain", "vm");
    g_auto(GStrv) command = qemu_bare_command(pid_of(&bench, "vm", &kvm));
    verb(&bench, "PowerOffDomain", "vm");
    LibvirtPeer *libvirt = libvirt_peer_new(bench.dir);
    bench.libvirt = libvirt ? libvirt_domain_new(libvirt, bench.dir, kvm) : NULL;

    measure_starts(&bench, command);
    measure_events(&bench);
    measure_hung(&bench);
    libvirt_domain_free(bench.libvirt);
    libvirt_peer_free(libvirt);
    if (domains > 0)
        measure_fleet(&bench);

    vp_client_free(bench.client);
    bench_stop(bench.daemon);
    vp_client_library_shutdown();
    grpc_shutdown_blocking();
    g_free(bench.address);
    bench_remove(bench.dir);
    g_free(bench.dir);
    return 0;
}
