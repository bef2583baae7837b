/* See guest_call.h. */
#include "server/services/guest_call.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "google/protobuf/duration.pb-c.h"
#include "virtplane/v1/guest_service.pb-c.h"

#define DAY_MS ((guint64)24 * 60 * 60 * 1000)

typedef struct Asked {
    gint refs; /* the call's until it is closed, the answer's, and those of messages under way */
    VpServices *services;
    VpCall *call;
    VpTaskStream *stream; /* NULL: it answers once */
    const char *opening;
    guint64 timeout_ms;

    pthread_mutex_t mutex; /* guards what follows */
    VpTask *task;          /* NULL: not asked yet */
    gboolean closed;
} Asked;

static Asked *asked_ref(Asked *asked)
{
    g_atomic_int_inc(&asked->refs);
    return asked;
}

static void asked_unref(Asked *asked)
{
    if (!g_atomic_int_dec_and_test(&asked->refs))
        return;
    vp_task_unref(asked->task);
    vp_task_stream_unref(asked->stream);
    vp_call_unref(asked->call);
    pthread_mutex_destroy(&asked->mutex);
    g_free(asked);
}

/* ---- what a request says ---- */

static const void *field_at(const ProtobufCMessage *message, const char *name)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);

    return (const char *)message + field->offset;
}

static VpError *read_timeout(const ProtobufCMessage *naming, guint64 otherwise_ms, guint64 *ret_ms)
{
    const Google__Protobuf__Duration *duration = *(Google__Protobuf__Duration *const *)field_at(naming, "timeout");

    *ret_ms = otherwise_ms;
    if (!duration)
        return NULL;
    if (duration->seconds >= 0 && duration->seconds <= 24 * 60 * 60 && duration->nanos >= 0 &&
        duration->nanos < 1000000000)
        *ret_ms = (guint64)duration->seconds * 1000 + (guint64)duration->nanos / 1000000;
    else
        *ret_ms = 0;
    if (*ret_ms > 0 && *ret_ms <= DAY_MS)
        return NULL;
    return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                           "timeout is not between a millisecond and a day"),
                              "timeout", "must be between a millisecond and a day");
}

/* ---- the answer ---- */

static void on_answer(void *data, const VpError *error, const void *answer)
{
    Asked *asked = data;

    if (error)
        vp_call_fail(asked->call, vp_error_copy(error));
    else if (answer)
        vp_call_reply(asked->call, answer);
    else
        vp_call_finish(asked->call);
    asked_unref(asked);
}

static void on_close(VpCall *call, void *data)
{
    Asked *asked = data;

    pthread_mutex_lock(&asked->mutex);
    asked->closed = TRUE;
    g_autoptr(VpTask) task = asked->task ? vp_task_ref(asked->task) : NULL;
    pthread_mutex_unlock(&asked->mutex);
    if (task)
        vp_task_cancel(task);
    vp_call_finish(call);
    asked_unref(asked);
}

/* `naming` has name, uid and timeout; `request` is what the driver gets. */
static void ask(Asked *asked, const ProtobufCMessage *naming, const void *request)
{
    guint64 timeout_ms;
    VpError *error = read_timeout(naming, asked->timeout_ms, &timeout_ms);

    if (error) {
        vp_call_fail(asked->call, error);
        return;
    }
    const VpAsk question = {
        .question = VP_QUESTION_GUEST,
        .name = *(char *const *)field_at(naming, "name"),
        .uid = *(char *const *)field_at(naming, "uid"),
        .request = request,
        .timeout_ms = timeout_ms,
        .stream = asked->stream,
    };
    g_autoptr(VpTask) task = vp_domains_ask(asked->services->domains, &question, on_answer, asked_ref(asked));
    pthread_mutex_lock(&asked->mutex);
    asked->task = task ? vp_task_ref(task) : NULL;
    const gboolean closed = asked->closed;
    pthread_mutex_unlock(&asked->mutex);
    if (task && closed)
        vp_task_cancel(task);
}

static Asked *asked_new(VpServices *services, VpCall *call, guint64 timeout_ms)
{
    Asked *asked = g_new0(Asked, 1);

    asked->refs = 2; /* until it is closed, and the caller's */
    asked->services = services;
    asked->call = vp_call_ref(call);
    asked->timeout_ms = timeout_ms;
    pthread_mutex_init(&asked->mutex, NULL);
    return asked;
}

void vp_guest_call(VpServices *services, VpCall *call, const void *message, guint64 timeout_ms)
{
    Asked *asked = asked_new(services, call, timeout_ms);

    ask(asked, message, message);
    vp_call_on_close(call, on_close, asked);
    asked_unref(asked);
}

/* ---- streams ---- */

static void on_written(VpCall *call, void *data, gboolean ok)
{
    Asked *asked = data;

    (void)call;
    (void)ok;
    vp_task_stream_taken(asked->stream);
    asked_unref(asked);
}

static void emit(void *data, const void *message)
{
    Asked *asked = data;

    /* Not taken: the call is over, or about to be, and its close cancels the task. */
    if (!vp_call_write(asked->call, message, FALSE, on_written, asked_ref(asked)))
        asked_unref(asked);
}

static void got_next(VpCall *call, void *data, void *message)
{
    Asked *asked = data;

    (void)call;
    vp_task_stream_feed(asked->stream, message);
    asked_unref(asked);
}

static void want(void *data)
{
    Asked *asked = data;

    vp_call_read(asked->call, got_next, asked_ref(asked));
}

static const VpTaskStreamCaller both_ways = {.emit = emit, .want = want};
static const VpTaskStreamCaller one_way = {.emit = emit};

static void got_first(VpCall *call, void *data, void *message)
{
    Asked *asked = data;
    const ProtobufCMessage *request = message;
    const ProtobufCFieldDescriptor *field =
        request ? protobuf_c_message_descriptor_get_field_by_name(request->descriptor, asked->opening) : NULL;

    if (field && *(const guint32 *)((const char *)request + field->quantifier_offset) == field->id)
        ask(asked, *(ProtobufCMessage *const *)((const char *)request + field->offset), request);
    else
        vp_call_fail(call, vp_error_new(VP_INVALID_ARGUMENT, "NOT_OPENED", "the first message says what is wanted (%s)",
                                        asked->opening));
    vp_pb_free(message);
    asked_unref(asked);
}

void vp_guest_stream(VpServices *services, VpCall *call, const void *message, const char *opening, guint64 timeout_ms)
{
    Asked *asked = asked_new(services, call, timeout_ms);

    asked->opening = opening;
    asked->stream = vp_task_stream_new(message ? &one_way : &both_ways, asked);
    if (message)
        ask(asked, message, message);
    else
        vp_call_read(call, got_first, asked_ref(asked));
    vp_call_on_close(call, on_close, asked);
    asked_unref(asked);
}
