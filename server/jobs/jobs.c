/* The queues of the resources, and a job's way through them: submit, turn, run, cancel, finish, end. See jobs.h and job.h. */
#include "server/jobs/jobs.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/jobs/job.h"

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

static void jobs_busy_done(VpJobs *jobs)
{
    VP_LOCK(&jobs->lock);
    jobs->busy--;
    pthread_cond_broadcast(&jobs->idle);
}

static void queue_free(gpointer data)
{
    JobQueue *queue = data;

    g_free(queue->resource_uid);
    g_free(queue);
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
    jobs->queues = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, queue_free);
    jobs->operations = g_hash_table_new(g_str_hash, g_str_equal);
    return jobs;
}

/* ---- errors ---- */

static double seconds_since(gint64 start_us)
{
    return (double)(vp_now_us() - start_us) / G_USEC_PER_SEC;
}

static VpError *stopping_error(const char *type)
{
    return vp_error_new(VP_UNAVAILABLE, "STOPPING",
                        "%s was not done: the daemon is stopping; ask again once it is back", type);
}

/* `message` is what the work itself said, or NULL. */
static VpError *deadline_error(const VpJob *job, const char *message)
{
    return vp_error_new(VP_DEADLINE_EXCEEDED, "JOB_DEADLINE",
                        "%s of %s '%s' was given up after %.1f s (its limit is %.1f s)%s%s", job->spec.type,
                        job->spec.resource_type, job->spec.resource_name, seconds_since(job->turn_us),
                        (double)job->spec.timeout_ms / 1000, message ? ": " : "", message ? message : "");
}

static VpError *workers_busy_error(const VpJob *job)
{
    VpError *error = vp_error_new(VP_RESOURCE_EXHAUSTED, "WORKERS_BUSY",
                                  "%s of %s '%s' was not begun: too much work is queued in the daemon; try again",
                                  job->spec.type, job->spec.resource_type, job->spec.resource_name);

    return vp_error_retry(error, 1000);
}

static VpError *overtaken_error(const VpJob *job)
{
    return vp_error_new(VP_ABORTED, "OVERTAKEN", "%s of %s '%s' was overtaken by %s", job->spec.type,
                        job->spec.resource_type, job->spec.resource_name, job->overtaken_by);
}

/* Only while one runs. */
static VpError *too_many_error(const JobQueue *queue, const VpJobSpec *spec)
{
    const VpJob *job = queue->jumping ? queue->jumping : queue->running;

    VpError *error = vp_error_new(
        VP_RESOURCE_EXHAUSTED, "TOO_MANY_JOBS",
        "%u jobs wait for %s '%s' already; %s runs, asked for by %s, for %.1f s: wait for it, or cancel operation %s",
        queue->waiting.length, spec->resource_type, spec->resource_name, job->spec.type, job->spec.caller,
        seconds_since(job->turn_us), job->operation->uid);

    vp_error_with(error, "job_type", job->spec.type);
    vp_error_with(error, "job_caller", job->spec.caller);
    vp_error_with(error, "operation", job->operation->uid);
    return vp_error_retry(error, 1000);
}

/* How the job ends if its work ended with `result` (consumed): work that was cancelled says CANCELLED, and here is why. */
static VpError *job_verdict(const VpJob *job, VpError *result)
{
    g_autoptr(VpError) said = result;

    if (!said || said->code != VP_CANCELLED || (!job->expired && !job->overtaken_by)) {
        return g_steal_pointer(&said);
    }
    return job->expired ? deadline_error(job, said->message) : overtaken_error(job);
}

/* ---- ending ---- */

/* Whoever calls with the lock held and gets TRUE calls job_destroy() without it. */
static gboolean job_may_destroy(VpJob *job)
{
    if (job->destroyed || job->phase != JOB_ENDED || job->inside > 0 || (job->started && !job->finished)) {
        return FALSE;
    }
    job->destroyed = TRUE;
    return TRUE;
}

static void job_destroy(VpJob *job)
{
    if (job->spec.destroy) {
        job->spec.destroy(job->spec.data);
    }
    vp_job_unref(job);
}

static void job_start(VpJob *job);

/* Gives those their turn whose turn has come: a normal job if nothing runs, one that jumps the queue if no such one runs. Each in `ready` counts in
 * `busy` and is to be passed to job_start(). */
static void queue_take_ready(VpJobs *jobs, JobQueue *queue, GPtrArray *ready)
{
    for (;;) {
        VpJob *job = g_queue_peek_head(&queue->waiting);

        if (!job || queue->jumping || (!job->spec.jump_queue && queue->running)) {
            return;
        }
        g_queue_pop_head(&queue->waiting);
        *(job->spec.jump_queue ? &queue->jumping : &queue->running) = job;
        job->phase = JOB_TURN;
        job->turn_us = vp_now_us();
        vp_operation_start(job);
        jobs->busy++;
        g_ptr_array_add(ready, vp_job_ref(job));
    }
}

/* Takes a job out of its queue, which goes with its last one; gives the next ones their turn. */
static void queue_leave(VpJobs *jobs, VpJob *job, GPtrArray *ready)
{
    JobQueue *queue = g_steal_pointer(&job->queue);

    if (queue->running == job) {
        queue->running = NULL;
    }
    if (queue->jumping == job) {
        queue->jumping = NULL;
    }
    queue_take_ready(jobs, queue, ready);
    if (--queue->members == 0) {
        g_hash_table_remove(jobs->queues, queue->resource_uid);
    }
}

/*
 * Ends a job whose phase the caller has set to JOB_ENDING; `error` is consumed. The operation is seen as ended when `done` is told, so that an
 * answer made there shows it so; the next job runs only after whoever waited for this one has noted its outcome.
 */
static void job_end(VpJob *job, VpError *error)
{
    VpJobs *jobs = job->jobs;
    g_autoptr(VpError) verdict = error;
    g_autoptr(GPtrArray) ready = g_ptr_array_new();
    g_autoptr(GPtrArray) forgotten = g_ptr_array_new_with_free_func((GDestroyNotify)vp_job_unref);
    JobNotice notice;

    pthread_mutex_lock(&jobs->lock);
    vp_job_ref(job);
    VpTimer *timer = g_steal_pointer(&job->timer);
    vp_operation_end(job, verdict);
    vp_operations_remember(job, forgotten);
    vp_job_notice_take(job, /* listener= */ TRUE, &notice);
    pthread_mutex_unlock(&jobs->lock);
    if (vp_timer_cancel(timer)) {
        vp_job_unref(job);
    }
    vp_job_notice_tell(&notice);
    if (job->spec.done) {
        job->spec.done(job, job->spec.data, verdict);
    }

    /* Its place is kept until here: a job that came meanwhile must not run before this one's end was told. */
    pthread_mutex_lock(&jobs->lock);
    job->phase = JOB_ENDED;
    queue_leave(jobs, job, ready);
    vp_job_notice_take(job, /* listener= */ TRUE, &notice);
    const gboolean destroy = job_may_destroy(job);
    pthread_mutex_unlock(&jobs->lock);

    if (destroy) {
        job_destroy(job);
    }
    for (guint i = 0; i < ready->len; i++) {
        job_start(ready->pdata[i]);
    }
    vp_job_notice_tell(&notice);
    jobs_busy_done(jobs);
    vp_job_unref(job);
}

/* ---- running ---- */

/* A call of run() or cancel() is over: if the work was finished meanwhile the job ends now. */
static void job_leave(VpJob *job)
{
    VpError *verdict = NULL;

    pthread_mutex_lock(&job->jobs->lock);
    job->inside--;
    const gboolean end = job->inside == 0 && job->finished && job->phase == JOB_RUNNING;

    if (end) {
        job->phase = JOB_ENDING;
        verdict = job_verdict(job, g_steal_pointer(&job->result));
    }
    const gboolean destroy = job_may_destroy(job);
    pthread_mutex_unlock(&job->jobs->lock);

    if (end) {
        job_end(job, verdict);
    } else if (destroy) {
        job_destroy(job);
    }
}

/* With the lock held: notes that the running work is to end early. TRUE: the caller calls job_tell_cancel() without the lock. */
static gboolean job_note_cancel(VpJob *job)
{
    atomic_store(&job->cancelled, TRUE);
    if (!job->spec.cancel || job->cancel_told || job->finished) {
        return FALSE;
    }
    if (job->run_active) {
        job->cancel_wanted = TRUE;
        return FALSE;
    }
    job->cancel_told = TRUE;
    job->inside++;
    return TRUE;
}

static void job_tell_cancel(VpJob *job)
{
    job->spec.cancel(job, job->spec.data);
    job_leave(job);
}

/* On a worker thread. Has a reference. */
static void job_run(void *data)
{
    VpJob *job = data;
    VpJobs *jobs = job->jobs;

    pthread_mutex_lock(&jobs->lock);
    const gboolean go = job->phase == JOB_TURN;

    if (go) {
        job->phase = JOB_RUNNING;
        job->started = TRUE;
        job->run_active = TRUE;
        job->inside++;
    }
    pthread_mutex_unlock(&jobs->lock);
    if (!go) {
        vp_job_unref(job);
        return;
    }

    job->spec.run(job, job->spec.data);

    pthread_mutex_lock(&jobs->lock);
    job->run_active = FALSE;
    const gboolean tell = job->cancel_wanted && !job->finished;

    job->cancel_told |= tell;
    pthread_mutex_unlock(&jobs->lock);
    if (tell) {
        job->spec.cancel(job, job->spec.data);
    }
    job_leave(job);
    vp_job_unref(job);
}

/* On the loop's thread. Has a reference. */
static void job_expired(void *data)
{
    VpJob *job = data;
    VpJobs *jobs = job->jobs;
    gboolean tell = FALSE;
    JobNotice notice;

    pthread_mutex_lock(&jobs->lock);
    const gboolean never_ran = job->phase == JOB_TURN;
    const gboolean runs = job->phase == JOB_RUNNING && !job->finished;

    if (never_ran) {
        job->phase = JOB_ENDING;
    } else if (runs) {
        /* Who was cancelled before is that, not late. */
        job->expired = !atomic_load(&job->cancelled);
        tell = job_note_cancel(job);
        vp_pb_printf(&job->operation->message, "past its deadline of %.1f s: %s", (double)job->spec.timeout_ms / 1000,
                     job->spec.cancel ? "cancelled, has not ended yet" : "it cannot be cancelled and goes on");
        vp_job_notice_take(job, /* listener= */ FALSE, &notice);
    }
    pthread_mutex_unlock(&jobs->lock);

    if (never_ran) {
        job_end(job, deadline_error(job, "no worker was free"));
    }
    if (runs) {
        vp_job_notice_tell(&notice);
    }
    if (tell) {
        job_tell_cancel(job);
    }
    vp_job_unref(job);
}

/* Sends a job whose turn has come to a worker, and sets its deadline. The caller's reference and its count in `busy` are consumed. */
static void job_start(VpJob *job)
{
    VpJobs *jobs = job->jobs;
    VpTimer *timer =
        job->spec.timeout_ms ? vp_timer_start(jobs->loop, job->spec.timeout_ms, job_expired, vp_job_ref(job)) : NULL;

    pthread_mutex_lock(&jobs->lock);
    if (job->phase < JOB_ENDING) {
        job->timer = g_steal_pointer(&timer);
    }
    pthread_mutex_unlock(&jobs->lock);
    if (vp_timer_cancel(timer)) {
        vp_job_unref(job);
    }

    if (!vp_pool_submit(jobs->pool, job_run, vp_job_ref(job))) {
        vp_job_unref(job);
        pthread_mutex_lock(&jobs->lock);
        const gboolean end = job->phase == JOB_TURN;

        if (end) {
            job->phase = JOB_ENDING;
        }
        pthread_mutex_unlock(&jobs->lock);
        if (end) {
            job_end(job, workers_busy_error(job));
        }
    }
    jobs_busy_done(jobs);
    vp_job_unref(job);
}

void vp_job_finish(VpJob *job, VpError *error)
{
    VpJobs *jobs = job->jobs;
    VpError *verdict = NULL;

    pthread_mutex_lock(&jobs->lock);
    if (!job->started || job->finished) {
        g_error("vp_job_finish: job %s (%s) %s", job->operation->uid, job->spec.type,
                job->finished ? "was finished before" : "does not run");
    }
    job->finished = TRUE;
    const gboolean end = job->inside == 0 && job->phase == JOB_RUNNING;

    if (end) {
        job->phase = JOB_ENDING;
        verdict = job_verdict(job, error);
    } else {
        job->result = error; /* the call of run() or cancel() that is under way ends it; or it was given up long ago */
    }
    const gboolean destroy = job_may_destroy(job);
    pthread_mutex_unlock(&jobs->lock);

    if (end) {
        job_end(job, verdict);
    } else if (destroy) {
        job_destroy(job);
    }
}

gboolean vp_job_cancelled(const VpJob *job)
{
    return atomic_load(&job->cancelled);
}

const char *vp_job_uid(const VpJob *job)
{
    return job->operation->uid;
}

/* ---- submitting ---- */

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

static JobQueue *queue_of(VpJobs *jobs, const char *resource_uid)
{
    JobQueue *queue = g_hash_table_lookup(jobs->queues, resource_uid);

    if (!queue) {
        queue = g_new0(JobQueue, 1);
        queue->resource_uid = g_strdup(resource_uid);
        g_hash_table_insert(jobs->queues, queue->resource_uid, queue);
    }
    return queue;
}

/* How many wait that a new job of this kind would not overtake. */
static guint queue_length(const JobQueue *queue, gboolean jump_queue)
{
    guint length = 0;

    for (const GList *link = queue->waiting.head; link; link = link->next) {
        length += !jump_queue || ((const VpJob *)link->data)->spec.jump_queue;
    }
    return length;
}

static void job_overtake(VpJob *job, const VpJobSpec *by)
{
    if (!job->overtaken_by) {
        job->overtaken_by = g_strdup_printf("%s, asked for by %s", by->type, by->caller);
    }
}

/* Those that `spec` overtakes: waiting ones, or on their way to a worker, into `ended`, their phase set; a running one is returned if its cancel()
 * is to be told. */
static VpJob *queue_overtake(JobQueue *queue, const VpJobSpec *spec, GPtrArray *ended)
{
    for (GList *link = queue->waiting.head, *next; link; link = next) {
        VpJob *job = link->data;

        next = link->next;
        if (!job->spec.jump_queue) {
            g_queue_delete_link(&queue->waiting, link);
            job->phase = JOB_ENDING;
            job_overtake(job, spec);
            g_ptr_array_add(ended, job);
        }
    }

    VpJob *running = queue->running;

    if (!running || running->finished || running->phase >= JOB_ENDING) {
        return NULL;
    }
    job_overtake(running, spec);
    if (running->phase == JOB_TURN) {
        running->phase = JOB_ENDING;
        g_ptr_array_add(ended, running);
        return NULL;
    }
    return job_note_cancel(running) ? running : NULL;
}

static void queue_insert(JobQueue *queue, VpJob *job)
{
    GList *link = queue->waiting.head;

    while (job->spec.jump_queue && link && ((const VpJob *)link->data)->spec.jump_queue) {
        link = link->next;
    }
    if (job->spec.jump_queue && link) {
        g_queue_insert_before(&queue->waiting, link, job);
    } else {
        g_queue_push_tail(&queue->waiting, job);
    }
    job->queue = queue;
    queue->members++;
}

/* With the lock held: why the job cannot be taken, or NULL. */
static VpError *submit_refusal(VpJobs *jobs, const VpJobSpec *spec)
{
    const JobQueue *queue = g_hash_table_lookup(jobs->queues, spec->resource_uid);

    if (jobs->stopping) {
        return stopping_error(spec->type);
    }
    /* The first of an idle resource does not wait. */
    if (queue && (queue->running || queue->jumping) && queue_length(queue, spec->jump_queue) >= jobs->max_waiting &&
        !(spec->jump_queue && !queue->jumping)) {
        return too_many_error(queue, spec);
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
    JobQueue *queue = queue_of(jobs, spec->resource_uid);

    if (spec->jump_queue) {
        to_cancel = queue_overtake(queue, &job->spec, overtaken);
    }
    queue_insert(queue, job);
    jobs->busy++;
    g_hash_table_insert(jobs->operations, job->operation->uid, job);
    g_queue_push_head_link(&jobs->all, &job->all_link);
    queue_take_ready(jobs, queue, ready);
    if (ret_operation) {
        *ret_operation = vp_pb_dup(job->operation);
    }
    vp_job_notice_take(job, /* listener= */ TRUE, &notice);
    pthread_mutex_unlock(&jobs->lock);

    if (to_cancel) {
        job_tell_cancel(to_cancel);
    }
    for (guint i = 0; i < overtaken->len; i++) {
        job_end(overtaken->pdata[i], overtaken_error(overtaken->pdata[i]));
    }
    for (guint i = 0; i < ready->len; i++) {
        job_start(ready->pdata[i]);
    }
    vp_job_notice_tell(&notice);
    return NULL;
}

/* ---- cancelling, looking, stopping ---- */

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
        tell = job_note_cancel(job);
    }
    pthread_mutex_unlock(&jobs->lock);

    if (end) {
        job_end(job, vp_error_new(VP_CANCELLED, "CANCELLED", "%s of %s '%s' was cancelled before it began",
                                  job->spec.type, job->spec.resource_type, job->spec.resource_name));
    }
    if (tell) {
        job_tell_cancel(job);
    }
    return refusal;
}

/* The job that runs; one whose end is being told keeps its place, but is none any more. */
static const VpJob *queue_current(const JobQueue *queue)
{
    if (queue->jumping && queue->jumping->phase < JOB_ENDING) {
        return queue->jumping;
    }
    return queue->running && queue->running->phase < JOB_ENDING ? queue->running : NULL;
}

gboolean vp_jobs_current(VpJobs *jobs, const char *resource_uid, VpJobInfo *ret_info)
{
    VP_LOCK(&jobs->lock);
    const JobQueue *queue = g_hash_table_lookup(jobs->queues, resource_uid);
    const VpJob *job = queue ? queue_current(queue) : NULL;

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
        } else if (job->phase == JOB_RUNNING && job_note_cancel(job)) {
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

        job_end(job, stopping_error(job->spec.type));
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
        job_tell_cancel(to_cancel->pdata[i]);
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
