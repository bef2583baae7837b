/*
 * What a stream writes: a queue of messages, of which one at a time is with the transport. Its length is bounded, and the end of a call waits
 * for it.
 */
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/rpc/internal.h"

#define MAX_WRITES 1024
/* vp_call_write_wait() waits while more than so many are under way, and for so long. */
#define WRITE_WAIT_LENGTH 64
#define WRITE_WAIT_US (10 * G_USEC_PER_SEC)

static void outgoing_free(VpOutgoing *item)
{
    grpc_byte_buffer_destroy(item->buffer);
    g_free(item);
}

static void write_fired(VpTag *tag, gboolean ok);

static void start_write(VpCall *call, VpOutgoing *item, gboolean initial)
{
    grpc_op ops[2];
    size_t n_ops = 0;

    if (initial)
        ops[n_ops++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    /* The core ends a batch with metadata only when that is on the wire: with the hint it would wait for the next write, and that for this one. */
    ops[n_ops] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE, .flags = item->more && !initial ? GRPC_WRITE_BUFFER_HINT : 0};
    ops[n_ops++].data.send_message.send_message = item->buffer;
    call->write_tag.fire = write_fired;
    vp_call_start_batch(call, ops, n_ops, &call->write_tag);
}

/* Under the mutex: takes the next write, if one waits and none is in flight. */
static VpOutgoing *next_write(VpCall *call)
{
    if (call->writing || !call->queue_head)
        return NULL;
    call->writing = TRUE;
    call->write_start_us = vp_now_us();
    /* Another one waits behind it: the transport may send both at once. */
    if (call->queue_head->next)
        call->queue_head->more = TRUE;
    return call->queue_head;
}

static void write_fired(VpTag *tag, gboolean ok)
{
    VpCall *call = CALL_OF(tag, write_tag);
    VpOutgoing *dropped = NULL;

    pthread_mutex_lock(&call->mutex);
    VpOutgoing *item = call->queue_head;
    call->queue_head = item->next;
    call->queue_length--;
    item->next = NULL;
    call->writing = FALSE;
    if (!ok) {
        call->cancelled = TRUE;
        dropped = call->queue_head;
        call->queue_head = NULL;
        call->queue_length = 0;
    }
    if (!call->queue_head)
        call->queue_tail = NULL;
    pthread_cond_broadcast(&call->room);
    VpOutgoing *next = next_write(call);
    const gboolean end = !next && call->ended && !call->status_sent;
    if (end) {
        call->status_sent = TRUE;
        call->write_start_us = vp_now_us();
    }
    const gboolean close = !call->close_watched;
    pthread_mutex_unlock(&call->mutex);

    if (next)
        start_write(call, next, FALSE);
    if (end)
        vp_call_send_status(call, FALSE, close, call->end_error, NULL);
    item->next = dropped;
    while (item) {
        VpOutgoing *following = item->next;

        if (item->written)
            item->written(call, item->data, ok);
        outgoing_free(item);
        item = following;
    }
    vp_call_release(call);
}

/* Takes the buffer. */
static gboolean write_buffer(VpCall *call, grpc_byte_buffer *buffer, gboolean more,
                             void (*written)(VpCall *call, void *data, gboolean ok), void *data)
{
    VpOutgoing *item = g_new0(VpOutgoing, 1);

    *item = (VpOutgoing){.buffer = buffer, .more = more, .written = written, .data = data};
    pthread_mutex_lock(&call->mutex);
    if (call->ended || call->cancelled || call->queue_length >= MAX_WRITES) {
        pthread_mutex_unlock(&call->mutex);
        outgoing_free(item);
        return FALSE;
    }
    if (call->queue_tail)
        call->queue_tail->next = item;
    else
        call->queue_head = item;
    call->queue_tail = item;
    call->queue_length++;
    VpOutgoing *next = next_write(call);
    const gboolean initial = next && !call->initial_sent;
    if (initial)
        call->initial_sent = TRUE;
    pthread_mutex_unlock(&call->mutex);

    if (next)
        start_write(call, next, initial);
    return TRUE;
}

gboolean vp_call_write(VpCall *call, const void *message, gboolean more,
                       void (*written)(VpCall *call, void *data, gboolean ok), void *data)
{
    return write_buffer(call, vp_buffer_of_message(message), more, written, data);
}

gboolean vp_call_write_wrapped(VpCall *call, guint field, GBytes *packed, gboolean more,
                               void (*written)(VpCall *call, void *data, gboolean ok), void *data)
{
    guint8 prefix[VP_PB_PREFIX_MAX];
    gsize size;
    const void *bytes = g_bytes_get_data(packed, &size);

    const gsize n = vp_pb_put_prefix(prefix, field, size);
    grpc_slice slice = grpc_slice_malloc(n + size);
    memcpy(GRPC_SLICE_START_PTR(slice), prefix, n);
    memcpy(GRPC_SLICE_START_PTR(slice) + n, bytes, size);
    return write_buffer(call, vp_buffer_of_slice(slice), more, written, data);
}

gboolean vp_call_write_wait(VpCall *call, const void *message)
{
    const gint64 deadline_us = vp_now_us() + WRITE_WAIT_US;
    gboolean in_time = TRUE;

    pthread_mutex_lock(&call->mutex);
    while (in_time && !call->cancelled && !call->ended && call->queue_length > WRITE_WAIT_LENGTH)
        in_time = vp_cond_wait_until(&call->room, &call->mutex, deadline_us);
    pthread_mutex_unlock(&call->mutex);
    return in_time && vp_call_write(call, message, FALSE, NULL, NULL);
}
