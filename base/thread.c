/* Threads, clocks, condition variables: see thread.h. */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

VpError *vp_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *data), void *data)
{
    pthread_t thread;
    sigset_t all;
    sigset_t before;

    /* A new thread inherits the mask: signals are for the main thread alone, but for its own faults, of which a sanitizer tells. */
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&thread, NULL, run, data);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r)
        return vp_error_errno(r, "THREAD_FAILED", "cannot start the thread %s", name);

    pthread_setname_np(thread, name);
    *ret_thread = thread;
    return NULL;
}

static gint64 clock_us(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (gint64)now.tv_sec * G_USEC_PER_SEC + now.tv_nsec / 1000;
}

gint64 vp_now_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

gint64 vp_wall_us(void)
{
    return clock_us(CLOCK_REALTIME);
}

void vp_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

gboolean vp_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, gint64 deadline_us)
{
    const struct timespec until = {
        .tv_sec = (time_t)(deadline_us / G_USEC_PER_SEC),
        .tv_nsec = (long)(deadline_us % G_USEC_PER_SEC) * 1000,
    };

    return pthread_cond_timedwait(cond, mutex, &until) != ETIMEDOUT;
}
