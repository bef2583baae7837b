/* What drivers report becomes the domain's status and its events. */
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"

/* An observation that owns what it names. */
typedef struct Seen {
    VpObservation observation;
    char *reason;
    char *detail;
    PbDiskStatus **disks;
    PbFinding **findings;
    PbDomainEndpoint **endpoints;
    PbDomainSpec *live_spec;
    PbPendingDetach **detaches;
    PbGuestAgentStatus *agent;
    PbPendingShutdown *shutdown;
    PbSavedState *saved;
    PbContainment *containment;
    gint64 wall_us;
} Seen;

static void *dup_messages(void *const *messages, gsize n)
{
    void **copies = g_new0(void *, n + 1);

    for (gsize i = 0; i < n; i++)
        copies[i] = vp_pb_dup(messages[i]);
    return copies;
}

static void free_messages(void *messages, gsize n)
{
    void **array = messages;

    for (gsize i = 0; i < n; i++)
        vp_pb_free(array[i]);
    g_free(array);
}

static Seen *seen_new(const VpObservation *observation)
{
    Seen *seen = g_new0(Seen, 1);

    seen->observation = *observation;
    seen->reason = g_strdup(observation->reason);
    seen->detail = vp_event_text(observation->detail);
    seen->disks = dup_messages((void *const *)observation->disks, observation->n_disks);
    seen->endpoints = dup_messages((void *const *)observation->endpoints, observation->n_endpoints);
    seen->live_spec = vp_pb_dup(observation->live_spec);
    seen->detaches = dup_messages((void *const *)observation->pending_detaches, observation->n_pending_detaches);
    seen->findings = dup_messages((void *const *)observation->findings, observation->n_findings);
    if (observation->agent)
        seen->agent = vp_pb_dup(observation->agent);
    seen->shutdown = vp_pb_dup(observation->shutdown);
    if (observation->saved)
        seen->saved = vp_pb_dup(observation->saved);
    if (observation->containment)
        seen->containment = vp_pb_dup(observation->containment);
    seen->wall_us = vp_wall_us();
    return seen;
}

static void seen_free(void *data)
{
    Seen *seen = data;

    free_messages(seen->disks, seen->observation.n_disks);
    free_messages(seen->endpoints, seen->observation.n_endpoints);
    vp_pb_free(seen->live_spec);
    free_messages(seen->detaches, seen->observation.n_pending_detaches);
    free_messages(seen->findings, seen->observation.n_findings);
    vp_pb_free(seen->agent);
    vp_pb_free(seen->shutdown);
    vp_pb_free(seen->saved);
    vp_pb_free(seen->containment);
    g_free(seen->reason);
    g_free(seen->detail);
    g_free(seen);
}

static void set_disks(PbDomainStatus *status, PbDiskStatus *const *disks, gsize n_disks)
{
    for (size_t i = 0; i < status->n_disks; i++)
        vp_pb_free(status->disks[i]);
    g_clear_pointer(&status->disks, g_free);
    status->n_disks = 0;
    for (gsize i = 0; i < n_disks; i++)
        vp_pb_append(&status->n_disks, &status->disks, vp_pb_dup(disks[i]));
}

static void set_endpoints(const VpRecord *record, PbDomainStatus *status, PbDomainEndpoint *const *endpoints,
                          gsize n_endpoints)
{
    PbDomainEndpoint **before = g_steal_pointer(&status->endpoints);
    const size_t n_before = status->n_endpoints;

    status->n_endpoints = 0;
    for (gsize i = 0; i < n_endpoints; i++)
        vp_pb_append(&status->n_endpoints, &status->endpoints, vp_pb_dup(endpoints[i]));
    vp_screens_tell(record, status, before, n_before);
    free_messages(before, n_before);
}

/* NULL: nothing is known of one. */
static void set_agent(PbDomainStatus *status, const PbGuestAgentStatus *agent)
{
    vp_pb_free(status->agent);
    status->agent = agent ? vp_pb_dup(agent) : NULL;
}

/* It stays while the domain is being restored, or may be. */
static gboolean ends_saved(PbDomainState state)
{
    return state != PB_DOMAIN_STATE_SAVED && state != PB_DOMAIN_STATE_STARTING && state != PB_DOMAIN_STATE_UNRESPONSIVE;
}

static void set_saved(PbDomainStatus *status, const PbSavedState *saved)
{
    vp_pb_free(status->saved);
    status->saved = saved ? vp_pb_dup(saved) : NULL;
}

static void set_containment(PbDomainStatus *status, const PbContainment *containment)
{
    vp_pb_free(status->containment);
    status->containment = containment ? vp_pb_dup(containment) : NULL;
}

static void apply_state(const VpRecord *record, PbDomain *draft, const Seen *seen)
{
    const VpObservation *observation = &seen->observation;
    PbDomainStatus *status = draft->status;

    if (status->state != observation->state) {
        vp_pb_free(status->state_time);
        status->state_time = vp_pb_timestamp(seen->wall_us);
    }
    status->state = observation->state;
    vp_pb_set(&status->reason, seen->reason);
    vp_pb_set(&status->detail, seen->detail);
    status->pid = observation->pid;
    status->pid_start_ticks = observation->pid_start_ticks;
    status->accelerator = observation->accelerator;
    if (observation->pid == 0 || observation->n_endpoints > 0)
        set_endpoints(record, status, seen->endpoints, observation->n_endpoints);
    if (observation->pid == 0 || observation->tainted)
        status->tainted = observation->tainted;
    if (observation->pid == 0)
        set_agent(status, NULL);
    vp_pb_free(status->shutdown);
    status->shutdown = vp_pb_dup(seen->shutdown);
    if (seen->saved || ends_saved(observation->state))
        set_saved(status, seen->saved);
    if (observation->pid == 0 || seen->containment)
        set_containment(status, seen->containment);
}

/* The devices that there are now. */
static void apply_devices(PbDomain *draft, const Seen *seen)
{
    const VpObservation *observation = &seen->observation;
    const gboolean no_process = !observation->state_stays && observation->pid == 0;

    if (observation->devices || observation->n_disks > 0 || no_process)
        set_disks(draft->status, seen->disks, observation->n_disks);
    if (observation->devices)
        vp_domain_set_running(draft, seen->live_spec, seen->detaches, observation->n_pending_detaches);
    else if (!vp_domain_runs(draft) || draft->status->state == PB_DOMAIN_STATE_STARTING)
        vp_domain_set_running(draft, NULL, NULL, 0);
}

static VpError *apply_seen(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const Seen *seen = data;
    const VpObservation *observation = &seen->observation;
    const PbDomainStatus *status = draft->status;

    if (observation->notice) {
        vp_domain_event(txn, draft, observation->event, seen->reason, seen->detail);
        return NULL;
    }
    if (observation->unless_off &&
        (status->state == PB_DOMAIN_STATE_SHUTOFF || status->state == PB_DOMAIN_STATE_CRASHED))
        return vp_error_new(VP_ABORTED, "SUPERSEDED", "the domain %s is known to be shut off", draft->name);
    if (!observation->state_stays)
        apply_state(record, draft, seen);
    vp_pb_auto PbDomainSpec *ran = observation->state_stays ? NULL : vp_pb_dup(vp_domain_live_spec(draft));
    if (seen->agent)
        set_agent(draft->status, seen->agent);
    apply_devices(draft, seen);

    for (gsize i = 0; i < observation->n_findings; i++) {
        const PbFinding *finding = seen->findings[i];
        const char *code = vp_pb_enum_name(&pb_finding_code__descriptor, (int)finding->code);

        /* The message begins with the layer's path. */
        vp_domain_event(txn, draft, PB_EVENT_TYPE_CHAIN_FINDING, code ? code + strlen("FINDING_CODE_") : "UNKNOWN",
                        finding->message);
    }
    vp_domain_event(txn, draft, observation->event, seen->reason ? seen->reason : "", seen->detail);
    if (ran)
        vp_restart_seen(draft, ran, observation->event, seen->reason, txn);
    return NULL;
}

static void observation_told(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    (void)data;
    (void)revision;
    if (!error)
        vp_restart_arm(record);
}

/* What a guest causes by itself must not pile up behind a disk that is full. */
static void notice_told(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    const Seen *seen = data;

    (void)revision;
    if (error)
        vp_log(VP_LOG_WARNING, "domain %s: what its driver told was not recorded (%s, %s): %s", record->name,
               seen->reason, seen->detail ? seen->detail : "", error->message);
}

void vp_domains_report(void *data, const char *uid, const VpObservation *observation)
{
    VpDomains *domains = data;
    g_autoptr(VpRecord) record = vp_registry_find_uid(domains, uid);

    if (!record) {
        vp_log(VP_LOG_WARNING, "a driver reports on the domain %s, which is not there", uid);
        return;
    }
    const VpMutation mutation = {
        .apply = apply_seen,
        .destroy = seen_free,
        .data = seen_new(observation),
        .done = observation->notice ? notice_told : observation_told,
        .observed = !observation->notice,
        .event_only = observation->notice,
        .impatient = observation->notice,
    };
    vp_record_mutate(record, &mutation);
}

/* ---- waiting for the disk ---- */

typedef struct Settle {
    VpDomains *domains;
    void (*done)(void *done_data, VpError *error);
    void *done_data;
} Settle;

static void settled(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    const Settle *settle = data;
    VpDomains *domains = settle->domains;

    (void)revision;
    pthread_mutex_lock(&domains->mutex);
    const gboolean stopping = domains->stopping;
    pthread_mutex_unlock(&domains->mutex);
    /* At the end what the store did not take is dropped. */
    if (!error && stopping)
        settle->done(settle->done_data,
                     vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "domain %s: the daemon stops", record->name));
    else
        settle->done(settle->done_data, vp_error_copy(error));
}

void vp_domains_settle(void *data, const char *uid, void (*done)(void *done_data, VpError *error), void *done_data)
{
    VpDomains *domains = data;
    g_autoptr(VpRecord) record = vp_registry_find_uid(domains, uid);

    if (!record) {
        done(done_data, vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "the domain %s was deleted", uid));
        return;
    }
    Settle *settle = g_new(Settle, 1);
    *settle = (Settle){.domains = domains, .done = done, .done_data = done_data};
    const VpMutation barrier = {.done = settled, .destroy = g_free, .data = settle, .impatient = TRUE};
    vp_record_mutate(record, &barrier);
}
