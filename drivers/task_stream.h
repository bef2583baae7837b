/*
 * What goes to and fro while a task is under way, for methods that stream: messages of the answer from the driver to the caller, messages of the client from
 * the caller to the driver. The caller makes it and gives it to the task (vp_task_set_stream()). Bounded both ways: the driver emits while there is room, and
 * the client is read when the driver wants its next message.
 */
#pragma once

#include <glib.h>

typedef struct VpTaskStream VpTaskStream;

/* Messages that may be emitted and not yet taken. */
#define VP_TASK_STREAM_ROOM 8

/* The caller's side. Called on the driver's thread, before the task is finished, and must not block. */
typedef struct VpTaskStreamCaller {
    /* The next message of the answer, borrowed. It is told when it is taken. */
    void (*emit)(void *data, const void *message);
    /* The client's next message is wanted: it is fed, once. NULL: the client sends nothing more than its request. */
    void (*want)(void *data);
} VpTaskStreamCaller;

/* `caller` is static; `data` lives until the task is finished. */
VpTaskStream *vp_task_stream_new(const VpTaskStreamCaller *caller, void *data);
VpTaskStream *vp_task_stream_ref(VpTaskStream *stream);
void vp_task_stream_unref(VpTaskStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpTaskStream, vp_task_stream_unref)

/* ---- the caller's; any thread ---- */

/* One of the messages that were emitted has been taken. */
void vp_task_stream_taken(VpTaskStream *stream);
/* The client's next message, consumed; NULL: there is none any more. */
void vp_task_stream_feed(VpTaskStream *stream, void *message);

/* ---- the driver's; its thread ---- */

/* `hook(data)` is called when one was taken, or fed, on any thread and with the stream's lock held: it posts, and does nothing else. NULL: not any more,
 * once this returns. */
void vp_task_stream_set_hook(VpTaskStream *stream, void (*hook)(void *data), void *data);
gboolean vp_task_stream_has_room(VpTaskStream *stream);
void vp_task_stream_emit(VpTaskStream *stream, const void *message);
void vp_task_stream_want(VpTaskStream *stream);
/* FALSE: what was wanted has not come yet. Else it is in `*ret_message`, owned by the driver (vp_pb_free); NULL: there is none any more. */
gboolean vp_task_stream_next(VpTaskStream *stream, void **ret_message);
