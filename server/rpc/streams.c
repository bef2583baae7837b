/*
 * The calls under way: counted and limited, listed so that the drain can end the streams among them, asked about again when the rules have changed, and
 * looked at from time to time for readers that take nothing.
 */
#include "base/thread.h"
#include "server/rpc/internal.h"

/* Where calls are shed, an answer that nobody has taken for so long makes room. */
#define RELIEF_US G_USEC_PER_SEC

static void sweep_stalled(void *data);

static VpError *too_many(const char *reason, guint most, const char *what)
{
    return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, reason, "%u %s, which is the limit; try again", most,
                                       what),
                          1000);
}

/* Under the mutex. Answers that nobody takes hold places that others need: has them looked for now and not in a while. */
static void hurry_sweep(VpRpcServer *server)
{
    const gint64 now_us = vp_now_us();

    if (now_us - server->relief_us < RELIEF_US || !server->sweep || !vp_timer_cancel(server->sweep))
        return;
    server->relief_us = now_us;
    server->relief = TRUE;
    server->sweep = vp_timer_start(server->loop, 1, sweep_stalled, server);
}

VpError *vp_server_enter(VpRpcServer *server, VpCall *call)
{
    VP_LOCK(&server->mutex);
    server->n_calls++;
    call->next = server->calls;
    if (call->next)
        call->next->prev = call;
    server->calls = call;
    if (server->draining)
        return vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon is stopping; connect again later");
    if (server->n_calls <= server->max_calls)
        return NULL;
    hurry_sweep(server);
    return too_many("TOO_MANY_CALLS", server->max_calls, "calls are in flight");
}

/* What the call has counted for its connection and its identity. */
static void uncount(VpCall *call)
{
    if (call->connection) {
        g_atomic_int_add(&call->connection->calls, -1);
        g_atomic_int_add(&call->connection->streams, call->stream ? -1 : 0);
    }
    if (call->counted_stream)
        vp_account_leave_stream(call->account);
    if (call->counted)
        vp_account_leave(call->account);
}

void vp_server_leave(VpRpcServer *server, VpCall *call)
{
    uncount(call);
    VP_LOCK(&server->mutex);
    server->n_calls--;
    server->n_streams -= call->stream ? 1 : 0;
    if (call->prev)
        call->prev->next = call->next;
    else
        server->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    if (server->draining)
        pthread_cond_broadcast(&server->changed);
}

void vp_server_handler_begins(VpRpcServer *server)
{
    VP_LOCK(&server->mutex);
    server->n_handlers++;
}

void vp_server_handler_ended(VpRpcServer *server)
{
    VP_LOCK(&server->mutex);
    server->n_handlers--;
    if (server->draining)
        pthread_cond_broadcast(&server->changed);
}

VpError *vp_server_add_stream(VpRpcServer *server, VpCall *call)
{
    VP_LOCK(&server->mutex);
    if (server->draining)
        return vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon is stopping; connect again later");
    if (server->n_streams >= MIN(server->max_streams, server->max_calls))
        return too_many("TOO_MANY_STREAMS", server->max_streams, "streams are open");
    VpError *error = call->account ? vp_account_enter_stream(call->account) : NULL;
    if (error)
        return error;
    call->counted_stream = call->account != NULL;
    server->n_streams++;
    call->stream = TRUE;
    if (call->connection)
        g_atomic_int_inc(&call->connection->streams);
    return NULL;
}

/* The open calls, or the streams of them, each held, so that they can be worked on without the lock. */
static GPtrArray *hold_calls(VpRpcServer *server, gboolean streams)
{
    GPtrArray *calls = g_ptr_array_new();

    VP_LOCK(&server->mutex);
    for (VpCall *call = server->calls; call; call = call->next) {
        if (streams && !call->stream)
            continue;
        g_atomic_int_inc(&call->refs);
        g_ptr_array_add(calls, call);
    }
    return calls;
}

void vp_rpc_server_recheck(VpRpcServer *server)
{
    const VpRpcGate *gate = server->gate;
    g_autoptr(GPtrArray) streams = hold_calls(server, TRUE);

    vp_accounts_refresh(server->accounts);
    for (guint i = 0; i < streams->len; i++) {
        VpCall *call = streams->pdata[i];
        VpError *error =
            gate ? gate->recheck(gate->data, call, call->endpoint->method, g_atomic_pointer_get(&call->request)) : NULL;
        if (error)
            vp_call_fail(call, error);
        vp_call_release(call);
    }
}

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
    g_autoptr(GPtrArray) calls = hold_calls(server, FALSE);

    pthread_mutex_lock(&server->mutex);
    VpTimer *fired = g_steal_pointer(&server->sweep);
    const gint64 stalled_us = server->relief ? RELIEF_US : (gint64)server->stalled_write_ms * 1000;
    server->relief = FALSE;
    pthread_mutex_unlock(&server->mutex);
    const gint64 before_us = vp_now_us() - MIN(stalled_us, (gint64)server->stalled_write_ms * 1000);
    for (guint i = 0; i < calls->len; i++) {
        vp_call_check_stalled(calls->pdata[i], before_us);
        vp_call_release(calls->pdata[i]);
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
    g_autoptr(GPtrArray) streams = hold_calls(server, TRUE);

    for (guint i = 0; i < streams->len; i++) {
        vp_call_drain(streams->pdata[i]);
        vp_call_release(streams->pdata[i]);
    }
}
