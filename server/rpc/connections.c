/* The table of connections: see connections.h. */
#include "server/rpc/connections.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/thread.h"

#define LEAST 8
#define MAX_GROUPS 65536
/* Looking for those that are gone asks the kernel about each. */
#define LOOK_EVERY_US 10000

/* Those over unix sockets, or those by TCP. */
typedef struct Kind {
    const char *words;
    guint most;
    guint spare;      /* how many more are let in, to be refused */
    GHashTable *open; /* the core's name -> VpConnection */
    guint served;
    gboolean told;
    gint64 looked_us;
} Kind;

struct VpConnections {
    pthread_mutex_t mutex; /* guards what follows, and what of a connection is under it */
    Kind local;
    Kind tcp;
    guint64 last_id;
};

/* ---- one ---- */

VpConnection *vp_connection_ref(VpConnection *connection)
{
    g_atomic_int_inc(&connection->refs);
    return connection;
}

void vp_connection_unref(VpConnection *connection)
{
    if (!connection || !g_atomic_int_dec_and_test(&connection->refs))
        return;
    g_clear_pointer(&connection->peer.groups, g_array_unref);
    g_free(connection->name);
    g_free(connection->address);
    g_free(connection->identity);
    vp_account_unref(connection->account);
    if (connection->kept)
        connection->kept_destroy(connection->kept);
    g_free(connection);
}

static void unref(gpointer connection)
{
    vp_connection_unref(connection);
}

/* ---- the table ---- */

static Kind kind_new(const char *words, guint most, guint64 descriptors)
{
    const guint allowed = (guint)MAX(LEAST, MIN(most, descriptors));

    return (Kind){.words = words,
                  .most = allowed,
                  .spare = MAX(2, allowed / 16),
                  .open = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, unref)};
}

VpConnections *vp_connections_new(guint most)
{
    VpConnections *connections = g_new0(VpConnections, 1);
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};

    getrlimit(RLIMIT_NOFILE, &limit);
    /* The rest is for images, hypervisors and those that wait. */
    connections->local = kind_new("over unix sockets", most, limit.rlim_cur / 2);
    connections->tcp = kind_new("by TCP", most, limit.rlim_cur / 4);
    pthread_mutex_init(&connections->mutex, NULL);
    return connections;
}

void vp_connections_free(VpConnections *connections)
{
    if (!connections)
        return;
    g_hash_table_unref(connections->local.open);
    g_hash_table_unref(connections->tcp.open);
    pthread_mutex_destroy(&connections->mutex);
    g_free(connections);
}

static Kind *kind_of(VpConnections *connections, const VpConnection *connection)
{
    return connection->local ? &connections->local : &connections->tcp;
}

static void stop_serving(Kind *kind, VpConnection *connection)
{
    if (!g_atomic_int_get(&connection->served))
        return;
    g_atomic_int_set(&connection->served, FALSE);
    kind->served--;
    if (connection->account)
        vp_account_leave_connection(connection->account);
}

/* Whether its calls are answered from now on: there is room, also in what its identity may have. */
static gboolean try_to_serve(Kind *kind, VpConnection *connection)
{
    if (kind->served >= kind->most || connection->closing ||
        (connection->account && !vp_account_enter_connection(connection->account)))
        return FALSE;
    kind->served++;
    g_atomic_int_set(&connection->served, TRUE);
    return TRUE;
}

static gboolean is_open(const VpConnection *connection)
{
    struct stat status;

    return fstat(connection->fd, &status) == 0 && status.st_ino == connection->inode;
}

static gboolean forget_one(gpointer key, gpointer value, gpointer data)
{
    VpConnection *connection = value;

    (void)key;
    if (is_open(connection))
        return FALSE;
    stop_serving(data, connection);
    return TRUE;
}

static void forget_gone(Kind *kind)
{
    const gint64 now_us = vp_now_us();

    if (now_us - kind->looked_us < LOOK_EVERY_US)
        return;
    kind->looked_us = now_us;
    g_hash_table_foreach_remove(kind->open, forget_one, kind);
}

/* ---- coming in ---- */

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

gboolean vp_connection_ask_peer(int fd, VpPeer *ret_peer)
{
    socklen_t length = sizeof(ret_peer->credentials);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &ret_peer->credentials, &length) < 0)
        return FALSE;
    ret_peer->groups = ask_groups(fd);
    return TRUE;
}

/* As the core names a peer, with the brackets of IPv6 unescaped. */
static char *name_of(const struct sockaddr *peer)
{
    char text[INET6_ADDRSTRLEN] = "";

    if (peer->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)peer;

        inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
        return g_strdup_printf("ipv4:%s:%u", text, ntohs(in->sin_port));
    }
    const struct sockaddr_in6 *in6 = (const void *)peer;
    const guint port = ntohs(in6->sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, text, sizeof(text));
        return g_strdup_printf("ipv4:%s:%u", text, port);
    }
    inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
    return in6->sin6_scope_id ? g_strdup_printf("ipv6:[%s%%%u]:%u", text, in6->sin6_scope_id, port)
                              : g_strdup_printf("ipv6:[%s]:%u", text, port);
}

static VpConnection *connection_new(int fd, const char *address)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return NULL;
    VpConnection *connection = g_new0(VpConnection, 1);
    connection->refs = 1;
    connection->fd = fd;
    connection->inode = status.st_ino;
    connection->address = g_strdup(address);
    connection->connect_wall_us = vp_wall_us();
    return connection;
}

/* Under the mutex. Takes the connection. */
static void insert(VpConnections *connections, Kind *kind, VpConnection *connection)
{
    connection->id = ++connections->last_id;
    g_hash_table_replace(kind->open, connection->name, connection);
}

/* One of this name is gone, or its name would not have been given away. */
static void forget_name(Kind *kind, const char *name)
{
    VpConnection *old = g_hash_table_lookup(kind->open, name);

    if (!old)
        return;
    stop_serving(kind, old);
    g_hash_table_remove(kind->open, name);
}

static void tell_full(Kind *kind, gboolean full)
{
    if (full && !kind->told)
        vp_log(VP_LOG_WARNING, "%u connections %s are open, which is the limit; further ones are refused", kind->most,
               kind->words);
    kind->told = full;
}

gboolean vp_connections_add(VpConnections *connections, int fd, const char *address, VpAccount *account)
{
    g_autoptr(VpConnection) connection = connection_new(fd, address);
    Kind *kind = &connections->local;

    if (!connection || !vp_connection_ask_peer(fd, &connection->peer))
        return FALSE;
    connection->local = TRUE;
    connection->name = g_strdup_printf("fd:%d", fd);
    connection->account = account ? vp_account_ref(account) : NULL;
    connection->group = (guint64)(gsize)account;

    VP_LOCK(&connections->mutex);
    forget_name(kind, connection->name);
    if (!try_to_serve(kind, connection)) {
        forget_gone(kind);
        try_to_serve(kind, connection);
    }
    tell_full(kind, kind->served >= kind->most && !connection->served);
    if (!connection->served && g_hash_table_size(kind->open) - kind->served >= kind->spare)
        return FALSE;
    insert(connections, kind, g_steal_pointer(&connection));
    return TRUE;
}

/* Under the mutex: closes the oldest of those who have not shown who they are and call nothing. FALSE: there is none, or the core is still to close so many
 * that their descriptors are as much as there is to spare. */
static gboolean close_stranger(Kind *kind)
{
    VpConnection *oldest = NULL;
    GHashTableIter iter;
    gpointer value;

    if (g_hash_table_size(kind->open) - kind->served >= kind->spare)
        return FALSE;
    g_hash_table_iter_init(&iter, kind->open);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        VpConnection *connection = value;

        if (!connection->account && !connection->closing && g_atomic_int_get(&connection->calls) == 0 &&
            (!oldest || connection->id < oldest->id))
            oldest = connection;
    }
    if (!oldest)
        return FALSE;
    if (is_open(oldest))
        shutdown(oldest->fd, SHUT_RDWR);
    stop_serving(kind, oldest);
    oldest->closing = TRUE;
    return TRUE;
}

gboolean vp_connections_add_tcp(VpConnections *connections, int fd, const struct sockaddr *peer, const char *address)
{
    g_autoptr(VpConnection) connection = connection_new(fd, address);
    Kind *kind = &connections->tcp;

    if (!connection)
        return FALSE;
    connection->name = name_of(peer);
    VP_LOCK(&connections->mutex);
    forget_name(kind, connection->name);
    if (!try_to_serve(kind, connection)) {
        forget_gone(kind);
        tell_full(kind, kind->served >= kind->most);
        if (!try_to_serve(kind, connection) && !(close_stranger(kind) && try_to_serve(kind, connection)))
            return FALSE;
    } else {
        tell_full(kind, FALSE);
    }
    insert(connections, kind, g_steal_pointer(&connection));
    return TRUE;
}

/* ---- calls ---- */

VpConnection *vp_connections_find(VpConnections *connections, const char *name)
{
    const gboolean local = strncmp(name, "fd:", 3) == 0;
    g_autofree char *unescaped = strncmp(name, "ipv6:", 5) == 0 ? g_uri_unescape_string(name, NULL) : NULL;

    VP_LOCK(&connections->mutex);
    VpConnection *found =
        g_hash_table_lookup(local ? connections->local.open : connections->tcp.open, unescaped ? unescaped : name);
    return found ? vp_connection_ref(found) : NULL;
}

void vp_connections_attach(VpConnections *connections, VpConnection *connection, const char *identity,
                           VpAccount *account)
{
    Kind *kind = kind_of(connections, connection);

    VP_LOCK(&connections->mutex);
    if (connection->identity)
        return;
    connection->identity = g_strdup(identity);
    g_atomic_int_set(&connection->attached, TRUE);
    if (connection->account || !account)
        return;
    const gboolean served = g_atomic_int_get(&connection->served);
    stop_serving(kind, connection);
    connection->account = vp_account_ref(account);
    __atomic_store_n(&connection->group, (guint64)(gsize)account, __ATOMIC_RELAXED);
    if (served)
        try_to_serve(kind, connection);
}

static VpError *too_many(const Kind *kind, const VpConnection *connection)
{
    if (kind->served < kind->most && connection->account)
        return vp_account_too_many_connections(connection->account);
    return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_MANY_CONNECTIONS",
                                       "%u connections are open, which is the limit; try again", kind->most),
                          1000);
}

VpError *vp_connections_check(VpConnections *connections, VpConnection *connection)
{
    Kind *kind = kind_of(connections, connection);

    if (g_atomic_int_get(&connection->served))
        return NULL;
    VP_LOCK(&connections->mutex);
    /* It may be gone, and be one of those that are forgotten now. */
    g_autoptr(VpConnection) held = vp_connection_ref(connection);
    forget_gone(kind);
    if (g_hash_table_lookup(kind->open, held->name) != held || g_atomic_int_get(&held->served))
        return NULL;
    return try_to_serve(kind, held) ? NULL : too_many(kind, held);
}

/* ---- for administrators ---- */

static gint by_id(gconstpointer a, gconstpointer b)
{
    const VpConnection *first = *(VpConnection *const *)a;
    const VpConnection *second = *(VpConnection *const *)b;

    return first->id < second->id ? -1 : first->id > second->id;
}

static void add_open(const Kind *kind, GPtrArray *list)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, kind->open);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (is_open(value))
            g_ptr_array_add(list, vp_connection_ref(value));
    }
}

GPtrArray *vp_connections_list(VpConnections *connections)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(unref);

    pthread_mutex_lock(&connections->mutex);
    add_open(&connections->local, list);
    add_open(&connections->tcp, list);
    pthread_mutex_unlock(&connections->mutex);
    g_ptr_array_sort(list, by_id);
    return list;
}

char *vp_connections_identity(VpConnections *connections, VpConnection *connection)
{
    VP_LOCK(&connections->mutex);
    return g_strdup(connection->identity);
}

static VpConnection *find_id(const Kind *kind, guint64 id)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, kind->open);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((VpConnection *)value)->id == id)
            return value;
    }
    return NULL;
}

VpConnection *vp_connections_close(VpConnections *connections, guint64 id)
{
    VP_LOCK(&connections->mutex);
    VpConnection *found = find_id(&connections->local, id);

    if (!found)
        found = find_id(&connections->tcp, id);
    if (!found || !is_open(found))
        return NULL;
    /* The core sees the end of it, and closes the descriptor. */
    shutdown(found->fd, SHUT_RDWR);
    return vp_connection_ref(found);
}
