/* A job from its turn to its end: run, cancel, deadline, finish. See jobs.h and job.h. */
#include "server/jobs/job.h"

#include "base/pb.h"
#include "base/thread.h"

/* How the job ends if its work ended with `result` (consumed): work that was cancelled says CANCELLED, and here is why. */
static VpError *job_verdict(const VpJob *job, VpError *result)
{
    g_autoptr(VpError) said = result;

    if (!said || said->code != VP_CANCELLED || (!job->expired && !job->overtaken_by)) {
        return g_steal_pointer(&said);
    }
    return job->expired ? vp_jobs_deadline_error(job, said->message) : vp_jobs_overtaken_error(job);
}

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

/*
 * Ends a job whose phase the caller has set to JOB_ENDING; `error` is consumed. The operation is seen as ended when `done` is told, so that an
 * answer made there shows it so; the next job runs only after whoever waited for this one has noted its outcome.
 */
void vp_job_end(VpJob *job, VpError *error)
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
    vp_job_queue_leave(jobs, job, ready);
    vp_job_notice_take(job, /* listener= */ TRUE, &notice);
    const gboolean destroy = job_may_destroy(job);
    pthread_mutex_unlock(&jobs->lock);

    if (destroy) {
        job_destroy(job);
    }
    for (guint i = 0; i < ready->len; i++) {
        vp_job_start(ready->pdata[i]);
    }
    vp_job_notice_tell(&notice);
    vp_jobs_busy_done(jobs);
    vp_job_unref(job);
}

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
        vp_job_end(job, verdict);
    } else if (destroy) {
        job_destroy(job);
    }
}

/* With the lock held: notes that the running work is to end early. TRUE: the caller calls vp_job_tell_cancel() without the lock. */
gboolean vp_job_note_cancel(VpJob *job)
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

void vp_job_tell_cancel(VpJob *job)
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
        tell = vp_job_note_cancel(job);
        vp_pb_printf(&job->operation->message, "past its deadline of %.1f s: %s", (double)job->spec.timeout_ms / 1000,
                     job->spec.cancel ? "cancelled, has not ended yet" : "it cannot be cancelled and goes on");
        vp_job_notice_take(job, /* listener= */ FALSE, &notice);
    }
    pthread_mutex_unlock(&jobs->lock);

    if (never_ran) {
        vp_job_end(job, vp_jobs_deadline_error(job, "no worker was free"));
    }
    if (runs) {
        vp_job_notice_tell(&notice);
    }
    if (tell) {
        vp_job_tell_cancel(job);
    }
    vp_job_unref(job);
}

/* Sends a job whose turn has come to a worker, and sets its deadline. The caller's reference and its count in `busy` are consumed. */
void vp_job_start(VpJob *job)
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
            vp_job_end(job, vp_jobs_workers_busy_error(job));
        }
    }
    vp_jobs_busy_done(jobs);
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
        vp_job_end(job, verdict);
    } else if (destroy) {
        job_destroy(job);
    }
}

gboolean vp_job_cancelled(const VpJob *job)
{
    return atomic_load(&job->cancelled);
}

gboolean vp_job_expired(const VpJob *job)
{
    VP_LOCK(&job->jobs->lock);
    return job->expired;
}

const char *vp_job_uid(const VpJob *job)
{
    return job->operation->uid;
}
