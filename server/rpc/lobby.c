/* The lobby: see connections.h. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/thread.h"
#include "server/rpc/connections.h"

#define MOST 1024
#define LEAST 4
#define WAIT_US (10 * G_USEC_PER_SEC)
#define EVENTS_AT_ONCE 64

/* What every client of HTTP/2 says first (RFC 9113, 3.4). */
static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_BYTES (sizeof(preface) - 1)

typedef struct Guest {
    int fd;
    gint64 deadline_us;
    GList link; /* its data is the guest */
} Guest;

struct VpLobby {
    int epoll_fd;
    guint most;
    GQueue guests; /* the one that has waited longest first */
    void (*arrived)(void *data, int fd);
    void *data;
};

VpLobby *vp_lobby_new(void (*arrived)(void *data, int fd), void *data)
{
    const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};

    if (epoll_fd < 0)
        return NULL;
    VpLobby *lobby = g_new0(VpLobby, 1);
    getrlimit(RLIMIT_NOFILE, &limit);
    lobby->most = (guint)MAX(LEAST, MIN(MOST, limit.rlim_cur / 8));
    lobby->epoll_fd = epoll_fd;
    lobby->arrived = arrived;
    lobby->data = data;
    g_queue_init(&lobby->guests);
    return lobby;
}

int vp_lobby_fd(const VpLobby *lobby)
{
    return lobby->epoll_fd;
}

typedef enum Said {
    SAID_NOTHING, /* or too little to tell */
    SAID_PREFACE,
    SAID_OTHER,
} Said;

/* What is looked at stays there for the core. */
static Said look(int fd)
{
    char bytes[PREFACE_BYTES];
    const ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? SAID_NOTHING : SAID_OTHER;
    if (n == 0 || memcmp(bytes, preface, (size_t)n) != 0)
        return SAID_OTHER;
    return (size_t)n == PREFACE_BYTES ? SAID_PREFACE : SAID_NOTHING;
}

/* Takes a guest out; `in`: to the core. */
static void leave(VpLobby *lobby, Guest *guest, gboolean in)
{
    const int fd = guest->fd;

    epoll_ctl(lobby->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    g_queue_unlink(&lobby->guests, &guest->link);
    g_free(guest);
    if (in)
        lobby->arrived(lobby->data, fd);
    else
        close(fd);
}

void vp_lobby_add(VpLobby *lobby, int fd)
{
    const Said said = look(fd);

    if (said == SAID_PREFACE) {
        lobby->arrived(lobby->data, fd);
        return;
    }
    Guest *guest = g_new0(Guest, 1);
    /* Edges: half a preface must not keep us busy. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = guest};
    if (said == SAID_OTHER || epoll_ctl(lobby->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        g_free(guest);
        close(fd);
        return;
    }
    guest->fd = fd;
    guest->deadline_us = vp_now_us() + WAIT_US;
    guest->link.data = guest;
    g_queue_push_tail_link(&lobby->guests, &guest->link);
    if (lobby->guests.length > lobby->most)
        leave(lobby, lobby->guests.head->data, FALSE);
}

int vp_lobby_run(VpLobby *lobby)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    const int n = lobby->guests.length ? epoll_wait(lobby->epoll_fd, events, EVENTS_AT_ONCE, 0) : 0;

    for (int i = 0; i < n; i++) {
        Guest *guest = events[i].data.ptr;
        const Said said = look(guest->fd);

        if (said != SAID_NOTHING || (events[i].events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)))
            leave(lobby, guest, said == SAID_PREFACE);
    }
    const gint64 now_us = vp_now_us();
    while (lobby->guests.head && ((Guest *)lobby->guests.head->data)->deadline_us <= now_us)
        leave(lobby, lobby->guests.head->data, FALSE);
    if (!lobby->guests.head)
        return -1;
    return (int)((((Guest *)lobby->guests.head->data)->deadline_us - now_us) / 1000) + 1;
}

void vp_lobby_free(VpLobby *lobby)
{
    if (!lobby)
        return;
    while (lobby->guests.head)
        leave(lobby, lobby->guests.head->data, FALSE);
    close(lobby->epoll_fd);
    g_free(lobby);
}
