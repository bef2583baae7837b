/* Who calls: what the kernel, the handshake and the headers say of it, and what the gate makes of that. */
#include <grpc/grpc_security_constants.h>
#include <grpc/support/alloc.h>
#include <string.h>

#include "base/thread.h"
#include "server/rpc/internal.h"

/* The core names a connection that we accepted "fd:N", and keeps N open for as long as one of its calls is held: so the one of this name is this one. */
void vp_call_note_peer(VpCall *call)
{
    char *peer = grpc_call_get_peer(call->call);
    VpConnection *connection = peer ? vp_connections_find(call->server->connections, peer) : NULL;

    gpr_free(peer);
    call->connection = connection;
    if (!connection)
        return;
    g_atomic_int_inc(&connection->calls);
    __atomic_fetch_add(&connection->total_calls, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&connection->last_call_wall_us, vp_wall_us(), __ATOMIC_RELAXED);
}

/* A property of the connection's handshake that has one value. */
static const grpc_auth_property *find_property(VpCall *call, const char *name)
{
    grpc_auth_property_iterator it = grpc_auth_context_find_properties_by_name(call->auth, name);

    return grpc_auth_property_iterator_next(&it);
}

static void read_handshake(VpCall *call, VpCredentials *credentials)
{
    if (!call->auth)
        call->auth = grpc_call_auth_context(call->call);
    if (!call->auth)
        return;
    const grpc_auth_property *type = find_property(call, GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME);
    credentials->tls = type && type->value_length == strlen(GRPC_SSL_TRANSPORT_SECURITY_TYPE) &&
                       memcmp(type->value, GRPC_SSL_TRANSPORT_SECURITY_TYPE, type->value_length) == 0;
    if (!credentials->tls)
        return;
    const grpc_auth_property *certificate = find_property(call, GRPC_X509_PEM_CERT_PROPERTY_NAME);
    if (certificate) {
        credentials->certificate = certificate->value;
        credentials->certificate_length = certificate->value_length;
    }
    const grpc_auth_property *chain = find_property(call, GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME);
    if (chain) {
        credentials->chain = chain->value;
        credentials->chain_length = chain->value_length;
    }
}

static gboolean is_local(const VpCall *call)
{
    return call->connection && call->connection->local;
}

void vp_call_credentials(VpCall *call, VpCredentials *ret_credentials)
{
    memset(ret_credentials, 0, sizeof(*ret_credentials));
    ret_credentials->authorization = call->authorization;
    if (!is_local(call)) {
        read_handshake(call, ret_credentials);
        return;
    }
    ret_credentials->local = TRUE;
    ret_credentials->uid = call->connection->peer.credentials.uid;
    ret_credentials->gid = call->connection->peer.credentials.gid;
    ret_credentials->pid = call->connection->peer.credentials.pid;
}

void vp_call_keep(VpCall *call, void *kept, void (*destroy)(void *kept))
{
    VpConnection *connection = call->connection;

    if (connection && connection->local) {
        /* The same by whomever it is set. */
        __atomic_store_n(&connection->kept_destroy, destroy, __ATOMIC_RELEASE);
        if (g_atomic_pointer_compare_and_exchange(&connection->kept, NULL, kept))
            return;
    }
    destroy(kept);
}

void *vp_call_kept(VpCall *call)
{
    return call->connection ? g_atomic_pointer_get(&call->connection->kept) : NULL;
}

GArray *vp_call_groups(VpCall *call)
{
    return is_local(call) ? g_array_ref(call->connection->peer.groups) : g_array_new(FALSE, FALSE, sizeof(gid_t));
}

VpLimits vp_call_limits(VpCall *call)
{
    return call->account ? vp_account_limits(call->account) : (VpLimits){0};
}

const VpMethod *vp_call_method(VpCall *call)
{
    return call->endpoint->method;
}

void *vp_call_identity(VpCall *call)
{
    return call->identity;
}

void vp_call_set_identity(VpCall *call, const char *name, void *identity, void (*destroy)(void *identity))
{
    call->identity_name = name;
    call->identity = identity;
    call->identity_destroy = destroy;
}

void vp_call_caller(VpCall *call, VpCaller *ret_caller)
{
    VpCredentials credentials;

    vp_call_credentials(call, &credentials);
    memset(ret_caller, 0, sizeof(*ret_caller));
    ret_caller->identity = call->identity_name;
    if (credentials.local) {
        ret_caller->local = TRUE;
        ret_caller->uid = credentials.uid;
        ret_caller->gid = credentials.gid;
        ret_caller->pid = credentials.pid;
        g_snprintf(ret_caller->text, sizeof(ret_caller->text), "uid=%u pid=%d", credentials.uid, credentials.pid);
        return;
    }
    char *peer = grpc_call_get_peer(call->call);
    if (call->identity_name)
        g_snprintf(ret_caller->text, sizeof(ret_caller->text), "%.100s %.50s", call->identity_name,
                   peer ? peer : "unknown");
    else
        g_strlcpy(ret_caller->text, peer ? peer : "unknown", sizeof(ret_caller->text));
    gpr_free(peer);
}
