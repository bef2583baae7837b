/*
 * The inside of jobs, for the files of this folder: jobs.c takes them, queue.c gives them their turn, run.c brings them to their end, operations.c shows
 * them to clients.
 *
 * One lock guards all that changes; it is never held while a function of a job, a watch or the listener is called. Work that a thread
 * goes on with after it has let go of the lock counts in `busy`, so that vp_jobs_free() knows when nobody is under way any more.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "server/jobs/jobs.h"

typedef enum JobPhase {
    JOB_WAITING, /* for its turn */
    JOB_TURN,    /* its turn has come; on its way to a worker */
    JOB_RUNNING, /* run() has been called */
    JOB_ENDING,  /* decided; done() is about to be told */
    JOB_ENDED,
} JobPhase;

/* The jobs of one resource. Exists while there is one. */
typedef struct JobQueue {
    char *resource_uid;
    GQueue waiting; /* of VpJob; those that jump the queue first */
    VpJob *running;
    VpJob *jumping; /* runs beside a cancelled one that has not ended yet */
    guint members;  /* jobs that have not ended, wherever they are */
} JobQueue;

struct VpJobs {
    atomic_uint refs; /* the owner's, and one of each job: work that was given up at the end may finish later */
    VpPool *pool;
    VpLoop *loop;
    guint keep_ended;
    guint max_waiting;

    pthread_mutex_t lock;
    pthread_cond_t idle; /* `busy` or a watch's `calling` went down */
    guint busy;          /* jobs that have not ended, and threads that are about to call something */
    gboolean stopping;
    GHashTable *queues;     /* resource uid -> JobQueue */
    GHashTable *operations; /* uid -> VpJob, one reference each */
    GQueue all;             /* of the same, the newest first */
    GQueue ended;           /* of those that have ended, the oldest first */
    void (*changed)(void *data, const char *resource_uid);
    void *changed_data;
};

struct VpJob {
    atomic_uint refs;
    VpJobs *jobs;
    VpJobSpec spec; /* its strings are the operation's */
    atomic_bool cancelled;

    /* Under jobs->lock from here on. */
    PbOperation *operation;
    JobPhase phase;
    JobQueue *queue; /* until it has ended */
    GList all_link;
    GPtrArray *watches; /* of VpJobWatch */
    VpTimer *timer;
    gint64 turn_us;
    guint inside;           /* calls of run() and cancel() under way */
    gboolean run_active;    /* run() is one of them */
    gboolean started;       /* run() was called: vp_job_finish() will come */
    gboolean finished;      /* it has come */
    gboolean cancel_wanted; /* as soon as run() has returned */
    gboolean cancel_told;
    gboolean expired;
    gboolean destroyed;
    char *overtaken_by;
    VpError *result;
};

struct VpJobWatch {
    VpJob *job;
    void (*changed)(void *data);
    void *data;
    guint calling;
};

VpJob *vp_job_ref(VpJob *job);
void vp_job_unref(VpJob *job);

/* ---- jobs.c ---- */

/* Whoever counted in `busy` is done. */
void vp_jobs_busy_done(VpJobs *jobs);

/* ---- queue.c; all with the lock held ---- */

/* The queue of a resource; made if there is none. */
JobQueue *vp_job_queue_of(VpJobs *jobs, const char *resource_uid);
void vp_job_queue_free(gpointer data);
/* How many wait that a new job of this kind would not overtake. */
guint vp_job_queue_length(const JobQueue *queue, gboolean jump_queue);
void vp_job_queue_insert(JobQueue *queue, VpJob *job);
/* Those that `spec` overtakes: waiting ones, or on their way to a worker, into `ended`, their phase set; a running one is returned if its cancel() is to be
 * told. */
VpJob *vp_job_queue_overtake(JobQueue *queue, const VpJobSpec *spec, GPtrArray *ended);
/* Gives those their turn whose turn has come. Each in `ready` counts in `busy` and is to be passed to vp_job_start(). */
void vp_job_queue_take_ready(VpJobs *jobs, JobQueue *queue, GPtrArray *ready);
/* Takes a job out of its queue, which goes with its last one; gives the next ones their turn. */
void vp_job_queue_leave(VpJobs *jobs, VpJob *job, GPtrArray *ready);
/* The job that runs, or NULL. */
const VpJob *vp_job_queue_current(const JobQueue *queue);

/* ---- run.c; without the lock, but for note_cancel ---- */

/* Sends a job whose turn has come to a worker, and sets its deadline. The caller's reference and its count in `busy` are consumed. */
void vp_job_start(VpJob *job);
/* Ends a job whose phase the caller has set to JOB_ENDING; `error` is consumed. */
void vp_job_end(VpJob *job, VpError *error);
/* With the lock held: notes that the running work is to end early. TRUE: the caller calls vp_job_tell_cancel() without the lock. */
gboolean vp_job_note_cancel(VpJob *job);
void vp_job_tell_cancel(VpJob *job);

/* ---- errors.c ---- */

VpError *vp_jobs_stopping_error(const char *type);
/* `message` is what the work itself said, or NULL. */
VpError *vp_jobs_deadline_error(const VpJob *job, const char *message);
VpError *vp_jobs_workers_busy_error(const VpJob *job);
VpError *vp_jobs_overtaken_error(const VpJob *job);
/* Only while one runs. */
VpError *vp_jobs_too_many_error(const JobQueue *queue, const VpJobSpec *spec);

/* ---- operations.c; all with the lock held but for notify ---- */

/* A new, pending operation. */
PbOperation *vp_operation_new(const VpJobSpec *spec);
/* Notes that the job's turn has come, or how it has ended (NULL: well). */
void vp_operation_start(VpJob *job);
void vp_operation_end(VpJob *job, const VpError *error);

/* Whom to tell of a change: taken under the lock, told without it. `job` NULL: the listener alone. */
typedef struct JobNotice {
    VpJobs *jobs;
    GPtrArray *watches; /* of VpJobWatch, or NULL */
    char *resource_uid; /* NULL: not the listener */
    void (*changed)(void *data, const char *resource_uid);
    void *changed_data;
} JobNotice;

void vp_job_notice_take(VpJob *job, gboolean listener, JobNotice *ret_notice);
void vp_job_notice_tell(JobNotice *notice);

/* Remembers an ended job; forgets the oldest beyond keep_ended (appended to `forgotten`, to be unreferenced without the lock). */
void vp_operations_remember(VpJob *job, GPtrArray *forgotten);
