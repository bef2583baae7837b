/*
 * Jobs and operations. What can take long is a job on one resource; the jobs of one resource run one at a time, in the order they came.
 * A job's function starts the work on a worker thread and returns; the job ends when someone calls vp_job_finish(). So a job that waits for
 * a hypervisor holds no thread, and a stuck one delays no other resource. Each job is an Operation that clients can get, watch and cancel.
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/pool.h"
#include "virtplane/v1/operation.pb-c.h"

typedef struct VpJobs VpJobs;
typedef struct VpJob VpJob;

typedef struct VpJobSpec {
    const char *type;          /* "domain.start" */
    const char *resource_type; /* "domain" */
    const char *resource_name;
    const char *resource_uid; /* jobs with the same one run one at a time */
    const char *caller;
    /* Counted from its turn, 0: none. When it has passed the job is cancelled; if it then ends with CANCELLED that becomes DEADLINE_EXCEEDED, reason
     * JOB_DEADLINE. One without `cancel` goes on, and its operation says that it is late. */
    guint64 timeout_ms;
    /* A power off: cancels the running job and ends every waiting one (ABORTED, reason OVERTAKEN), and starts at once, beside the cancelled one if that has
     * not ended yet. The resource is free again when both have. Of several such jobs one runs at a time, and none overtakes another. */
    gboolean jump_queue;

    /* Starts the work, on a worker thread. Must see to it that vp_job_finish() is called, sooner or later. Not called for a job that ended before. */
    void (*run)(VpJob *job, void *data);
    /* Asks the work to end early; once; any thread; must not block. NULL: cannot be cancelled once it runs. Not called before run() has returned
     * (which may look at vp_job_cancelled() meanwhile), nor after the job finished. */
    void (*cancel)(VpJob *job, void *data);
    /* Told once at the end, with the error borrowed (NULL: done well); any thread; must not block. Also for a job that never ran. The operation
     * is seen as ended by then; the resource's next job is started only afterwards. Not told while run() or cancel() of the same job is being called. */
    void (*done)(VpJob *job, void *data, const VpError *error);
    /* Frees `data`, last of all. May be NULL. */
    void (*destroy)(void *data);
    void *data;
} VpJobSpec;

/* `pool` runs the functions, `loop` keeps the deadlines. Both outlive it. `keep_ended` operations are remembered. At most `max_waiting` jobs wait
 * for one resource. */
VpJobs *vp_jobs_new(VpPool *pool, VpLoop *loop, guint keep_ended, guint max_waiting);

/* Cancels what runs, ends what waits with UNAVAILABLE, waits for the ends until `deadline_us` of vp_now_us(), then frees. What has not ended by then is
 * told as done with UNAVAILABLE; its vp_job_finish() may still come, and only frees it. Before the pool and the loop are freed. NULL is let pass. */
void vp_jobs_free(VpJobs *jobs, gint64 deadline_us);

/* Takes a job. RESOURCE_EXHAUSTED, reason TOO_MANY_JOBS, if too many wait (the message names the job that runs, its owner and since when); UNAVAILABLE
 * when stopping. On an error `done` is not called, `destroy` is. If no worker can take it when its turn comes it ends with RESOURCE_EXHAUSTED,
 * reason WORKERS_BUSY. `ret_operation` (may be NULL) is the new operation, owned by the caller. */
VpError *vp_jobs_submit(VpJobs *jobs, const VpJobSpec *spec, PbOperation **ret_operation);

/* Ends a running job; `error` is consumed. Any thread, run() and cancel() included; exactly once (a second call aborts). The job ends when run() or
 * cancel(), if one is under way, has returned; then the next job of the resource is started. CANCELLED says that the work was cancelled. */
void vp_job_finish(VpJob *job, VpError *error);

void vp_job_progress(VpJob *job, guint percent, const char *message);
gboolean vp_job_cancelled(const VpJob *job);
/* Whether it is cancelled since its deadline has passed. Any thread. */
gboolean vp_job_expired(const VpJob *job);
const char *vp_job_uid(const VpJob *job);

/* The running job of a resource: fills in type, caller, operation uid (owned by the caller), start and how many wait. FALSE if none runs. */
typedef struct VpJobInfo {
    char *type;
    char *caller;
    char *operation_uid;
    gint64 start_wall_us;
    guint waiting;
} VpJobInfo;
gboolean vp_jobs_current(VpJobs *jobs, const char *resource_uid, VpJobInfo *ret_info);
void vp_job_info_clear(VpJobInfo *info);

/* Called on any thread after the running job of a resource, or the number behind it, has changed; must not block. One listener. */
void vp_jobs_set_listener(VpJobs *jobs, void (*changed)(void *data, const char *resource_uid), void *data);

/* ---- operations ---- */

/* A copy owned by the caller; NULL: unknown. */
PbOperation *vp_jobs_get_operation(VpJobs *jobs, const char *uid);

/* Copies of those that match, the newest first, after the one named `after` (NULL: from the newest; one that is forgotten: none). `resource_uid` may be
 * NULL: all. `limit` 0: all. */
GPtrArray *vp_jobs_list_operations(VpJobs *jobs, const char *resource_uid, gboolean active_only, const char *after,
                                   guint limit);

/* Asks for an early end. NOT_FOUND; FAILED_PRECONDITION, reason NOT_CANCELLABLE, if it runs and cannot be. NULL if asked for, or ended already. */
VpError *vp_jobs_cancel(VpJobs *jobs, const char *uid);

/* Calls `changed(data)` on any thread after each change of the operation, until unwatched; must not block. NULL: unknown operation. */
typedef struct VpJobWatch VpJobWatch;
VpJobWatch *vp_jobs_watch(VpJobs *jobs, const char *uid, void (*changed)(void *data), void *data);
/* Afterwards `changed` is not called any more. Not from within it. NULL is let pass. */
void vp_jobs_unwatch(VpJobs *jobs, VpJobWatch *watch);
