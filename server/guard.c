/* Puts the parts of the guard together: see guard.h. */
#include "server/guard.h"

#include <pthread.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/auth/watch.h"

/* Editors and tools change a file in several steps. */
#define SETTLE_US (100 * 1000)
/* How late it may be seen that a certificate or token of an open stream has run out. */
#define EXPIRY_US (5 * G_USEC_PER_SEC)

struct VpGuard {
    const VpConfig *config;
    VpStore *store;
    VpAuth *auth;
    VpAccessContext context;
    VpRpcGate gate;
    VpFileWatch *watch;
    VpRpcServer *server;
    VpScreens *screens;
    pthread_t thread;
    gboolean running;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t woken;
    gboolean reload;
    gboolean stopping;
};

/* ---- refused calls, in the journal ---- */

static void committed(void *data, gint64 revision, const VpError *error)
{
    (void)data;
    (void)revision;
    if (error)
        vp_log(VP_LOG_WARNING, "a refused call is not in the journal: %s", error->message);
}

static void refused(void *data, const char *identity, const char *method, const char *detail)
{
    const VpGuard *guard = data;
    PbEvent event = PB_EVENT__INIT;
    VpTxn *txn = vp_txn_new();

    (void)method;
    event.type = PB_EVENT_TYPE_CLIENT_REFUSED;
    event.resource_type = (char *)"connection";
    event.name = (char *)identity;
    event.reason = (char *)"NOT_ALLOWED";
    event.detail = (char *)detail;
    vp_txn_event(txn, &event);
    vp_store_commit(guard->store, txn, committed, NULL);
}

/* ---- reading again ---- */

static void changed(void *data)
{
    vp_guard_reload(data);
}

static void reload(VpGuard *guard)
{
    g_autoptr(VpError) error = vp_auth_reload(guard->auth);

    if (error)
        vp_log(VP_LOG_ERROR, "what was there before stays in force: %s", error->message);
    else
        vp_log(VP_LOG_INFO, "policy, certificates and keys were read again");
}

/* Waits until files are to be read (TRUE), or streams to be looked at (FALSE). */
static gboolean wait_for_work(VpGuard *guard)
{
    const gint64 deadline_us = vp_now_us() + EXPIRY_US;
    gboolean in_time = TRUE;

    VP_LOCK(&guard->mutex);
    while (!guard->reload && !guard->stopping && in_time)
        in_time = vp_cond_wait_until(&guard->woken, &guard->mutex, deadline_us);
    if (!guard->reload || guard->stopping)
        return FALSE;
    const gint64 settled_us = vp_now_us() + SETTLE_US;
    while (!guard->stopping && vp_cond_wait_until(&guard->woken, &guard->mutex, settled_us))
        ;
    guard->reload = FALSE;
    return TRUE;
}

static void *run(void *data)
{
    VpGuard *guard = data;

    for (;;) {
        const gboolean read = wait_for_work(guard);

        pthread_mutex_lock(&guard->mutex);
        const gboolean stopping = guard->stopping;
        pthread_mutex_unlock(&guard->mutex);
        if (stopping)
            return NULL;
        if (read)
            reload(guard);
        vp_rpc_server_recheck(guard->server);
        vp_screens_recheck(guard->screens);
    }
}

void vp_guard_reload(VpGuard *guard)
{
    VP_LOCK(&guard->mutex);
    guard->reload = TRUE;
    pthread_cond_signal(&guard->woken);
}

/* ---- life ---- */

static VpError *open_parts(VpGuard *guard)
{
    const VpSecurityConfig *security = &guard->config->security;
    VpError *error = NULL;

    guard->auth = vp_auth_new(&security->auth, &error);
    if (error || (!security->audit_file && !security->audit_journal))
        return error;
    const VpAuditOptions options = {
        .file = security->audit_file,
        .journal = security->audit_journal,
        .max_bytes = security->audit_max_bytes,
        .keep = security->audit_keep,
        .refused = refused,
        .data = guard,
    };
    guard->context.audit = vp_audit_new(&options, &error);
    return error;
}

VpGuard *vp_guard_new(const VpConfig *config, VpServices *services, VpError **error)
{
    VpGuard *guard = g_new0(VpGuard, 1);

    guard->config = config;
    guard->store = services->store;
    pthread_mutex_init(&guard->mutex, NULL);
    vp_cond_init(&guard->woken);
    VpError *failure = open_parts(guard);
    if (failure) {
        *error = failure;
        vp_guard_free(guard);
        return NULL;
    }
    guard->context.visitors = config->events_clients ? vp_visitors_new(services->store) : NULL;
    guard->context.auth = guard->auth;
    guard->context.domains = services->domains;
    guard->context.jobs = services->jobs;
    guard->context.secrets = services->secrets;
    guard->context.limits = config->limits;
    guard->context.halves = (VpLimits){
        .connections = (config->max_connections ? config->max_connections : VP_RPC_MAX_CONNECTIONS) / 2,
        .calls = (config->max_calls ? config->max_calls : VP_RPC_MAX_CALLS) / 2,
        .streams = (config->max_streams ? config->max_streams : VP_RPC_MAX_STREAMS) / 2,
    };
    guard->gate = vp_access_gate(&guard->context);
    services->access = &guard->context;
    return guard;
}

void vp_guard_options(VpGuard *guard, VpRpcOptions *options)
{
    const VpSecurityConfig *security = &guard->config->security;

    options->gate = &guard->gate;
    options->tls = vp_auth_tls(guard->auth);
    options->insecure_tcp = security->auth.insecure_tcp;
    options->sockets = guard->config->sockets;
    options->socket_mode = security->socket_mode;
    options->socket_group = security->socket_group;
}

VpError *vp_guard_start(VpGuard *guard, VpRpcServer *server, VpScreens *screens)
{
    const VpSecurityConfig *security = &guard->config->security;
    const char *const files[] = {security->policy, security->certificate, security->key,
                                 security->ca,     security->crl,         security->jwks};
    VpError *error = NULL;

    guard->server = server;
    guard->screens = screens;
    guard->watch = vp_file_watch_new(files, G_N_ELEMENTS(files), changed, guard, &error);
    if (!error)
        error = vp_thread_start(&guard->thread, "vp-guard", run, guard);
    guard->running = !error;
    if (!error)
        vp_screens_serve(screens, vp_rpc_server_accounts(server));
    return error;
}

void vp_guard_stop(VpGuard *guard)
{
    if (!guard)
        return;
    vp_file_watch_free(g_steal_pointer(&guard->watch));
    pthread_mutex_lock(&guard->mutex);
    guard->stopping = TRUE;
    pthread_cond_signal(&guard->woken);
    pthread_mutex_unlock(&guard->mutex);
    if (guard->running)
        pthread_join(guard->thread, NULL);
    guard->running = FALSE;
}

void vp_guard_abandon(VpGuard *guard)
{
    if (guard->context.audit)
        vp_audit_stop(guard->context.audit);
}

void vp_guard_free(VpGuard *guard)
{
    if (!guard)
        return;
    vp_guard_stop(guard);
    vp_audit_free(guard->context.audit);
    vp_visitors_free(guard->context.visitors);
    vp_auth_free(guard->auth);
    pthread_cond_destroy(&guard->woken);
    pthread_mutex_destroy(&guard->mutex);
    g_free(guard);
}
