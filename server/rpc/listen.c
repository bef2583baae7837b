/*
 * Unix sockets. The daemon accepts on them itself and gives the connections to the core, because only so the kernel's word on who calls
 * (SO_PEERCRED) can be had: the core's own unix listener does not tell.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/rpc/internal.h"

struct VpListener {
    char *path;
    char *address; /* "unix:PATH" */
    dev_t device;  /* of the socket file, so that we remove ours alone */
    ino_t inode;
    int fd;
    int stop_fd; /* an eventfd */
    pthread_t thread;
    gboolean running;
    VpLobby *lobby; /* the thread's */
    void (*accepted)(void *data, const char *address, int fd);
    void *data;
};

/* What keeps a new socket from being bound: NULL if the path is free now. */
static VpError *clear_path(const struct sockaddr_un *address)
{
    const char *path = address->sun_path;
    struct stat status;

    if (lstat(path, &status) < 0)
        return errno == ENOENT ? NULL : vp_error_errno(errno, "LISTEN_FAILED", "cannot look at %s", path);
    if (!S_ISSOCK(status.st_mode))
        return vp_error_new(VP_FAILED_PRECONDITION, "LISTEN_FAILED",
                            "%s is there and is no socket; choose another address or remove it", path);

    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot make a socket");
    const int r = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    const int why = errno;
    close(fd);
    /* EAGAIN: somebody listens and is busy. */
    if (r == 0 || why == EAGAIN)
        return vp_error_new(VP_FAILED_PRECONDITION, "ADDRESS_IN_USE",
                            "another program answers on unix:%s; stop it or choose another address", path);
    if (why != ECONNREFUSED)
        return vp_error_errno(why, "LISTEN_FAILED", "cannot tell whether anybody answers on unix:%s", path);
    /* Left behind by a daemon that was killed. */
    if (unlink(path) < 0 && errno != ENOENT)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot remove the stale socket %s", path);
    return NULL;
}

static VpError *bind_path(VpListener *listener, guint mode, gint64 group)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    if (g_strlcpy(address.sun_path, listener->path, sizeof(address.sun_path)) >= sizeof(address.sun_path))
        return vp_error_new(VP_INVALID_ARGUMENT, "LISTEN_FAILED", "the socket's path is longer than %zu bytes: %s",
                            sizeof(address.sun_path) - 1, listener->path);
    VpError *error = clear_path(&address);
    if (error)
        return error;

    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot make a socket");
    /* Nobody can connect before listen(), so mode and group are right from the first connection on. */
    if (bind(listener->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot bind unix:%s", listener->path);
    if (group && lchown(listener->path, (uid_t)-1, (gid_t)group) < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot give %s to the group %" G_GINT64_FORMAT, listener->path,
                              group);
    if (chmod(listener->path, mode) < 0 || lstat(listener->path, &status) < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot set the mode of %s", listener->path);
    listener->device = status.st_dev;
    listener->inode = status.st_ino;
    if (listen(listener->fd, SOMAXCONN) < 0)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot listen on unix:%s", listener->path);
    return NULL;
}

static VpListener *listener_alloc(const char *path, VpError **error)
{
    VpListener *listener = g_new0(VpListener, 1);

    listener->path = g_strdup(path);
    listener->address = g_strconcat("unix:", path, NULL);
    listener->fd = -1;
    listener->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (listener->stop_fd < 0) {
        *error = vp_error_errno(errno, "LISTEN_FAILED", "cannot make an eventfd");
        vp_listener_free(listener);
        return NULL;
    }
    return listener;
}

VpListener *vp_listener_new(const char *path, guint mode, gint64 group, VpError **error)
{
    VpListener *listener = listener_alloc(path, error);
    if (!listener)
        return NULL;

    VpError *failure = bind_path(listener, mode, group);
    if (failure) {
        *error = failure;
        vp_listener_free(listener);
        return NULL;
    }
    return listener;
}

VpListener *vp_listener_inherit(int fd, VpError **error)
{
    struct sockaddr_un address = {0};
    socklen_t length = sizeof(address);
    int listens = 0;
    socklen_t size = sizeof(listens);

    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0 || address.sun_family != AF_UNIX ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens) {
        *error =
            vp_error_new(VP_INVALID_ARGUMENT, "LISTEN_FAILED",
                         "the descriptor %d that the daemon was started with is no listening unix socket; of sockets "
                         "that it is given it takes these alone",
                         fd);
        return NULL;
    }
    /* The name of an abstract socket begins with a NUL. */
    g_autofree char *path = address.sun_path[0]
                                ? g_strndup(address.sun_path, sizeof(address.sun_path))
                                : g_strdup_printf("@%.*s", (int)sizeof(address.sun_path) - 1, address.sun_path + 1);
    VpListener *listener = listener_alloc(path, error);
    if (!listener)
        return NULL;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        *error = vp_error_errno(errno, "LISTEN_FAILED", "cannot use the socket %s", path);
        vp_listener_free(listener);
        return NULL;
    }
    listener->fd = fd;
    return listener;
}

const char *vp_listener_path(const VpListener *listener)
{
    return listener->path;
}

/* Removes the socket file, if it is still ours. */
static void remove_socket(VpListener *listener)
{
    struct stat status;

    if (listener->inode && lstat(listener->path, &status) == 0 && status.st_dev == listener->device &&
        status.st_ino == listener->inode)
        unlink(listener->path);
    listener->inode = 0;
}

static void accept_one(VpListener *listener, VpLobby *lobby, gboolean *told)
{
    const int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0) {
        *told = FALSE;
        vp_lobby_add(lobby, fd);
        return;
    }
    const gboolean full = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
    if (full && !*told)
        vp_log(VP_LOG_WARNING, "unix:%s: a connection has to wait: %s", listener->path, g_strerror(errno));
    *told = full;
}

static void *accept_loop(void *data)
{
    VpListener *listener = data;
    VpLobby *lobby = listener->lobby;
    struct pollfd fds[3] = {
        {.fd = listener->stop_fd, .events = POLLIN},
        {.fd = vp_lobby_fd(lobby), .events = POLLIN},
        {.fd = listener->fd, .events = POLLIN},
    };
    gboolean told = FALSE;

    for (;;) {
        const int wait_ms = vp_lobby_run(lobby);
        /* Without a free descriptor accept() fails at once for ever: look again in a while, and for the rest all the time. */
        const int ready = poll(fds, told ? 2 : 3, told ? 100 : wait_ms);

        if (ready < 0 && errno != EINTR) {
            vp_log(VP_LOG_ERROR, "unix:%s takes no connections any more: poll: %s", listener->path, g_strerror(errno));
            return NULL;
        }
        if (ready > 0 && fds[0].revents)
            return NULL;
        if (told || (ready > 0 && fds[2].revents))
            accept_one(listener, lobby, &told);
    }
}

static void arrived(void *data, int fd)
{
    const VpListener *listener = data;

    listener->accepted(listener->data, listener->address, fd);
}

VpError *vp_listener_start(VpListener *listener, void (*accepted)(void *data, const char *address, int fd), void *data)
{
    listener->accepted = accepted;
    listener->data = data;
    listener->lobby = vp_lobby_new(arrived, listener);
    if (!listener->lobby)
        return vp_error_errno(errno, "LISTEN_FAILED", "cannot wait for connections on unix:%s", listener->path);
    VpError *error = vp_thread_start(&listener->thread, "vp-accept", accept_loop, listener);
    listener->running = !error;
    return error;
}

void vp_listener_stop(VpListener *listener)
{
    if (!listener->running)
        return;
    listener->running = FALSE;
    /* An eventfd takes a number of this size at once. */
    if (eventfd_write(listener->stop_fd, 1) < 0)
        vp_log(VP_LOG_ERROR, "unix:%s: cannot stop accepting: %s", listener->path, g_strerror(errno));
    pthread_join(listener->thread, NULL);
    vp_lobby_free(g_steal_pointer(&listener->lobby));
    remove_socket(listener);
}

void vp_listener_free(VpListener *listener)
{
    if (!listener)
        return;
    vp_listener_stop(listener);
    vp_lobby_free(listener->lobby);
    remove_socket(listener);
    if (listener->fd >= 0)
        close(listener->fd);
    if (listener->stop_fd >= 0)
        close(listener->stop_fd);
    g_free(listener->path);
    g_free(listener->address);
    g_free(listener);
}
