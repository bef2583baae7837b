/* AdminService's look at who is connected, and the way to end a connection. */
#include "base/pb.h"
#include "server/services/admin.h"

static PbConnection *describe(VpConnections *connections, VpConnection *connection)
{
    PbConnection *described = vp_pb_new(&pb_connection__descriptor);
    const gint64 last_us = __atomic_load_n(&connection->last_call_wall_us, __ATOMIC_RELAXED);
    g_autofree char *identity = vp_connections_identity(connections, connection);

    described->id = connection->id;
    vp_pb_set(&described->address, connection->address);
    if (connection->local)
        vp_pb_printf(&described->caller, "uid=%u pid=%d", connection->peer.credentials.uid,
                     connection->peer.credentials.pid);
    else
        vp_pb_set(&described->caller, connection->name);
    vp_pb_set(&described->identity, identity);
    described->connect_time = vp_pb_timestamp(connection->connect_wall_us);
    described->last_call_time = last_us ? vp_pb_timestamp(last_us) : NULL;
    described->active_calls = (guint32)g_atomic_int_get(&connection->calls);
    described->active_streams = (guint32)g_atomic_int_get(&connection->streams);
    described->total_calls = __atomic_load_n(&connection->total_calls, __ATOMIC_RELAXED);
    described->refused = !g_atomic_int_get(&connection->served);
    return described;
}

static VpConnections *connections_of(const VpServices *services)
{
    VpRpcServer *server = g_atomic_pointer_get(&services->server);

    return server ? vp_rpc_server_connections(server) : NULL;
}

static VpError *not_ready(void)
{
    return vp_error_retry(vp_error_new(VP_UNAVAILABLE, "DAEMON_STARTING", "the daemon is starting; try again"), 100);
}

void vp_admin_list_connections(VpCall *call, const void *message, void *context)
{
    const PbListConnectionsRequest *request = message;
    const VpServices *services = context;
    VpConnections *connections = connections_of(services);
    vp_pb_auto PbListConnectionsResponse *response = vp_pb_new(&pb_list_connections_response__descriptor);
    g_autofree char *position = NULL;

    VpError *error =
        connections ? vp_page_token_read(&services->page_key, "ListConnections", NULL, request->page_token, &position)
                    : not_ready();
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    const guint64 after = position ? g_ascii_strtoull(position, NULL, 10) : 0;
    g_autoptr(GPtrArray) open = vp_connections_list(connections);
    for (guint i = 0; i < open->len; i++) {
        VpConnection *connection = open->pdata[i];

        if (connection->id <= after)
            continue;
        if (response->n_connections == vp_page_size(request->page_size)) {
            const PbConnection *last = response->connections[response->n_connections - 1];
            g_autofree char *reached = g_strdup_printf("%" G_GUINT64_FORMAT, last->id);
            g_autofree char *token = vp_page_token_new(&services->page_key, "ListConnections", NULL, reached);

            vp_pb_set(&response->next_page_token, token);
            break;
        }
        vp_pb_append(&response->n_connections, &response->connections, describe(connections, connection));
    }
    vp_call_reply(call, response);
}

void vp_admin_close_connection(VpCall *call, const void *message, void *context)
{
    const PbCloseConnectionRequest *request = message;
    VpConnections *connections = connections_of(context);
    g_autoptr(VpConnection) connection = connections ? vp_connections_close(connections, request->id) : NULL;
    PbCloseConnectionResponse response = PB_CLOSE_CONNECTION_RESPONSE__INIT;

    if (!connection) {
        vp_call_fail(call, vp_error_new(VP_NOT_FOUND, "CONNECTION_NOT_FOUND",
                                        "no connection %" G_GUINT64_FORMAT " is open", request->id));
        return;
    }
    vp_pb_auto PbConnection *described = describe(connections, connection);
    response.connection = described;
    vp_call_reply(call, &response);
}
