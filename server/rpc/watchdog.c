/*
 * Finds the connection that keeps an RPC thread to itself. The core reads a connection until it has nothing more to say, within one turn of the
 * thread: a client that sends streams (and resets them), pings or settings faster than they are dealt with holds the thread for as long as it
 * likes, and what it has sent piles up in memory; of a header that does not end the core keeps everything, whatever its limit is. So each RPC thread
 * has a timer of its own CPU time, which costs nothing while it rests. When it fires with no turn having ended since the last time, this thread
 * looks for a connection of ours whose receive queue hardly ever gets empty while it is being read, and closes it; when the process has grown a lot
 * in a short time, for the one that most comes in by.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/rpc/internal.h"

/* CPU time of an RPC thread within which it has ended a turn. */
#define TICK_MS 50
/* How often a receive queue is looked at, and in between. */
#define LEAST_LOOKS 20
#define MOST_LOOKS 120
#define BETWEEN_US 1000
#define AFTER_US 50000
/* Of these, in how many it must have been read from. The core reads a lot at a time, and then is busy with it for a while. */
#define READ_LOOKS 3
#define MESSAGE_BYTES_A_LOOK (16 << 10)
/* One connection may come after another. */
#define ROUNDS 8
/* A growth of so much within so long is looked into: more than the core may hold for a message that is too large, before it refuses that. */
#define GROWTH_BYTES (288L << 20)
#define GROWTH_US (10 * G_USEC_PER_SEC)
/* And a connection by which so much comes in while it is looked at is the cause. */
#define FLOOD_BYTES (128 << 10)

struct VpWatchdog {
    const VpRpcServer *server;
    int event_fd; /* readable when some RPC thread has worked for a tick */
    gint stuck;   /* without a turn; atomic */
    glong low;    /* the least memory of this window of time, and its start */
    gint64 low_us;
    pthread_t thread;
    gboolean running;
    gint stopping;
};

/* A connection that is looked at. */
typedef struct Suspect {
    int fd;
    ino_t inode;
    int queued;
    int read;
    guint reads;
    guint empty; /* looks */
} Suspect;

/* On the RPC thread, in the middle of anything: must do next to nothing. */
static void tick(int signal_number, siginfo_t *info, void *context)
{
    VpQueue *queue = info->si_value.sival_ptr;
    const int saved = errno;
    const gint turns = g_atomic_int_get(&queue->turns);

    (void)signal_number;
    (void)context;
    const eventfd_t one = 1;
    if (turns == queue->turns_at_tick)
        g_atomic_int_set(&queue->watchdog->stuck, TRUE);
    const ssize_t written = write(queue->watchdog->event_fd, &one, sizeof(one));
    (void)written;
    queue->turns_at_tick = turns;
    errno = saved;
}

void vp_watchdog_watch(VpQueue *queue)
{
    const int number = SIGRTMIN + 5;
    struct sigaction action = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = number, .sigev_value.sival_ptr = queue};
    const struct itimerspec every = {.it_interval.tv_nsec = TICK_MS * 1000000L, .it_value.tv_nsec = TICK_MS * 1000000L};
    sigset_t set;

    if (!queue->watchdog)
        return;
    event._sigev_un._tid = gettid();
    sigemptyset(&action.sa_mask);
    sigemptyset(&set);
    sigaddset(&set, number);
    queue->turns_at_tick = -1;
    if (sigaction(number, &action, NULL) < 0 || timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &queue->timer) < 0) {
        vp_log(VP_LOG_WARNING, "a client that sends without end will not be noticed: %s", g_strerror(errno));
        return;
    }
    queue->timed = TRUE;
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    timer_settime(queue->timer, 0, &every, NULL);
}

void vp_watchdog_unwatch(VpQueue *queue)
{
    if (queue->timed)
        timer_delete(queue->timer);
    queue->timed = FALSE;
}

/* Whether the socket is a connection to one of the server's addresses. */
static gboolean is_ours(const VpRpcServer *server, int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address;
    socklen_t length = sizeof(address);
    int listens = 0;
    socklen_t size = sizeof(listens);

    memset(&address, 0, sizeof(address));
    if (getsockname(fd, &address.any, &length) < 0 || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 ||
        listens)
        return FALSE;
    const char *path = address.any.sa_family == AF_UNIX ? address.local.sun_path : NULL;
    const guint port = address.any.sa_family == AF_INET    ? ntohs(address.in.sin_port)
                       : address.any.sa_family == AF_INET6 ? ntohs(address.in6.sin6_port)
                                                           : 0;
    g_autofree char *suffix = g_strdup_printf(":%u", port);

    for (const char *const *ours = (const char *const *)server->addresses->pdata; *ours; ours++) {
        const gboolean local = g_str_has_prefix(*ours, "unix:");

        if (path && path[0] && local && strncmp(*ours + strlen("unix:"), path, sizeof(address.local.sun_path)) == 0)
            return TRUE;
        if (port && !local && g_str_has_suffix(*ours, suffix))
            return TRUE;
    }
    return FALSE;
}

/* Connections with something in their receive queue. */
static GArray *find_suspects(const VpRpcServer *server)
{
    GArray *suspects = g_array_new(FALSE, FALSE, sizeof(Suspect));
    DIR *dir = opendir("/proc/self/fd");

    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        Suspect suspect = {.fd = (int)g_ascii_strtoll(entry->d_name, NULL, 10)};
        struct stat status;

        if (entry->d_name[0] == '.' || fstat(suspect.fd, &status) < 0 || !S_ISSOCK(status.st_mode) ||
            ioctl(suspect.fd, FIONREAD, &suspect.queued) < 0 || suspect.queued == 0 || !is_ours(server, suspect.fd))
            continue;
        suspect.inode = status.st_ino;
        g_array_append_val(suspects, suspect);
    }
    if (dir)
        closedir(dir);
    return suspects;
}

static gboolean is_still(const Suspect *suspect)
{
    struct stat status;

    return fstat(suspect->fd, &status) == 0 && status.st_ino == suspect->inode;
}

/* It is read from, and there is nearly always more; but not so fast as only a large message comes in, which has a limit of its own. */
static gboolean is_greedy(const Suspect *suspect, guint looks)
{
    return suspect->reads >= READ_LOOKS && suspect->empty * 4 <= looks &&
           suspect->read <= (gint)(looks + 1) * MESSAGE_BYTES_A_LOOK;
}

/* The one that was read from most often and hardly ever empty, or, for a flood, by which most came in; fd -1: none. */
static Suspect find_culprit(const VpRpcServer *server, gboolean flood)
{
    g_autoptr(GArray) suspects = find_suspects(server);
    Suspect culprit = {.fd = -1, .reads = READ_LOOKS - 1, .read = FLOOD_BYTES - 1};

    gboolean found = FALSE;
    guint looks = 0;

    for (; looks < (flood || found ? LEAST_LOOKS : MOST_LOOKS) && suspects->len > 0; looks++) {
        g_usleep(BETWEEN_US);
        for (guint i = suspects->len; i > 0; i--) {
            Suspect *suspect = &g_array_index(suspects, Suspect, i - 1);
            int queued = 0;

            if (ioctl(suspect->fd, FIONREAD, &queued) < 0) {
                g_array_remove_index_fast(suspects, i - 1);
                continue;
            }
            suspect->empty += queued == 0;
            suspect->reads += queued < suspect->queued;
            suspect->read += ABS(queued - suspect->queued);
            suspect->queued = queued;
            found = found || is_greedy(suspect, looks);
        }
    }
    for (guint i = 0; i < suspects->len; i++) {
        const Suspect *suspect = &g_array_index(suspects, Suspect, i);

        if ((flood ? suspect->read > culprit.read : suspect->reads > culprit.reads && is_greedy(suspect, looks)) &&
            is_still(suspect))
            culprit = *suspect;
    }
    return culprit;
}

static void close_culprit(const Suspect *culprit)
{
    struct ucred who;
    socklen_t length = sizeof(who);

    if (getsockopt(culprit->fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 && who.pid > 0)
        vp_log(VP_LOG_WARNING, "a client sends faster than it can be served: its connection is closed (uid=%u pid=%d)",
               who.uid, who.pid);
    else
        vp_log(VP_LOG_WARNING, "a client sends faster than it can be served: its connection is closed");
    /* The core sees the end of it, and closes the descriptor. */
    shutdown(culprit->fd, SHUT_RDWR);
}

/* Whether the process has grown a lot in a short time. */
static gboolean has_grown(VpWatchdog *watchdog)
{
    g_autofree char *text = NULL;
    glong pages = 0;

    if (!g_file_get_contents("/proc/self/statm", &text, NULL, NULL) || sscanf(text, "%*d %ld", &pages) != 1)
        return FALSE;
    const glong bytes = pages * sysconf(_SC_PAGESIZE);
    const gint64 now_us = vp_now_us();
    if (bytes < watchdog->low || now_us - watchdog->low_us > GROWTH_US) {
        watchdog->low = bytes;
        watchdog->low_us = now_us;
    }
    return bytes - watchdog->low > GROWTH_BYTES;
}

static void look(VpWatchdog *watchdog)
{
    for (guint round = 0; round < ROUNDS && !g_atomic_int_get(&watchdog->stopping); round++) {
        const gboolean stuck = g_atomic_int_compare_and_exchange(&watchdog->stuck, TRUE, FALSE);
        Suspect culprit = {.fd = -1};

        if (stuck || round > 0)
            culprit = find_culprit(watchdog->server, /* flood= */ FALSE);
        if (culprit.fd < 0 && has_grown(watchdog))
            culprit = find_culprit(watchdog->server, /* flood= */ TRUE);
        if (culprit.fd < 0)
            return;
        close_culprit(&culprit);
        /* The core needs a moment to drop what it holds; then the next one, and the memory goes back. */
        g_usleep(AFTER_US);
        malloc_trim(0);
        watchdog->low_us = 0;
    }
}

static void *watch(void *data)
{
    VpWatchdog *watchdog = data;

    for (;;) {
        struct pollfd wait = {.fd = watchdog->event_fd, .events = POLLIN};
        eventfd_t ticks;

        if (poll(&wait, 1, -1) < 0 && errno != EINTR)
            return NULL;
        if (eventfd_read(watchdog->event_fd, &ticks) < 0)
            continue;
        if (g_atomic_int_get(&watchdog->stopping))
            return NULL;
        look(watchdog);
    }
}

VpWatchdog *vp_watchdog_new(const VpRpcServer *server, VpError **error)
{
    VpWatchdog *watchdog = g_new0(VpWatchdog, 1);

    watchdog->server = server;
    watchdog->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    VpError *failure = watchdog->event_fd < 0 ? vp_error_errno(errno, "LISTEN_FAILED", "cannot make an eventfd")
                                              : vp_thread_start(&watchdog->thread, "vp-watchdog", watch, watchdog);
    watchdog->running = !failure;
    if (failure) {
        *error = failure;
        vp_watchdog_free(watchdog);
        return NULL;
    }
    return watchdog;
}

void vp_watchdog_free(VpWatchdog *watchdog)
{
    if (!watchdog)
        return;
    if (watchdog->running) {
        g_atomic_int_set(&watchdog->stopping, TRUE);
        eventfd_write(watchdog->event_fd, 1);
        pthread_join(watchdog->thread, NULL);
    }
    if (watchdog->event_fd >= 0)
        close(watchdog->event_fd);
    g_free(watchdog);
}
