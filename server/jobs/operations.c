/* Jobs as clients see them: operations to get, list and watch. See job.h. */
#include "base/pb.h"
#include "base/thread.h"
#include "server/jobs/job.h"

PbOperation *vp_operation_new(const VpJobSpec *spec)
{
    PbOperation *operation = vp_pb_new(&pb_operation__descriptor);
    g_autofree char *uid = g_uuid_string_random();

    vp_pb_set(&operation->uid, uid);
    vp_pb_set(&operation->type, spec->type);
    vp_pb_set(&operation->resource_type, spec->resource_type);
    vp_pb_set(&operation->resource_name, spec->resource_name);
    vp_pb_set(&operation->resource_uid, spec->resource_uid);
    vp_pb_set(&operation->caller, spec->caller);
    operation->state = PB_OPERATION_STATE_PENDING;
    operation->create_time = vp_pb_timestamp(vp_wall_us());
    operation->cancellable = TRUE;
    return operation;
}

void vp_operation_start(VpJob *job)
{
    PbOperation *operation = job->operation;
    const gint64 now_us = vp_wall_us();

    operation->state = PB_OPERATION_STATE_RUNNING;
    operation->start_time = vp_pb_timestamp(now_us);
    if (job->spec.timeout_ms) {
        operation->deadline_time = vp_pb_timestamp(now_us + (gint64)job->spec.timeout_ms * 1000);
    }
    operation->cancellable = job->spec.cancel != NULL;
}

static PbOperationError *error_to_pb(const VpError *error)
{
    PbOperationError *pb = vp_pb_new(&pb_operation_error__descriptor);

    pb->code = (gint32)error->code;
    vp_pb_set(&pb->message, error->message);
    vp_pb_set(&pb->reason, error->reason);
    for (guint i = 0; error->metadata && i < error->metadata->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->metadata, VpErrorPair, i);
        PbOperationError__MetadataEntry *entry = vp_pb_new(&pb_operation_error__metadata_entry__descriptor);

        vp_pb_set(&entry->key, pair->key);
        vp_pb_set(&entry->value, pair->value);
        vp_pb_append(&pb->n_metadata, &pb->metadata, entry);
    }
    return pb;
}

void vp_operation_end(VpJob *job, const VpError *error)
{
    PbOperation *operation = job->operation;

    operation->end_time = vp_pb_timestamp(vp_wall_us());
    operation->cancellable = FALSE;
    vp_pb_set(&operation->message, "");
    if (!error) {
        operation->state = PB_OPERATION_STATE_SUCCEEDED;
        operation->progress_percent = 100;
        return;
    }
    const gboolean cancelled =
        error->code == VP_CANCELLED || (job->overtaken_by && !g_strcmp0(error->reason, "OVERTAKEN"));

    operation->state = cancelled ? PB_OPERATION_STATE_CANCELLED : PB_OPERATION_STATE_FAILED;
    operation->error = error_to_pb(error);
}

void vp_operations_remember(VpJob *job, GPtrArray *forgotten)
{
    VpJobs *jobs = job->jobs;

    g_queue_push_tail(&jobs->ended, job);
    while (jobs->ended.length > jobs->keep_ended) {
        VpJob *oldest = g_queue_pop_head(&jobs->ended);

        g_hash_table_remove(jobs->operations, oldest->operation->uid);
        g_queue_unlink(&jobs->all, &oldest->all_link);
        g_ptr_array_add(forgotten, oldest);
    }
}

/* ---- telling others ---- */

void vp_job_notice_take(VpJob *job, gboolean listener, JobNotice *ret_notice)
{
    VpJobs *jobs = job->jobs;

    *ret_notice = (JobNotice){.jobs = jobs};
    jobs->busy++;
    if (job->watches->len > 0) {
        ret_notice->watches = g_ptr_array_copy(job->watches, NULL, NULL);
        for (guint i = 0; i < job->watches->len; i++) {
            ((VpJobWatch *)job->watches->pdata[i])->calling++;
        }
    }
    if (listener && jobs->changed) {
        ret_notice->resource_uid = g_strdup(job->spec.resource_uid);
        ret_notice->changed = jobs->changed;
        ret_notice->changed_data = jobs->changed_data;
    }
}

void vp_job_notice_tell(JobNotice *notice)
{
    VpJobs *jobs = notice->jobs;

    for (guint i = 0; notice->watches && i < notice->watches->len; i++) {
        VpJobWatch *watch = notice->watches->pdata[i];

        watch->changed(watch->data);
        VP_LOCK(&jobs->lock);
        watch->calling--;
        pthread_cond_broadcast(&jobs->idle);
    }
    if (notice->resource_uid) {
        notice->changed(notice->changed_data, notice->resource_uid);
    }
    g_clear_pointer(&notice->watches, g_ptr_array_unref);
    g_clear_pointer(&notice->resource_uid, g_free);

    VP_LOCK(&jobs->lock);
    jobs->busy--;
    pthread_cond_broadcast(&jobs->idle);
}

void vp_job_progress(VpJob *job, guint percent, const char *message)
{
    JobNotice notice;

    pthread_mutex_lock(&job->jobs->lock);
    const gboolean going_on = job->phase < JOB_ENDING;

    if (going_on) {
        job->operation->progress_percent = MIN(percent, 100);
        vp_pb_set(&job->operation->message, message);
        vp_job_notice_take(job, /* listener= */ FALSE, &notice);
    }
    pthread_mutex_unlock(&job->jobs->lock);
    if (going_on) {
        vp_job_notice_tell(&notice);
    }
}

/* ---- what jobs.h offers ---- */

PbOperation *vp_jobs_get_operation(VpJobs *jobs, const char *uid)
{
    VP_LOCK(&jobs->lock);
    const VpJob *job = g_hash_table_lookup(jobs->operations, uid);

    return job ? vp_pb_dup(job->operation) : NULL;
}

GPtrArray *vp_jobs_list_operations(VpJobs *jobs, const char *resource_uid, gboolean active_only, const char *after,
                                   guint limit)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(vp_pb_free);

    VP_LOCK(&jobs->lock);
    const GList *link = jobs->all.head;

    if (after) {
        const VpJob *last = g_hash_table_lookup(jobs->operations, after);

        link = last ? last->all_link.next : NULL;
    }
    for (; link && (limit == 0 || list->len < limit); link = link->next) {
        const VpJob *job = link->data;

        if ((!resource_uid || !g_strcmp0(resource_uid, job->spec.resource_uid)) &&
            (!active_only || !job->operation->end_time)) {
            g_ptr_array_add(list, vp_pb_dup(job->operation));
        }
    }
    return list;
}

VpJobWatch *vp_jobs_watch(VpJobs *jobs, const char *uid, void (*changed)(void *data), void *data)
{
    VP_LOCK(&jobs->lock);
    VpJob *job = g_hash_table_lookup(jobs->operations, uid);

    if (!job) {
        return NULL;
    }
    VpJobWatch *watch = g_new0(VpJobWatch, 1);

    watch->job = vp_job_ref(job);
    watch->changed = changed;
    watch->data = data;
    g_ptr_array_add(job->watches, watch);
    return watch;
}

void vp_jobs_unwatch(VpJobs *jobs, VpJobWatch *watch)
{
    if (!watch) {
        return;
    }
    pthread_mutex_lock(&jobs->lock);
    g_ptr_array_remove_fast(watch->job->watches, watch);
    /* No deadline: `changed` must not block, and to return while it runs would free what it uses. */
    while (watch->calling > 0) {
        pthread_cond_wait(&jobs->idle, &jobs->lock);
    }
    pthread_mutex_unlock(&jobs->lock);
    vp_job_unref(watch->job);
    g_free(watch);
}
