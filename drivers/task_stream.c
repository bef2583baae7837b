/* See task_stream.h. */
#include "drivers/task_stream.h"

#include "base/pb.h"
#include "base/thread.h"

struct VpTaskStream {
    gint refs;
    const VpTaskStreamCaller *caller;
    void *data;

    pthread_mutex_t mutex; /* guards what follows */
    guint under_way;       /* emitted, and not taken */
    gboolean fed;          /* `message` has come, and was not looked at */
    gboolean at_end;       /* the client sends nothing more */
    void *message;
    void (*stir)(void *data);
    void *stir_data;
};

VpTaskStream *vp_task_stream_new(const VpTaskStreamCaller *caller, void *data)
{
    VpTaskStream *stream = g_new0(VpTaskStream, 1);

    stream->refs = 1;
    stream->caller = caller;
    stream->data = data;
    stream->at_end = !caller->want;
    pthread_mutex_init(&stream->mutex, NULL);
    return stream;
}

VpTaskStream *vp_task_stream_ref(VpTaskStream *stream)
{
    g_atomic_int_inc(&stream->refs);
    return stream;
}

void vp_task_stream_unref(VpTaskStream *stream)
{
    if (!stream || !g_atomic_int_dec_and_test(&stream->refs))
        return;
    vp_pb_free(stream->message);
    pthread_mutex_destroy(&stream->mutex);
    g_free(stream);
}

static void stir(VpTaskStream *stream)
{
    if (stream->stir)
        stream->stir(stream->stir_data);
}

void vp_task_stream_taken(VpTaskStream *stream)
{
    VP_LOCK(&stream->mutex);
    stream->under_way--;
    stir(stream);
}

void vp_task_stream_feed(VpTaskStream *stream, void *message)
{
    VP_LOCK(&stream->mutex);
    vp_pb_free(stream->message);
    stream->message = message;
    stream->fed = TRUE;
    stream->at_end = !message;
    stir(stream);
}

void vp_task_stream_set_hook(VpTaskStream *stream, void (*hook)(void *data), void *data)
{
    VP_LOCK(&stream->mutex);
    stream->stir = hook;
    stream->stir_data = data;
}

gboolean vp_task_stream_has_room(VpTaskStream *stream)
{
    VP_LOCK(&stream->mutex);
    return stream->under_way < VP_TASK_STREAM_ROOM;
}

void vp_task_stream_emit(VpTaskStream *stream, const void *message)
{
    pthread_mutex_lock(&stream->mutex);
    stream->under_way++;
    pthread_mutex_unlock(&stream->mutex);
    stream->caller->emit(stream->data, message);
}

/* What the client does not send is there already. */
void vp_task_stream_want(VpTaskStream *stream)
{
    pthread_mutex_lock(&stream->mutex);
    const gboolean at_end = stream->at_end;
    if (at_end) {
        stream->fed = TRUE;
        stir(stream);
    }
    pthread_mutex_unlock(&stream->mutex);
    if (!at_end)
        stream->caller->want(stream->data);
}

gboolean vp_task_stream_next(VpTaskStream *stream, void **ret_message)
{
    VP_LOCK(&stream->mutex);
    if (!stream->fed)
        return FALSE;
    stream->fed = FALSE;
    *ret_message = g_steal_pointer(&stream->message);
    return TRUE;
}
