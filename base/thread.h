/* Named pthreads, and the lock guard that the rest of the code uses: `VP_LOCK(&mutex);` holds until the scope ends. */
#pragma once

#include <glib.h>
#include <pthread.h>

#include "base/error.h"

/* Starts a joinable thread with all signals blocked; `name` has at most 15 characters (pthread_setname_np). */
VpError *vp_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *data), void *data);

/* CLOCK_MONOTONIC in microseconds, and CLOCK_REALTIME in microseconds since 1970. */
gint64 vp_now_us(void);
gint64 vp_wall_us(void);

/* A condition variable on CLOCK_MONOTONIC; wait until `deadline_us` of vp_now_us(). FALSE: the deadline has passed. */
void vp_cond_init(pthread_cond_t *cond);
gboolean vp_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, gint64 deadline_us);

static inline pthread_mutex_t *vp_lock_enter(pthread_mutex_t *mutex)
{
    pthread_mutex_lock(mutex);
    return mutex;
}

static inline void vp_lock_leave(pthread_mutex_t **mutex)
{
    pthread_mutex_unlock(*mutex);
}

#define VP_LOCK(mutex)                                                                                                 \
    __attribute__((cleanup(vp_lock_leave), unused)) pthread_mutex_t *G_PASTE(vp_guard_, __LINE__) = vp_lock_enter(mutex)
