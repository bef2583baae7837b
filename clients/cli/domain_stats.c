/*
 * vpctl domain stats: the counters of domains. Of those that are named all that is told; else a table with a row each; with --watch that table again and
 * again, with what was done since the row before.
 */
#include <unistd.h>

#include "base/pb.h"
#include "clients/cli/domain.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/message.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "virtplane/v1/domain_service.pb-c.h"

/* ---- a row ---- */

/* What a row shows of one sample: sums. */
typedef struct Sums {
    guint64 read_bytes;
    guint64 write_bytes;
    guint64 receive_bytes;
    guint64 transmit_bytes;
    gboolean counted; /* some interface is */
} Sums;

static Sums sum(const PbDomainStats *stats)
{
    Sums sums = {0};

    for (size_t i = 0; i < stats->n_disks; i++) {
        sums.read_bytes += stats->disks[i]->read_bytes;
        sums.write_bytes += stats->disks[i]->write_bytes;
    }
    for (size_t i = 0; i < stats->n_interfaces; i++) {
        sums.receive_bytes += stats->interfaces[i]->receive_bytes;
        sums.transmit_bytes += stats->interfaces[i]->transmit_bytes;
        sums.counted = sums.counted || stats->interfaces[i]->counted;
    }
    return sums;
}

static char *rate_text(guint64 now, guint64 was, double seconds)
{
    g_autofree char *size = vp_text_size(now > was ? (guint64)((double)(now - was) / seconds) : 0);

    return g_strconcat(size, "/s", NULL);
}

static char *seconds_text(guint64 ns)
{
    return g_strdup_printf("%.1f s", (double)ns / 1e9);
}

/* `before`: an earlier sample of the same run; NULL: the row tells all since the start. */
static void add_row(VpTable *table, const PbDomainStats *now, const PbDomainStats *before)
{
    const Sums sums = sum(now);
    const Sums was = before ? sum(before) : (Sums){0};
    const double seconds =
        before ? MAX(0.001, (double)(vp_pb_timestamp_us(now->time) - vp_pb_timestamp_us(before->time)) / 1e6) : 0;
    g_autofree char *state = vp_text_enum(&pb_domain_state__descriptor, (int)now->state);
    g_autofree char *cpu =
        before ? g_strdup_printf("%.1f %%", (double)(now->cpu_time_ns - before->cpu_time_ns) / 1e7 / seconds)
               : seconds_text(now->cpu_time_ns);
    g_autofree char *memory = vp_text_size(now->memory ? now->memory->actual_bytes : 0);
    g_autofree char *resident = vp_text_size(now->memory ? now->memory->resident_bytes : 0);
    g_autofree char *read =
        before ? rate_text(sums.read_bytes, was.read_bytes, seconds) : vp_text_size(sums.read_bytes);
    g_autofree char *write =
        before ? rate_text(sums.write_bytes, was.write_bytes, seconds) : vp_text_size(sums.write_bytes);
    g_autofree char *receive =
        before ? rate_text(sums.receive_bytes, was.receive_bytes, seconds) : vp_text_size(sums.receive_bytes);
    g_autofree char *transmit =
        before ? rate_text(sums.transmit_bytes, was.transmit_bytes, seconds) : vp_text_size(sums.transmit_bytes);
    const gboolean told = now->memory != NULL;

    vp_table_add(table, now->name, state, told ? cpu : "", told && now->memory->actual_bytes ? memory : "",
                 told ? resident : "", now->n_disks ? read : "", now->n_disks ? write : "", sums.counted ? receive : "",
                 sums.counted ? transmit : "");
}

static VpTable *new_table(VpCli *cli)
{
    static const char *const columns[] = {"NAME",  "STATE",  ">CPU",     ">MEMORY",   ">RESIDENT",
                                          ">READ", ">WRITE", ">RECEIVE", ">TRANSMIT", NULL};

    return vp_table_new(cli, columns);
}

/* ---- once ---- */

static void show_disk(const PbDiskStats *disk)
{
    g_autofree char *target = vp_text_escape(disk->target);
    g_autofree char *read = vp_text_size(disk->read_bytes);
    g_autofree char *written = vp_text_size(disk->write_bytes);
    g_autofree char *allocation = vp_text_size(disk->allocation_bytes);

    printf("disk %-9s%s read in %" G_GUINT64_FORMAT " requests and %.3f s, %s written in %" G_GUINT64_FORMAT
           " and %.3f s\n",
           target, read, disk->read_requests, (double)disk->read_time_ns / 1e9, written, disk->write_requests,
           (double)disk->write_time_ns / 1e9);
    printf("%-14s%" G_GUINT64_FORMAT " flushes in %.3f s, %" G_GUINT64_FORMAT " errors, written up to %s\n", "",
           disk->flush_requests, (double)disk->flush_time_ns / 1e9, disk->errors, allocation);
}

static void show_interface(const PbInterfaceStats *interface)
{
    g_autofree char *mac = vp_text_escape(interface->mac);
    g_autofree char *received = vp_text_size(interface->receive_bytes);
    g_autofree char *sent = vp_text_size(interface->transmit_bytes);

    if (!interface->counted) {
        printf("%-14s%s is not counted\n", "interface", mac);
        return;
    }
    printf("%-14s%s received %s in %" G_GUINT64_FORMAT " packets (%" G_GUINT64_FORMAT " errors, %" G_GUINT64_FORMAT
           " dropped)\n",
           "interface", mac, received, interface->receive_packets, interface->receive_errors, interface->receive_drops);
    printf("%-14ssent %s in %" G_GUINT64_FORMAT " packets (%" G_GUINT64_FORMAT " errors, %" G_GUINT64_FORMAT
           " dropped)\n",
           "", sent, interface->transmit_packets, interface->transmit_errors, interface->transmit_drops);
}

static void show_memory(const PbMemoryStats *memory)
{
    g_autofree char *actual = vp_text_size(memory->actual_bytes);
    g_autofree char *resident = vp_text_size(memory->resident_bytes);
    g_autofree char *total = vp_text_size(memory->guest_total_bytes);
    g_autofree char *available = vp_text_size(memory->guest_available_bytes);
    g_autofree char *unused = vp_text_size(memory->guest_unused_bytes);
    g_autofree char *when = vp_text_time(memory->guest_time, /* fraction= */ FALSE);

    printf("%-14s%s, %s of the host's\n", "memory", memory->actual_bytes ? actual : "unknown", resident);
    if (memory->guest_time)
        printf("%-14s%s in all, %s available, %s unused, at %s\n", "guest's", total, available, unused, when);
}

static void show(const PbDomainStats *stats)
{
    g_autofree char *name = vp_text_escape(stats->name);
    g_autofree char *state = vp_text_enum(&pb_domain_state__descriptor, (int)stats->state);

    printf("%-14s%s\n%-14s%s\n", "name", name, "state", state);
    if (!stats->memory)
        return;
    printf("%-14s%.3f s\n", "cpu", (double)stats->cpu_time_ns / 1e9);
    for (size_t i = 0; i < stats->n_vcpus; i++)
        printf("vcpu %-9u%.3f s, waited %.3f s for the host\n", stats->vcpus[i]->index,
               (double)stats->vcpus[i]->cpu_time_ns / 1e9, (double)stats->vcpus[i]->wait_time_ns / 1e9);
    show_memory(stats->memory);
    for (size_t i = 0; i < stats->n_disks; i++)
        show_disk(stats->disks[i]);
    for (size_t i = 0; i < stats->n_interfaces; i++)
        show_interface(stats->interfaces[i]);
}

static PbGetDomainStatsResponse *get(VpCli *cli, const char *who, VpError **error)
{
    vp_pb_auto PbGetDomainStatsRequest *request = vp_pb_new(&pb_get_domain_stats_request__descriptor);

    vp_message_set_who(request, who);
    return vp_cli_call(cli, &pb_domain_service__descriptor, "GetDomainStats", request, error);
}

static int show_named(VpCli *cli, char **names, int n_names)
{
    int code = VP_EXIT_DONE;

    for (int i = 0; i < n_names; i++) {
        VpError *error = NULL;
        vp_pb_auto PbGetDomainStatsResponse *answer = get(cli, names[i], &error);

        if (!answer) {
            code = vp_cli_fail(cli, error, "read the counters of domain \"%s\"", names[i]);
            continue;
        }
        if (vp_cli_print(cli, answer, /* stream= */ n_names > 1) || !answer->stats)
            continue;
        if (cli->output == VP_OUTPUT_NAME) {
            g_autofree char *safe = vp_text_escape(answer->stats->name);
            puts(safe);
            continue;
        }
        if (i > 0)
            puts("");
        show(answer->stats);
    }
    return code;
}

static int show_all(VpCli *cli)
{
    vp_pb_auto PbListDomainsRequest *request = vp_pb_new(&pb_list_domains_request__descriptor);
    VpError *error = NULL;
    vp_pb_auto PbListDomainsResponse *list = vp_domain_list_all(cli, request, &error);
    int code = VP_EXIT_DONE;

    if (!list)
        return vp_cli_fail(cli, error, "list domains");
    VpTable *table = new_table(cli);
    for (size_t i = 0; i < list->n_domains; i++) {
        vp_pb_auto PbGetDomainStatsResponse *answer = get(cli, list->domains[i]->uid, &error);

        if (!answer)
            code =
                vp_cli_fail(cli, g_steal_pointer(&error), "read the counters of domain \"%s\"", list->domains[i]->name);
        else if (!vp_cli_print(cli, answer, /* stream= */ TRUE) && answer->stats)
            add_row(table, answer->stats, NULL);
    }
    if (cli->output != VP_OUTPUT_TABLE)
        vp_table_free(table);
    else
        vp_table_print(table);
    return code;
}

/* ---- watching ---- */

/* The samples of one interval: uid to PbDomainStats, and the rows' order. */
typedef struct Watcher {
    VpCli *cli;
    GHashTable *before; /* of the round before */
    GHashTable *round;
    gboolean terminal;
} Watcher;

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return g_strcmp0(((const PbDomainStats *)a)->name, ((const PbDomainStats *)b)->name);
}

static GHashTable *new_round(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, NULL, vp_pb_free);
}

static void print_round(Watcher *watcher)
{
    g_autoptr(GList) rows = g_list_sort(g_hash_table_get_values(watcher->round), compare_names);
    VpTable *table = new_table(watcher->cli);

    for (GList *link = rows; link; link = link->next) {
        const PbDomainStats *now = link->data;
        const PbDomainStats *before = g_hash_table_lookup(watcher->before, now->uid);

        /* One that was started anew counts from 0. */
        add_row(table, now, before && before->cpu_time_ns <= now->cpu_time_ns ? before : NULL);
    }
    if (watcher->terminal)
        fputs("\033[H\033[2J", stdout);
    vp_table_print(table);
    if (!watcher->terminal)
        puts("");
    fflush(stdout);
    g_hash_table_unref(watcher->before);
    watcher->before = g_steal_pointer(&watcher->round);
    watcher->round = new_round();
}

/* All that the round before had are here. */
static gboolean round_is_full(const Watcher *watcher)
{
    GHashTableIter iter;
    gpointer uid;

    if (g_hash_table_size(watcher->before) == 0)
        return FALSE;
    g_hash_table_iter_init(&iter, watcher->before);
    while (g_hash_table_iter_next(&iter, &uid, NULL)) {
        if (!g_hash_table_contains(watcher->round, uid))
            return FALSE;
    }
    return TRUE;
}

static void take(Watcher *watcher, PbWatchDomainStatsResponse *item)
{
    if (vp_cli_print(watcher->cli, item, /* stream= */ TRUE) || !item->stats)
        return;
    if (watcher->cli->output == VP_OUTPUT_NAME) {
        g_autofree char *safe = vp_text_escape(item->stats->name);
        puts(safe);
        return;
    }
    /* It comes again: of others there is no more in this round. */
    if (g_hash_table_contains(watcher->round, item->stats->uid))
        print_round(watcher);
    PbDomainStats *stats = g_steal_pointer(&item->stats);
    g_hash_table_replace(watcher->round, stats->uid, stats);
    if (round_is_full(watcher))
        print_round(watcher);
}

static VpError *watch_stream(Watcher *watcher, const PbWatchDomainStatsRequest *request, VpInterrupt *interrupt)
{
    VpError *error = NULL;
    VpClient *client = vp_cli_client(watcher->cli, &error);
    g_autoptr(VpClientStream) stream =
        client ? vp_client_stream_new(client, &pb_domain_service__descriptor, "WatchDomainStats", request,
                                      watcher->cli->timeout_given ? watcher->cli->timeout_ms : 0, &error)
               : NULL;

    if (!stream)
        return error;
    vp_interrupt_watch(interrupt, stream);
    for (;;) {
        vp_pb_auto PbWatchDomainStatsResponse *item = vp_client_stream_read(stream, 0, &error);

        if (!item)
            break;
        take(watcher, item);
        fflush(stdout);
    }
    vp_interrupt_watch(interrupt, NULL);
    return error;
}

static int watch(VpCli *cli, char **names, int n_names, gint64 interval_ms)
{
    vp_pb_auto PbWatchDomainStatsRequest *request = vp_pb_new(&pb_watch_domain_stats_request__descriptor);
    VpError *error = NULL;
    g_autoptr(VpInterrupt) interrupt = vp_interrupt_new(&error);

    if (!interrupt)
        return vp_cli_fail(cli, error, "watch the counters");
    request->filter = vp_pb_new(&pb_domain_filter__descriptor);
    for (int i = 0; i < n_names; i++)
        vp_pb_append(&request->filter->n_names, &request->filter->names, g_strdup(names[i]));
    request->interval = vp_message_duration(interval_ms);
    Watcher watcher = {.cli = cli, .before = new_round(), .round = new_round(), .terminal = isatty(STDOUT_FILENO) == 1};
    error = watch_stream(&watcher, request, interrupt);
    g_hash_table_unref(watcher.before);
    g_hash_table_unref(watcher.round);
    if (!vp_interrupt_came(interrupt) && error && !(error->code == VP_DEADLINE_EXCEEDED && cli->timeout_given))
        return vp_cli_fail(cli, error, "watch the counters");
    vp_error_free(error);
    return VP_EXIT_DONE;
}

int vp_domain_stats(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *interval = NULL;
    gboolean follow = FALSE;
    gint64 interval_ms = 1000;
    const GOptionEntry entries[] = {
        {"watch", 'w', 0, G_OPTION_ARG_NONE, &follow,
         "Stay, and show what is done in each interval; NAMEs may have * and ?", NULL},
        {"interval", 0, 0, G_OPTION_ARG_STRING, &interval, "With --watch: how often (default: 1s)", "TIME"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (interval && !follow)
        return vp_cli_usage(command, "--interval is for --watch");
    if (interval && !vp_text_parse_duration(interval, &interval_ms))
        return vp_cli_usage(command, "--interval is a time as in 500ms or 2s, not \"%s\"", interval);
    if (follow)
        return watch(cli, argv + 1, argc - 1, interval_ms);
    return argc > 1 ? show_named(cli, argv + 1, argc - 1) : show_all(cli);
}
