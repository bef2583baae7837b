/*
 * The verbs on a domain: each is a job, and in the job a task of the driver. What the driver saw is committed before the job ends, so that an answer never runs
 * ahead of the journal.
 */
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"

/* Of changes of one domain that wait for a store that refuses them. */
#define MAX_BACKLOG 8

#define STATE(name) (1u << PB_DOMAIN_STATE_##name)
#define RUNS (STATE(STARTING) | STATE(RUNNING) | STATE(PAUSED) | STATE(SHUTTING_DOWN) | STATE(UNRESPONSIVE))
#define NOTHING_RUNS (STATE(SHUTOFF) | STATE(CRASHED))
/* All memory goes through a disk. */
#define MEMORY_TIMEOUT_MS (60 * 60 * 1000)

/* What each verb is, and in which states it may be asked for. It is the driver that knows whether there is anything to do: what is committed may lag behind. */
static const struct VerbRule {
    const char *type;
    const char *method;
    const char *words; /* "cannot ... the domain" */
    gsize op_offset;
    guint from;
    guint64 timeout_ms;
} rules[] = {
    [VP_VERB_START] = {"domain.start", "StartDomain", "start", offsetof(VpDriverOps, start),
                       NOTHING_RUNS | STATE(SAVED), 60000},
    [VP_VERB_SHUTDOWN] = {"domain.shutdown", "ShutdownDomain", "shut down", offsetof(VpDriverOps, shutdown),
                          STATE(RUNNING) | STATE(SHUTTING_DOWN), 30000},
    [VP_VERB_POWER_OFF] = {"domain.power-off", "PowerOffDomain", "power off", offsetof(VpDriverOps, power_off),
                           RUNS | NOTHING_RUNS | STATE(SAVED), 30000},
    [VP_VERB_REBOOT] = {"domain.reboot", "RebootDomain", "reboot", offsetof(VpDriverOps, reboot),
                        STATE(RUNNING) | STATE(SHUTTING_DOWN), 30000},
    [VP_VERB_RESET] = {"domain.reset", "ResetDomain", "reset", offsetof(VpDriverOps, reset),
                       STATE(RUNNING) | STATE(PAUSED) | STATE(SHUTTING_DOWN), 30000},
    [VP_VERB_PAUSE] = {"domain.pause", "PauseDomain", "pause", offsetof(VpDriverOps, pause),
                       STATE(RUNNING) | STATE(SHUTTING_DOWN) | STATE(PAUSED), 30000},
    [VP_VERB_RESUME] = {"domain.resume", "ResumeDomain", "resume", offsetof(VpDriverOps, resume),
                        STATE(PAUSED) | STATE(RUNNING) | STATE(SHUTTING_DOWN), 30000},
    [VP_VERB_SAVE] = {"domain.save", "SaveDomain", "save", offsetof(VpDriverOps, save),
                      STATE(RUNNING) | STATE(PAUSED) | STATE(SHUTTING_DOWN), MEMORY_TIMEOUT_MS},
    [VP_VERB_RESTORE] = {"domain.restore", "RestoreDomain", "restore", offsetof(VpDriverOps, restore),
                         NOTHING_RUNS | STATE(SAVED), MEMORY_TIMEOUT_MS},
    [VP_VERB_DISCARD] = {"domain.discard-saved-state", "DiscardSavedState", "discard the saved state of",
                         offsetof(VpDriverOps, discard), NOTHING_RUNS | STATE(SAVED), 60000},
    [VP_VERB_ADOPT] = {"domain.adopt", "", "adopt", offsetof(VpDriverOps, adopt), RUNS | NOTHING_RUNS | STATE(SAVED),
                       30000},
};

/* One verb under way. */
typedef struct Work {
    gint refs;
    VpRecord *record;
    const struct VerbRule *rule;
    VpVerb verb;
    gboolean paused;
    gboolean restart;
    guint64 timeout_ms;
    void *message;
    char *reason;
    VpJob *job;
    VpError *task_error;
    gboolean unrecorded; /* it is done, and will be recorded once the store takes it */
    VpDomainDone done;   /* NULL: nobody waits */
    void *data;

    VpProgress progress;

    pthread_mutex_t mutex;
    VpTask *task;
} Work;

static VpDriverOp driver_op(const VpDriver *driver, const struct VerbRule *rule)
{
    VpDriverOp op;

    memcpy(&op, (const char *)driver->ops + rule->op_offset, sizeof(op));
    return op;
}

static Work *work_ref(Work *work)
{
    g_atomic_int_inc(&work->refs);
    return work;
}

static void work_unref(void *data)
{
    Work *work = data;

    if (!g_atomic_int_dec_and_test(&work->refs))
        return;
    vp_record_unref(work->record);
    vp_error_free(work->task_error);
    vp_pb_free(work->message);
    g_free(work->reason);
    if (work->task)
        vp_task_unref(work->task);
    vp_progress_clear(&work->progress);
    pthread_mutex_destroy(&work->mutex);
    g_free(work);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Work, work_unref)

VpError *vp_domain_check_state(const PbDomain *domain, guint states, const char *words)
{
    const char *name = vp_pb_enum_name(&pb_domain_state__descriptor, (int)domain->status->state);
    const char *state = name ? name + strlen("DOMAIN_STATE_") : "UNKNOWN";

    if ((1u << domain->status->state) & states)
        return NULL;
    VpError *error =
        vp_error_new(VP_FAILED_PRECONDITION, "WRONG_STATE", "cannot %s the domain %s: it is %s%s", words, domain->name,
                     state, domain->status->state == PB_DOMAIN_STATE_UNRESPONSIVE ? "; powering it off works" : "");
    return vp_error_with(vp_error_with(error, "name", domain->name), "state", state);
}

static void called_off(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    Work *work = data;
    /* It was started, or the like, in between: there is nothing to call off. */
    const gboolean superseded = error && g_strcmp0(error->reason, "SUPERSEDED") == 0;

    (void)revision;
    vp_job_finish(work->job,
                  error && !superseded
                      ? vp_error_prefix(vp_error_copy(error),
                                        "the domain %s is off, but its restart could not be called off", record->name)
                      : NULL);
}

static gboolean is_start(const Work *work)
{
    return work->verb == VP_VERB_START || work->verb == VP_VERB_RESTORE;
}

static void recorded_late(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    (void)data;
    (void)revision;
    (void)error;
    vp_screens_settle(record);
}

/* Its screens stay as they are until what is shown of the domain has caught up with what it does: what is still to be recorded tells where they are. */
static void settle_screens_later(VpRecord *record)
{
    const VpMutation barrier = {.done = recorded_late};

    vp_record_mutate(record, &barrier);
}

/* All that the driver reported before has been committed, or the store refuses it for now: then it is done all the same, and recorded later. */
static void observations_committed(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    Work *work = data;
    VpError *task_error = g_steal_pointer(&work->task_error);

    (void)revision;
    work->unrecorded = error && !task_error;
    if (work->unrecorded)
        task_error =
            vp_error_prefix(vp_error_copy(error), "the %s of the domain %s is done, but could not be recorded yet",
                            work->rule->type, record->name);
    if (work->unrecorded && is_start(work))
        settle_screens_later(record);
    if (task_error || work->verb != VP_VERB_POWER_OFF) {
        vp_job_finish(work->job, task_error);
        return;
    }
    if (!vp_restart_call_off(record, called_off, work_ref(work), work_unref)) {
        work_unref(work);
        vp_job_finish(work->job, NULL);
    }
}

static void task_done(void *data, VpError *error)
{
    Work *work = data;
    VpRecord *record = work->record;
    const VpMutation barrier = {
        .done = observations_committed,
        .destroy = work_unref,
        .data = work,
        .impatient = TRUE,
    };

    work->task_error = error;
    vp_record_mutate(record, &barrier);
}

static void task_progress(void *data, guint percent, const char *message)
{
    Work *work = data;

    vp_record_progress(work->record, work->job, &work->progress, work->rule->type, percent, message);
}

/* While the store does not take what happens, no more is made to happen than can be kept. */
static VpError *check_backlog(const Work *work)
{
    VpRecord *record = work->record;

    if (work->verb == VP_VERB_POWER_OFF || work->verb == VP_VERB_ADOPT)
        return NULL;
    VP_LOCK(&record->domains->mutex);
    if (!record->retry || record->mutations.length <= MAX_BACKLOG)
        return NULL;
    return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "STORE_BEHIND",
                                       "cannot %s the domain %s: %u of its changes wait for the store; is the disk of "
                                       "the state folder full? Powering it off works",
                                       work->rule->words, record->name, record->mutations.length),
                          1000);
}

static void run(VpJob *job, void *data)
{
    Work *work = data;
    VpDriver *driver = work->record->driver;
    g_autoptr(VpDomainView) view = vp_record_view(work->record);

    work->job = job;
    VpError *error =
        view ? vp_domain_check_state(view->domain, work->rule->from, work->rule->words)
             : vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "the domain %s was deleted", work->record->name);
    if (view && !error && work->restart && !vp_restart_is_pending(view->domain))
        error = vp_error_new(VP_ABORTED, "RESTART_CALLED_OFF", "the domain %s is not to be started again any more",
                             work->record->name);
    if (!error)
        error = check_backlog(work);
    if (view && !error && is_start(work))
        error = vp_screens_take(work->record->domains, view->domain);
    if (!view || error) {
        vp_job_finish(job, error);
        return;
    }

    VpTask *task = vp_task_new(view->domain, vp_now_us() + (gint64)work->timeout_ms * 1000, task_done, work_ref(work));
    vp_task_set_paused(task, work->paused);
    vp_task_set_progress_hook(task, task_progress, work);
    vp_task_set_request(task, work->message);
    vp_task_set_reason(task, work->reason);
    pthread_mutex_lock(&work->mutex);
    work->task = vp_task_ref(task);
    pthread_mutex_unlock(&work->mutex);
    /* A cancellation that came before there was a task. */
    if (vp_job_cancelled(job))
        vp_domain_give_up(job, task);
    driver_op(driver, work->rule)(driver, task);
}

static void cancel(VpJob *job, void *data)
{
    Work *work = data;

    pthread_mutex_lock(&work->mutex);
    g_autoptr(VpTask) task = work->task ? vp_task_ref(work->task) : NULL;
    pthread_mutex_unlock(&work->mutex);
    if (task)
        vp_domain_give_up(job, task);
}

static void tell(VpDomains *domains, VpRecord *record, const char *operation_uid, const VpError *error,
                 VpDomainDone done, void *data)
{
    g_autoptr(VpDomainView) view = vp_record_view(record);
    vp_pb_auto PbOperation *operation = operation_uid ? vp_jobs_get_operation(domains->jobs, operation_uid) : NULL;
    const VpDomainResult result = {.error = error, .domain = view ? view->domain : NULL, .operation = operation};

    done(data, &result);
}

/* ---- the journal of what failed ---- */

typedef struct Failure {
    const char *type;
    char *operation_uid;
    VpError *error;
} Failure;

static void failure_free(void *data)
{
    Failure *failure = data;

    g_free(failure->operation_uid);
    vp_error_free(failure->error);
    g_free(failure);
}

static VpError *apply_failure(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const Failure *failure = data;
    const VpOperationEvent told = {
        .event = PB_EVENT_TYPE_OPERATION_FAILED,
        .type = failure->type,
        .uid = failure->operation_uid,
        .reason = failure->error->reason,
        .detail = failure->error->message,
    };

    (void)record;
    vp_operation_event(txn, draft, &told);
    return NULL;
}

/* What a driver has done well is told by the domain's own events; what it never began is told to the caller alone, so that one who asks in vain again and
 * again fills no journal. */
void vp_record_journal_failure(VpRecord *record, VpJob *job, const char *type, const VpError *error)
{
    Failure *failure = g_new0(Failure, 1);
    const VpMutation mutation = {
        .apply = apply_failure,
        .destroy = failure_free,
        .data = failure,
        .observed = TRUE,
        .event_only = TRUE,
    };

    failure->type = type;
    failure->operation_uid = g_strdup(vp_job_uid(job));
    failure->error = vp_error_copy(error);
    vp_record_mutate(record, &mutation);
}

static void job_done(VpJob *job, void *data, const VpError *error)
{
    Work *work = data;
    VpDomains *domains = work->record->domains;

    pthread_mutex_lock(&work->mutex);
    const gboolean begun = work->task != NULL;
    pthread_mutex_unlock(&work->mutex);
    if (is_start(work) && !work->unrecorded)
        vp_screens_settle(work->record);
    if (error && begun && !work->unrecorded)
        vp_record_journal_failure(work->record, job, work->rule->type, error);
    if (work->done)
        tell(domains, work->record, vp_job_uid(job), error, work->done, work->data);
    if (work->verb == VP_VERB_ADOPT) {
        VP_LOCK(&domains->mutex);
        domains->adopting--;
        pthread_cond_broadcast(&domains->idle);
    }
}

VpError *vp_domain_cannot(const VpDriver *driver, const char *method)
{
    return vp_error_with(vp_error_new(VP_UNIMPLEMENTED, "DRIVER_CANNOT", "the driver %s has no %s", driver->ops->name,
                                      method),
                         "driver", driver->ops->name);
}

static guint64 default_timeout_ms(const struct VerbRule *rule, VpRecord *record)
{
    g_autoptr(VpDomainView) view = rule == &rules[VP_VERB_START] ? vp_record_view(record) : NULL;

    /* Such a start is a restore. */
    return view && view->domain->status->state == PB_DOMAIN_STATE_SAVED ? MEMORY_TIMEOUT_MS : rule->timeout_ms;
}

void vp_domains_verb(VpDomains *domains, const VpVerbRequest *request, const VpDomainCaller *caller, VpDomainDone done,
                     void *data)
{
    const struct VerbRule *rule = &rules[request->verb];
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpRecord) record = vp_registry_find(domains, request->name, request->uid, &error);

    if (record && !driver_op(record->driver, rule))
        error = vp_domain_cannot(record->driver, rule->method);
    if (!record || error) {
        const VpDomainResult result = {.error = error};

        done(data, &result);
        return;
    }

    Work *work = g_new0(Work, 1);
    work->refs = 1;
    work->record = vp_record_ref(record);
    work->rule = rule;
    work->verb = request->verb;
    work->paused = request->paused;
    work->message = vp_pb_dup(request->message);
    work->timeout_ms = request->timeout_ms ? request->timeout_ms : default_timeout_ms(rule, record);
    work->reason = g_strdup(request->reason);
    work->restart = request->restart;
    work->done = request->no_wait ? NULL : done;
    work->data = data;
    pthread_mutex_init(&work->mutex, NULL);
    vp_progress_init(&work->progress);

    vp_pb_auto PbOperation *operation = NULL;
    const VpJobSpec spec = {
        .type = rule->type,
        .resource_type = "domain",
        .resource_name = record->name,
        .resource_uid = record->uid,
        .caller = caller->text,
        .timeout_ms = work->timeout_ms,
        .jump_queue = request->verb == VP_VERB_POWER_OFF,
        .run = run,
        .cancel = cancel,
        .done = job_done,
        .destroy = work_unref,
        .data = work,
    };
    error = vp_jobs_submit(domains->jobs, &spec, &operation);
    if (error) {
        const VpDomainResult result = {.error = error};

        done(data, &result);
    } else if (request->no_wait) {
        tell(domains, record, operation->uid, NULL, done, data);
    }
}
