/*
 * The server: its core, addresses, completion queues and their threads, limits, and the drain. RPC threads never block, so a call waits in the core only
 * while all of them are busy. How calls come in is in requests.c, the open streams are in streams.c.
 */
#include <arpa/inet.h>
#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/rpc/accept.h"
#include "server/rpc/internal.h"

#define DEFAULT_MAX_REQUEST_BYTES (4 * 1024 * 1024)
#define DEFAULT_STALLED_WRITE_MS 120000
#define MAX_METADATA_BYTES 16384
#define MAX_STREAMS_PER_CONNECTION 1024
#define HANDSHAKE_MS 10000
/* What the core may hold for all clients together: a message is gathered before its size is looked at. */
#define MAX_CORE_BYTES (256 * 1024 * 1024)
#define KEEPALIVE_MS 30000
#define KEEPALIVE_TIMEOUT_MS 10000
/* After the grace of a drain everything is cancelled; the core then needs a moment. */
#define CANCEL_GRACE_US (5 * G_USEC_PER_SEC)

/* ---- what calls ask of the server ---- */

const VpContract *vp_server_contract(const VpRpcServer *server)
{
    return server->contract;
}

VpPool *vp_server_pool(const VpRpcServer *server, VpRpcFlags flags)
{
    return flags & VP_RPC_SLOW ? server->slow_pool : flags & VP_RPC_WORKER ? server->pool : NULL;
}

VpHealth *vp_server_health(VpRpcServer *server)
{
    return server->health;
}

const VpReflectionIndex *vp_server_reflection(VpRpcServer *server)
{
    VP_LOCK(&server->reflection_mutex);
    if (!server->reflection)
        server->reflection = vp_reflection_index_new();
    return server->reflection;
}

/* ---- building ---- */

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
        int_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS),
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

static int add_tls(VpRpcServer *server, const char *address)
{
    void *fetcher = NULL;
    grpc_server_credentials *credentials = vp_tls_credentials_new(server->tls, &fetcher);
    const int port = grpc_server_add_http2_port(server->server, address, credentials);

    grpc_server_credentials_release(credentials);
    g_ptr_array_add(server->fetchers, fetcher);
    return port;
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
    const gboolean plain = !server->tls;
    if (plain && !server->insecure_tcp)
        return vp_error_new(VP_FAILED_PRECONDITION, "TLS_NOT_SET_UP",
                            "%s needs certificates: name them in [tls] of the configuration (vpctl pki makes some); "
                            "--insecure-tcp opens the loopback to every user of this host instead",
                            address);
    if (plain && !is_loopback(host))
        return vp_error_new(
            VP_FAILED_PRECONDITION, "TLS_NOT_SET_UP",
            "%s is no loopback address; what others can reach needs certificates, named in [tls] of the "
            "configuration (vpctl pki makes some)",
            address);
    const int port =
        plain ? grpc_server_add_http2_port(server->server, address, server->credentials) : add_tls(server, address);
    server->tcp = TRUE;
    if (port <= 0)
        return vp_error_new(VP_FAILED_PRECONDITION, "LISTEN_FAILED", "cannot listen on %s; is another program there?",
                            address);
    if (plain)
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
    VpListener *listener =
        vp_listener_new(address + strlen("unix:"), server->socket_mode, server->socket_group, &error);
    if (!listener)
        return error;
    g_ptr_array_add(server->listeners, listener);
    g_ptr_array_add(server->addresses, g_strdup(address));
    return NULL;
}

static VpError *inherit_socket(VpRpcServer *server, int fd)
{
    VpError *error = NULL;
    VpListener *listener = vp_listener_inherit(fd, &error);

    if (!listener)
        return error;
    g_ptr_array_add(server->listeners, listener);
    g_ptr_array_add(server->addresses, g_strdup_printf("unix:%s", vp_listener_path(listener)));
    return NULL;
}

/* What to ask for the limits of a local client's identity. */
typedef struct LocalClient {
    const VpRpcGate *gate;
    VpCredentials credentials;
    VpPeer peer;
} LocalClient;

static void ask_local_limits(void *data, VpLimits *ret_limits)
{
    const LocalClient *client = data;

    client->gate->local_limits(client->gate->data, &client->credentials, client->peer.groups, ret_limits);
}

/* The account of whoever is at the other end, so that its connections count before it calls; NULL: none is kept. */
static VpAccount *local_account(const VpRpcServer *server, int fd)
{
    LocalClient client = {.gate = server->gate, .credentials.local = TRUE};

    if (!server->gate || !server->gate->local_limits || !vp_connection_ask_peer(fd, &client.peer))
        return NULL;
    client.credentials.uid = client.peer.credentials.uid;
    client.credentials.gid = client.peer.credentials.gid;
    client.credentials.pid = client.peer.credentials.pid;
    g_autofree char *name = server->gate->local_name(server->gate->data, &client.credentials);
    VpAccount *account = vp_accounts_get(server->accounts, name, ask_local_limits, &client);
    g_array_unref(client.peer.groups);
    return account;
}

static gboolean admit_local(VpRpcServer *server, const char *address, int fd)
{
    VpAccount *account = local_account(server, fd);
    const gboolean admitted = vp_connections_add(server->connections, fd, address, account);

    vp_account_unref(account);
    return admitted;
}

/* Which of our addresses a connection by TCP has come to. */
static const char *address_of(const VpRpcServer *server, int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } own = {.in6 = {0}};
    socklen_t length = sizeof(own);

    if (getsockname(fd, &own.any, &length) < 0)
        return NULL;
    const guint port = ntohs(own.any.sa_family == AF_INET ? own.in.sin_port : own.in6.sin6_port);
    g_autofree char *suffix = g_strdup_printf(":%u", port);
    for (const char *const *address = (const char *const *)server->addresses->pdata; *address; address++) {
        if (!g_str_has_prefix(*address, "unix:") && g_str_has_suffix(*address, suffix))
            return *address;
    }
    return NULL;
}

static gboolean admit_tcp(void *data, int fd, const struct sockaddr *peer)
{
    const VpRpcServer *server = data;
    const char *address = address_of(server, fd);

    /* Not one of ours, though in this process. */
    return !address || vp_connections_add_tcp(server->connections, fd, peer, address);
}

static void accepted(void *data, const char *address, int fd)
{
    VpRpcServer *server = data;

    if (admit_local(server, address, fd))
        grpc_server_add_channel_from_fd(server->server, fd, server->credentials);
    else
        close(fd);
}

static VpError *start(VpRpcServer *server, const VpRpcOptions *options)
{
    VpError *error = NULL;

    server->contract = vp_contract_new(&error);
    if (!server->contract)
        return error;

    server->n_queues = options->threads ? options->threads : MAX(1, g_get_num_processors() / 2);
    server->queues = g_new0(VpQueue, server->n_queues);
    for (guint i = 0; i < server->n_queues; i++) {
        server->queues[i].server = server;
        server->queues[i].waiting = vp_fair_new();
        server->queues[i].cq = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server->server, server->queues[i].cq, NULL);
    }
    vp_requests_build(server, options->tables);
    for (const char *const *address = options->listen; *address; address++) {
        error = add_address(server, *address);
        if (error)
            return error;
    }
    for (const int *fd = options->sockets; fd && *fd >= 0; fd++) {
        error = inherit_socket(server, *fd);
        if (error)
            return error;
    }
    g_ptr_array_add(server->addresses, NULL);

    server->watchdog = vp_watchdog_new(server, &error);
    if (error)
        return error;
    if (server->tcp)
        vp_accept_watch(admit_tcp, server);
    grpc_server_start(server->server);
    server->started = TRUE;
    for (guint i = 0; i < server->n_queues; i++) {
        g_autofree char *name = g_strdup_printf("vp-rpc-%u", i);

        for (guint e = 0; e < server->endpoints->len; e++)
            vp_requests_post(&server->queues[i], &g_array_index(server->endpoints, VpEndpoint, e));
        vp_requests_post(&server->queues[i], NULL);
        server->queues[i].watchdog = server->watchdog;
        error = vp_thread_start(&server->queues[i].thread, name, vp_queue_run, &server->queues[i]);
        if (error)
            return error;
        server->queues[i].running = TRUE;
    }
    for (guint i = 0; i < server->listeners->len; i++) {
        error = vp_listener_start(server->listeners->pdata[i], accepted, server);
        if (error)
            return error;
    }
    vp_streams_sweep(server);
    return NULL;
}

VpRpcServer *vp_rpc_server_new(const VpRpcOptions *options, VpError **error)
{
    VpRpcServer *server = g_new0(VpRpcServer, 1);

    /* Its own logging goes to stderr without our form; what matters comes back to us as errors. */
    setenv("GRPC_VERBOSITY", "NONE", /* overwrite= */ 0);
    /* TLS 1.3 alone: the core has no setting for it, but for the suites of 1.2, and this one needs a key that both sides know beforehand, which
     * nobody has. Those of 1.3 are not touched by it. */
    setenv("GRPC_SSL_CIPHER_SUITES", "PSK-AES256-GCM-SHA384", /* overwrite= */ 1);
    grpc_init();
    server->server = make_core_server(options);
    server->credentials = grpc_insecure_server_credentials_create();
    server->tls = options->tls;
    server->fetchers = g_ptr_array_new_with_free_func(g_free);
    server->gate = options->gate;
    server->insecure_tcp = options->insecure_tcp;
    server->socket_mode = options->socket_mode ? options->socket_mode : 0600;
    server->socket_group = options->socket_group;
    server->health = vp_health_new();
    server->pool = options->pool;
    server->slow_pool = options->slow_pool;
    server->loop = options->loop;
    server->max_calls = options->max_calls ? options->max_calls : VP_RPC_MAX_CALLS;
    server->max_streams = options->max_streams ? options->max_streams : VP_RPC_MAX_STREAMS;
    server->connections =
        vp_connections_new(options->max_connections ? options->max_connections : VP_RPC_MAX_CONNECTIONS);
    server->accounts = vp_accounts_new(options->max_calls_per_second);
    server->stalled_write_ms = options->stalled_write_ms ? options->stalled_write_ms : DEFAULT_STALLED_WRITE_MS;
    server->listeners = g_ptr_array_new_with_free_func((GDestroyNotify)vp_listener_free);
    server->addresses = g_ptr_array_new_with_free_func(g_free);
    pthread_mutex_init(&server->mutex, NULL);
    pthread_mutex_init(&server->reflection_mutex, NULL);
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

VpAccounts *vp_rpc_server_accounts(VpRpcServer *server)
{
    return server->accounts;
}

VpConnections *vp_rpc_server_connections(VpRpcServer *server)
{
    return server->connections;
}

const char *const *vp_rpc_server_addresses(VpRpcServer *server)
{
    return (const char *const *)server->addresses->pdata;
}

/* ---- the end ---- */

static void shutdown_fired(VpTag *tag, gboolean ok)
{
    VpRpcServer *server = ((VpShutdownTag *)tag)->server;

    (void)ok;
    VP_LOCK(&server->mutex);
    server->shut_down = TRUE;
    pthread_cond_broadcast(&server->changed);
}

/* Under the mutex. A stream that was drained has ended while its handler finds that out. */
static gboolean is_over(const VpRpcServer *server)
{
    return server->shut_down && server->n_calls == 0 && server->n_handlers == 0;
}

/* The core does not wait for calls whose connections are gone: those that wait for their turn, or for a thread, still use it. */
static gboolean wait_shut_down(VpRpcServer *server, gint64 deadline_us)
{
    gboolean in_time = TRUE;

    VP_LOCK(&server->mutex);
    while (!is_over(server) && in_time)
        in_time = vp_cond_wait_until(&server->changed, &server->mutex, deadline_us);
    return is_over(server);
}

gboolean vp_rpc_server_drain(VpRpcServer *server, gint64 deadline_us)
{
    for (guint i = 0; i < server->listeners->len; i++)
        vp_listener_stop(server->listeners->pdata[i]);
    vp_health_drain(server->health);
    vp_streams_stop_sweeping(server);

    if (server->n_queues == 0)
        return TRUE;
    /* From here on the core refuses new calls on the connections that there are. It wants to be told too if it was never started, for the ports that
     * it has bound. */
    server->shutdown_tag = (VpShutdownTag){.tag.fire = shutdown_fired, .server = server};
    VP_TAG_RELEASE(&server->shutdown_tag);
    grpc_server_shutdown_and_notify(server->server, server->queues[0].cq, &server->shutdown_tag);
    if (!server->queues[0].running)
        return TRUE; /* the tag comes when the free empties the queue */
    vp_streams_drain(server);
    if (wait_shut_down(server, deadline_us))
        return TRUE;
    vp_log(VP_LOG_WARNING, "calls that did not end in time are cancelled");
    grpc_server_cancel_all_calls(server->server);
    if (wait_shut_down(server, vp_now_us() + CANCEL_GRACE_US))
        return TRUE;
    VP_LOCK(&server->mutex);
    /* The others wait for jobs, and end with those. */
    if (server->n_handlers > 0)
        vp_log(VP_LOG_ERROR, "%u calls have not ended; their handlers keep them", server->n_handlers);
    return server->n_handlers == 0;
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
            vp_queue_run(&server->queues[i]);
    }
    vp_watchdog_free(server->watchdog);
    vp_accept_unwatch(server);
    grpc_server_destroy(server->server);
    for (guint i = 0; i < server->n_queues; i++) {
        grpc_completion_queue_destroy(server->queues[i].cq);
        vp_fair_free(server->queues[i].waiting);
    }
    grpc_server_credentials_release(server->credentials);
    grpc_shutdown_blocking();

    g_ptr_array_unref(server->fetchers);
    g_ptr_array_unref(server->listeners);
    g_ptr_array_unref(server->addresses);
    if (server->endpoints)
        g_array_unref(server->endpoints);
    vp_contract_free(server->contract);
    vp_health_free(server->health);
    vp_reflection_index_free(server->reflection);
    pthread_mutex_destroy(&server->reflection_mutex);
    vp_connections_free(server->connections);
    vp_accounts_free(server->accounts);
    g_free(server->queues);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->mutex);
    g_free(server);
}
