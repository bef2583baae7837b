/* Why a job was not taken, or ended without its work being done. */
#include "server/jobs/job.h"

#include "base/thread.h"

static double seconds_since(gint64 start_us)
{
    return (double)(vp_now_us() - start_us) / G_USEC_PER_SEC;
}

VpError *vp_jobs_stopping_error(const char *type)
{
    return vp_error_new(VP_UNAVAILABLE, "STOPPING",
                        "%s was not done: the daemon is stopping; ask again once it is back", type);
}

/* `message` is what the work itself said, or NULL. */
VpError *vp_jobs_deadline_error(const VpJob *job, const char *message)
{
    return vp_error_new(VP_DEADLINE_EXCEEDED, "JOB_DEADLINE",
                        "%s of %s '%s' was given up after %.1f s (its limit is %.1f s)%s%s", job->spec.type,
                        job->spec.resource_type, job->spec.resource_name, seconds_since(job->turn_us),
                        (double)job->spec.timeout_ms / 1000, message ? ": " : "", message ? message : "");
}

VpError *vp_jobs_workers_busy_error(const VpJob *job)
{
    VpError *error = vp_error_new(VP_RESOURCE_EXHAUSTED, "WORKERS_BUSY",
                                  "%s of %s '%s' was not begun: too much work is queued in the daemon; try again",
                                  job->spec.type, job->spec.resource_type, job->spec.resource_name);

    return vp_error_retry(error, 1000);
}

VpError *vp_jobs_overtaken_error(const VpJob *job)
{
    return vp_error_new(VP_ABORTED, "OVERTAKEN", "%s of %s '%s' was overtaken by %s", job->spec.type,
                        job->spec.resource_type, job->spec.resource_name, job->overtaken_by);
}

/* Only while one runs. */
VpError *vp_jobs_too_many_error(const JobQueue *queue, const VpJobSpec *spec)
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
