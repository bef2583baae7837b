/*
 * Connections over unix sockets, from accept to the core: those that have not yet said that they speak HTTP/2 wait in a lobby that costs little, and of those
 * that have there is a number at once. The core tells nobody when it closes one: a descriptor that is another file now is how it is seen.
 */
#pragma once

#include <glib.h>
#include <sys/socket.h>

typedef struct VpConnections VpConnections;

/* Who is at the other end, as the kernel noted when it connected. */
typedef struct VpPeer {
    struct ucred credentials;
    GArray *groups; /* the supplementary ones, of gid_t; not to be changed */
} VpPeer;

/* `most`: so many are served at once; 0: 2,000, or half of the descriptors that the process may have if these are fewer. */
VpConnections *vp_connections_new(guint most);

/* Counts a connection in. FALSE: it must be closed, there are far too many. One that is a few too many is let in, and its calls are refused: so its client
 * learns why. Any thread. */
gboolean vp_connections_add(VpConnections *connections, int fd);

/* Whether calls of this connection are to be refused. Any thread. */
gboolean vp_connections_refuses(VpConnections *connections, int fd);

/* Who is at the other end of an open connection; the groups are a reference of the caller's. FALSE: unknown. Any thread. */
gboolean vp_connections_peer(VpConnections *connections, int fd, VpPeer *ret_peer);

/* Whether any connection's are: what to ask first. */
gboolean vp_connections_full(VpConnections *connections);

guint vp_connections_most(const VpConnections *connections);

void vp_connections_free(VpConnections *connections);

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
