/* All jobs: taking them, looking at them, stopping. See jobs.h and job.h. */
#include "server/jobs/job.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"

/* After the deadline of vp_jobs_free() only callbacks, which do not block, can still be under way. */
#define CALLBACKS_GRACE_US G_USEC_PER_SEC

/* A year: what is longer is as good as none, and does not overflow. */
#define MAX_TIMEOUT_MS (G_GUINT64_CONSTANT(365) * 86400 * 1000)

static void jobs_unref(VpJobs *jobs)
{
    if (atomic_fetch_sub(&jobs->refs, 1) > 1) {
        return;
    }
    g_hash_table_unref(jobs->queues);
    g_hash_table_unref(jobs->operations);
    pthread_cond_destroy(&jobs->idle);
    pthread_mutex_destroy(&jobs->lock);
    g_free(jobs);
}

VpJob *vp_job_ref(VpJob *job)
{
    atomic_fetch_add_explicit(&job->refs, 1, memory_order_relaxed);
    return job;
}

void vp_job_unref(VpJob *job)
{
    if (atomic_fetch_sub(&job->refs, 1) > 1) {
        return;
    }
    vp_pb_free(job->operation);
    g_ptr_array_unref(job->watches);
    g_free(job->overtaken_by);
    vp_error_free(job->result);
    jobs_unref(job->jobs);
    g_free(job);
}

void vp_jobs_busy_done(VpJobs *jobs)
{
    VP_LOCK(&jobs->lock);
    jobs->busy--;
    pthread_cond_broadcast(&jobs->idle);
}

VpJobs *vp_jobs_new(VpPool *pool, VpLoop *loop, guint keep_ended, guint max_waiting)
{
    VpJobs *jobs = g_new0(VpJobs, 1);

    atomic_init(&jobs->refs, 1);
    jobs->pool = pool;
    jobs->loop = loop;
    jobs->keep_ended = keep_ended;
    jobs->max_waiting = max_waiting;
    pthread_mutex_init(&jobs->lock, NULL);
    vp_cond_init(&jobs->idle);
    jobs->queues = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, vp_job_queue_free);
    jobs->operations = g_hash_table_new(g_str_hash, g_str_equal);
    return jobs;
}

static VpJob *job_new(VpJobs *jobs, const VpJobSpec *spec)
{
    VpJob *job = g_new0(VpJob, 1);

    atomic_fetch_add(&jobs->refs, 1);
    atomic_init(&job->refs, 2); /* until it has ended, and as long as its operation is remembered */
    atomic_init(&job->cancelled, FALSE);
    job->jobs = jobs;
    job->operation = vp_operation_new(spec);
    job->spec = *spec;
    job->spec.type = job->operation->type;
    job->spec.resource_type = job->operation->resource_type;
    job->spec.resource_name = job->operation->resource_name;
    job->spec.resource_uid = job->operation->resource_uid;
    job->spec.caller = job->operation->caller;
    job->spec.timeout_ms = MIN(spec->timeout_ms, MAX_TIMEOUT_MS);
    job->watches = g_ptr_array_new();
    job->all_link.data = job;
    return job;
}

/* With the lock held: why the job cannot be taken, or NULL. */
static VpError *submit_refusal(VpJobs *jobs, const VpJobSpec *spec)
{
    const JobQueue *queue = g_hash_table_lookup(jobs->queues, spec->resource_uid);

    if (jobs->stopping) {
        return vp_jobs_stopping_error(spec->type);
    }
    /* The first of an idle resource does not wait. */
    if (queue && (queue->running || queue->jumping) &&
        vp_job_queue_length(queue, spec->jump_queue) >= jobs->max_waiting && !(spec->jump_queue && !queue->jumping)) {
        return vp_jobs_too_many_error(queue, spec);
    }
    return NULL;
}

VpError *vp_jobs_submit(VpJobs *jobs, const VpJobSpec *spec, PbOperation **ret_operation)
{
    g_autoptr(GPtrArray) overtaken = g_ptr_array_new();
    g_autoptr(GPtrArray) ready = g_ptr_array_new();
    VpJob *to_cancel = NULL;
    JobNotice notice;

    pthread_mutex_lock(&jobs->lock);
    VpError *refusal = submit_refusal(jobs, spec);

    if (refusal) {
        pthread_mutex_unlock(&jobs->lock);
        if (spec->destroy) {
            spec->destroy(spec->data);
        }
        return refusal;
    }

    VpJob *job = job_new(jobs, spec);
    JobQueue *queue = vp_job_queue_of(jobs, spec->resource_uid);

    if (spec->jump_queue) {
        to_cancel = vp_job_queue_overtake(queue, &job->spec, overtaken);
    }
    vp_job_queue_insert(queue, job);
    jobs->busy++;
    g_hash_table_insert(jobs->operations, job->operation->uid, job);
    g_queue_push_head_link(&jobs->all, &job->all_link);
    vp_job_queue_take_ready(jobs, queue, ready);
    if (ret_operation) {
        *ret_operation = vp_pb_dup(job->operation);
    }
    vp_job_notice_take(job, /* listener= */ TRUE, &notice);
    pthread_mutex_unlock(&jobs->lock);

    if (to_cancel) {
        vp_job_tell_cancel(to_cancel);
    }
    for (guint i = 0; i < overtaken->len; i++) {
        vp_job_end(overtaken->pdata[i], vp_jobs_overtaken_error(overtaken->pdata[i]));
    }
    for (guint i = 0; i < ready->len; i++) {
        vp_job_start(ready->pdata[i]);
    }
    vp_job_notice_tell(&notice);
    return NULL;
}

/* With the lock held: takes a job that has not begun out of the queue, to be ended by the caller. */
static void job_withdraw(VpJob *job)
{
    if (job->phase == JOB_WAITING) {
        g_queue_remove(&job->queue->waiting, job);
    }
    job->phase = JOB_ENDING;
}

VpError *vp_jobs_cancel(VpJobs *jobs, const char *uid)
{
    gboolean end = FALSE;
    gboolean tell = FALSE;
    VpError *refusal = NULL;

    pthread_mutex_lock(&jobs->lock);
    VpJob *job = g_hash_table_lookup(jobs->operations, uid);

    if (!job) {
        refusal = vp_error_new(VP_NOT_FOUND, "OPERATION_NOT_FOUND",
                               "there is no operation '%s'; ended ones are remembered for a while only", uid);
    } else if (job->phase < JOB_RUNNING) {
        job_withdraw(job);
        end = TRUE;
    } else if (job->phase == JOB_RUNNING && !job->finished && !job->spec.cancel) {
        refusal = vp_error_new(VP_FAILED_PRECONDITION, "NOT_CANCELLABLE",
                               "%s of %s '%s' runs and cannot be cancelled; wait for its end", job->spec.type,
                               job->spec.resource_type, job->spec.resource_name);
    } else if (job->phase == JOB_RUNNING) {
        tell = vp_job_note_cancel(job);
    }
    pthread_mutex_unlock(&jobs->lock);

    if (end) {
        vp_job_end(job, vp_error_new(VP_CANCELLED, "CANCELLED", "%s of %s '%s' was cancelled before it began",
                                     job->spec.type, job->spec.resource_type, job->spec.resource_name));
    }
    if (tell) {
        vp_job_tell_cancel(job);
    }
    return refusal;
}

gboolean vp_jobs_current(VpJobs *jobs, const char *resource_uid, VpJobInfo *ret_info)
{
    VP_LOCK(&jobs->lock);
    const JobQueue *queue = g_hash_table_lookup(jobs->queues, resource_uid);
    const VpJob *job = queue ? vp_job_queue_current(queue) : NULL;

    if (!job) {
        return FALSE;
    }
    *ret_info = (VpJobInfo){
        .type = g_strdup(job->spec.type),
        .caller = g_strdup(job->spec.caller),
        .operation_uid = g_strdup(job->operation->uid),
        .start_wall_us = vp_pb_timestamp_us(job->operation->start_time),
        .waiting = queue->waiting.length,
    };
    return TRUE;
}

void vp_job_info_clear(VpJobInfo *info)
{
    g_free(info->type);
    g_free(info->caller);
    g_free(info->operation_uid);
    memset(info, 0, sizeof(*info));
}

void vp_jobs_set_listener(VpJobs *jobs, void (*changed)(void *data, const char *resource_uid), void *data)
{
    VP_LOCK(&jobs->lock);
    jobs->changed = changed;
    jobs->changed_data = data;
}

/* With the lock held: until nobody is busy, or the deadline. */
static gboolean jobs_wait_idle(VpJobs *jobs, gint64 deadline_us)
{
    while (jobs->busy > 0) {
        if (!vp_cond_wait_until(&jobs->idle, &jobs->lock, deadline_us)) {
            return jobs->busy == 0;
        }
    }
    return TRUE;
}

/* With the lock held: all jobs that have not ended, split into those that never began (`ended`, their phase set) and those to be told. */
static void jobs_stop_all(VpJobs *jobs, GPtrArray *ended, GPtrArray *to_cancel)
{
    jobs->stopping = TRUE;
    for (GList *link = jobs->all.head; link; link = link->next) {
        VpJob *job = link->data;

        if (job->phase < JOB_RUNNING) {
            job_withdraw(job);
            g_ptr_array_add(ended, job);
        } else if (job->phase == JOB_RUNNING && vp_job_note_cancel(job)) {
            g_ptr_array_add(to_cancel, job);
        }
    }
}

/* With the lock held: those that still run. They are told as ended; what they do goes on until vp_job_finish(), which then only frees them. */
static void jobs_give_up(VpJobs *jobs, GPtrArray *ended)
{
    for (GList *link = jobs->all.head; link; link = link->next) {
        VpJob *job = link->data;

        if (job->phase == JOB_RUNNING) {
            job->phase = JOB_ENDING;
            g_ptr_array_add(ended, job);
        }
    }
}

static void end_all(const GPtrArray *ended)
{
    for (guint i = 0; i < ended->len; i++) {
        VpJob *job = ended->pdata[i];

        vp_job_end(job, vp_jobs_stopping_error(job->spec.type));
    }
}

void vp_jobs_free(VpJobs *jobs, gint64 deadline_us)
{
    if (!jobs) {
        return;
    }
    g_autoptr(GPtrArray) never_began = g_ptr_array_new();
    g_autoptr(GPtrArray) to_cancel = g_ptr_array_new();
    g_autoptr(GPtrArray) given_up = g_ptr_array_new();
    g_autoptr(GPtrArray) remembered = g_ptr_array_new_with_free_func((GDestroyNotify)vp_job_unref);

    pthread_mutex_lock(&jobs->lock);
    jobs_stop_all(jobs, never_began, to_cancel);
    pthread_mutex_unlock(&jobs->lock);
    for (guint i = 0; i < to_cancel->len; i++) {
        vp_job_tell_cancel(to_cancel->pdata[i]);
    }
    end_all(never_began);

    pthread_mutex_lock(&jobs->lock);
    if (!jobs_wait_idle(jobs, deadline_us)) {
        jobs_give_up(jobs, given_up);
    }
    pthread_mutex_unlock(&jobs->lock);
    end_all(given_up);

    pthread_mutex_lock(&jobs->lock);
    jobs_wait_idle(jobs, MAX(deadline_us, vp_now_us()) + CALLBACKS_GRACE_US);
    jobs->changed = NULL;
    for (GList *link; (link = g_queue_pop_head_link(&jobs->all));) {
        g_ptr_array_add(remembered, link->data);
    }
    g_queue_clear(&jobs->ended);
    g_hash_table_remove_all(jobs->operations);
    pthread_mutex_unlock(&jobs->lock);
    jobs_unref(jobs);
}
