/*
 * One operation that a driver carries out on one domain. The caller (server/domains) makes it; the driver has it until it calls
 * vp_task_finish(), exactly once, from any thread. A task ends by its deadline or its cancellation too, and it is the driver that sees to it: it
 * finishes the task with DEADLINE_EXCEEDED or CANCELLED once nothing of it goes on.
 */
#pragma once

#include "base/error.h"
#include "drivers/task_stream.h"
#include "virtplane/v1/domain.pb-c.h"

typedef struct VpTask VpTask;

/* Makes a task on a copy of `domain`. `done(data, error)` is called once (owning `error`, NULL: done well), on whatever thread
 * finishes it. `deadline_us` is of vp_now_us(). */
VpTask *vp_task_new(const PbDomain *domain, gint64 deadline_us, void (*done)(void *data, VpError *error), void *data);

VpTask *vp_task_ref(VpTask *task);
void vp_task_unref(VpTask *task);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpTask, vp_task_unref)

/* The domain as it was when the task was made: borrowed, lives as long as the task. */
const PbDomain *vp_task_domain(const VpTask *task);
gint64 vp_task_deadline_us(const VpTask *task);

/* Start alone: leave the CPUs halted. */
void vp_task_set_paused(VpTask *task, gboolean paused);
gboolean vp_task_paused(const VpTask *task);

/* Start alone: why, as its events tell it (copied); "REQUESTED" if none, or NULL, was set. */
void vp_task_set_reason(VpTask *task, const char *reason);
const char *vp_task_reason(const VpTask *task);

/* What is asked for, beyond the verb: a message of the method's, or NULL. Set before the driver gets the task; copies. */
void vp_task_set_request(VpTask *task, const void *message);
const void *vp_task_request(const VpTask *task);

/* Where the driver writes what is too large for an answer: a file without a name. Set before the driver gets the task, which keeps a
 * copy of the descriptor. -1: there is none. */
void vp_task_set_output(VpTask *task, int fd);
int vp_task_output(const VpTask *task);

/* The answer to a question (drivers/driver.h): a message, consumed; the driver sets it before it finishes the task well. Read once the task is finished. */
void vp_task_set_answer(VpTask *task, void *message);
const void *vp_task_answer(const VpTask *task);

/* Who is told how far it is; set before the driver gets the task. */
void vp_task_set_progress_hook(VpTask *task, void (*progress)(void *data, guint percent, const char *message),
                               void *data);
/* Tells how far it is, 0 to 100, and what is being done now, for a person. As often as the driver likes; any thread, neither beside vp_task_finish() nor
 * after it. */
void vp_task_progress(VpTask *task, guint percent, const char *message);

/* What goes to and fro while a method that streams is under way; NULL: it does not. Set before the driver gets the task; takes a reference. */
void vp_task_set_stream(VpTask *task, VpTaskStream *stream);
VpTaskStream *vp_task_stream(const VpTask *task);

/* Ends the task; `error` is consumed. A second call is a bug and aborts. Gives up the driver's reference. */
void vp_task_finish(VpTask *task, VpError *error);

/* Asks for an early end: calls the driver's hook, if one is set, on the calling thread. Any thread. */
void vp_task_cancel(VpTask *task);
gboolean vp_task_cancelled(const VpTask *task);

/* The same, since its job's time is over: nobody has changed his mind. What is then seen to by other means goes on. */
void vp_task_expire(VpTask *task);
gboolean vp_task_expired(const VpTask *task);

/* The driver's hook for vp_task_cancel(); called at once if the task was cancelled before. It must not block; NULL removes it. Once
 * this returns the former hook is not called any more. */
void vp_task_set_cancel_hook(VpTask *task, void (*cancel)(void *data), void *data);
