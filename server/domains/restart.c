/*
 * Domains that end by themselves and are to be started again: DomainSpec.on_poweroff, on_panic, on_crash. It is decided in the transaction that tells of the
 * end, and kept in the status, so that a later daemon goes on with it; the start is a job as any other. See internal.h.
 */
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"

#define DEFAULT_COUNT 5
#define DEFAULT_WITHIN_US (10 * 60 * G_USEC_PER_SEC)
/* The first comes at once, then 1 s, 2 s, 4 s, ... */
#define MAX_DELAY_S 60

static const char *const causes[] = {"ON_POWEROFF", "ON_PANIC", "ON_CRASH"};

static gboolean is_cause(const char *reason)
{
    for (gsize i = 0; i < G_N_ELEMENTS(causes); i++) {
        if (g_strcmp0(reason, causes[i]) == 0)
            return TRUE;
    }
    return FALSE;
}

/* What the spec wishes after such an end; its cause, or NULL: it stays off. */
static const char *cause_of(const PbDomainSpec *spec, PbEventType event, const char *reason)
{
    const gboolean crashed = event == PB_EVENT_TYPE_DOMAIN_CRASHED;
    const struct {
        gboolean is;
        PbLifecycleAction action;
        const char *cause;
    } ends[] = {
        {event == PB_EVENT_TYPE_DOMAIN_SHUT_DOWN && g_strcmp0(reason, "GUEST_REQUEST") == 0, spec->on_poweroff,
         causes[0]},
        {crashed && g_strcmp0(reason, "GUEST_PANICKED") == 0, spec->on_panic, causes[1]},
        {crashed && g_strcmp0(reason, "PROCESS_EXITED") == 0, spec->on_crash, causes[2]},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(ends); i++) {
        if (ends[i].is && ends[i].action == PB_LIFECYCLE_ACTION_RESTART)
            return ends[i].cause;
    }
    return NULL;
}

static guint limit_count(const PbDomainSpec *spec)
{
    return spec->restart_limit && spec->restart_limit->count ? spec->restart_limit->count : DEFAULT_COUNT;
}

static gint64 limit_within_us(const PbDomainSpec *spec)
{
    const Google__Protobuf__Duration *within = spec->restart_limit ? spec->restart_limit->within : NULL;

    return within ? within->seconds * G_USEC_PER_SEC + within->nanos / 1000 : DEFAULT_WITHIN_US;
}

static void clear(PbDomainStatus *status)
{
    vp_pb_free(status->restart);
    status->restart = NULL;
}

static void clear_time(PbRestartStatus *restart)
{
    vp_pb_free(restart->next_time);
    restart->next_time = NULL;
}

static gboolean is_pending(const PbDomain *domain)
{
    return domain->status->restart && domain->status->restart->next_time && vp_domain_is_off(domain);
}

gboolean vp_restart_is_pending(const PbDomain *domain)
{
    return is_pending(domain);
}

/* Counts one more and sets its time, or gives up. */
static void schedule(PbDomain *draft, const PbDomainSpec *spec, VpTxn *txn, const char *cause)
{
    PbDomainStatus *status = draft->status;
    const gint64 now_us = vp_wall_us();
    const gint64 within_us = limit_within_us(spec);

    if (!status->restart || now_us - vp_pb_timestamp_us(status->restart->first_time) > within_us) {
        clear(status);
        status->restart = vp_pb_new(&pb_restart_status__descriptor);
        status->restart->first_time = vp_pb_timestamp(now_us);
    }
    PbRestartStatus *restart = status->restart;
    vp_pb_set(&restart->cause, cause);
    clear_time(restart);
    if (restart->count >= limit_count(spec)) {
        g_autofree char *detail = g_strdup_printf("it was started again %u times within %" G_GINT64_FORMAT
                                                  " s and has ended once more (%s); it stays off",
                                                  restart->count, within_us / G_USEC_PER_SEC, status->reason);

        vp_pb_set(&status->reason, "RESTART_LIMIT");
        vp_pb_set(&status->detail, detail);
        vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_RESTART_GIVEN_UP, "RESTART_LIMIT", detail);
        return;
    }
    const guint64 delay_s = restart->count == 0 ? 0 : MIN(MAX_DELAY_S, 1ULL << MIN(restart->count - 1, 16));
    restart->count++;
    restart->next_time = vp_pb_timestamp(now_us + (gint64)delay_s * G_USEC_PER_SEC);
    g_autofree char *detail = g_strdup_printf("in %" G_GUINT64_FORMAT " s, number %u of at most %u", delay_s,
                                              restart->count, limit_count(spec));
    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_RESTART_SCHEDULED, cause, detail);
}

void vp_restart_seen(PbDomain *draft, const PbDomainSpec *ran, PbEventType event, const char *reason, VpTxn *txn)
{
    const PbRestartStatus *restart = draft->status->restart;
    /* The daemon ended in the midst of one: this one goes on. */
    const gboolean broken_off =
        event == PB_EVENT_TYPE_DOMAIN_START_FAILED && restart && g_strcmp0(reason, "WHILE_DAEMON_DOWN") == 0;
    g_autofree char *cause = g_strdup(broken_off ? restart->cause : cause_of(ran, event, reason));

    if (cause)
        schedule(draft, ran, txn, cause);
    else if (event == PB_EVENT_TYPE_DOMAIN_STARTING && is_cause(reason) && restart)
        clear_time(draft->status->restart);
    else if (event == PB_EVENT_TYPE_DOMAIN_STARTING ||
             (vp_domain_is_off(draft) && event != PB_EVENT_TYPE_DOMAIN_START_FAILED))
        clear(draft->status);
}

/* ---- a restart that could not be made ---- */

static VpError *apply_failed(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const VpError *error = data;
    PbRestartStatus *restart = draft->status->restart;

    if (!restart || !vp_domain_is_off(draft))
        return vp_error_new(VP_ABORTED, "SUPERSEDED", "the domain %s has got on since", record->name);
    g_autofree char *cause = g_strdup(restart->cause);
    g_autofree char *detail = vp_event_text(error->message);
    /* Another try helps against a shortage, and against nothing else. */
    if (error->code == VP_RESOURCE_EXHAUSTED || error->code == VP_UNAVAILABLE || error->code == VP_ABORTED) {
        schedule(draft, draft->spec, txn, cause);
        return NULL;
    }
    clear_time(restart);
    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_RESTART_GIVEN_UP, error->reason ? error->reason : "START_FAILED",
                    detail);
    return NULL;
}

static void failure_free(void *data)
{
    vp_error_free(data);
}

static void failure_told(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    (void)data;
    (void)revision;
    (void)error;
    vp_restart_arm(record);
}

static void restarted(void *data, const VpDomainResult *result)
{
    g_autoptr(VpRecord) record = data;
    const VpError *error = result->error;

    /* Somebody else was quicker, or the next daemon does it. */
    if (!error || g_strcmp0(error->reason, "WRONG_STATE") == 0 || g_strcmp0(error->reason, "RESTART_CALLED_OFF") == 0 ||
        g_strcmp0(error->reason, "DAEMON_STOPPING") == 0 || error->code == VP_NOT_FOUND)
        return;
    vp_log(VP_LOG_WARNING, "the domain %s could not be started again: %s", record->name, error->message);
    const VpMutation mutation = {
        .apply = apply_failed,
        .done = failure_told,
        .destroy = failure_free,
        .data = vp_error_copy(error),
        .observed = TRUE,
    };
    vp_record_mutate(record, &mutation);
}

/* ---- its time ---- */

/* NULL: none is pending. Owned by the caller. */
static char *pending_cause(VpRecord *record)
{
    VP_LOCK(&record->domains->mutex);
    return record->committed && is_pending(record->committed) ? g_strdup(record->committed->status->restart->cause)
                                                              : NULL;
}

static void on_time(void *data)
{
    VpRecord *record = data;
    VpDomains *domains = record->domains;
    const VpDomainCaller caller = {.identity = "daemon", .text = "the daemon (restart)", .request_id = ""};

    pthread_mutex_lock(&domains->mutex);
    VpTimer *timer = g_steal_pointer(&record->restart);
    pthread_mutex_unlock(&domains->mutex);
    vp_timer_cancel(timer);
    g_autofree char *cause = pending_cause(record);
    if (cause) {
        const VpVerbRequest request = {.verb = VP_VERB_START, .uid = record->uid, .reason = cause, .restart = TRUE};

        vp_domains_verb(domains, &request, &caller, restarted, vp_record_ref(record));
    }
    vp_record_unref(record);
}

void vp_restart_arm(VpRecord *record)
{
    VpDomains *domains = record->domains;

    VP_LOCK(&domains->mutex);
    if (domains->stopping || record->restart || !record->committed || !is_pending(record->committed))
        return;
    const gint64 left_us = vp_pb_timestamp_us(record->committed->status->restart->next_time) - vp_wall_us();
    record->restart = vp_timer_start(domains->loop, (guint64)MAX(0, left_us) / 1000, on_time, vp_record_ref(record));
}

void vp_restart_disarm(VpRecord *record)
{
    pthread_mutex_lock(&record->domains->mutex);
    VpTimer *timer = g_steal_pointer(&record->restart);
    pthread_mutex_unlock(&record->domains->mutex);
    if (vp_timer_cancel(timer))
        vp_record_unref(record);
}

/* ---- a power off calls it off ---- */

static VpError *apply_call_off(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    (void)data;
    if (!is_pending(draft))
        return vp_error_new(VP_ABORTED, "SUPERSEDED", "the domain %s has got on since", record->name);
    clear(draft->status);
    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_RESTART_GIVEN_UP, "POWERED_OFF", NULL);
    return NULL;
}

gboolean vp_restart_call_off(VpRecord *record, void (*done)(VpRecord *, void *, gint64, const VpError *), void *data,
                             void (*destroy)(void *))
{
    g_autofree char *cause = pending_cause(record);
    const VpMutation mutation = {.apply = apply_call_off, .done = done, .destroy = destroy, .data = data};

    if (!cause)
        return FALSE;
    vp_restart_disarm(record);
    vp_record_mutate(record, &mutation);
    return TRUE;
}
