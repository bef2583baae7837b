/* How many connections there are: see connections.h. */
#include "server/rpc/connections.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/thread.h"

#define DEFAULT_MOST 2000
#define LEAST 8

typedef struct Connection {
    int fd;
    ino_t inode; /* of the socket: another one under the same number is another connection */
    gboolean refused;
    VpPeer peer;
} Connection;

#define MAX_GROUPS 65536

struct VpConnections {
    guint most;
    guint spare;    /* how many more are let in, to be refused */
    gint n_refused; /* atomic for reading */
    pthread_mutex_t mutex;
    GHashTable *open; /* fd -> Connection */
    gboolean told;
};

static void connection_free(gpointer data)
{
    Connection *connection = data;

    g_array_unref(connection->peer.groups);
    g_free(connection);
}

VpConnections *vp_connections_new(guint most)
{
    VpConnections *connections = g_new0(VpConnections, 1);
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};

    getrlimit(RLIMIT_NOFILE, &limit);
    /* The rest is for images, hypervisors and those that wait. */
    const guint64 half = limit.rlim_cur / 2;
    connections->most = (guint)MAX(LEAST, MIN(most ? most : DEFAULT_MOST, half));
    connections->spare = MAX(2, connections->most / 16);
    connections->open = g_hash_table_new_full(g_int_hash, g_int_equal, NULL, connection_free);
    pthread_mutex_init(&connections->mutex, NULL);
    return connections;
}

void vp_connections_free(VpConnections *connections)
{
    if (!connections)
        return;
    g_hash_table_unref(connections->open);
    pthread_mutex_destroy(&connections->mutex);
    g_free(connections);
}

guint vp_connections_most(const VpConnections *connections)
{
    return connections->most;
}

gboolean vp_connections_full(VpConnections *connections)
{
    return g_atomic_int_get(&connections->n_refused) > 0;
}

static gboolean is_gone(gpointer key, gpointer value, gpointer data)
{
    const Connection *connection = value;
    struct stat status;
    gint *n_refused = data;

    (void)key;
    if (fstat(connection->fd, &status) == 0 && status.st_ino == connection->inode)
        return FALSE;
    if (connection->refused)
        g_atomic_int_add(n_refused, -1);
    return TRUE;
}

static void forget_gone(VpConnections *connections)
{
    g_hash_table_foreach_remove(connections->open, is_gone, &connections->n_refused);
}

static GArray *ask_groups(int fd)
{
    GArray *groups = g_array_new(FALSE, FALSE, sizeof(gid_t));
    socklen_t length = 0;

    /* Asked for with no room it answers how much is needed. */
    if ((getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &length) < 0 && length == 0) ||
        length > MAX_GROUPS * sizeof(gid_t))
        return groups;
    g_array_set_size(groups, length / sizeof(gid_t));
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups->data, &length) < 0)
        g_array_set_size(groups, 0);
    return groups;
}

gboolean vp_connections_peer(VpConnections *connections, int fd, VpPeer *ret_peer)
{
    VP_LOCK(&connections->mutex);
    const Connection *connection = g_hash_table_lookup(connections->open, &fd);

    if (!connection)
        return FALSE;
    *ret_peer = connection->peer;
    g_array_ref(ret_peer->groups);
    return TRUE;
}

gboolean vp_connections_add(VpConnections *connections, int fd)
{
    struct ucred credentials;
    socklen_t length = sizeof(credentials);
    struct stat status;

    if (fstat(fd, &status) < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return FALSE;
    VP_LOCK(&connections->mutex);
    Connection *old = g_hash_table_lookup(connections->open, &fd);
    if (old && old->refused)
        g_atomic_int_add(&connections->n_refused, -1);
    g_hash_table_remove(connections->open, &fd);
    if (g_hash_table_size(connections->open) >= connections->most)
        forget_gone(connections);

    const guint n = g_hash_table_size(connections->open);
    const gboolean refused = n >= connections->most;
    if (refused && !connections->told)
        vp_log(VP_LOG_WARNING, "%u connections are open, which is the limit; further ones are refused",
               connections->most);
    connections->told = refused;
    if (n >= connections->most + connections->spare)
        return FALSE;
    Connection *connection = g_new(Connection, 1);
    *connection =
        (Connection){.fd = fd, .inode = status.st_ino, .refused = refused, .peer = {credentials, ask_groups(fd)}};
    g_hash_table_insert(connections->open, &connection->fd, connection);
    if (refused)
        g_atomic_int_inc(&connections->n_refused);
    return TRUE;
}

gboolean vp_connections_refuses(VpConnections *connections, int fd)
{
    VP_LOCK(&connections->mutex);
    Connection *connection = g_hash_table_lookup(connections->open, &fd);

    if (!connection || !connection->refused)
        return FALSE;
    /* There may be room by now. */
    forget_gone(connections);
    const guint served = g_hash_table_size(connections->open) - (guint)g_atomic_int_get(&connections->n_refused);
    if (served >= connections->most)
        return TRUE;
    connection->refused = FALSE;
    g_atomic_int_add(&connections->n_refused, -1);
    return FALSE;
}
