/*
 * A disk that is worse than ours, for the daemon under test: preloaded (LD_PRELOAD), it stands between SQLite and the files of the store.
 *
 * Power cuts: what was not fsynced is not on the disk. Beside each file F of the store it keeps F.durable, which gets what was written to F only when F is
 * fsynced, before fsync returns. After a kill the test puts F.durable, or a mixture of both by sectors, in F's place (harness/disk.py). Names (creation,
 * removal) count as durable at once, and -shm is no file of the disk's: SQLite makes it anew.
 *
 * Faults: $VP_DISK_CONTROL is a file of three 32-bit numbers, mapped here and written by the test: after so many more calls that write, so many of them fail
 * with this errno. A call that fails has written half of its bytes.
 *
 * What it covers is what SQLite's unix VFS calls: open, write, pwrite, ftruncate, posix_fallocate, fsync, fdatasync, unlink. Built by the test with cc.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILES 16
#define SUFFIX ".durable"
/* How long an fsync takes, so that kills come upon what was written and is not on the disk yet. */
#define SYNC_NS 3000000

struct control {
    _Atomic int32_t after;
    _Atomic int32_t times;
    _Atomic int32_t error;
};

struct range {
    off_t start;
    off_t end;
};

struct file {
    dev_t dev;
    ino_t ino;
    int durable;
    struct range *dirty;
    size_t n;
    size_t room;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file files[MAX_FILES];
static struct control *control;
static __thread int inside;

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real)                                                                                                         \
    *(void **)&real = dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("VP_DISK_CONTROL");
    const int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    control = map == MAP_FAILED ? NULL : map;
    close(fd);
}

/* Under the lock. A file that was removed keeps its slot until its inode comes again; the last of its name wins. */
static struct file *find(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return NULL;
    for (int i = 0; i < MAX_FILES; i++)
        if (files[i].ino == st.st_ino && files[i].dev == st.st_dev && files[i].ino)
            return &files[i];
    return NULL;
}

static int is_ours(const char *path)
{
    const char *name = strrchr(path, '/');

    name = name ? name + 1 : path;
    return strcmp(name, "store.db") == 0 || strcmp(name, "store.db-wal") == 0;
}

static void copy_range(int from, int to, off_t start_at, off_t end)
{
    char buffer[65536];

    while (start_at < end) {
        const size_t want = (size_t)(end - start_at) < sizeof(buffer) ? (size_t)(end - start_at) : sizeof(buffer);
        const ssize_t got = pread(from, buffer, want, start_at);

        if (got <= 0)
            return;
        if (pwrite(to, buffer, (size_t)got, start_at) != got)
            abort();
        start_at += got;
    }
}

/* A file that is there before us is on the disk. */
static void track(int fd, const char *path)
{
    char durable[4096];
    struct stat st;

    pthread_mutex_lock(&lock);
    inside++;
    if (!find(fd) && fstat(fd, &st) == 0) {
        struct file *slot = NULL;

        for (int i = 0; i < MAX_FILES && !slot; i++)
            if (!files[i].ino)
                slot = &files[i];
        if (!slot)
            abort();
        snprintf(durable, sizeof(durable), "%s" SUFFIX, path);
        *slot = (struct file){.dev = st.st_dev,
                              .ino = st.st_ino,
                              .durable = open(durable, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
        if (slot->durable < 0)
            abort();
        const int reader = open(path, O_RDONLY | O_CLOEXEC);
        copy_range(reader, slot->durable, 0, st.st_size);
        close(reader);
    }
    inside--;
    pthread_mutex_unlock(&lock);
}

static void mark(int fd, off_t start_at, off_t end)
{
    pthread_mutex_lock(&lock);
    struct file *file = find(fd);

    if (file && file->n > 0 && file->dirty[file->n - 1].end == start_at) {
        file->dirty[file->n - 1].end = end;
    } else if (file) {
        if (file->n == file->room) {
            file->room = file->room ? 2 * file->room : 64;
            file->dirty = realloc(file->dirty, file->room * sizeof(*file->dirty));
            if (!file->dirty)
                abort();
        }
        file->dirty[file->n++] = (struct range){start_at, end};
    }
    pthread_mutex_unlock(&lock);
}

static void make_durable(int fd)
{
    struct stat st;

    nanosleep(&(struct timespec){.tv_nsec = SYNC_NS}, NULL);
    pthread_mutex_lock(&lock);
    inside++;
    struct file *file = find(fd);

    if (file && fstat(fd, &st) == 0) {
        for (size_t i = 0; i < file->n; i++)
            copy_range(fd, file->durable, file->dirty[i].start, file->dirty[i].end);
        if (ftruncate(file->durable, st.st_size) < 0)
            abort();
        file->n = 0;
    }
    inside--;
    pthread_mutex_unlock(&lock);
}

static int tracked(int fd)
{
    /* Our own calls come here too, and hold the lock. */
    if (inside)
        return 0;
    pthread_mutex_lock(&lock);
    const int yes = find(fd) != NULL;
    pthread_mutex_unlock(&lock);
    return yes;
}

/* Whether this call is to fail; errno is set. A full disk fails no fsync. */
static int fails(int is_sync)
{
    if (!control || control->times <= 0 || (is_sync && control->error == ENOSPC))
        return 0;
    if (control->after > 0) {
        control->after--;
        return 0;
    }
    control->times--;
    errno = control->error;
    return 1;
}

static int open_file(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode)
{
    const int fd = real(path, flags, mode);

    if (fd >= 0 && !inside && is_ours(path) && (flags & O_ACCMODE) != O_RDONLY)
        track(fd, path);
    return fd;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        REAL(int, #name, const char *, int, ...);                                                                      \
        va_start(arguments, flags);                                                                                    \
        const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;                             \
        va_end(arguments);                                                                                             \
        return open_file(real, path, flags, mode);                                                                     \
    }
OPEN(open)
OPEN(open64)

#define PWRITE(name)                                                                                                   \
    ssize_t name(int fd, const void *data, size_t size, off_t at)                                                      \
    {                                                                                                                  \
        REAL(ssize_t, #name, int, const void *, size_t, off_t);                                                        \
        if (!tracked(fd))                                                                                              \
            return real(fd, data, size, at);                                                                           \
        const int failed = fails(0);                                                                                   \
        const int error = errno;                                                                                       \
        const ssize_t put = real(fd, data, failed ? size / 2 : size, at);                                              \
        if (put > 0)                                                                                                   \
            mark(fd, at, at + put);                                                                                    \
        errno = failed ? error : errno;                                                                                \
        return failed ? -1 : put;                                                                                      \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!tracked(fd))
        return real(fd, data, size);
    if (fails(0))
        return -1;
    const off_t at = lseek(fd, 0, SEEK_CUR);
    const ssize_t put = real(fd, data, size);
    if (put > 0)
        mark(fd, at, at + put);
    return put;
}

#define TRUNCATE(name)                                                                                                 \
    int name(int fd, off_t size)                                                                                       \
    {                                                                                                                  \
        REAL(int, #name, int, off_t);                                                                                  \
        return tracked(fd) && fails(0) ? -1 : real(fd, size);                                                          \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define FALLOCATE(name)                                                                                                \
    int name(int fd, off_t at, off_t size)                                                                             \
    {                                                                                                                  \
        REAL(int, #name, int, off_t, off_t);                                                                           \
        return tracked(fd) && fails(0) ? errno : real(fd, at, size);                                                   \
    }
FALLOCATE(posix_fallocate)
FALLOCATE(posix_fallocate64)

#define SYNC(name)                                                                                                     \
    int name(int fd)                                                                                                   \
    {                                                                                                                  \
        REAL(int, #name, int);                                                                                         \
        if (tracked(fd)) {                                                                                             \
            if (fails(1))                                                                                              \
                return -1;                                                                                             \
            make_durable(fd);                                                                                          \
            return 0; /* the machine does not go down in this test */                                                  \
        }                                                                                                              \
        return real(fd);                                                                                               \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path)
{
    char durable[4096];
    struct stat st;
    REAL(int, "unlink", const char *);
    if (is_ours(path) && stat(path, &st) == 0) {
        pthread_mutex_lock(&lock);
        for (int i = 0; i < MAX_FILES; i++)
            if (files[i].ino == st.st_ino && files[i].dev == st.st_dev) {
                close(files[i].durable);
                free(files[i].dirty);
                files[i] = (struct file){0};
            }
        pthread_mutex_unlock(&lock);
        snprintf(durable, sizeof(durable), "%s" SUFFIX, path);
        real(durable);
    }
    return real(path);
}
