/*
 * The life of one call: what the handler sees of it, its writes in their order, its end. See rpc.h for the rules.
 *
 * References: those of handlers and services (user_refs) and those of batches under way in the core (refs, in which all of the users together
 * count one). The core's call goes with the last of refs.
 */
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/rpc/internal.h"
#include "server/rpc/status.h"
#include "server/rpc/validate.h"

#define MAX_WRITES 1024
/* vp_call_write_wait() waits while more than so many are under way, and for so long. */
#define WRITE_WAIT_LENGTH 64
#define WRITE_WAIT_US (10 * G_USEC_PER_SEC)
/* Together below the 8 KiB that clients take as metadata by default. */
#define MAX_STATUS_MESSAGE_BYTES 1024
#define MAX_STATUS_DETAILS_BYTES 4096

#define CALL_OF(tag, member) ((VpCall *)((char *)(tag)-offsetof(VpCall, member)))

/* ---- references ---- */

static void outgoing_free(VpOutgoing *item)
{
    grpc_byte_buffer_destroy(item->buffer);
    g_free(item);
}

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

static void start_batch(VpCall *call, const grpc_op *ops, size_t n_ops, VpTag *tag)
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

static void add_initial_metadata(grpc_op *ops, size_t *n_ops)
{
    ops[(*n_ops)++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
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
static void watch_close(VpCall *call)
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
    start_batch(call, ops, n_ops, &call->close_tag);
}

static void status_fired(VpTag *tag, gboolean ok)
{
    VpCall *call = CALL_OF(tag, status_tag);

    (void)ok;
    if (!call->close_watched)
        call_closed(call);
    vp_server_remove_stream(call->server, call);
    vp_server_leave(call->server);
    vp_call_release(call);
}

/* The message is cut on a character's boundary. */
static grpc_slice status_message(const VpError *error)
{
    gsize length = strlen(error->message);

    if (length > MAX_STATUS_MESSAGE_BYTES) {
        const char *end = g_utf8_find_prev_char(error->message, error->message + MAX_STATUS_MESSAGE_BYTES + 1);
        length = end ? (gsize)(end - error->message) : 0;
    }
    return grpc_slice_from_copied_buffer(error->message, length);
}

/* Sends how the call ends, with the reply of a unary one. The caller has set status_sent; nothing else is being sent. */
static void send_status(VpCall *call, gboolean initial, gboolean close, const VpError *error, grpc_byte_buffer *reply)
{
    grpc_op ops[4];
    size_t n_ops = 0;
    grpc_metadata details = {.key = grpc_slice_from_static_string("grpc-status-details-bin")};
    grpc_slice message = grpc_empty_slice();

    if (initial)
        add_initial_metadata(ops, &n_ops);
    if (reply) {
        ops[n_ops] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
        ops[n_ops++].data.send_message.send_message = reply;
    }

    grpc_op *status = &ops[n_ops++];
    *status = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    if (error) {
        g_autoptr(GBytes) packed = vp_status_details(error, MAX_STATUS_DETAILS_BYTES);
        gsize size;
        const void *bytes = g_bytes_get_data(packed, &size);

        details.value = grpc_slice_from_copied_buffer(bytes, size);
        message = status_message(error);
        status->data.send_status_from_server.status = (grpc_status_code)error->code;
        status->data.send_status_from_server.status_details = &message;
        status->data.send_status_from_server.trailing_metadata = &details;
        status->data.send_status_from_server.trailing_metadata_count = 1;
    }
    if (close)
        add_close(call, ops, &n_ops);

    start_batch(call, ops, n_ops, &call->status_tag);
    if (error) {
        grpc_slice_unref(details.value);
        grpc_slice_unref(message);
    }
    if (reply)
        grpc_byte_buffer_destroy(reply);
}

/* ---- writes ---- */

static void write_fired(VpTag *tag, gboolean ok);

static void start_write(VpCall *call, VpOutgoing *item, gboolean initial)
{
    grpc_op ops[2];
    size_t n_ops = 0;

    if (initial)
        add_initial_metadata(ops, &n_ops);
    /* The core ends a batch with metadata only when that is on the wire: with the hint it would wait for the next write, and that for this one. */
    ops[n_ops] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE, .flags = item->more && !initial ? GRPC_WRITE_BUFFER_HINT : 0};
    ops[n_ops++].data.send_message.send_message = item->buffer;
    start_batch(call, ops, n_ops, &call->write_tag);
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
    if (end)
        call->status_sent = TRUE;
    const gboolean close = !call->close_watched;
    pthread_mutex_unlock(&call->mutex);

    if (next)
        start_write(call, next, FALSE);
    if (end)
        send_status(call, FALSE, close, call->end_error, NULL);
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

static grpc_byte_buffer *buffer_of_slice(grpc_slice slice)
{
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

    grpc_slice_unref(slice);
    return buffer;
}

static grpc_byte_buffer *buffer_of_message(const ProtobufCMessage *message)
{
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));

    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    return buffer_of_slice(slice);
}

gboolean vp_call_write(VpCall *call, const void *message, gboolean more,
                       void (*written)(VpCall *call, void *data, gboolean ok), void *data)
{
    return write_buffer(call, buffer_of_message(message), more, written, data);
}

static size_t put_varint(guint8 *at, guint64 value)
{
    size_t n = 0;

    for (; value >= 0x80; value >>= 7)
        at[n++] = (guint8)(value | 0x80);
    at[n++] = (guint8)value;
    return n;
}

gboolean vp_call_write_wrapped(VpCall *call, guint field, GBytes *packed, gboolean more,
                               void (*written)(VpCall *call, void *data, gboolean ok), void *data)
{
    guint8 prefix[20];
    gsize size;
    const void *bytes = g_bytes_get_data(packed, &size);

    size_t n = put_varint(prefix, (guint64)field << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
    n += put_varint(prefix + n, size);
    grpc_slice slice = grpc_slice_malloc(n + size);
    memcpy(GRPC_SLICE_START_PTR(slice), prefix, n);
    memcpy(GRPC_SLICE_START_PTR(slice) + n, bytes, size);
    return write_buffer(call, buffer_of_slice(slice), more, written, data);
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

/* ---- the end ---- */

/* The first one counts: a handler's own end may cross with a cancellation or the drain. Takes `error` and `reply`. */
static void call_end(VpCall *call, VpError *error, grpc_byte_buffer *reply)
{
    pthread_mutex_lock(&call->mutex);
    if (call->ended) {
        pthread_mutex_unlock(&call->mutex);
        vp_error_free(error);
        if (reply)
            grpc_byte_buffer_destroy(reply);
        return;
    }
    call->ended = TRUE;
    call->end_error = error;
    /* What was written before goes out before. */
    const gboolean now = !call->writing && !call->queue_head;
    const gboolean initial = !call->initial_sent;
    const gboolean close = !call->close_watched;
    if (now)
        call->status_sent = call->initial_sent = TRUE;
    pthread_cond_broadcast(&call->room);
    pthread_mutex_unlock(&call->mutex);

    if (now)
        send_status(call, initial, close, error, reply);
}

void vp_call_reply(VpCall *call, const void *message)
{
    call_end(call, NULL, buffer_of_message(message));
}

void vp_call_reply_packed(VpCall *call, GBytes *packed)
{
    gsize size;
    const void *bytes = g_bytes_get_data(packed, &size);

    call_end(call, NULL, buffer_of_slice(grpc_slice_from_copied_buffer(bytes, size)));
}

void vp_call_finish(VpCall *call)
{
    call_end(call, NULL, NULL);
}

void vp_call_fail(VpCall *call, VpError *error)
{
    call_end(call, error, NULL);
}

/* ---- what a handler may ask ---- */

void vp_call_caller(VpCall *call, VpCaller *ret_caller)
{
    char *peer = grpc_call_get_peer(call->call);
    struct ucred credentials;
    socklen_t length = sizeof(credentials);
    int fd;

    memset(ret_caller, 0, sizeof(*ret_caller));
    g_strlcpy(ret_caller->text, peer ? peer : "unknown", sizeof(ret_caller->text));
    /* The core names a connection that we accepted "fd:N", and keeps N open for as long as one of its calls is held. */
    if (peer && sscanf(peer, "fd:%d", &fd) == 1 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0) {
        ret_caller->local = TRUE;
        ret_caller->uid = credentials.uid;
        ret_caller->gid = credentials.gid;
        ret_caller->pid = credentials.pid;
        g_snprintf(ret_caller->text, sizeof(ret_caller->text), "uid=%u pid=%d", credentials.uid, credentials.pid);
    }
    gpr_free(peer);
}

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
        watch_close(call);
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
    const gboolean stalled = call->writing && call->write_start_us < before_us;
    pthread_mutex_unlock(&call->mutex);
    if (stalled)
        grpc_call_cancel_with_status(
            call->call, GRPC_STATUS_RESOURCE_EXHAUSTED,
            "the stream was ended because its reader takes nothing; resume it from the last message", NULL);
}

/* ---- reading ---- */

/* Checks and unpacks what came; takes the buffer. */
static VpError *decode(VpCall *call, grpc_byte_buffer *buffer, ProtobufCMessage **ret_message)
{
    const ProtobufCMessageDescriptor *input = call->endpoint->method->input;
    grpc_byte_buffer_reader reader;
    VpError *error = NULL;

    if (!grpc_byte_buffer_reader_init(&reader, buffer)) {
        grpc_byte_buffer_destroy(buffer);
        return vp_error_new(VP_INVALID_ARGUMENT, "MALFORMED_REQUEST", "the request cannot be decompressed");
    }
    grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
    error = vp_validate(vp_server_contract(call->server), input, GRPC_SLICE_START_PTR(bytes), GRPC_SLICE_LENGTH(bytes));
    if (!error) {
        ProtobufCMessage *message =
            protobuf_c_message_unpack(input, NULL, GRPC_SLICE_LENGTH(bytes), GRPC_SLICE_START_PTR(bytes));
        if (message)
            *ret_message = message;
        else
            error = vp_error_new(VP_INVALID_ARGUMENT, "MALFORMED_REQUEST", "the request is no valid %s", input->name);
    }
    grpc_slice_unref(bytes);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(buffer);
    return error;
}

static void read_fired(VpTag *tag, gboolean ok)
{
    VpCall *call = CALL_OF(tag, read_tag);
    grpc_byte_buffer *buffer = g_steal_pointer(&call->read_buffer);
    ProtobufCMessage *message = NULL;

    if (buffer && ok) {
        VpError *error = decode(call, buffer, &message);
        if (error)
            vp_call_fail(call, error);
    } else if (buffer) {
        grpc_byte_buffer_destroy(buffer);
    }
    call->on_read(call, call->on_read_data, message);
    vp_call_release(call);
}

void vp_call_read(VpCall *call, void (*got)(VpCall *call, void *data, void *message), void *data)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

    call->on_read = got;
    call->on_read_data = data;
    op.data.recv_message.recv_message = &call->read_buffer;
    start_batch(call, &op, 1, &call->read_tag);
}

/* ---- the beginning ---- */

static void run_handler(void *data)
{
    VpCall *call = data;

    call->endpoint->handler(call, call->request, call->endpoint->context);
    vp_call_unref(call);
}

/* Hands the call to its handler; takes the user's reference. */
static void dispatch(VpCall *call)
{
    const VpEndpoint *endpoint = call->endpoint;

    if (endpoint->method->client_streaming || endpoint->method->server_streaming) {
        if (!vp_server_add_stream(call->server, call)) {
            vp_call_drain(call);
            vp_call_unref(call);
            return;
        }
        watch_close(call);
    }
    if (!(endpoint->flags & VP_RPC_WORKER)) {
        endpoint->handler(call, call->request, endpoint->context);
        /* Not answered at once: from now on its client may go away. */
        watch_close(call);
        vp_call_unref(call);
        return;
    }

    watch_close(call);
    if (!vp_pool_submit(vp_server_pool(call->server), run_handler, call)) {
        VpError *error = vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY", "the daemon has too much to do; try again");
        vp_call_fail(call, vp_error_retry(error, 1000));
        vp_call_unref(call);
    }
}

void vp_call_begin(VpRpcServer *server, const VpEndpoint *endpoint, grpc_call *core, gpr_timespec deadline,
                   grpc_byte_buffer *payload)
{
    VpCall *call = g_new0(VpCall, 1);
    VpError *error = NULL;

    call->refs = call->user_refs = 1;
    call->server = server;
    call->endpoint = endpoint;
    call->call = core;
    call->deadline = deadline;
    call->close_tag.fire = close_fired;
    call->write_tag.fire = write_fired;
    call->status_tag.fire = status_fired;
    call->read_tag.fire = read_fired;
    pthread_mutex_init(&call->mutex, NULL);
    vp_cond_init(&call->room);

    vp_server_enter(server, &error);
    if (!error && !endpoint->handler)
        error =
            vp_error_new(VP_UNIMPLEMENTED, "NOT_BUILT_YET",
                         "%s is part of the contract, but this version does not do it yet", endpoint->method->method);
    if (!error && !endpoint->method->client_streaming) {
        if (payload)
            error = decode(call, g_steal_pointer(&payload), &call->request);
        else
            error = vp_error_new(VP_INVALID_ARGUMENT, "MALFORMED_REQUEST", "%s takes one request, and none came",
                                 endpoint->method->method);
    }
    if (payload)
        grpc_byte_buffer_destroy(payload);

    if (error) {
        vp_call_fail(call, error);
        vp_call_unref(call);
        return;
    }
    dispatch(call);
}
