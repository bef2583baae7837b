/* How a call begins: the gate is asked, its request is checked, unpacked and handed to the handler; and the further messages of clients that stream. */
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/rpc/internal.h"
#include "server/rpc/validate.h"

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

/* RetryInfo would be no help: it will not get smaller. */
static VpError *check_size(const VpCall *call, grpc_byte_buffer *payload)
{
    const gsize most = call->account && payload ? vp_account_limits(call->account).message_bytes : 0;
    const gsize size = most ? grpc_byte_buffer_length(payload) : 0;

    if (size <= most)
        return NULL;
    return vp_error_new(VP_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                        "the request has %zu bytes, and %s may send %zu at once", size, call->identity_name, most);
}

/* Asks the gate about the request. */
static VpError *permit(VpCall *call, const ProtobufCMessage *message)
{
    const VpRpcGate *gate = call->server->gate;

    return gate ? gate->permit(gate->data, call, call->endpoint->method, message) : NULL;
}

/* The first message of a client that streams is its request: the gate is asked about it, and may be again. */
static VpError *permit_first(VpCall *call, const ProtobufCMessage *message)
{
    if (call->request)
        return NULL;
    VpError *error = permit(call, message);
    if (!error)
        g_atomic_pointer_set(&call->request, vp_pb_dup(message));
    return error;
}

static void read_fired(VpTag *tag, gboolean ok)
{
    VpCall *call = CALL_OF(tag, read_tag);
    grpc_byte_buffer *buffer = g_steal_pointer(&call->read_buffer);
    ProtobufCMessage *message = NULL;

    if (buffer && ok) {
        VpError *error = check_size(call, buffer);
        if (error)
            grpc_byte_buffer_destroy(buffer);
        else
            error = decode(call, buffer, &message);
        if (!error)
            error = permit_first(call, message);
        if (error) {
            vp_pb_free(g_steal_pointer(&message));
            vp_call_fail(call, error);
        }
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
    call->read_tag.fire = read_fired;
    vp_call_start_batch(call, &op, 1, &call->read_tag);
}

/* ---- the beginning ---- */

static void run_handler(void *data)
{
    VpCall *call = data;

    VpRpcServer *server = call->server;

    call->endpoint->handler(call, call->endpoint->method->client_streaming ? NULL : call->request,
                            call->endpoint->context);
    vp_call_unref(call);
    vp_server_handler_ended(server);
}

/* Hands the call to its handler; takes the user's reference. */
static void dispatch(VpCall *call)
{
    const VpEndpoint *endpoint = call->endpoint;
    VpPool *pool = vp_server_pool(call->server, endpoint->flags);

    if (endpoint->method->client_streaming || endpoint->method->server_streaming) {
        VpError *error = vp_server_add_stream(call->server, call);
        if (error) {
            vp_call_fail(call, error);
            vp_call_unref(call);
            return;
        }
        vp_call_watch_close(call);
    }
    VpRpcServer *server = call->server;
    vp_server_handler_begins(server);
    if (!pool) {
        endpoint->handler(call, call->request, endpoint->context);
        /* Not answered at once: from now on its client may go away. */
        vp_call_watch_close(call);
        vp_call_unref(call);
        vp_server_handler_ended(server);
        return;
    }

    vp_call_watch_close(call);
    if (!vp_pool_submit_for(pool, vp_call_group(call), vp_call_lane(call), run_handler, call)) {
        VpError *error = vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY", "the daemon has too much to do; try again");
        vp_call_fail(call, vp_error_retry(error, 1000));
        vp_call_unref(call);
        vp_server_handler_ended(server);
    }
}

static void ask_limits(void *data, VpLimits *ret_limits)
{
    VpCall *call = data;
    const VpRpcGate *gate = call->server->gate;

    gate->limits(gate->data, call, ret_limits);
}

/* Counts the call for whoever makes it. */
static VpError *count_in(VpCall *call)
{
    VpRpcServer *server = call->server;

    if (server->gate->limits && call->identity_name) {
        call->account = vp_accounts_get(server->accounts, call->identity_name, ask_limits, call);
        VpError *error = vp_account_enter(server->accounts, call->account, vp_now_us());
        if (error)
            return error;
        call->counted = TRUE;
    }
    if (!call->connection || !call->identity_name)
        return NULL;
    if (!g_atomic_int_get(&call->connection->attached) && !(call->account && vp_account_limits(call->account).shared))
        vp_connections_attach(server->connections, call->connection, call->identity_name, call->account);
    /* Of a connection that is one too many all calls are refused, so that its client learns why. */
    return vp_connections_check(server->connections, call->connection);
}

VpCall *vp_call_arrive(VpRpcServer *server, const VpEndpoint *endpoint, grpc_call *core, gpr_timespec deadline,
                       grpc_byte_buffer *payload, char *authorization)
{
    VpCall *call = vp_call_new(server, endpoint, core, deadline);

    call->payload = payload;
    call->authorization = authorization;
    vp_call_note_peer(call);
    VpError *error = vp_server_enter(server, call);
    if (!error)
        return call;
    vp_call_fail(call, error);
    vp_call_unref(call);
    return NULL;
}

/* What has to be right before a handler sees the call. */
static VpError *check(VpCall *call)
{
    const VpRpcServer *server = call->server;
    const VpEndpoint *endpoint = call->endpoint;
    grpc_byte_buffer *payload = g_steal_pointer(&call->payload);
    VpError *error = call->connection ? vp_connections_check(server->connections, call->connection) : NULL;

    if (!error && server->gate)
        error = server->gate->enter(server->gate->data, call, endpoint->method);
    if (!error && server->gate)
        error = count_in(call);
    if (!error)
        error = check_size(call, payload);
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
    return !error && call->request ? permit(call, call->request) : error;
}

void vp_call_begin(VpCall *call)
{
    VpError *error = check(call);

    if (error) {
        vp_call_fail(call, error);
        vp_call_unref(call);
        return;
    }
    dispatch(call);
}
