/*
 * A daemon under test that is held or killed at a chosen moment: preloaded (LD_PRELOAD), driven through the file $VP_STEPS_CONTROL, which is mapped
 * here and written by the test (harness/steps.py).
 *
 * Steps: each call that can be seen from outside counts one (writes, fsyncs, names, sockets, processes); at the call number `die_at` the daemon kills
 * itself, before the call is made. Gates: while `hold_fsync` is set no fsync of the store returns, while `hold_images` is set no read of a file below
 * $VP_STEPS_IMAGES does; `held` counts those who wait. Built by the test with cc.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

struct control {
    _Atomic int32_t calls;
    _Atomic int32_t die_at; /* 0: never */
    _Atomic int32_t hold_fsync;
    _Atomic int32_t hold_images;
    _Atomic int32_t held;
};

static struct control *control;
static const char *images;
static pid_t daemon_pid;

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real)                                                                                                         \
    *(void **)&real = dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("VP_STEPS_CONTROL");
    const int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        abort();
    control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED)
        abort();
    close(fd);
    images = getenv("VP_STEPS_IMAGES");
    daemon_pid = getpid();
    /* What the daemon starts is no daemon. */
    unsetenv("LD_PRELOAD");
}

static void step(void)
{
    if (getpid() != daemon_pid)
        return;
    if (++control->calls == control->die_at)
        kill(daemon_pid, SIGKILL);
}

static void hold(const _Atomic int32_t *gate)
{
    if (!*gate)
        return;
    control->held++;
    while (*gate)
        usleep(1000);
    control->held--;
}

static int names(int fd, const char *text)
{
    char link[64];
    char path[4096];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return strstr(path, text) != NULL;
}

#define PREAD(name)                                                                                                    \
    ssize_t name(int fd, void *data, size_t size, off_t at)                                                            \
    {                                                                                                                  \
        REAL(ssize_t, #name, int, void *, size_t, off_t);                                                              \
        if (control->hold_images && images && names(fd, images))                                                       \
            hold(&control->hold_images);                                                                               \
        return real(fd, data, size, at);                                                                               \
    }
PREAD(pread)
PREAD(pread64)

#define PWRITE(name)                                                                                                   \
    ssize_t name(int fd, const void *data, size_t size, off_t at)                                                      \
    {                                                                                                                  \
        REAL(ssize_t, #name, int, const void *, size_t, off_t);                                                        \
        step();                                                                                                        \
        return real(fd, data, size, at);                                                                               \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define SYNC(name)                                                                                                     \
    int name(int fd)                                                                                                   \
    {                                                                                                                  \
        REAL(int, #name, int);                                                                                         \
        step();                                                                                                        \
        if (control->hold_fsync && names(fd, "/store.db"))                                                             \
            hold(&control->hold_fsync);                                                                                \
        return real(fd);                                                                                               \
    }
SYNC(fsync)
SYNC(fdatasync)

#define STEP(type, name, parameters, arguments, ...)                                                                   \
    type name parameters                                                                                               \
    {                                                                                                                  \
        REAL(type, #name, __VA_ARGS__);                                                                                \
        step();                                                                                                        \
        return real arguments;                                                                                         \
    }
STEP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), int, const void *, size_t)
STEP(ssize_t, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags), int, const void *,
     size_t, int)
STEP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), int,
     const struct msghdr *, int)
STEP(int, rename, (const char *from, const char *to), (from, to), const char *, const char *)
STEP(int, mkdir, (const char *path, mode_t mode), (path, mode), const char *, mode_t)
STEP(int, unlink, (const char *path), (path), const char *)
STEP(int, listen, (int fd, int backlog), (fd, backlog), int, int)
STEP(int, pidfd_open, (pid_t pid, unsigned flags), (pid, flags), pid_t, unsigned)
STEP(pid_t, fork, (void), (), void)
STEP(int, renameat2, (int from_dir, const char *from, int to_dir, const char *to, unsigned flags),
     (from_dir, from, to_dir, to, flags), int, const char *, int, const char *, unsigned)
STEP(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), int, const char *, int)
STEP(int, pidfd_send_signal, (int fd, int number, siginfo_t *info, unsigned flags), (fd, number, info, flags), int, int,
     siginfo_t *, unsigned)
