/* See load.h. */
#include "tests/bench/load.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdlib.h>

#include "base/thread.h"
#include "tests/bench/bench.h"

#define MAX_SAMPLES 2000000
#define CALL_TIMEOUT_S 30

typedef struct Call {
    grpc_call *call;
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_byte_buffer *answer;
    grpc_status_code status;
    grpc_slice details;
    gint64 start_us;
} Call;

typedef struct Load {
    grpc_channel *channel;
    grpc_completion_queue *cq;
    grpc_slice method;
    grpc_slice request;
    Call *calls;
} Load;

static grpc_channel *open_channel(const char *address)
{
    /* Without it channels to one address share one connection. */
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)"grpc.use_local_subchannel_pool", .value.integer = 1};
    const grpc_channel_args args = {.num_args = 1, .args = &arg};
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(address, credentials, &args);

    grpc_channel_credentials_release(credentials);
    return channel;
}

static grpc_slice slice_of(GBytes *bytes)
{
    gsize size;
    const void *data = g_bytes_get_data(bytes, &size);

    return grpc_slice_from_copied_buffer(data, size);
}

static gpr_timespec deadline_in(gint64 seconds)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(seconds, GPR_TIMESPAN));
}

static void start_call(Load *load, Call *call, grpc_slice message)
{
    grpc_op ops[6] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_MESSAGE}, {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA}, {.op = GRPC_OP_RECV_MESSAGE}, {.op = GRPC_OP_RECV_STATUS_ON_CLIENT},
    };

    call->call = grpc_channel_create_call(load->channel, NULL, GRPC_PROPAGATE_DEFAULTS, load->cq, load->method, NULL,
                                          deadline_in(CALL_TIMEOUT_S), NULL);
    grpc_metadata_array_init(&call->initial);
    grpc_metadata_array_init(&call->trailing);
    /* The core empties the buffer that it sends; the slice is shared. */
    grpc_byte_buffer *request = grpc_raw_byte_buffer_create(&message, 1);
    ops[1].data.send_message.send_message = request;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
    ops[4].data.recv_message.recv_message = &call->answer;
    ops[5].data.recv_status_on_client.trailing_metadata = &call->trailing;
    ops[5].data.recv_status_on_client.status = &call->status;
    ops[5].data.recv_status_on_client.status_details = &call->details;
    call->start_us = vp_now_us();
    if (grpc_call_start_batch(call->call, ops, G_N_ELEMENTS(ops), call, NULL) != GRPC_CALL_OK)
        bench_die("the core refused a batch");
    grpc_byte_buffer_destroy(request);
}

static void end_call(Call *call)
{
    if (call->status != GRPC_STATUS_OK || !call->answer) {
        g_autofree char *why =
            g_strndup((const char *)GRPC_SLICE_START_PTR(call->details), GRPC_SLICE_LENGTH(call->details));
        bench_die("a call failed: %d %s", (int)call->status, why);
    }
    grpc_byte_buffer_destroy(call->answer);
    call->answer = NULL;
    grpc_slice_unref(call->details);
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_call_unref(call->call);
}

static Call *next_call(Load *load)
{
    const grpc_event event = grpc_completion_queue_next(load->cq, deadline_in(CALL_TIMEOUT_S + 5), NULL);

    if (event.type != GRPC_OP_COMPLETE)
        bench_die("no answer in time");
    return event.tag;
}

static int compare(const void *a, const void *b)
{
    const gint32 x = *(const gint32 *)a;
    const gint32 y = *(const gint32 *)b;

    return x < y ? -1 : x > y;
}

static void load_close(Load *load)
{
    grpc_completion_queue_shutdown(load->cq);
    while (grpc_completion_queue_next(load->cq, deadline_in(5), NULL).type == GRPC_OP_COMPLETE)
        ;
    grpc_completion_queue_destroy(load->cq);
    grpc_channel_destroy(load->channel);
    grpc_slice_unref(load->request);
    g_free(load->calls);
}

static LoadResult result_of(const char *method, gint32 *samples, guint n, gint64 took_us)
{
    if (n == 0)
        bench_die("%s: no call ended in time", method);
    qsort(samples, n, sizeof(samples[0]), compare);
    return (LoadResult){
        .calls_per_second = n / ((gdouble)took_us / G_USEC_PER_SEC),
        .p50_us = samples[n / 2],
        .p99_us = samples[(gsize)n * 99 / 100],
    };
}

LoadResult load_run(const char *address, const char *method, GBytes *request, guint in_flight, guint duration_ms)
{
    Load load = {
        .channel = open_channel(address),
        .cq = grpc_completion_queue_create_for_next(NULL),
        .method = grpc_slice_from_static_string(method),
        .request = slice_of(request),
        .calls = g_new0(Call, in_flight),
    };
    g_autofree gint32 *samples = g_new(gint32, MAX_SAMPLES);
    guint n = 0;
    guint open = in_flight;
    /* The first part warms up and is not counted. */
    const gint64 count_us = vp_now_us() + (gint64)duration_ms * 200;
    const gint64 end_us = count_us + (gint64)duration_ms * 1000;
    gint64 last_us = count_us;

    for (guint i = 0; i < in_flight; i++)
        start_call(&load, &load.calls[i], load.request);
    while (open > 0) {
        Call *call = next_call(&load);
        const gint64 now_us = vp_now_us();

        if (now_us >= count_us && now_us < end_us && n < MAX_SAMPLES) {
            samples[n++] = (gint32)(now_us - call->start_us);
            last_us = now_us;
        }
        end_call(call);
        if (now_us < end_us)
            start_call(&load, call, load.request);
        else
            open--;
    }
    load_close(&load);
    return result_of(method, samples, n, last_us - count_us);
}

/* Starts the next call; FALSE: there is none. */
static gboolean start_next(Load *load, Call *call, GBytes *(*next)(void *data), void *data)
{
    g_autoptr(GBytes) request = next(data);

    if (!request)
        return FALSE;
    const grpc_slice message = slice_of(request);
    start_call(load, call, message);
    grpc_slice_unref(message);
    return TRUE;
}

LoadResult load_each(const char *address, const char *method, GBytes *(*next)(void *data), void *data, guint in_flight)
{
    Load load = {
        .channel = open_channel(address),
        .cq = grpc_completion_queue_create_for_next(NULL),
        .method = grpc_slice_from_static_string(method),
        .request = grpc_empty_slice(),
        .calls = g_new0(Call, in_flight),
    };
    g_autofree gint32 *samples = g_new(gint32, MAX_SAMPLES);
    const gint64 start_us = vp_now_us();
    guint open = 0;
    guint n = 0;

    for (guint i = 0; i < in_flight; i++)
        open += start_next(&load, &load.calls[i], next, data) ? 1 : 0;
    while (open > 0) {
        Call *call = next_call(&load);

        if (n < MAX_SAMPLES)
            samples[n++] = (gint32)(vp_now_us() - call->start_us);
        end_call(call);
        if (!start_next(&load, call, next, data))
            open--;
    }
    const gint64 took_us = vp_now_us() - start_us;
    load_close(&load);
    return result_of(method, samples, n, took_us);
}

/* ---- streams ---- */

typedef struct Stream {
    grpc_call *call;
    grpc_metadata_array initial;
    grpc_byte_buffer *answer;
} Stream;

static void start_stream(Load *load, grpc_channel *channel, Stream *stream)
{
    grpc_op ops[5] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_MESSAGE}, {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA}, {.op = GRPC_OP_RECV_MESSAGE},
    };

    stream->call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, load->cq, load->method, NULL,
                                            gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_metadata_array_init(&stream->initial);
    grpc_byte_buffer *request = grpc_raw_byte_buffer_create(&load->request, 1);
    ops[1].data.send_message.send_message = request;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &stream->initial;
    ops[4].data.recv_message.recv_message = &stream->answer;
    if (grpc_call_start_batch(stream->call, ops, G_N_ELEMENTS(ops), stream, NULL) != GRPC_CALL_OK)
        bench_die("the core refused a stream");
    grpc_byte_buffer_destroy(request);
}

void load_streams(const char *address, const char *method, GBytes *request, guint count, guint connections,
                  void (*hold)(void *data), void *data)
{
    Load load = {
        .cq = grpc_completion_queue_create_for_next(NULL),
        .method = grpc_slice_from_static_string(method),
        .request = slice_of(request),
    };
    g_autofree grpc_channel **channels = g_new0(grpc_channel *, connections);
    g_autofree Stream *streams = g_new0(Stream, count);

    for (guint i = 0; i < connections; i++)
        channels[i] = open_channel(address);
    for (guint i = 0; i < count; i++)
        start_stream(&load, channels[i % connections], &streams[i]);
    for (guint i = 0; i < count; i++) {
        const Stream *stream = (const Stream *)next_call(&load);

        if (!stream->answer)
            bench_die("a stream ended before its first message");
    }
    hold(data);

    for (guint i = 0; i < count; i++) {
        grpc_call_cancel(streams[i].call, NULL);
        grpc_byte_buffer_destroy(streams[i].answer);
        grpc_metadata_array_destroy(&streams[i].initial);
        grpc_call_unref(streams[i].call);
    }
    load.channel = channels[0];
    for (guint i = 1; i < connections; i++)
        grpc_channel_destroy(channels[i]);
    load_close(&load);
}
