/* See console_line.h. */
#include "server/services/console_line.h"

#include "base/pb.h"
#include "virtplane/v1/domain_console.pb-c.h"

/* One stream. */
typedef struct Stream {
    VpLines *lines;
    VpCall *call;
    gboolean screen;
    VpLineClient *client; /* which owns it */
} Stream;

/* ---- to the client ---- */

typedef struct Written {
    VpLineClient *client;
    gsize bytes;
} Written;

static void on_written_loop(void *data)
{
    g_autofree Written *written = data;

    vp_line_client_written(written->client, written->bytes);
    vp_line_client_unref(written->client);
}

static void on_written(VpCall *call, void *data, gboolean ok)
{
    Written *written = data;

    (void)call;
    (void)ok;
    vp_loop_post(vp_line_client_loop(written->client), on_written_loop, written);
}

static gboolean write_message(Stream *stream, const void *message, gsize bytes)
{
    Written *written = g_new(Written, 1);

    *written = (Written){.client = vp_line_client_ref(stream->client), .bytes = bytes};
    if (vp_call_write(stream->call, message, FALSE, on_written, written))
        return TRUE;
    vp_line_client_unref(written->client);
    g_free(written);
    return FALSE;
}

static gboolean write_data(void *end, const guint8 *bytes, gsize size)
{
    /* Both methods' answers have the same shape, by field number and by layout. */
    PbOpenConsoleResponse response = PB_OPEN_CONSOLE_RESPONSE__INIT;

    response.payload_case = PB_OPEN_CONSOLE_RESPONSE__PAYLOAD_DATA;
    response.data = (ProtobufCBinaryData){.len = size, .data = (guint8 *)bytes};
    return write_message(end, &response, size);
}

static gboolean write_opened(void *end, const char *device, guint32 scrollback)
{
    Stream *stream = end;

    if (stream->screen) {
        PbOpenScreenResponse response = PB_OPEN_SCREEN_RESPONSE__INIT;
        PbScreenOpened opened = PB_SCREEN_OPENED__INIT;

        opened.device = (char *)device;
        response.payload_case = PB_OPEN_SCREEN_RESPONSE__PAYLOAD_OPENED;
        response.opened = &opened;
        return write_message(stream, &response, 0);
    }
    PbOpenConsoleResponse response = PB_OPEN_CONSOLE_RESPONSE__INIT;
    PbConsoleOpened opened = PB_CONSOLE_OPENED__INIT;

    opened.device = (char *)device;
    opened.scrollback_bytes = scrollback;
    response.payload_case = PB_OPEN_CONSOLE_RESPONSE__PAYLOAD_OPENED;
    response.opened = &opened;
    return write_message(stream, &response, 0);
}

static void finish(void *end, VpError *error)
{
    const Stream *stream = end;

    if (error)
        vp_call_fail(stream->call, error);
    else
        vp_call_finish(stream->call);
}

/* ---- from the client ---- */

typedef struct Message {
    Stream *stream; /* with a reference of its client */
    void *message;  /* NULL: half-closed, or broken */
} Message;

static void read_next(void *end);

static void on_message(Stream *stream, const void *message)
{
    /* As the answers', the requests' `data` stands at one place in both; a screen's has no size. */
    const PbOpenConsoleRequest *request = message;

    if (!vp_line_client_is_open(stream->client))
        return;
    if (!message) {
        vp_line_client_half_close(stream->client);
        return;
    }
    switch (request->payload_case) {
    case PB_OPEN_CONSOLE_REQUEST__PAYLOAD_DATA:
        vp_line_client_got(stream->client, request->data.data, request->data.len);
        break;
    case PB_OPEN_CONSOLE_REQUEST__PAYLOAD_SIZE:
        /* A UART knows no size, and QEMU 7.2 has no command to tell a virtio console. */
        read_next(stream);
        break;
    default:
        vp_line_client_end(stream->client,
                           vp_error_new(VP_INVALID_ARGUMENT, "NOT_DATA",
                                        "after the first message come data or sizes, and this is neither"));
    }
}

static void on_message_loop(void *data)
{
    g_autofree Message *message = data;

    on_message(message->stream, message->message);
    vp_pb_free(message->message);
    vp_line_client_unref(message->stream->client);
}

static void got_message(VpCall *call, void *data, void *received)
{
    Message *message = g_new(Message, 1);

    (void)call;
    *message = (Message){.stream = data, .message = received};
    vp_loop_post(vp_line_client_loop(message->stream->client), on_message_loop, message);
}

static void read_next(void *end)
{
    Stream *stream = end;

    vp_line_client_ref(stream->client);
    vp_call_read(stream->call, got_message, stream);
}

static gboolean gone(void *end)
{
    const Stream *stream = end;

    return vp_call_cancelled(stream->call);
}

static char *caller(void *end)
{
    const Stream *stream = end;
    VpCaller who;

    vp_call_caller(stream->call, &who);
    return g_strdup(who.text);
}

static void stream_free(void *end)
{
    Stream *stream = end;

    vp_call_unref(stream->call);
    g_free(stream);
}

static const VpLineEnd stream_end = {
    .opened = write_opened,
    .write = write_data,
    .read_next = read_next,
    .finish = finish,
    .gone = gone,
    .caller = caller,
    .unref = stream_free,
};

/* ---- opening, on RPC threads ---- */

static VpError *read_open(const Stream *stream, const void *message, VpLineOptions *ret_options,
                          VpLineTarget *ret_target)
{
    VpDomains *domains = vp_lines_domains(stream->lines);

    if (stream->screen) {
        const PbOpenScreenRequest *request = message;

        if (request->payload_case != PB_OPEN_SCREEN_REQUEST__PAYLOAD_OPEN)
            return vp_error_new(VP_INVALID_ARGUMENT, "NOT_OPENED", "the first message says which screen (open)");
        *ret_options = (VpLineOptions){.screen = TRUE};
        return vp_line_target_find(domains, request->open->name, request->open->uid, request->open->device, TRUE,
                                   ret_target);
    }
    const PbOpenConsoleRequest *request = message;
    if (request->payload_case != PB_OPEN_CONSOLE_REQUEST__PAYLOAD_OPEN)
        return vp_error_new(VP_INVALID_ARGUMENT, "NOT_OPENED", "the first message says which console (open)");
    *ret_options = (VpLineOptions){.read_only = request->open->read_only,
                                   .force = request->open->force,
                                   .scrollback = request->open->scrollback_bytes};
    return vp_line_target_find(domains, request->open->name, request->open->uid, request->open->device, FALSE,
                               ret_target);
}

static void got_open(VpCall *call, void *data, void *message)
{
    Stream *stream = data;
    VpLineOptions options = {0};
    g_auto(VpLineTarget) target = {0};
    VpError *error = message ? read_open(stream, message, &options, &target)
                             : vp_error_new(VP_INVALID_ARGUMENT, "NOT_OPENED", "the stream ended before it was opened");

    vp_pb_free(message);
    if (error)
        vp_call_fail(call, error);
    else
        vp_line_client_open(stream->client, &options, &target);
    vp_line_client_unref(stream->client);
}

static void closed_on_loop(void *data)
{
    VpLineClient *client = data;

    vp_line_client_leave(client);
    vp_line_client_unref(client);
}

static void on_close(VpCall *call, void *data)
{
    VpLineClient *client = data;

    /* Nothing more to say to who has gone. */
    vp_call_finish(call);
    vp_loop_post(vp_line_client_loop(client), closed_on_loop, client);
}

static void open_line(VpLines *lines, VpCall *call, gboolean screen)
{
    Stream *stream = g_new0(Stream, 1);

    stream->lines = lines;
    stream->call = vp_call_ref(call);
    stream->screen = screen;
    stream->client = vp_line_client_new(lines, &stream_end, stream);
    vp_call_on_close(call, on_close, vp_line_client_ref(stream->client));
    vp_call_read(call, got_open, stream);
}

void vp_lines_open_console(VpLines *lines, VpCall *call)
{
    open_line(lines, call, /* screen= */ FALSE);
}

void vp_lines_open_screen(VpLines *lines, VpCall *call)
{
    open_line(lines, call, /* screen= */ TRUE);
}
