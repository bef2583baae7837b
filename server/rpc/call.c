/*
 * The life of one call: its references, what the handler may ask of it, its end. See rpc.h for the rules. How it begins is in call_begin.c, what a
 * stream writes in call_write.c.
 *
 * References: those of handlers and services (user_refs) and those of batches under way in the core (refs, in which all of the users together
 * count one). The core's call goes with the last of refs.
 */
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/rpc/internal.h"
#include "server/rpc/status.h"

/* ---- references ---- */

static void call_internal_ref(VpCall *call)
{
    g_atomic_int_inc(&call->refs);
}

void vp_call_release(VpCall *call)
{
    if (!g_atomic_int_dec_and_test(&call->refs))
        return;

    if (call->data_destroy)
        call->data_destroy(call->data);
    if (call->identity_destroy)
        call->identity_destroy(call->identity);
    if (call->auth)
        grpc_auth_context_release(call->auth);
    g_free(call->authorization);
    if (call->payload)
        grpc_byte_buffer_destroy(call->payload);
    vp_connection_unref(call->connection);
    vp_account_unref(call->account);
    vp_pb_free(call->request);
    vp_error_free(call->end_error);
    grpc_call_unref(call->call);
    pthread_cond_destroy(&call->room);
    pthread_mutex_destroy(&call->mutex);
    g_free(call);
}

VpCall *vp_call_ref(VpCall *call)
{
    g_atomic_int_inc(&call->user_refs);
    return call;
}

void vp_call_unref(VpCall *call)
{
    if (!call || !g_atomic_int_dec_and_test(&call->user_refs))
        return;

    pthread_mutex_lock(&call->mutex);
    const gboolean ended = call->ended;
    pthread_mutex_unlock(&call->mutex);
    if (!ended)
        vp_call_fail(call, vp_error_new(VP_INTERNAL, "CALL_DROPPED",
                                        "%s was dropped by its handler; this is a bug of the daemon",
                                        call->endpoint->method->method));
    vp_call_release(call);
}

/* ---- starting batches ---- */

void vp_call_start_batch(VpCall *call, const grpc_op *ops, size_t n_ops, VpTag *tag)
{
    call_internal_ref(call);
    VP_TAG_RELEASE(tag);
    const grpc_call_error result = grpc_call_start_batch(call->call, ops, n_ops, tag, NULL);
    if (result != GRPC_CALL_OK) {
        /* Only a wrong order of operations gets here: a bug, and the call cannot be used any more. */
        vp_log(VP_LOG_ERROR, "%s: the core refused a batch: %s", call->endpoint->method->method,
               grpc_call_error_to_string(result));
        grpc_call_cancel(call->call, NULL);
        vp_call_release(call);
    }
}

/* Tells that the call is closed, once. Whoever is told frees what the drain's function works on: so not while that is being called, and that is not
 * called any more. */
static void tell_closed(VpCall *call)
{
    pthread_mutex_lock(&call->mutex);
    void (*on_close)(VpCall *, void *) = call->draining ? NULL : g_steal_pointer(&call->on_close);
    void *data = call->on_close_data;
    if (on_close)
        call->on_drain = NULL;
    pthread_mutex_unlock(&call->mutex);
    if (on_close)
        on_close(call, data);
}

/* The call is over for its client, or the client has gone. */
static void call_closed(VpCall *call)
{
    pthread_mutex_lock(&call->mutex);
    call->closed = TRUE;
    if (call->close_cancelled)
        call->cancelled = TRUE;
    pthread_cond_broadcast(&call->room);
    pthread_mutex_unlock(&call->mutex);
    tell_closed(call);
}

static void close_fired(VpTag *tag, gboolean ok)
{
    VpCall *call = CALL_OF(tag, close_tag);

    (void)ok;
    call_closed(call);
    vp_call_release(call);
}

static void add_close(VpCall *call, grpc_op *ops, size_t *n_ops)
{
    ops[*n_ops] = (grpc_op){.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    ops[(*n_ops)++].data.recv_close_on_server.cancelled = &call->close_cancelled;
}

/* Learns of the client's going away, for calls that are not answered at once. */
void vp_call_watch_close(VpCall *call)
{
    grpc_op ops[1];
    size_t n_ops = 0;

    pthread_mutex_lock(&call->mutex);
    const gboolean needed = !call->close_watched && !call->ended;
    if (needed)
        call->close_watched = TRUE;
    pthread_mutex_unlock(&call->mutex);
    if (!needed)
        return;
    add_close(call, ops, &n_ops);
    vp_call_start_batch(call, ops, n_ops, &call->close_tag);
}

static void status_fired(VpTag *tag, gboolean ok)
{
    VpCall *call = CALL_OF(tag, status_tag);

    (void)ok;
    if (!call->close_watched)
        call_closed(call);
    vp_server_leave(call->server, call);
    vp_call_release(call);
}

VpCall *vp_call_new(VpRpcServer *server, const VpEndpoint *endpoint, grpc_call *core, gpr_timespec deadline)
{
    VpCall *call = g_new0(VpCall, 1);

    call->refs = call->user_refs = 1;
    call->server = server;
    call->endpoint = endpoint;
    call->call = core;
    call->deadline = deadline;
    call->close_tag.fire = close_fired;
    call->status_tag.fire = status_fired;
    pthread_mutex_init(&call->mutex, NULL);
    vp_cond_init(&call->room);
    return call;
}

/* Sends how the call ends, with the reply of a unary one. The caller has set status_sent; nothing else is being sent. */
void vp_call_send_status(VpCall *call, gboolean initial, gboolean close, const VpError *error, grpc_byte_buffer *reply)
{
    grpc_op ops[4];
    size_t n_ops = 0;
    grpc_metadata details = {.key = grpc_slice_from_static_string("grpc-status-details-bin")};
    grpc_slice message = grpc_empty_slice();

    if (initial)
        ops[n_ops++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    if (reply) {
        ops[n_ops] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
        ops[n_ops++].data.send_message.send_message = reply;
    }

    grpc_op *status = &ops[n_ops++];
    *status = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    if (error) {
        g_autoptr(GBytes) packed = vp_status_details(error, VP_STATUS_DETAILS_BYTES);
        g_autofree char *text = vp_status_message(error);
        gsize size;
        const void *bytes = g_bytes_get_data(packed, &size);

        details.value = grpc_slice_from_copied_buffer(bytes, size);
        message = grpc_slice_from_copied_string(text);
        status->data.send_status_from_server.status = (grpc_status_code)error->code;
        status->data.send_status_from_server.status_details = &message;
        status->data.send_status_from_server.trailing_metadata = &details;
        status->data.send_status_from_server.trailing_metadata_count = 1;
    }
    if (close)
        add_close(call, ops, &n_ops);

    vp_call_start_batch(call, ops, n_ops, &call->status_tag);
    if (error) {
        grpc_slice_unref(details.value);
        grpc_slice_unref(message);
    }
    if (reply)
        grpc_byte_buffer_destroy(reply);
}

/* ---- the end ---- */

grpc_byte_buffer *vp_buffer_of_slice(grpc_slice slice)
{
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

    grpc_slice_unref(slice);
    return buffer;
}

grpc_byte_buffer *vp_buffer_of_message(const ProtobufCMessage *message)
{
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));

    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    return vp_buffer_of_slice(slice);
}

/* The first one counts: a handler's own end may cross with a cancellation or the drain. Takes `error` and `reply`; `message` is what the latter has. */
static void call_end(VpCall *call, VpError *error, grpc_byte_buffer *reply, const void *message)
{
    const VpRpcGate *gate = call->server->gate;

    pthread_mutex_lock(&call->mutex);
    if (call->ending) {
        pthread_mutex_unlock(&call->mutex);
        vp_error_free(error);
        if (reply)
            grpc_byte_buffer_destroy(reply);
        return;
    }
    call->ending = TRUE;
    pthread_mutex_unlock(&call->mutex);
    if (gate)
        gate->ended(gate->data, call, call->endpoint->method, error, message);
    pthread_mutex_lock(&call->mutex);
    call->ended = TRUE;
    call->end_error = error;
    /* What was written before goes out before. */
    const gboolean now = !call->writing && !call->queue_head;
    const gboolean initial = !call->initial_sent;
    const gboolean close = !call->close_watched;
    if (now) {
        call->status_sent = call->initial_sent = TRUE;
        call->write_start_us = vp_now_us();
    }
    pthread_cond_broadcast(&call->room);
    pthread_mutex_unlock(&call->mutex);

    if (now)
        vp_call_send_status(call, initial, close, error, reply);
}

void vp_call_reply(VpCall *call, const void *message)
{
    call_end(call, NULL, vp_buffer_of_message(message), message);
}

void vp_call_reply_packed(VpCall *call, GBytes *packed)
{
    gsize size;
    const void *bytes = g_bytes_get_data(packed, &size);

    call_end(call, NULL, vp_buffer_of_slice(grpc_slice_from_copied_buffer(bytes, size)), NULL);
}

void vp_call_finish(VpCall *call)
{
    call_end(call, NULL, NULL, NULL);
}

void vp_call_fail(VpCall *call, VpError *error)
{
    call_end(call, error, NULL, NULL);
}

/* ---- what a handler may ask ---- */

gint64 vp_call_deadline_us(VpCall *call)
{
    if (gpr_time_cmp(call->deadline, gpr_inf_future(call->deadline.clock_type)) == 0)
        return G_MAXINT64;

    const gpr_timespec left = gpr_time_sub(call->deadline, gpr_now(call->deadline.clock_type));
    return vp_now_us() + left.tv_sec * G_USEC_PER_SEC + left.tv_nsec / 1000;
}

gboolean vp_call_cancelled(VpCall *call)
{
    VP_LOCK(&call->mutex);
    return call->cancelled;
}

void vp_call_on_close(VpCall *call, void (*closed)(VpCall *call, void *data), void *data)
{
    pthread_mutex_lock(&call->mutex);
    const gboolean already = call->closed;
    call->on_close = closed;
    call->on_close_data = data;
    pthread_mutex_unlock(&call->mutex);
    if (already)
        tell_closed(call);
    else
        vp_call_watch_close(call);
}

void vp_call_on_drain(VpCall *call, void (*drained)(VpCall *call, void *data), void *data)
{
    VP_LOCK(&call->mutex);
    call->on_drain = drained;
    call->on_drain_data = data;
}

void vp_call_set_data(VpCall *call, void *data, void (*destroy)(void *data))
{
    call->data = data;
    call->data_destroy = destroy;
}

void vp_call_drain(VpCall *call)
{
    pthread_mutex_lock(&call->mutex);
    void (*on_drain)(VpCall *, void *) = g_steal_pointer(&call->on_drain);
    void *data = call->on_drain_data;
    call->draining = on_drain != NULL;
    pthread_mutex_unlock(&call->mutex);

    if (!on_drain) {
        vp_call_fail(call,
                     vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon is stopping; connect again later"));
        return;
    }
    on_drain(call, data);
    pthread_mutex_lock(&call->mutex);
    call->draining = FALSE;
    const gboolean closed = call->closed;
    pthread_mutex_unlock(&call->mutex);
    /* Meanwhile, perhaps: then it has waited for us. */
    if (closed)
        tell_closed(call);
}

void vp_call_check_stalled(VpCall *call, gint64 before_us)
{
    pthread_mutex_lock(&call->mutex);
    const gboolean stalled = (call->writing || call->status_sent) && call->write_start_us < before_us;
    pthread_mutex_unlock(&call->mutex);
    if (stalled)
        grpc_call_cancel_with_status(
            call->call, GRPC_STATUS_RESOURCE_EXHAUSTED,
            "the call was ended because its reader takes nothing; resume a stream from its last message", NULL);
}
