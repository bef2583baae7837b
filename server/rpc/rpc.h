/*
 * The RPC runtime on gRPC C core, as services see it: a table of handlers, and calls to answer. This folder alone includes <grpc/...>.
 *
 * What a method takes and answers, whether it streams, and the bounds of its fields come from the descriptors (proto/descriptors.h); a
 * table names the handlers. A method without one answers UNIMPLEMENTED. Before a handler runs, the request was checked against its
 * descriptor (server/rpc/validate.h) and unpacked.
 *
 * A handler runs on an RPC thread (and must not block: no disk, no hypervisor, no lock held across a call down) or, marked VP_RPC_WORKER or VP_RPC_SLOW, on
 * a thread of one of the pools; a pool that has too much to do sheds the call with RESOURCE_EXHAUSTED. It ends its call with vp_call_reply(),
 * vp_call_finish() or vp_call_fail(), at once or later, from any thread. What goes on after
 * the handler has returned holds a reference until it has ended the call; a call whose last reference goes without that is ended with INTERNAL.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "base/loop.h"
#include "base/pool.h"

typedef struct VpRpcServer VpRpcServer;
typedef struct VpCall VpCall;

typedef enum VpRpcFlags {
    VP_RPC_INLINE = 0,
    VP_RPC_WORKER = 1 << 0, /* the handler blocks for a moment: run it on the worker pool */
    VP_RPC_SLOW = 1 << 1,   /* it works for long, or waits for its reader: run it on the slow pool */
} VpRpcFlags;

/* `context` is the one of the table. `request` lives as long as the call; NULL for methods whose client streams. */
typedef void (*VpHandler)(VpCall *call, const void *request, void *context);

typedef struct VpMethodHandler {
    const char *method; /* "virtplane.v1.DomainService/GetDomain"; NULL ends a table */
    VpHandler handler;
    VpRpcFlags flags;
} VpMethodHandler;

/* Handlers and the context that each of them is given. */
typedef struct VpHandlerTable {
    const VpMethodHandler *handlers;
    void *context;
} VpHandlerTable;

/* Who calls. */
typedef struct VpCaller {
    gboolean local; /* came over the unix socket; uid, gid and pid are the kernel's word */
    guint32 uid;
    guint32 gid;
    gint32 pid;
    char text[96]; /* for people and logs: "uid=1000 pid=4711", "ipv4:127.0.0.1:40112" */
} VpCaller;

VpCall *vp_call_ref(VpCall *call);
void vp_call_unref(VpCall *call);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpCall, vp_call_unref)

/* ---- what a handler may ask; any thread ---- */

/* Who calls; asks the kernel at the first time. */
void vp_call_caller(VpCall *call, VpCaller *ret_caller);
/* The client's deadline in vp_now_us() terms; G_MAXINT64 if it set none. */
gint64 vp_call_deadline_us(VpCall *call);
/* Whether the client has gone, cancelled, or its deadline has passed. */
gboolean vp_call_cancelled(VpCall *call);
/* Calls `closed(call, data)` once, on an RPC thread, when the call is over: the client has gone, or has got the end (at once if that was before). Must not
 * block. The place where a stream ends its call, if it has not, and drops its reference. */
void vp_call_on_close(VpCall *call, void (*closed)(VpCall *call, void *data), void *data);
/* Calls `drained(call, data)` once, on the draining thread, when the server stops while the stream is open; it should end the call (the default is
 * UNAVAILABLE). Must not block. Neither after nor beside the function of vp_call_on_close(), which may free what `data` points to. */
void vp_call_on_drain(VpCall *call, void (*drained)(VpCall *call, void *data), void *data);
/* Attaches `data` to the call, freed with it. */
void vp_call_set_data(VpCall *call, void *data, void (*destroy)(void *data));

/* ---- ending a call: exactly one of these, once; any thread ---- */

/* Unary: answers with `message` (borrowed) and OK. */
void vp_call_reply(VpCall *call, const void *message);
/* The same with bytes that are packed already. */
void vp_call_reply_packed(VpCall *call, GBytes *packed);
/* Streams: ends with OK, after what was written. */
void vp_call_finish(VpCall *call);
/* Ends with an error (consumed): status, and details in grpc-status-details-bin. */
void vp_call_fail(VpCall *call, VpError *error);

/* ---- streams ---- */

/* Writes one message, behind those under way. `written(call, data, ok)` (may be NULL) is called once, on an RPC thread, when the transport has taken it;
 * ok FALSE: the stream is broken, end the call. The pull model: write, be called when there is room, write the next; so flow control reaches the
 * source and nothing piles up. `more` says that another write follows at once (lets the transport batch). FALSE: not taken, `written` will not be called: the
 * client has gone, the call has ended, or 1,024 writes are under way. Any thread. */
gboolean vp_call_write(VpCall *call, const void *message, gboolean more,
                       void (*written)(VpCall *call, void *data, gboolean ok), void *data);
/* The same for a message whose one field, number `field`, is the packed message `packed`: an event in its answer. Copies. */
gboolean vp_call_write_wrapped(VpCall *call, guint field, GBytes *packed, gboolean more,
                               void (*written)(VpCall *call, void *data, gboolean ok), void *data);
/* The same for VP_RPC_SLOW handlers: waits while too much is under way, for at most 10 s. FALSE: the client has gone or does not read; return. */
gboolean vp_call_write_wait(VpCall *call, const void *message);

/* Client streams and bidirectional ones: asks for the next message. `got(call, data, message)` is called once on an RPC thread; message (owned by the callee,
 * vp_pb_free) NULL: the client has half-closed, or the stream is broken. */
void vp_call_read(VpCall *call, void (*got)(VpCall *call, void *data, void *message), void *data);

/* ---- the server ---- */

typedef struct VpRpcOptions {
    const char *const *listen; /* "unix:PATH", "HOST:PORT" (loopback alone; port 0: any), NULL at the end */
    guint threads;             /* RPC threads; 0: cores/2, at least 1 */
    guint max_calls;           /* calls in flight; more are shed with RESOURCE_EXHAUSTED. 0: 20,000 */
    gsize max_request_bytes;   /* 0: 4 MiB */
    VpPool *pool;              /* for VP_RPC_WORKER handlers */
    VpPool *slow_pool;         /* for VP_RPC_SLOW handlers */
    VpLoop *loop;              /* for the timer that finds stalled writes */
    guint
        stalled_write_ms; /* a stream whose reader takes nothing for so long is ended with RESOURCE_EXHAUSTED. 0: 120,000 */
    const VpHandlerTable *tables; /* ends with NULL handlers; health and reflection are the runtime's own */
} VpRpcOptions;

/* Binds the addresses and answers. A stale socket file (nobody answers) is replaced; FAILED_PRECONDITION, reason ADDRESS_IN_USE, if one answers. */
VpRpcServer *vp_rpc_server_new(const VpRpcOptions *options, VpError **error);

/* The addresses as bound (the port filled in), NULL at the end; borrowed. */
const char *const *vp_rpc_server_addresses(VpRpcServer *server);

/* Takes no new connections and no new calls (UNAVAILABLE), health says NOT_SERVING; streams are ended with UNAVAILABLE; running unary calls have until
 * `deadline_us` to end, then they are cancelled. Blocks until all calls have ended. */
void vp_rpc_server_drain(VpRpcServer *server, gint64 deadline_us);

/* After the drain. NULL is let pass. */
void vp_rpc_server_free(VpRpcServer *server);
