/* The counters of a domain: see stats.h. */
#include "stats.h"

#include "base/pb.h"
#include "base/thread.h"
#include "stats_host.h"
#include "stats_read.h"

/* A sample that has been under way for longer is one of a QEMU that hangs: it is not waited for. */
#define PATIENCE_US G_USEC_PER_SEC
/* How often QEMU asks the guest's balloon while somebody watches, and for how long after the last one has. */
#define GUEST_INTERVAL_S 2
#define GUEST_IDLE_US (10 * G_USEC_PER_SEC)

#define BALLOON "/machine/peripheral/balloon0"

typedef enum Balloon {
    BALLOON_UNKNOWN,
    BALLOON_THERE,
    BALLOON_NONE,
} Balloon;

struct VpQemuStats {
    guint pending;         /* commands of the sample under way; 0: there is none */
    gboolean broken;       /* the sample is not to be told: the connection has gone */
    PbDomainStats *sample; /* what QEMU has told so far */
    gint64 begun_us;       /* of the sample under way */
    gint64 asked_us;       /* by anybody, the last time */
    GArray *threads;       /* of VpVcpuThread: as last told, for times when QEMU does not */
    Balloon balloon;
    gboolean polled; /* QEMU asks the guest */
};

/* ---- answers ---- */

static void answer(VpQemuDomain *domain, VpQemuOp *op, const PbDomainStats *stats)
{
    (void)domain;
    vp_task_set_answer(op->task, vp_pb_dup(stats));
    vp_qemu_op_finish(op, NULL);
}

/* QEMU does not answer: what the host knows. */
static void answer_without(VpQemuDomain *domain, VpQemuOp *op)
{
    vp_pb_auto PbDomainStats *stats = vp_pb_new(&pb_domain_stats__descriptor);

    stats->state = PB_DOMAIN_STATE_UNRESPONSIVE;
    vp_stats_host(&domain->process, domain->stats->threads, domain->live, domain->uid, stats);
    answer(domain, op, stats);
}

static VpQemuOp *next_op(const VpQemuDomain *domain)
{
    for (guint i = 0; i < domain->ops->len; i++) {
        VpQemuOp *op = g_ptr_array_index(domain->ops, i);

        if (op->kind == VP_OP_STATS)
            return op;
    }
    return NULL;
}

/* All of the sample's commands have ended. */
static void end_sample(VpQemuDomain *domain)
{
    VpQemuStats *stats = domain->stats;
    vp_pb_auto PbDomainStats *sample = g_steal_pointer(&stats->sample);
    VpQemuOp *op;

    /* On the heels of a lost connection comes the end of the process, which ends those who wait; else their deadlines do. */
    if (stats->broken || domain->phase == VP_PHASE_ENDED)
        return;
    vp_stats_host(&domain->process, stats->threads, domain->live, domain->uid, sample);
    while ((op = next_op(domain)))
        answer(domain, op, sample);
}

/* ---- what QEMU is asked ---- */

/* Reads what one command has told into the sample. */
typedef void (*Reader)(VpQemuDomain *domain, json_t *result);

typedef struct Command {
    VpQemuDomain *domain;
    Reader read;
} Command;

static void on_answer(void *data, json_t *result, VpError *error)
{
    g_autofree Command *command = data;
    VpQemuDomain *domain = command->domain;

    /* A refusal is an answer, too: there is no such device. */
    if (error && error->code != VP_FAILED_PRECONDITION)
        domain->stats->broken = TRUE;
    else if (command->read)
        command->read(domain, error ? NULL : result);
    vp_error_free(error);
    if (--domain->stats->pending == 0)
        end_sample(domain);
    vp_qemu_domain_unref(domain);
}

static void ask(VpQemuDomain *domain, const char *name, json_t *arguments, Reader read)
{
    Command *command = g_new(Command, 1);

    *command = (Command){.domain = vp_qemu_domain_ref(domain), .read = read};
    domain->stats->pending++;
    vp_qmp_execute(domain->qmp, name, arguments, 0, on_answer, command);
}

static void read_cpus(VpQemuDomain *domain, json_t *result)
{
    vp_stats_read_cpus(result, domain->stats->threads);
}

static void read_blocks(VpQemuDomain *domain, json_t *result)
{
    vp_stats_read_blocks(result, domain->live, domain->stats->sample);
}

static void read_guest(VpQemuDomain *domain, json_t *result)
{
    vp_stats_read_guest(result, domain->stats->sample);
}

static void read_size(VpQemuDomain *domain, json_t *result)
{
    vp_stats_read_memory_size(result, domain->stats->sample);
}

static void read_balloon(VpQemuDomain *domain, json_t *result)
{
    domain->stats->balloon = result ? BALLOON_THERE : BALLOON_NONE;
    if (result)
        vp_stats_read_balloon(result, domain->stats->sample);
    else if (domain->qmp)
        ask(domain, "query-memory-size-summary", NULL, read_size);
}

static json_t *interval(guint seconds)
{
    return json_pack("{s:s, s:s, s:i}", "path", BALLOON, "property", "guest-stats-polling-interval", "value",
                     (int)seconds);
}

static void ask_balloon(VpQemuDomain *domain)
{
    VpQemuStats *stats = domain->stats;

    ask(domain, "query-balloon", NULL, read_balloon);
    if (!stats->polled)
        ask(domain, "qom-set", interval(GUEST_INTERVAL_S), NULL);
    stats->polled = TRUE;
    ask(domain, "qom-get", json_pack("{s:s, s:s}", "path", BALLOON, "property", "guest-stats"), read_guest);
}

static void begin_sample(VpQemuDomain *domain)
{
    VpQemuStats *stats = domain->stats;

    stats->sample = vp_pb_new(&pb_domain_stats__descriptor);
    stats->sample->memory = vp_pb_new(&pb_memory_stats__descriptor);
    stats->broken = FALSE;
    stats->begun_us = stats->asked_us;
    vp_qmp_hold(domain->qmp);
    ask(domain, "query-cpus-fast", NULL, read_cpus);
    if (domain->live->n_disks > 0)
        ask(domain, "query-blockstats", NULL, read_blocks);
    if (stats->balloon != BALLOON_NONE)
        ask_balloon(domain);
    else
        ask(domain, "query-memory-size-summary", NULL, read_size);
    vp_qmp_send(domain->qmp);
}

/* ---- coming and going ---- */

static VpQemuStats *stats_of(VpQemuDomain *domain)
{
    if (!domain->stats) {
        domain->stats = g_new0(VpQemuStats, 1);
        domain->stats->threads = g_array_new(FALSE, FALSE, sizeof(VpVcpuThread));
    }
    return domain->stats;
}

void vp_qemu_stats_begin(VpQemuDomain *domain, VpQemuOp *op)
{
    VpQemuStats *stats = stats_of(domain);

    stats->asked_us = vp_now_us();
    if (!domain->qmp || !domain->responsive || (stats->pending > 0 && stats->asked_us - stats->begun_us > PATIENCE_US))
        answer_without(domain, op);
    else if (stats->pending == 0)
        begin_sample(domain);
}

void vp_qemu_stats_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error)
{
    g_autoptr(VpError) why = error;

    if (why->code == VP_DEADLINE_EXCEEDED)
        answer_without(domain, op);
    else
        vp_qemu_op_finish(op, g_steal_pointer(&why));
}

static void on_quiet(void *data, json_t *result, VpError *error)
{
    (void)data;
    (void)result;
    vp_error_free(error);
}

void vp_qemu_stats_tick(VpQemuDomain *domain)
{
    VpQemuStats *stats = domain->stats;

    if (!stats || !stats->polled || !domain->qmp || vp_now_us() - stats->asked_us < GUEST_IDLE_US)
        return;
    stats->polled = FALSE;
    if (stats->balloon == BALLOON_THERE)
        vp_qmp_execute(domain->qmp, "qom-set", interval(0), 0, on_quiet, NULL);
}

void vp_qemu_stats_free(VpQemuStats *stats)
{
    if (!stats)
        return;
    vp_pb_free(stats->sample);
    g_array_unref(stats->threads);
    g_free(stats);
}
