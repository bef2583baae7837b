/* accept4() with a say in it: see accept.h. */
#include "server/rpc/accept.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"

/* Process-wide, as the function is. */
static struct {
    pthread_mutex_t mutex;
    gboolean (*admit)(void *data, int fd, const struct sockaddr *peer);
    void *data;
    int spare_fd; /* given up for a moment where there is no other */
} door = {.mutex = PTHREAD_MUTEX_INITIALIZER, .spare_fd = -1};

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void vp_accept_watch(gboolean (*admit)(void *data, int fd, const struct sockaddr *peer), void *data)
{
    VP_LOCK(&door.mutex);
    door.admit = admit;
    door.data = data;
    if (door.spare_fd < 0)
        door.spare_fd = open_spare();
}

void vp_accept_unwatch(const void *data)
{
    VP_LOCK(&door.mutex);
    if (door.data != data)
        return;
    door.admit = NULL;
    door.data = NULL;
    if (door.spare_fd >= 0)
        close(door.spare_fd);
    door.spare_fd = -1;
}

static int accept_one(int listening, struct sockaddr *address, socklen_t *length, int flags)
{
    return (int)syscall(SYS_accept4, listening, address, length, flags);
}

/* Whether one that waits was turned away for want of descriptors. Whoever is told "no descriptors" gives up listening. */
static gboolean turn_one_away(int listening)
{
    VP_LOCK(&door.mutex);
    if (!door.admit || door.spare_fd < 0)
        return FALSE;
    close(door.spare_fd);
    const int fd = accept_one(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        close(fd);
    door.spare_fd = open_spare();
    return fd >= 0;
}

static gboolean is_watched(const struct sockaddr *address)
{
    return address && (address->sa_family == AF_INET || address->sa_family == AF_INET6);
}

static gboolean admits(int fd, const struct sockaddr *address)
{
    VP_LOCK(&door.mutex);
    return !door.admit || door.admit(door.data, fd, address);
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): theirs are reserved. */
__attribute__((visibility("default"))) int accept4(int listening, struct sockaddr *address, socklen_t *length,
                                                   int flags)
{
    const socklen_t room = length ? *length : 0;

    for (;;) {
        if (length)
            *length = room;
        const int fd = accept_one(listening, address, length, flags);
        const gboolean full = fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS);

        if (full && address && turn_one_away(listening))
            continue;
        if (full && address)
            errno = EAGAIN;
        if (fd < 0 || !is_watched(address) || admits(fd, address))
            return fd;
        close(fd);
    }
}
