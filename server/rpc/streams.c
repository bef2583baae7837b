/* The open streams: listed so that the drain can end them, asked about again when the rules have changed, and looked at from time to time for readers that
 * take nothing. */
#include "base/thread.h"
#include "server/rpc/internal.h"

gboolean vp_server_add_stream(VpRpcServer *server, VpCall *call)
{
    VP_LOCK(&server->mutex);
    if (server->draining)
        return FALSE;
    call->listed = TRUE;
    call->next = server->streams;
    if (call->next)
        call->next->prev = call;
    server->streams = call;
    return TRUE;
}

void vp_server_remove_stream(VpRpcServer *server, VpCall *call)
{
    /* Only the thread that lists a call and the one that ends it look at this, one after the other. */
    if (!call->listed)
        return;
    VP_LOCK(&server->mutex);
    call->listed = FALSE;
    if (call->prev)
        call->prev->next = call->next;
    else
        server->streams = call->next;
    if (call->next)
        call->next->prev = call->prev;
}

/* The open streams, each held, so that they can be worked on without the lock. */
static GPtrArray *hold_streams(VpRpcServer *server)
{
    GPtrArray *streams = g_ptr_array_new();

    VP_LOCK(&server->mutex);
    for (VpCall *call = server->streams; call; call = call->next) {
        g_atomic_int_inc(&call->refs);
        g_ptr_array_add(streams, call);
    }
    return streams;
}

void vp_rpc_server_recheck(VpRpcServer *server)
{
    const VpRpcGate *gate = server->gate;
    g_autoptr(GPtrArray) streams = hold_streams(server);

    for (guint i = 0; i < streams->len; i++) {
        VpCall *call = streams->pdata[i];
        VpError *error =
            gate ? gate->recheck(gate->data, call, call->endpoint->method, g_atomic_pointer_get(&call->request)) : NULL;
        if (error)
            vp_call_fail(call, error);
        vp_call_release(call);
    }
}

static void sweep_stalled(void *data);

void vp_streams_sweep(VpRpcServer *server)
{
    VP_LOCK(&server->mutex);
    server->sweeping = !server->draining;
    if (server->sweeping)
        server->sweep = vp_timer_start(server->loop, MAX(server->stalled_write_ms / 4, 10), sweep_stalled, server);
    else
        pthread_cond_broadcast(&server->changed);
}

/* Keepalive does not find a reader that is frozen with a full socket: the ping waits behind the blocked write. */
static void sweep_stalled(void *data)
{
    VpRpcServer *server = data;
    const gint64 before_us = vp_now_us() - (gint64)server->stalled_write_ms * 1000;
    g_autoptr(GPtrArray) streams = hold_streams(server);

    pthread_mutex_lock(&server->mutex);
    VpTimer *fired = g_steal_pointer(&server->sweep);
    pthread_mutex_unlock(&server->mutex);
    for (guint i = 0; i < streams->len; i++) {
        vp_call_check_stalled(streams->pdata[i], before_us);
        vp_call_release(streams->pdata[i]);
    }
    vp_timer_cancel(fired);
    vp_streams_sweep(server);
}

/* Afterwards no sweep looks at the server any more. */
void vp_streams_stop_sweeping(VpRpcServer *server)
{
    pthread_mutex_lock(&server->mutex);
    server->draining = TRUE;
    VpTimer *sweep = g_steal_pointer(&server->sweep);
    pthread_mutex_unlock(&server->mutex);
    const gboolean cancelled = vp_timer_cancel(sweep);

    VP_LOCK(&server->mutex);
    if (cancelled)
        server->sweeping = FALSE;
    /* One is at work on the loop's thread; it does not block. */
    while (server->sweeping)
        pthread_cond_wait(&server->changed, &server->mutex);
}

void vp_streams_drain(VpRpcServer *server)
{
    g_autoptr(GPtrArray) streams = hold_streams(server);

    for (guint i = 0; i < streams->len; i++) {
        vp_call_drain(streams->pdata[i]);
        vp_call_release(streams->pdata[i]);
    }
}
