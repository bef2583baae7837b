/*
 * The RPC runtime on gRPC C core, as services see it: a table of handlers, and calls to answer. This folder alone includes <grpc/...>.
 *
 * What a method takes and answers, whether it streams, and the bounds of its fields come from the descriptors (proto/descriptors.h); a
 * table names the handlers. A method without one answers UNIMPLEMENTED. Before a handler runs, the request was checked against its
 * descriptor (server/rpc/validate.h) and unpacked, and the gate has let it pass.
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
#include "server/rpc/accounts.h"
#include "server/rpc/connections.h"
#include "server/rpc/contract.h"
#include "server/rpc/limits.h"

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
    const char *identity; /* as the gate names it, for as long as the call lives; NULL without a gate */
    char text[160];       /* for people and logs: "uid=1000 pid=4711", "cn:alice ipv4:192.0.2.1:40112" */
} VpCaller;

/* What a call shows of who makes it; what it points to lives as long as the call. */
typedef struct VpCredentials {
    gboolean local; /* came over the unix socket */
    guint32 uid;
    guint32 gid;
    gint32 pid;
    gboolean tls;
    const char *certificate; /* the client's, as PEM, verified against the CA at the handshake; NULL: none */
    gsize certificate_length;
    const char *chain; /* what it sent along; NULL: nothing */
    gsize chain_length;
    const char *authorization; /* the header of this name; NULL: none */
} VpCredentials;

VpCall *vp_call_ref(VpCall *call);
void vp_call_unref(VpCall *call);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpCall, vp_call_unref)

/* ---- what a handler may ask; any thread ---- */

/* Who calls. */
void vp_call_caller(VpCall *call, VpCaller *ret_caller);
/* What shows who calls; asks the kernel. */
void vp_call_credentials(VpCall *call, VpCredentials *ret_credentials);
/* The supplementary groups of a local caller, of gid_t; owned by the caller. */
GArray *vp_call_groups(VpCall *call);
/* The method that is called. */
const VpMethod *vp_call_method(VpCall *call);
/* What its identity may use; all 0 without a gate that says so. */
VpLimits vp_call_limits(VpCall *call);
/* What the gate has noted of the caller, or NULL. */
void *vp_call_identity(VpCall *call);
/* Notes it, with the name that vp_call_caller() tells (borrowed from `identity`). For the gate, once, before its first function returns. */
void vp_call_set_identity(VpCall *call, const char *name, void *identity, void (*destroy)(void *identity));
/* What the gate keeps with the connection over a unix socket that the call has come by, as who is at its other end does not change: vp_call_keep() gives
 * `kept` to the connection, which destroys it at its end; if another call was first, at once. vp_call_kept(): NULL if there is none; lives as long as
 * the call. Any thread. */
void vp_call_keep(VpCall *call, void *kept, void (*destroy)(void *kept));
void *vp_call_kept(VpCall *call);
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

/* ---- the gate: what each call passes before its handler sees it; on RPC threads, must not block ---- */

typedef struct VpRpcGate {
    /* Before anything of the request is looked at: says who calls (vp_call_set_identity()). An error refuses the call. */
    VpError *(*enter)(void *data, VpCall *call, const VpMethod *method);
    /* With the request (of a client stream, its first message), checked and unpacked. */
    VpError *(*permit)(void *data, VpCall *call, const VpMethod *method, const void *request);
    /* Whether an open stream would still be let pass; see vp_rpc_server_recheck(). `request` may be NULL. Any thread. */
    VpError *(*recheck)(void *data, VpCall *call, const VpMethod *method, const void *request);
    /* Once for each call, when it is decided how it ends and before the client is told. `reply` is NULL but for unary calls that were done. Any thread. */
    void (*ended)(void *data, VpCall *call, const VpMethod *method, const VpError *error, const void *reply);
    /* What the identity of a call that was let in may use; asked now and then. NULL, with the next two: there are no such limits. */
    void (*limits)(void *data, VpCall *call, VpLimits *ret_limits);
    /* The same for a client of the unix socket that has not called yet, and by what name it will (owned by the caller). Any thread. */
    void (*local_limits)(void *data, const VpCredentials *credentials, const GArray *groups, VpLimits *ret_limits);
    char *(*local_name)(void *data, const VpCredentials *credentials);
    void *data;
} VpRpcGate;

/* ---- the server ---- */

/* PEM texts. */
typedef struct VpRpcCertificates {
    const char *ca; /* who signs clients */
    const char *certificate;
    const char *key;
} VpRpcCertificates;

/* Where the server finds its certificates. */
typedef struct VpRpcTls {
    /* FALSE: those of `*generation` are still the ones to use. Else calls `use(use_data, ...)` and sets `*generation`. Called for each new connection, on
     * threads of the core; must not block. */
    gboolean (*fetch)(void *data, guint64 *generation,
                      void (*use)(void *use_data, const VpRpcCertificates *certificates), void *use_data);
    void *data;
    gboolean certificate_optional; /* for clients with tokens; one that is shown must be right all the same */
} VpRpcTls;

/* What VpRpcOptions mean by 0. */
#define VP_RPC_MAX_CALLS 20000
#define VP_RPC_MAX_STREAMS 10000
#define VP_RPC_MAX_CONNECTIONS 2000

typedef struct VpRpcOptions {
    const char *const *listen; /* "unix:PATH", "HOST:PORT" (port 0: any), NULL at the end */
    const int *sockets;        /* listening unix sockets that the daemon was started with, -1 at the end; NULL: none */
    guint socket_mode;         /* of the sockets of unix:PATH; 0: 0600 */
    gint64 socket_group;       /* and their group; 0: the daemon's own */
    const VpRpcTls *tls;       /* for HOST:PORT; borrowed. NULL: none, and then HOST:PORT needs insecure_tcp */
    gboolean insecure_tcp;     /* HOST:PORT, of the loopback alone, without TLS */
    const VpRpcGate *gate;     /* borrowed; NULL: all calls pass */
    guint threads;             /* RPC threads; 0: cores/2, at least 1 */
    guint max_calls;           /* calls in flight; more are shed with RESOURCE_EXHAUSTED. 0: 20,000 */
    guint max_streams;         /* of them, streams. 0: 10,000 */
    /* Over unix sockets, and as many by TCP. 0: 2,000. Never more than half of the descriptors of the process, by TCP a quarter. */
    guint max_connections;
    guint max_calls_per_second; /* of all clients together. 0: no limit */
    gsize max_request_bytes;    /* 0: 4 MiB */
    VpPool *pool;               /* for VP_RPC_WORKER handlers */
    VpPool *slow_pool;          /* for VP_RPC_SLOW handlers */
    VpLoop *loop;               /* for the timer that finds stalled writes */
    guint
        stalled_write_ms; /* a stream whose reader takes nothing for so long is ended with RESOURCE_EXHAUSTED. 0: 120,000 */
    const VpHandlerTable *tables; /* ends with NULL handlers; health and reflection are the runtime's own */
} VpRpcOptions;

/* Binds the addresses and answers. A stale socket file (nobody answers) is replaced; FAILED_PRECONDITION, reason ADDRESS_IN_USE, if one answers. */
VpRpcServer *vp_rpc_server_new(const VpRpcOptions *options, VpError **error);

/* The addresses as bound (the port filled in), NULL at the end; borrowed. */
const char *const *vp_rpc_server_addresses(VpRpcServer *server);

/* The connections that are open; borrowed. */
VpConnections *vp_rpc_server_connections(VpRpcServer *server);

/* What the identities use: who comes by another way than a call is counted there as well. Borrowed; lives as long as the server. */
VpAccounts *vp_rpc_server_accounts(VpRpcServer *server);

/* Asks the gate about each open stream again, and ends those that it does not let pass any more; limits are asked for anew, too. Any thread. */
void vp_rpc_server_recheck(VpRpcServer *server);

/* Takes no new connections and no new calls (UNAVAILABLE), health says NOT_SERVING; streams are ended with UNAVAILABLE; running unary calls have until
 * `deadline_us` to end, then they are cancelled. Blocks until all calls have ended, or some seconds more, and no handler runs. FALSE: some handler runs on, as
 * one that waits for a file system that does not answer; then neither the server nor what its handlers work with may be freed. */
gboolean vp_rpc_server_drain(VpRpcServer *server, gint64 deadline_us);

/* After the drain. NULL is let pass. */
void vp_rpc_server_free(VpRpcServer *server);
