/*
 * One thread that runs a libuv loop, and the way into it from other threads. libuv's own functions are for the loop's
 * thread alone: code there takes vp_loop_uv(); everyone else posts. Callbacks on the loop never block.
 */
#pragma once

#include <uv.h>

#include "base/error.h"

typedef struct VpLoop VpLoop;

/* Starts the loop's thread, named `name` (at most 15 characters). */
VpLoop *vp_loop_new(const char *name, VpError **error);

/* Runs `run(data)` on the loop's thread, in the order of the posts. Any thread, the loop's own included (it runs later then,
 * not at once). Posts made before vp_loop_free() are still run by it. */
void vp_loop_post(VpLoop *loop, void (*run)(void *data), void *data);

/* Whether the caller is the loop's thread. */
gboolean vp_loop_is_current(const VpLoop *loop);

/* The libuv loop, for the loop's thread only. */
uv_loop_t *vp_loop_uv(VpLoop *loop);

/* A timer that other threads may start and cancel as well. Counted: the maker holds one reference. */
typedef struct VpTimer VpTimer;

/* Calls `fire(data)` once on the loop's thread, `delay_ms` from now. */
VpTimer *vp_timer_start(VpLoop *loop, guint64 delay_ms, void (*fire)(void *data), void *data);

/* Cancels and drops the reference. TRUE: `fire` has not been and will not be called. FALSE: it has been called, or is being
 * called right now on the loop's thread. NULL: FALSE. Call it once, whether the timer fired or not. */
gboolean vp_timer_cancel(VpTimer *timer);

/* Stops and joins the thread; handles still open on it are closed. NULL is let pass. Not from the loop's thread. */
void vp_loop_free(VpLoop *loop);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpLoop, vp_loop_free)
