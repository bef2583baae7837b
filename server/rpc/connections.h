/*
 * Connections, from accept to their end: those over unix sockets, which we accept ourselves, and those by TCP, which the core accepts (accept.h). Of each kind
 * there is a number at once, and each identity has its own part of it. The core tells nobody when it closes one: a descriptor that is another file now is
 * how it is seen.
 *
 * Those over unix sockets that have not yet said that they speak HTTP/2 wait in a lobby that costs little.
 */
#pragma once

#include <sys/socket.h>

#include "server/rpc/accounts.h"

typedef struct VpConnections VpConnections;

/* Who is at the other end of a unix socket, as the kernel noted when it connected. */
typedef struct VpPeer {
    struct ucred credentials;
    GArray *groups; /* the supplementary ones, of gid_t; not to be changed */
} VpPeer;

/* One connection. What is not said to change does not. */
typedef struct VpConnection {
    gint refs;
    guint64 id; /* never used again */
    int fd;
    ino_t inode; /* of the socket: another one under the same number is another connection */
    gboolean local;
    VpPeer peer; /* of a local one */
    char *name;  /* as the core has it: "fd:12", "ipv4:192.0.2.1:40112" */
    char *address;
    gint64 connect_wall_us;

    gint64 last_call_wall_us; /* these are atomic */
    guint64 total_calls;
    gint calls;
    gint streams;
    gint served; /* its calls are not refused */
    gint attached;
    guint64 group; /* the account, for turns; 0: none yet */

    char *identity; /* of its first call by anybody who is somebody; this and the next under the table's mutex */
    VpAccount *account;
    void *kept; /* the gate's; set once, atomic */
    void (*kept_destroy)(void *kept);
    gboolean closing; /* it made room for another; the core still has it */
} VpConnection;

VpConnection *vp_connection_ref(VpConnection *connection);
/* NULL is let pass. */
void vp_connection_unref(VpConnection *connection);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpConnection, vp_connection_unref)

/* `most`: so many of each kind are served at once, or as a part of the descriptors that the process may have allows. */
VpConnections *vp_connections_new(guint most);
/* NULL is let pass. */
void vp_connections_free(VpConnections *connections);

/* Asks the kernel; `ret_peer->groups` is the caller's. FALSE: it does not say. */
gboolean vp_connection_ask_peer(int fd, VpPeer *ret_peer);

/* Counts a connection over a unix socket in, of an account (NULL: none is kept). FALSE: it must be closed, there are far too many. One that is a few too many
 * is let in, and its calls are refused: so its client learns why. Any thread. */
gboolean vp_connections_add(VpConnections *connections, int fd, const char *address, VpAccount *account);

/* The same for TCP. With no room, the one that has been there longest without anybody having shown who he is goes. */
gboolean vp_connections_add_tcp(VpConnections *connections, int fd, const struct sockaddr *peer, const char *address);

/* The connection that the core names so: a reference, or NULL. Any thread. */
VpConnection *vp_connections_find(VpConnections *connections, const char *name);

/* Notes by whom it is used, the first time; then it counts for that account. Any thread. */
void vp_connections_attach(VpConnections *connections, VpConnection *connection, const char *identity,
                           VpAccount *account);

/* NULL, or why its calls are to be refused: RESOURCE_EXHAUSTED, reason TOO_MANY_CONNECTIONS. Any thread. */
VpError *vp_connections_check(VpConnections *connections, VpConnection *connection);

/* Those that are open, the oldest first: an array of references. Any thread. */
GPtrArray *vp_connections_list(VpConnections *connections);

/* By whom it is used; owned by the caller, NULL: nobody has said yet. */
char *vp_connections_identity(VpConnections *connections, VpConnection *connection);

/* Closes the one of this id: a reference to what it was, or NULL if there is none. Any thread. */
VpConnection *vp_connections_close(VpConnections *connections, guint64 id);

/* ---- the lobby, for one thread ---- */

typedef struct VpLobby VpLobby;

/* `arrived(data, fd)` takes a connection that has said it. NULL: no descriptor for it. */
VpLobby *vp_lobby_new(void (*arrived)(void *data, int fd), void *data);

/* Readable when vp_lobby_run() has something to do. */
int vp_lobby_fd(const VpLobby *lobby);

/* Takes `fd`. The one that has waited longest goes if too many do. */
void vp_lobby_add(VpLobby *lobby, int fd);

/* Looks at those that have said something, closes those that have waited for too long. Answers in how many ms to be called at the latest; -1: whenever. */
int vp_lobby_run(VpLobby *lobby);

/* Closes those that wait. NULL is let pass. */
void vp_lobby_free(VpLobby *lobby);
