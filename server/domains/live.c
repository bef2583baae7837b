/* The part of a change that a driver has to do, as a task within the change's job: see change.h. */
#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/change.h"

/* For the task to end after its deadline, and what it reported to be committed. */
#define TASK_TIMEOUT_MS 60000

/* What the driver reported is on the disk, or the store refuses it for now; it is recorded later then. */
static void observations_committed(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    VpChange *change = data;

    (void)revision;
    if (change->task_error)
        vp_job_finish(change->job, vp_error_copy(change->task_error));
    else if (error)
        vp_job_finish(change->job, vp_error_prefix(vp_error_copy(error),
                                                   "the running domain %s was changed, but that could not be recorded "
                                                   "yet; what is stored was not changed",
                                                   record->name));
    else
        vp_change_store(change);
}

static void task_done(void *data, VpError *error)
{
    VpChange *change = data;
    const VpMutation barrier = {.done = observations_committed, .data = change, .impatient = TRUE};

    change->task_error = error;
    vp_record_mutate(change->record, &barrier);
}

static void task_progress(void *data, guint percent, const char *message)
{
    VpChange *change = data;

    vp_record_progress(change->record, change->job, &change->progress, change->type, percent, message);
}

void vp_domain_give_up(const VpJob *job, VpTask *task)
{
    if (vp_job_expired(job))
        vp_task_expire(task);
    else
        vp_task_cancel(task);
}

void vp_change_live(VpChange *change, const PbDomain *now, const PbDomainSpec *wanted, PbChangeScope scope)
{
    const guint64 timeout_ms = change->timeout_ms ? change->timeout_ms : TASK_TIMEOUT_MS;
    vp_pb_auto PbUpdateDomainRequest *request = vp_pb_new(&pb_update_domain_request__descriptor);

    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_dup(wanted);
    request->scope = scope;
    request->force = change->force;
    VpTask *task = vp_task_new(now, vp_now_us() + (gint64)timeout_ms * 1000, task_done, change);
    vp_task_set_request(task, request);
    vp_task_set_progress_hook(task, task_progress, change);
    change->begun = TRUE;
    pthread_mutex_lock(&change->mutex);
    change->task = vp_task_ref(task);
    pthread_mutex_unlock(&change->mutex);
    /* A cancellation that came before there was a task. */
    if (vp_job_cancelled(change->job))
        vp_domain_give_up(change->job, task);
    change->record->driver->ops->change(change->record->driver, task);
}

void vp_change_live_cancel(VpChange *change)
{
    pthread_mutex_lock(&change->mutex);
    g_autoptr(VpTask) task = change->task ? vp_task_ref(change->task) : NULL;
    pthread_mutex_unlock(&change->mutex);
    if (task)
        vp_domain_give_up(change->job, task);
}
