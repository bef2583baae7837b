/* The queue of one resource: whose turn it is, and who overtakes whom. See job.h; all with the lock held. */
#include "server/jobs/job.h"

#include "base/thread.h"

void vp_job_queue_free(gpointer data)
{
    JobQueue *queue = data;

    g_free(queue->resource_uid);
    g_free(queue);
}

/* Gives those their turn whose turn has come: a normal job if nothing runs, one that jumps the queue if no such one runs. Each in `ready` counts in
 * `busy` and is to be passed to vp_job_start(). */
void vp_job_queue_take_ready(VpJobs *jobs, JobQueue *queue, GPtrArray *ready)
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
void vp_job_queue_leave(VpJobs *jobs, VpJob *job, GPtrArray *ready)
{
    JobQueue *queue = g_steal_pointer(&job->queue);

    if (queue->running == job) {
        queue->running = NULL;
    }
    if (queue->jumping == job) {
        queue->jumping = NULL;
    }
    vp_job_queue_take_ready(jobs, queue, ready);
    if (--queue->members == 0) {
        g_hash_table_remove(jobs->queues, queue->resource_uid);
    }
}

JobQueue *vp_job_queue_of(VpJobs *jobs, const char *resource_uid)
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
guint vp_job_queue_length(const JobQueue *queue, gboolean jump_queue)
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
VpJob *vp_job_queue_overtake(JobQueue *queue, const VpJobSpec *spec, GPtrArray *ended)
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
    return vp_job_note_cancel(running) ? running : NULL;
}

void vp_job_queue_insert(JobQueue *queue, VpJob *job)
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

/* The job that runs; one whose end is being told keeps its place, but is none any more. */
const VpJob *vp_job_queue_current(const JobQueue *queue)
{
    if (queue->jumping && queue->jumping->phase < JOB_ENDING) {
        return queue->jumping;
    }
    return queue->running && queue->running->phase < JOB_ENDING ? queue->running : NULL;
}
