/*
 * The server: addresses, completion queues and their threads, the requests posted for each method, limits, and the drain.
 *
 * Each method is registered with the core and has some requests posted on each queue; a call takes one and it is posted again at once. RPC threads never
 * block, so a call waits in the core only while all of them are busy.
 */
#include <arpa/inet.h>
#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/rpc/internal.h"

#define POSTED_PER_METHOD 4
#define DEFAULT_MAX_CALLS 20000
#define DEFAULT_MAX_REQUEST_BYTES (4 * 1024 * 1024)
#define DEFAULT_STALLED_WRITE_MS 120000
#define MAX_METADATA_BYTES 16384
#define MAX_STREAMS_PER_CONNECTION 4096
/* What the core may hold for all clients together: a message is gathered before its size is looked at. */
#define MAX_CORE_BYTES (256 * 1024 * 1024)
#define KEEPALIVE_MS 30000
#define KEEPALIVE_TIMEOUT_MS 10000
/* After the grace of a drain everything is cancelled; the core then needs a moment. */
#define CANCEL_GRACE_US (5 * G_USEC_PER_SEC)

typedef struct Queue {
    VpRpcServer *server;
    grpc_completion_queue *cq;
    pthread_t thread;
    gboolean running;
} Queue;

/* A posted request: for one method, or (endpoint NULL) for methods that we do not know. */
typedef struct Slot {
    VpTag tag;
    Queue *queue;
    const VpEndpoint *endpoint;
    grpc_call *call;
    grpc_metadata_array metadata;
    gpr_timespec deadline;
    grpc_byte_buffer *payload;
    grpc_call_details details;
} Slot;

typedef struct ShutdownTag {
    VpTag tag;
    VpRpcServer *server;
} ShutdownTag;

struct VpRpcServer {
    grpc_server *server;
    grpc_server_credentials *credentials;
    VpContract *contract;
    VpHealth *health;
    VpPool *pool;
    VpLoop *loop;
    guint max_calls;
    guint stalled_write_ms;
    GArray *endpoints; /* of VpEndpoint; fixed once the server runs */
    VpEndpoint unknown;
    VpMethod unknown_method;
    Queue *queues;
    guint n_queues;
    GPtrArray *listeners; /* of VpListener */
    GPtrArray *addresses; /* of char *, NULL at the end */
    gboolean started;
    ShutdownTag shutdown_tag;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    VpCall *streams;
    guint n_calls;
    gboolean draining;
    gboolean shut_down;
    VpTimer *sweep;
    gboolean sweeping; /* one is started, or at work */
};

/* ---- what calls ask of the server ---- */

const VpContract *vp_server_contract(const VpRpcServer *server)
{
    return server->contract;
}

VpPool *vp_server_pool(const VpRpcServer *server)
{
    return server->pool;
}

VpHealth *vp_server_health(VpRpcServer *server)
{
    return server->health;
}

void vp_server_enter(VpRpcServer *server, VpError **ret_error)
{
    VP_LOCK(&server->mutex);
    server->n_calls++;
    if (server->draining)
        *ret_error = vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon is stopping; connect again later");
    else if (server->n_calls > server->max_calls)
        *ret_error =
            vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_MANY_CALLS",
                                        "%u calls are in flight, which is the limit; try again", server->max_calls),
                           1000);
}

void vp_server_leave(VpRpcServer *server)
{
    VP_LOCK(&server->mutex);
    server->n_calls--;
    if (server->draining)
        pthread_cond_broadcast(&server->changed);
}

gboolean vp_server_add_stream(VpRpcServer *server, VpCall *call)
{
    VP_LOCK(&server->mutex);
    if (server->draining)
        return FALSE;
    call->listed = TRUE;
    call->next = server->streams;
    if (call->next)
        call->next->prev = call;
    server->streams = call;
    return TRUE;
}

void vp_server_remove_stream(VpRpcServer *server, VpCall *call)
{
    /* Only the thread that lists a call and the one that ends it look at this, one after the other. */
    if (!call->listed)
        return;
    VP_LOCK(&server->mutex);
    call->listed = FALSE;
    if (call->prev)
        call->prev->next = call->next;
    else
        server->streams = call->next;
    if (call->next)
        call->next->prev = call->prev;
}

/* The open streams, each held, so that they can be worked on without the lock. */
static GPtrArray *hold_streams(VpRpcServer *server)
{
    GPtrArray *streams = g_ptr_array_new();

    VP_LOCK(&server->mutex);
    for (VpCall *call = server->streams; call; call = call->next) {
        g_atomic_int_inc(&call->refs);
        g_ptr_array_add(streams, call);
    }
    return streams;
}

/* ---- posted requests ---- */

static void slot_free(Slot *slot)
{
    grpc_metadata_array_destroy(&slot->metadata);
    if (!slot->endpoint)
        grpc_call_details_destroy(&slot->details);
    g_free(slot);
}

static void slot_post(Slot *slot)
{
    grpc_server *server = slot->queue->server->server;
    grpc_completion_queue *cq = slot->queue->cq;
    grpc_call_error result;

    slot->metadata.count = 0;
    VP_TAG_RELEASE(&slot->tag);
    if (slot->endpoint)
        result = grpc_server_request_registered_call(server, slot->endpoint->registered, &slot->call, &slot->deadline,
                                                     &slot->metadata,
                                                     slot->endpoint->method->client_streaming ? NULL : &slot->payload,
                                                     cq, cq, &slot->tag);
    else
        result = grpc_server_request_call(server, &slot->call, &slot->details, &slot->metadata, cq, cq, &slot->tag);
    if (result != GRPC_CALL_OK) {
        vp_log(VP_LOG_ERROR, "cannot take calls: %s", grpc_call_error_to_string(result));
        slot_free(slot);
    }
}

static void slot_fired(VpTag *tag, gboolean ok)
{
    Slot *slot = (Slot *)tag;
    VpRpcServer *server = slot->queue->server;

    /* The server is shutting down. */
    if (!ok) {
        slot_free(slot);
        return;
    }

    grpc_call *call = g_steal_pointer(&slot->call);
    grpc_byte_buffer *payload = g_steal_pointer(&slot->payload);
    const VpEndpoint *endpoint = slot->endpoint;
    gpr_timespec deadline = slot->deadline;

    if (!endpoint) {
        endpoint = &server->unknown;
        deadline = slot->details.deadline;
        grpc_call_details_destroy(&slot->details);
        grpc_call_details_init(&slot->details);
    }
    slot_post(slot);
    vp_call_begin(server, endpoint, call, deadline, payload);
}

static void post_requests(Queue *queue, const VpEndpoint *endpoint)
{
    for (guint i = 0; i < POSTED_PER_METHOD; i++) {
        Slot *slot = g_new0(Slot, 1);

        slot->tag.fire = slot_fired;
        slot->queue = queue;
        slot->endpoint = endpoint;
        grpc_metadata_array_init(&slot->metadata);
        if (!endpoint)
            grpc_call_details_init(&slot->details);
        slot_post(slot);
    }
}

static void *queue_run(void *data)
{
    Queue *queue = data;

    for (;;) {
        const grpc_event event = grpc_completion_queue_next(queue->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        VpTag *tag = event.tag;
        VP_TAG_ACQUIRE(tag);
        tag->fire(tag, event.success != 0);
    }
}

/* ---- building ---- */

static const VpMethodHandler *find_handler(const VpHandlerTable *tables, const char *method, void **ret_context)
{
    for (; tables && tables->handlers; tables++) {
        for (const VpMethodHandler *handler = tables->handlers; handler->method; handler++) {
            if (g_str_equal(handler->method, method)) {
                *ret_context = tables->context;
                return handler;
            }
        }
    }
    return NULL;
}

static void build_endpoints(VpRpcServer *server, const VpHandlerTable *tables)
{
    static const VpHandlerTable own[] = {{vp_health_handlers, NULL}, {vp_reflection_handlers, NULL}, {0}};
    const GArray *methods = vp_contract_methods(server->contract);

    server->endpoints = g_array_sized_new(FALSE, TRUE, sizeof(VpEndpoint), methods->len);
    for (guint i = 0; i < methods->len; i++) {
        VpEndpoint endpoint = {.method = &g_array_index(methods, VpMethod, i)};
        const VpMethodHandler *handler = find_handler(own, endpoint.method->method, &endpoint.context);

        if (!handler)
            handler = find_handler(tables, endpoint.method->method, &endpoint.context);
        if (handler) {
            endpoint.handler = handler->handler;
            endpoint.flags = handler->flags;
        }
        endpoint.registered =
            grpc_server_register_method(server->server, endpoint.method->path, NULL,
                                        endpoint.method->client_streaming ? GRPC_SRM_PAYLOAD_NONE
                                                                          : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
                                        0);
        g_array_append_val(server->endpoints, endpoint);
    }
    server->unknown_method = (VpMethod){.method = "a method that is not in the contract", .client_streaming = TRUE};
    server->unknown.method = &server->unknown_method;
}

static grpc_arg int_arg(const char *key, gint value)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static grpc_server *make_core_server(const VpRpcOptions *options)
{
    const gsize max_request = options->max_request_bytes ? options->max_request_bytes : DEFAULT_MAX_REQUEST_BYTES;
    grpc_resource_quota *quota = grpc_resource_quota_create("virtplaned");
    grpc_arg args[] = {
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (gint)max_request),
        int_arg(GRPC_ARG_MAX_METADATA_SIZE, MAX_METADATA_BYTES),
        int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, MAX_STREAMS_PER_CONNECTION),
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000),
        /* Two daemons on one port would share its connections in silence. */
        int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
        /* The core would unfold 4 MiB into 4 GiB before it looks at the size. */
        int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE),
        {
            .type = GRPC_ARG_POINTER,
            .key = (char *)GRPC_ARG_RESOURCE_QUOTA,
            .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()},
        },
    };
    const grpc_channel_args channel_args = {.num_args = G_N_ELEMENTS(args), .args = args};

    grpc_resource_quota_resize(quota, MAX_CORE_BYTES);
    grpc_server *server = grpc_server_create(&channel_args, NULL);
    grpc_resource_quota_unref(quota);
    return server;
}

/* "127.example.org" is a name, and anyone's. */
static gboolean is_loopback(const char *host)
{
    struct in_addr address;

    return g_str_equal(host, "localhost") || g_str_equal(host, "[::1]") ||
           (inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET);
}

static VpError *add_tcp(VpRpcServer *server, const char *address)
{
    const char *colon = strrchr(address, ':');

    /* gRPC takes port 99999 for 34463, and none for 443. */
    if (!colon || colon == address || !g_ascii_string_to_unsigned(colon + 1, 10, 0, G_MAXUINT16, NULL, NULL))
        return vp_error_new(VP_INVALID_ARGUMENT, "LISTEN_FAILED",
                            "\"%s\" is no address: unix:PATH or HOST:PORT is one, with a port from 0 (any) to 65535",
                            address);
    g_autofree char *host = g_strndup(address, (gsize)(colon - address));
    if (!is_loopback(host))
        return vp_error_new(
            VP_UNIMPLEMENTED, "TLS_NOT_BUILT_YET",
            "%s is no loopback address; addresses that others can reach need TLS, which this version does not have",
            address);
    const int port = grpc_server_add_http2_port(server->server, address, server->credentials);
    if (port <= 0)
        return vp_error_new(VP_FAILED_PRECONDITION, "LISTEN_FAILED", "cannot listen on %s; is another program there?",
                            address);
    vp_log(VP_LOG_WARNING, "every user of this host can use the daemon by %s:%d: plain TCP does not tell who calls",
           host, port);
    g_ptr_array_add(server->addresses, g_strdup_printf("%s:%d", host, port));
    return NULL;
}

static VpError *add_address(VpRpcServer *server, const char *address)
{
    VpError *error = NULL;

    if (!g_str_has_prefix(address, "unix:"))
        return add_tcp(server, address);
    VpListener *listener = vp_listener_new(address + strlen("unix:"), &error);
    if (!listener)
        return error;
    g_ptr_array_add(server->listeners, listener);
    g_ptr_array_add(server->addresses, g_strdup(address));
    return NULL;
}

static void accepted(void *data, int fd)
{
    VpRpcServer *server = data;

    grpc_server_add_channel_from_fd(server->server, fd, server->credentials);
}

static void sweep_stalled(void *data);

static void sweep_again(VpRpcServer *server)
{
    VP_LOCK(&server->mutex);
    server->sweeping = !server->draining;
    if (server->sweeping)
        server->sweep = vp_timer_start(server->loop, MAX(server->stalled_write_ms / 4, 10), sweep_stalled, server);
    else
        pthread_cond_broadcast(&server->changed);
}

/* Keepalive does not find a reader that is frozen with a full socket: the ping waits behind the blocked write. */
static void sweep_stalled(void *data)
{
    VpRpcServer *server = data;
    const gint64 before_us = vp_now_us() - (gint64)server->stalled_write_ms * 1000;
    g_autoptr(GPtrArray) streams = hold_streams(server);

    pthread_mutex_lock(&server->mutex);
    VpTimer *fired = g_steal_pointer(&server->sweep);
    pthread_mutex_unlock(&server->mutex);
    for (guint i = 0; i < streams->len; i++) {
        vp_call_check_stalled(streams->pdata[i], before_us);
        vp_call_release(streams->pdata[i]);
    }
    vp_timer_cancel(fired);
    sweep_again(server);
}

/* Afterwards no sweep looks at the server any more. */
static void stop_sweeping(VpRpcServer *server)
{
    pthread_mutex_lock(&server->mutex);
    server->draining = TRUE;
    VpTimer *sweep = g_steal_pointer(&server->sweep);
    pthread_mutex_unlock(&server->mutex);
    const gboolean cancelled = vp_timer_cancel(sweep);

    VP_LOCK(&server->mutex);
    if (cancelled)
        server->sweeping = FALSE;
    /* One is at work on the loop's thread; it does not block. */
    while (server->sweeping)
        pthread_cond_wait(&server->changed, &server->mutex);
}

static VpError *start(VpRpcServer *server, const VpRpcOptions *options)
{
    VpError *error = NULL;

    server->contract = vp_contract_new(&error);
    if (!server->contract)
        return error;

    server->n_queues = options->threads ? options->threads : MAX(1, g_get_num_processors() / 2);
    server->queues = g_new0(Queue, server->n_queues);
    for (guint i = 0; i < server->n_queues; i++) {
        server->queues[i].server = server;
        server->queues[i].cq = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server->server, server->queues[i].cq, NULL);
    }
    build_endpoints(server, options->tables);
    for (const char *const *address = options->listen; *address; address++) {
        error = add_address(server, *address);
        if (error)
            return error;
    }
    g_ptr_array_add(server->addresses, NULL);

    grpc_server_start(server->server);
    server->started = TRUE;
    for (guint i = 0; i < server->n_queues; i++) {
        g_autofree char *name = g_strdup_printf("vp-rpc-%u", i);

        for (guint e = 0; e < server->endpoints->len; e++)
            post_requests(&server->queues[i], &g_array_index(server->endpoints, VpEndpoint, e));
        post_requests(&server->queues[i], NULL);
        error = vp_thread_start(&server->queues[i].thread, name, queue_run, &server->queues[i]);
        if (error)
            return error;
        server->queues[i].running = TRUE;
    }
    for (guint i = 0; i < server->listeners->len; i++) {
        error = vp_listener_start(server->listeners->pdata[i], accepted, server);
        if (error)
            return error;
    }
    sweep_again(server);
    return NULL;
}

VpRpcServer *vp_rpc_server_new(const VpRpcOptions *options, VpError **error)
{
    VpRpcServer *server = g_new0(VpRpcServer, 1);

    /* Its own logging goes to stderr without our form; what matters comes back to us as errors. */
    setenv("GRPC_VERBOSITY", "NONE", /* overwrite= */ 0);
    grpc_init();
    server->server = make_core_server(options);
    server->credentials = grpc_insecure_server_credentials_create();
    server->health = vp_health_new();
    server->pool = options->pool;
    server->loop = options->loop;
    server->max_calls = options->max_calls ? options->max_calls : DEFAULT_MAX_CALLS;
    server->stalled_write_ms = options->stalled_write_ms ? options->stalled_write_ms : DEFAULT_STALLED_WRITE_MS;
    server->listeners = g_ptr_array_new_with_free_func((GDestroyNotify)vp_listener_free);
    server->addresses = g_ptr_array_new_with_free_func(g_free);
    pthread_mutex_init(&server->mutex, NULL);
    vp_cond_init(&server->changed);

    VpError *failure = start(server, options);
    if (failure) {
        *error = failure;
        vp_rpc_server_drain(server, 0);
        vp_rpc_server_free(server);
        return NULL;
    }
    return server;
}

const char *const *vp_rpc_server_addresses(VpRpcServer *server)
{
    return (const char *const *)server->addresses->pdata;
}

/* ---- the end ---- */

static void shutdown_fired(VpTag *tag, gboolean ok)
{
    VpRpcServer *server = ((ShutdownTag *)tag)->server;

    (void)ok;
    VP_LOCK(&server->mutex);
    server->shut_down = TRUE;
    pthread_cond_broadcast(&server->changed);
}

static gboolean wait_shut_down(VpRpcServer *server, gint64 deadline_us)
{
    gboolean in_time = TRUE;

    VP_LOCK(&server->mutex);
    while (!server->shut_down && in_time)
        in_time = vp_cond_wait_until(&server->changed, &server->mutex, deadline_us);
    return server->shut_down;
}

static void drain_streams(VpRpcServer *server)
{
    g_autoptr(GPtrArray) streams = hold_streams(server);

    for (guint i = 0; i < streams->len; i++) {
        vp_call_drain(streams->pdata[i]);
        vp_call_release(streams->pdata[i]);
    }
}

void vp_rpc_server_drain(VpRpcServer *server, gint64 deadline_us)
{
    for (guint i = 0; i < server->listeners->len; i++)
        vp_listener_stop(server->listeners->pdata[i]);
    vp_health_drain(server->health);
    stop_sweeping(server);

    if (server->n_queues == 0)
        return;
    /* From here on the core refuses new calls on the connections that there are. It wants to be told too if it was never started, for the ports that
     * it has bound. */
    server->shutdown_tag = (ShutdownTag){.tag.fire = shutdown_fired, .server = server};
    VP_TAG_RELEASE(&server->shutdown_tag);
    grpc_server_shutdown_and_notify(server->server, server->queues[0].cq, &server->shutdown_tag);
    if (!server->queues[0].running)
        return; /* the tag comes when the free empties the queue */
    drain_streams(server);
    if (wait_shut_down(server, deadline_us))
        return;
    vp_log(VP_LOG_WARNING, "calls that did not end in time are cancelled");
    grpc_server_cancel_all_calls(server->server);
    if (!wait_shut_down(server, vp_now_us() + CANCEL_GRACE_US))
        vp_log(VP_LOG_ERROR, "some calls have not ended; a handler keeps them");
}

void vp_rpc_server_free(VpRpcServer *server)
{
    if (!server)
        return;

    for (guint i = 0; i < server->n_queues; i++)
        grpc_completion_queue_shutdown(server->queues[i].cq);
    for (guint i = 0; i < server->n_queues; i++) {
        if (server->queues[i].running)
            pthread_join(server->queues[i].thread, NULL);
        else
            queue_run(&server->queues[i]);
    }
    grpc_server_destroy(server->server);
    for (guint i = 0; i < server->n_queues; i++)
        grpc_completion_queue_destroy(server->queues[i].cq);
    grpc_server_credentials_release(server->credentials);
    grpc_shutdown_blocking();

    g_ptr_array_unref(server->listeners);
    g_ptr_array_unref(server->addresses);
    if (server->endpoints)
        g_array_unref(server->endpoints);
    vp_contract_free(server->contract);
    vp_health_free(server->health);
    g_free(server->queues);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->mutex);
    g_free(server);
}
