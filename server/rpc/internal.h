/* Inside the runtime: the call, the server, completion-queue tags. Nothing outside server/rpc includes this. */
#pragma once

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <time.h>

#include "base/fair.h"
#include "server/rpc/accounts.h"
#include "server/rpc/connections.h"
#include "server/rpc/contract.h"
#include "server/rpc/reflection_index.h"
#include "server/rpc/rpc.h"

/* The core synchronises a batch's start with its completion in code that ThreadSanitizer does not see: these two tell it. */
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define VP_TAG_RELEASE(tag) __tsan_release(tag)
#define VP_TAG_ACQUIRE(tag) __tsan_acquire(tag)
#else
#define VP_TAG_RELEASE(tag) ((void)(tag))
#define VP_TAG_ACQUIRE(tag) ((void)(tag))
#endif

/* What a completion queue hands back: embedded in the object that the event is about. */
typedef struct VpTag VpTag;
struct VpTag {
    void (*fire)(VpTag *tag, gboolean ok);
};

/* A method as it is served. */
typedef struct VpEndpoint {
    const VpMethod *method;
    VpHandler handler; /* NULL: UNIMPLEMENTED */
    VpRpcFlags flags;
    void *context;
    void *registered; /* the core's handle */
} VpEndpoint;

/* A message on its way out. */
typedef struct VpOutgoing {
    grpc_byte_buffer *buffer;
    gboolean more;
    void (*written)(VpCall *call, void *data, gboolean ok);
    void *data;
    struct VpOutgoing *next;
} VpOutgoing;

struct VpCall {
    gint refs;      /* batches under way, and one for the users together */
    gint user_refs; /* of handlers and services */
    VpRpcServer *server;
    const VpEndpoint *endpoint;
    grpc_call *call;
    gpr_timespec deadline;
    ProtobufCMessage *request; /* of a client stream a copy of the first message; atomic there, as it comes later */
    grpc_byte_buffer *payload; /* the request, until it is unpacked */
    char *authorization;
    grpc_auth_context *auth;
    VpConnection *connection; /* NULL: it is not known */
    VpAccount *account;       /* of its identity; NULL: it was refused before that was known */
    gboolean counted;         /* in the account, and (next) as a stream */
    gboolean counted_stream;
    const char *identity_name;
    void *identity;
    void (*identity_destroy)(void *identity);

    VpTag close_tag; /* RECV_CLOSE_ON_SERVER, alone or with the reply */
    int close_cancelled;
    VpTag write_tag;
    VpTag status_tag;
    VpTag read_tag;
    grpc_byte_buffer *read_buffer;

    pthread_mutex_t mutex;  /* guards what follows */
    pthread_cond_t room;    /* the queue has become shorter, or the call was cancelled */
    gboolean close_watched; /* RECV_CLOSE_ON_SERVER was posted alone, not with the status */
    gboolean closed;        /* and has come */
    gboolean cancelled;
    gboolean initial_sent;
    gboolean ending;      /* the handler has said how the call ends; the gate is being told */
    gboolean ended;       /* and was */
    gboolean status_sent; /* and that is on its way */
    gboolean writing;
    gint64 write_start_us; /* of the write or the status in flight, for the timer of stalled ones */
    VpOutgoing *queue_head;
    VpOutgoing *queue_tail;
    guint queue_length;
    VpError *end_error; /* waits for the queue */
    void (*on_close)(VpCall *call, void *data);
    void *on_close_data;
    void (*on_drain)(VpCall *call, void *data);
    void *on_drain_data;
    gboolean draining; /* on_drain is being called */
    void (*on_read)(VpCall *call, void *data, void *message);
    void *on_read_data;
    void *data;
    void (*data_destroy)(void *data);

    /* Among the server's calls; under the server's mutex. */
    gboolean stream; /* the drain ends it */
    VpCall *prev;
    VpCall *next;
};

/* The call that a tag is embedded in. */
#define CALL_OF(tag, member) ((VpCall *)((char *)(tag)-offsetof(VpCall, member)))

/* ---- call_begin.c ---- */

/* Makes a call of what the core handed over (all of it now the call's). NULL: it was refused, there are too many. On an RPC thread. */
VpCall *vp_call_arrive(VpRpcServer *server, const VpEndpoint *endpoint, grpc_call *core, gpr_timespec deadline,
                       grpc_byte_buffer *payload, char *authorization);

/* Runs it: asks the gate, validates, unpacks, calls the handler. Takes the call. On an RPC thread. */
void vp_call_begin(VpCall *call);

/* ---- call.c ---- */

/* With one reference, the user's; takes `core`. */
VpCall *vp_call_new(VpRpcServer *server, const VpEndpoint *endpoint, grpc_call *core, gpr_timespec deadline);

/* Gives operations to the core; the call is held until `tag` fires. */
void vp_call_start_batch(VpCall *call, const grpc_op *ops, size_t n_ops, VpTag *tag);

/* Learns of the client's going away, for calls that are not answered at once. */
void vp_call_watch_close(VpCall *call);

/* Sends how the call ends, with the reply of a unary one. The caller has set status_sent; nothing else is being sent. */
void vp_call_send_status(VpCall *call, gboolean initial, gboolean close, const VpError *error, grpc_byte_buffer *reply);

/* A message for the core; the slice is taken. */
grpc_byte_buffer *vp_buffer_of_slice(grpc_slice slice);
grpc_byte_buffer *vp_buffer_of_message(const ProtobufCMessage *message);

/* Drops a reference that was taken by counting up `refs`, as batches do. */
void vp_call_release(VpCall *call);

/* Ends a stream because the server stops. */
void vp_call_drain(VpCall *call);

/* Cancels a call whose write or end has been in flight since before `before_us`. */
void vp_call_check_stalled(VpCall *call, gint64 before_us);

/* ---- peer.c ---- */

/* Notes by which connection a call came, and what was known of that when it was made. */
void vp_call_note_peer(VpCall *call);

/* ---- health.c, reflection.c ---- */

extern const VpMethodHandler vp_health_handlers[];
extern const VpMethodHandler vp_reflection_handlers[];

/* Tells the watchers that the server stops serving. */
typedef struct VpHealth VpHealth;
VpHealth *vp_health_new(void);
void vp_health_drain(VpHealth *health);
void vp_health_free(VpHealth *health);

/* ---- server.c ---- */

typedef struct VpWatchdog VpWatchdog;

/* A completion queue and its thread. */
typedef struct VpQueue {
    VpRpcServer *server;
    grpc_completion_queue *cq;
    pthread_t thread;
    gboolean running;
    VpWatchdog *watchdog; /* the rest is for it */
    gint turns;           /* the core gave the thread something to do; atomic */
    gint turns_at_tick;
    timer_t timer;
    gboolean timed;

    VpFair *waiting; /* of VpCall; this and what follows are turns.c's, and the thread's alone */
    guint64 last_connection;
    gint64 changed_us; /* when it was another one */
    guint in_a_row;
    guint events; /* since the last turn */
    gboolean looked;
} VpQueue;

/* What the core hands back when it has shut down. */
typedef struct VpShutdownTag {
    VpTag tag;
    VpRpcServer *server;
} VpShutdownTag;

struct VpRpcServer {
    grpc_server *server;
    grpc_server_credentials *credentials; /* of the unix sockets and plain TCP */
    const VpRpcTls *tls;
    GPtrArray *fetchers; /* of the TLS ports */
    const VpRpcGate *gate;
    gboolean insecure_tcp;
    gboolean tcp; /* some address is HOST:PORT */
    guint socket_mode;
    gint64 socket_group;
    VpContract *contract;
    VpHealth *health;
    pthread_mutex_t reflection_mutex;
    VpReflectionIndex *reflection; /* NULL: nobody has asked yet */
    VpPool *pool;
    VpPool *slow_pool;
    VpLoop *loop;
    guint max_calls;
    guint max_streams;
    VpConnections *connections;
    VpAccounts *accounts;
    VpWatchdog *watchdog;
    guint stalled_write_ms;
    GArray *endpoints; /* of VpEndpoint; fixed once the server runs */
    VpEndpoint unknown;
    VpMethod unknown_method;
    VpQueue *queues;
    guint n_queues;
    GPtrArray *listeners; /* of VpListener */
    GPtrArray *addresses; /* of char *, NULL at the end */
    gboolean started;
    VpShutdownTag shutdown_tag;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    VpCall *calls;
    guint n_calls;
    guint n_handlers; /* that are being called, also for calls that have ended */
    guint n_streams;
    gint64 relief_us; /* when calls were shed last, and those looked for that could make room */
    gboolean relief;  /* they are to be */
    gboolean draining;
    gboolean shut_down;
    VpTimer *sweep;
    gboolean sweeping; /* one is started, or at work */
};

/* Counts a call in. An error: it must be refused, there are too many, or the server stops. To be matched by vp_server_leave() either way. */
VpError *vp_server_enter(VpRpcServer *server, VpCall *call);
void vp_server_leave(VpRpcServer *server, VpCall *call);
/* Around each call of a handler: what that works with is not freed under it. */
void vp_server_handler_begins(VpRpcServer *server);
void vp_server_handler_ended(VpRpcServer *server);
const VpContract *vp_server_contract(const VpRpcServer *server);
/* The threads for a handler of these flags; NULL: the RPC thread itself. */
VpPool *vp_server_pool(const VpRpcServer *server, VpRpcFlags flags);
VpHealth *vp_server_health(VpRpcServer *server);
/* Made at the first call. */
const VpReflectionIndex *vp_server_reflection(VpRpcServer *server);

/* ---- requests.c ---- */

/* Registers the methods of the contract with the core, with their handlers. */
void vp_requests_build(VpRpcServer *server, const VpHandlerTable *tables);
/* Posts requests for a method, or (NULL) for those that nobody knows. */
void vp_requests_post(VpQueue *queue, const VpEndpoint *endpoint);
/* The thread of a VpQueue: runs until the queue is shut down and empty. */
void *vp_queue_run(void *data);

/* ---- turns.c; all on the queue's thread ---- */

/* Begins the call, or has it wait for its turn. Takes it. */
void vp_turns_add(VpQueue *queue, VpCall *call);
gboolean vp_turns_waiting(const VpQueue *queue);
/* The core has nothing to tell: begins some of those that wait. */
void vp_turns_look(VpQueue *queue);
/* The core has told something else. */
void vp_turns_event(VpQueue *queue);
/* By whom turns are taken: the identity, as far as it is known, and the connection. */
guint64 vp_call_group(const VpCall *call);
guint64 vp_call_lane(const VpCall *call);

/* ---- streams.c ---- */

/* Makes a call that has entered a stream, which the drain ends. An error: the drain has begun, or there are too many. */
VpError *vp_server_add_stream(VpRpcServer *server, VpCall *call);
/* Ends the open streams because the server stops. */
void vp_streams_drain(VpRpcServer *server);
/* Has stalled streams looked for from now on. */
void vp_streams_sweep(VpRpcServer *server);
/* Afterwards no sweep looks at the server any more. */
void vp_streams_stop_sweeping(VpRpcServer *server);

/* ---- tls.c ---- */

/* Credentials of one port, that look for newer certificates at each connection; owned by the caller. `tls` outlives the port, and so must
 * `ret_fetcher`, to be freed by g_free(). */
grpc_server_credentials *vp_tls_credentials_new(const VpRpcTls *tls, void **ret_fetcher);

/* ---- watchdog.c ---- */

VpWatchdog *vp_watchdog_new(const VpRpcServer *server, VpError **error);
/* On the queue's own thread: has it watched from now on, and no more. */
void vp_watchdog_watch(VpQueue *queue);
void vp_watchdog_unwatch(VpQueue *queue);
/* After the queues' threads have ended. NULL is let pass. */
void vp_watchdog_free(VpWatchdog *watchdog);

/* ---- listen.c: the unix sockets, which we accept on ourselves to know who calls ---- */

typedef struct VpListener VpListener;

/* Binds and listens, replacing a socket file on which nobody answers. `group` 0: the daemon's own. */
VpListener *vp_listener_new(const char *path, guint mode, gint64 group, VpError **error);

/* Takes a socket that listens already, as its own on success; whoever made it looks after its file. INVALID_ARGUMENT if it is none. */
VpListener *vp_listener_inherit(int fd, VpError **error);

/* The socket's path, borrowed. */
const char *vp_listener_path(const VpListener *listener);

/* Starts accepting; each connection is given to `accepted(data, address, fd)`. */
VpError *vp_listener_start(VpListener *listener, void (*accepted)(void *data, const char *address, int fd), void *data);

/* Stops accepting and removes the socket file; joins the thread. */
void vp_listener_stop(VpListener *listener);
void vp_listener_free(VpListener *listener);
