/* Server streams, and streams both ways: see client.h. One queue a stream; each batch is waited for by its own tag. */
#include <grpc/support/log.h>
#include <grpc/support/time.h>

#include "base/pb.h"
#include "clients/c/internal.h"

struct VpClientStream {
    VpClient *client;
    const ProtobufCMethodDescriptor *method;
    grpc_completion_queue *queue;
    grpc_call *call;
    grpc_byte_buffer *request;
    grpc_metadata_array initial;
    grpc_byte_buffer *message; /* where the read that is under way puts its answer */
    VpClientStatus status;
    char sending;     /* its address is a tag */
    gboolean started; /* the first batch has been waited for */
    gboolean ended;   /* the status has come */
};

/* Tags of batches: addresses that are ours and differ. */
static void *start_tag(VpClientStream *stream)
{
    return &stream->request;
}

static void *read_tag(VpClientStream *stream)
{
    return &stream->message;
}

static void *status_tag(VpClientStream *stream)
{
    return &stream->status;
}

static void *send_tag(VpClientStream *stream)
{
    return &stream->sending;
}

static void start_batch(VpClientStream *stream, const grpc_op *ops, size_t count, void *tag)
{
    /* Fails for wrong use alone. */
    GPR_ASSERT(grpc_call_start_batch(stream->call, ops, count, tag, NULL) == GRPC_CALL_OK);
}

/* A message was sent, or a stream closed: whether that went well. */
static gboolean wait_sent(VpClientStream *stream)
{
    return grpc_completion_queue_pluck(stream->queue, send_tag(stream), gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL)
               .success != 0;
}

static gboolean wait_for(VpClientStream *stream, void *tag, gint64 idle_ms)
{
    const gpr_timespec until =
        idle_ms > 0 ? gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(idle_ms, GPR_TIMESPAN))
                    : gpr_inf_future(GPR_CLOCK_MONOTONIC);

    return grpc_completion_queue_pluck(stream->queue, tag, until, NULL).type == GRPC_OP_COMPLETE;
}

/* `both`: the client goes on sending. */
static VpClientStream *stream_new(VpClient *client, const ProtobufCServiceDescriptor *service, const char *method,
                                  const void *request, gint64 timeout_ms, gboolean both, VpError **error)
{
    const ProtobufCMethodDescriptor *found = vp_client_find_method(service, method, request, error);

    if (!found)
        return NULL;

    VpClientStream *stream = g_new0(VpClientStream, 1);
    stream->client = client;
    stream->method = found;
    stream->queue = grpc_completion_queue_create_for_pluck(NULL);
    stream->call = vp_client_start(client, stream->queue, service, method, timeout_ms);
    stream->request = vp_client_pack(request);
    grpc_metadata_array_init(&stream->initial);
    vp_client_status_init(&stream->status);

    const grpc_op start[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = stream->request},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
    };
    /* The server's first word is not waited for: it may come only once the client has sent all. */
    const grpc_op end[] = {
        {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &stream->initial},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &stream->status.trailing,
                                        .status = &stream->status.code,
                                        .status_details = &stream->status.details}},
    };
    start_batch(stream, start, G_N_ELEMENTS(start) - (both ? 1 : 0), start_tag(stream));
    start_batch(stream, end, G_N_ELEMENTS(end), status_tag(stream));
    /* The next message may be sent once the first one is. */
    if (both)
        stream->started = wait_for(stream, start_tag(stream), 0);
    return stream;
}

VpClientStream *vp_client_stream_new(VpClient *client, const ProtobufCServiceDescriptor *service, const char *method,
                                     const void *request, gint64 timeout_ms, VpError **error)
{
    return stream_new(client, service, method, request, timeout_ms, /* both= */ FALSE, error);
}

VpClientStream *vp_client_stream_open(VpClient *client, const ProtobufCServiceDescriptor *service, const char *method,
                                      const void *request, gint64 timeout_ms, VpError **error)
{
    return stream_new(client, service, method, request, timeout_ms, /* both= */ TRUE, error);
}

gboolean vp_client_stream_send(VpClientStream *stream, const void *message)
{
    grpc_byte_buffer *buffer = vp_client_pack(message);
    const grpc_op send = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};

    start_batch(stream, &send, 1, send_tag(stream));
    const gboolean sent = wait_sent(stream);
    grpc_byte_buffer_destroy(buffer);
    return sent;
}

void vp_client_stream_close(VpClientStream *stream)
{
    const grpc_op close = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

    start_batch(stream, &close, 1, send_tag(stream));
    wait_sent(stream);
}

/* Waits for the end, which is near: the stream has closed or was cancelled. */
static void reap(VpClientStream *stream)
{
    if (stream->ended)
        return;
    if (!stream->started)
        wait_for(stream, start_tag(stream), 0);
    wait_for(stream, status_tag(stream), 0);
    stream->started = stream->ended = TRUE;
}

void *vp_client_stream_read(VpClientStream *stream, gint64 idle_ms, VpError **error)
{
    const grpc_op read = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &stream->message};

    if (!stream->ended) {
        start_batch(stream, &read, 1, read_tag(stream));
        if (!wait_for(stream, read_tag(stream), idle_ms)) {
            vp_client_stream_cancel(stream);
            wait_for(stream, read_tag(stream), 0);
            g_clear_pointer(&stream->message, grpc_byte_buffer_destroy);
            reap(stream);
            *error = vp_error_new(VP_DEADLINE_EXCEEDED, "STREAM_IDLE",
                                  "nothing came from %s for %" G_GINT64_FORMAT " ms", stream->client->address, idle_ms);
            return NULL;
        }
    }
    if (!stream->message) {
        reap(stream);
        VpError *failure = vp_client_status_error(stream->client, &stream->status);
        if (failure)
            *error = failure;
        return NULL;
    }

    void *message = vp_client_unpack(stream->method->output, stream->message, error);
    g_clear_pointer(&stream->message, grpc_byte_buffer_destroy);
    return message;
}

void vp_client_stream_cancel(VpClientStream *stream)
{
    grpc_call_cancel(stream->call, NULL);
}

void vp_client_stream_free(VpClientStream *stream)
{
    if (!stream)
        return;
    vp_client_stream_cancel(stream);
    reap(stream);
    grpc_call_unref(stream->call);
    grpc_completion_queue_shutdown(stream->queue);
    grpc_completion_queue_destroy(stream->queue);
    grpc_byte_buffer_destroy(stream->request);
    grpc_metadata_array_destroy(&stream->initial);
    vp_client_status_clear(&stream->status);
    g_free(stream);
}
