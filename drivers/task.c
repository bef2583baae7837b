/* Tasks: see task.h. The mutex guards the hook; the hook itself is called without it. */
#include "drivers/task.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"

struct VpTask {
    gint refs;
    PbDomain *domain;
    gint64 deadline_us;
    gboolean paused;
    char *reason;
    void *request;
    void *answer;
    int output; /* -1: none */
    VpTaskStream *stream;
    void (*done)(void *data, VpError *error);
    void *done_data;
    void (*progress)(void *data, guint percent, const char *message);
    void *progress_data;
    gint finished;

    pthread_mutex_t mutex;
    pthread_cond_t hook_returned;
    gboolean cancelled;
    gboolean expired;
    guint calling; /* hooks that are being called now */
    pthread_t caller;
    void (*hook)(void *data);
    void *hook_data;
};

VpTask *vp_task_new(const PbDomain *domain, gint64 deadline_us, void (*done)(void *data, VpError *error), void *data)
{
    VpTask *task = g_new0(VpTask, 1);

    task->refs = 1;
    task->output = -1;
    task->domain = vp_pb_dup(domain);
    task->deadline_us = deadline_us;
    task->done = done;
    task->done_data = data;
    pthread_mutex_init(&task->mutex, NULL);
    vp_cond_init(&task->hook_returned);
    return task;
}

VpTask *vp_task_ref(VpTask *task)
{
    g_atomic_int_inc(&task->refs);
    return task;
}

void vp_task_unref(VpTask *task)
{
    if (!task || !g_atomic_int_dec_and_test(&task->refs))
        return;
    vp_pb_free(task->domain);
    vp_pb_free(task->request);
    vp_pb_free(task->answer);
    g_free(task->reason);
    if (task->output >= 0)
        close(task->output);
    vp_task_stream_unref(task->stream);
    pthread_cond_destroy(&task->hook_returned);
    pthread_mutex_destroy(&task->mutex);
    g_free(task);
}

const PbDomain *vp_task_domain(const VpTask *task)
{
    return task->domain;
}

gint64 vp_task_deadline_us(const VpTask *task)
{
    return task->deadline_us;
}

void vp_task_set_paused(VpTask *task, gboolean paused)
{
    task->paused = paused;
}

gboolean vp_task_paused(const VpTask *task)
{
    return task->paused;
}

void vp_task_set_reason(VpTask *task, const char *reason)
{
    g_free(task->reason);
    task->reason = g_strdup(reason);
}

const char *vp_task_reason(const VpTask *task)
{
    return task->reason ? task->reason : "REQUESTED";
}

void vp_task_set_request(VpTask *task, const void *message)
{
    vp_pb_free(task->request);
    task->request = message ? vp_pb_dup(message) : NULL;
}

const void *vp_task_request(const VpTask *task)
{
    return task->request;
}

void vp_task_set_output(VpTask *task, int fd)
{
    if (task->output >= 0)
        close(task->output);
    task->output = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

int vp_task_output(const VpTask *task)
{
    return task->output;
}

void vp_task_set_answer(VpTask *task, void *message)
{
    vp_pb_free(task->answer);
    task->answer = message;
}

const void *vp_task_answer(const VpTask *task)
{
    return task->answer;
}

void vp_task_set_progress_hook(VpTask *task, void (*progress)(void *data, guint percent, const char *message),
                               void *data)
{
    task->progress = progress;
    task->progress_data = data;
}

void vp_task_progress(VpTask *task, guint percent, const char *message)
{
    if (task->progress)
        task->progress(task->progress_data, MIN(percent, 100), message);
}

void vp_task_finish(VpTask *task, VpError *error)
{
    if (!g_atomic_int_compare_and_exchange(&task->finished, 0, 1))
        g_error("a task of domain %s was finished twice", task->domain->uid);
    vp_task_set_cancel_hook(task, NULL, NULL);
    task->done(task->done_data, error);
    vp_task_unref(task);
}

void vp_task_set_stream(VpTask *task, VpTaskStream *stream)
{
    task->stream = stream ? vp_task_stream_ref(stream) : NULL;
}

VpTaskStream *vp_task_stream(const VpTask *task)
{
    return task->stream;
}

/* Calls the hook; takes the mutex held and leaves it held. */
static void call_hook(VpTask *task)
{
    void (*hook)(void *data) = task->hook;
    void *data = task->hook_data;

    task->hook = NULL;
    task->calling++;
    task->caller = pthread_self();
    pthread_mutex_unlock(&task->mutex);
    hook(data);
    pthread_mutex_lock(&task->mutex);
    task->calling--;
    pthread_cond_broadcast(&task->hook_returned);
}

static void end_early(VpTask *task, gboolean expired)
{
    VP_LOCK(&task->mutex);
    if (task->cancelled)
        return;
    task->cancelled = TRUE;
    task->expired = expired;
    if (task->hook)
        call_hook(task);
}

void vp_task_cancel(VpTask *task)
{
    end_early(task, FALSE);
}

void vp_task_expire(VpTask *task)
{
    end_early(task, TRUE);
}

gboolean vp_task_expired(const VpTask *task)
{
    VpTask *mutable = (VpTask *)task;

    VP_LOCK(&mutable->mutex);
    return task->expired;
}

gboolean vp_task_cancelled(const VpTask *task)
{
    VpTask *mutable = (VpTask *)task;

    VP_LOCK(&mutable->mutex);
    return task->cancelled;
}

void vp_task_set_cancel_hook(VpTask *task, void (*cancel)(void *data), void *data)
{
    VP_LOCK(&task->mutex);
    /* A hook that is under way on another thread still uses its data: the caller may free it once we return. */
    while (task->calling > 0 && !pthread_equal(task->caller, pthread_self()))
        pthread_cond_wait(&task->hook_returned, &task->mutex);
    task->hook = cancel;
    task->hook_data = data;
    if (task->hook && task->cancelled)
        call_hook(task);
}
