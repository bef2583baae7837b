/* Signals as an orderly end: see interrupt.h. */
#include "clients/cli/interrupt.h"

#include <signal.h>

#include "base/thread.h"

struct VpInterrupt {
    sigset_t signals;
    sigset_t before;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    VpClientStream *stream;
    gboolean came;
};

static void *wait_for_signal(void *data)
{
    VpInterrupt *interrupt = data;
    int signal;

    while (sigwait(&interrupt->signals, &signal) != 0)
        continue;
    VP_LOCK(&interrupt->mutex);
    interrupt->came = TRUE;
    /* Under the lock, so that the stream is there as long as it is being cancelled; cancelling does not wait. */
    if (interrupt->stream)
        vp_client_stream_cancel(interrupt->stream);
    pthread_cond_broadcast(&interrupt->cond);
    return NULL;
}

VpInterrupt *vp_interrupt_new(VpError **error)
{
    VpInterrupt *interrupt = g_new0(VpInterrupt, 1);

    sigemptyset(&interrupt->signals);
    sigaddset(&interrupt->signals, SIGINT);
    sigaddset(&interrupt->signals, SIGTERM);
    pthread_mutex_init(&interrupt->mutex, NULL);
    vp_cond_init(&interrupt->cond);
    pthread_sigmask(SIG_BLOCK, &interrupt->signals, &interrupt->before);

    VpError *failure = vp_thread_start(&interrupt->thread, "signals", wait_for_signal, interrupt);
    if (failure) {
        pthread_sigmask(SIG_SETMASK, &interrupt->before, NULL);
        pthread_cond_destroy(&interrupt->cond);
        pthread_mutex_destroy(&interrupt->mutex);
        g_free(interrupt);
        *error = failure;
        return NULL;
    }
    return interrupt;
}

void vp_interrupt_watch(VpInterrupt *interrupt, VpClientStream *stream)
{
    VP_LOCK(&interrupt->mutex);
    interrupt->stream = stream;
    if (stream && interrupt->came)
        vp_client_stream_cancel(stream);
}

gboolean vp_interrupt_came(VpInterrupt *interrupt)
{
    VP_LOCK(&interrupt->mutex);
    return interrupt->came;
}

void vp_interrupt_sleep(VpInterrupt *interrupt, guint ms)
{
    const gint64 until = vp_now_us() + (gint64)ms * 1000;

    VP_LOCK(&interrupt->mutex);
    while (!interrupt->came && vp_cond_wait_until(&interrupt->cond, &interrupt->mutex, until))
        continue;
}

void vp_interrupt_free(VpInterrupt *interrupt)
{
    if (!interrupt)
        return;
    /* Ends the wait; harmless if it has ended. */
    pthread_kill(interrupt->thread, SIGTERM);
    pthread_join(interrupt->thread, NULL);
    pthread_sigmask(SIG_SETMASK, &interrupt->before, NULL);
    pthread_cond_destroy(&interrupt->cond);
    pthread_mutex_destroy(&interrupt->mutex);
    g_free(interrupt);
}
