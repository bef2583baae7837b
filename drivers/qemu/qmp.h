/*
 * A client of QEMU's machine protocol on a connected stream socket. Asynchronous, for the loop's thread alone, as are all its callbacks.
 *
 * The peer is not trusted: lines and queues are bounded, what is no QMP ends the connection. A pending command always ends: with the
 * peer's answer, at its deadline, or with the connection.
 */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "base/error.h"

typedef struct VpQmp VpQmp;

typedef struct VpQmpHandler {
    /* The greeting came and the capabilities are negotiated: commands are sent from now on. */
    void (*ready)(void *data);
    /* An event; `arguments` is its data, borrowed, NULL if it has none. */
    void (*event)(void *data, const char *name, json_t *arguments);
    /* The connection is gone; `error` (borrowed) says why. Pending commands have ended before. Call vp_qmp_close() here or later. */
    void (*closed)(void *data, const VpError *error);
} VpQmpHandler;

/* The end of a command: `result` is what "return" holds (borrowed), or `error` (owned by the callee) says why there is none. An error of the
 * peer's is FAILED_PRECONDITION, reason QMP_ERROR, metadata `class`. */
typedef void (*VpQmpDone)(void *data, json_t *result, VpError *error);

#define VP_QMP_MAX_LINE (16 * 1024 * 1024)
#define VP_QMP_MAX_OUTPUT (1024 * 1024)
#define VP_QMP_MAX_PENDING 256

/* Takes the connected, non-blocking `fd` (closed on an error too). `handler` is static. */
VpQmp *vp_qmp_new(uv_loop_t *uv, int fd, const VpQmpHandler *handler, void *data, VpError **error);

/* Sends a command; `arguments` (may be NULL) is consumed. Before the connection is ready it waits. `deadline_us` is of vp_now_us(), 0: none. `done`
 * is called once, never before this returns. */
void vp_qmp_execute(VpQmp *qmp, const char *command, json_t *arguments, gint64 deadline_us, VpQmpDone done, void *data);

/* The same, and passes a copy of the descriptor `fd` along with the command (SCM_RIGHTS). */
void vp_qmp_execute_with_fd(VpQmp *qmp, const char *command, json_t *arguments, int fd, gint64 deadline_us,
                            VpQmpDone done, void *data);

/* Between the two commands are gathered, to be sent in one write. */
void vp_qmp_hold(VpQmp *qmp);
void vp_qmp_send(VpQmp *qmp);

/* Reads what the peer has sent and calls what it calls for, now: after the peer's process has ended its last words are in the socket. */
void vp_qmp_drain(VpQmp *qmp);

/* Ends pending commands with CANCELLED and lets go; no callback comes after that. May be called from any callback. NULL is let pass. */
void vp_qmp_close(VpQmp *qmp);
