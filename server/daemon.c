/* Puts the parts together: see daemon.h. */
#include "server/daemon.h"

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/guard.h"
#include "server/screens/screens.h"
#include "server/services/services.h"

/*
 * Kinds of threads that may block, so that none waits behind a slower kind: those of the calls; those of the calls that take long; those of the
 * jobs and drivers, which need the daemon's own disk for moments, so that a power off goes through whatever the others do; and those on which drivers read
 * images for a start. A few more than cores keep a slow disk from holding up the rest.
 */
#define WORKERS 4
#define JOB_WORKERS 3
#define START_WORKERS 4
#define MAX_QUEUED_WORK 4096
#define MAX_QUEUED_SLOW 64
#define KEEP_OPERATIONS 1000
#define MAX_WAITING_JOBS 64
#define ADOPT_US (2 * G_USEC_PER_SEC)
#define JOBS_END_US (5 * G_USEC_PER_SEC)

struct VpDaemon {
    const VpConfig *config;
    VpLoop *loop;
    VpPool *pool;
    VpPool *job_pool;
    VpPool *start_pool;
    VpPool *slow_pool;
    VpStore *store;
    VpJobs *jobs;
    VpDomains *domains;
    VpServices services;
    VpHandlerTable *tables;
    VpSecrets *secrets;
    VpScreens *screens;
    VpGuard *guard;
    VpRpcServer *server;
};

/* The daemon's own start and stop are in the journal too. */
static VpError *tell_journal(VpDaemon *daemon, PbEventType type)
{
    PbEvent event = PB_EVENT__INIT;
    VpTxn *txn = vp_txn_new();
    VpError *error = NULL;

    event.type = type;
    event.resource_type = (char *)"daemon";
    event.name = (char *)"virtplaned";
    event.reason = (char *)"REQUESTED";
    event.detail = (char *)VP_VERSION;
    vp_txn_event(txn, &event);
    vp_store_commit_wait(daemon->store, txn, &error);
    return error;
}

static char *secret_user(void *data, const char *secret)
{
    g_autofree char *domain = vp_domains_find_secret_user(data, secret);

    return domain ? g_strdup_printf("the domain %s", domain) : NULL;
}

static VpError *open_parts(VpDaemon *daemon)
{
    const VpConfig *config = daemon->config;
    const VpStoreOptions store_options = {
        .dir = config->state_dir,
        .journal_max_events = config->events_max_count,
        .journal_max_bytes = config->events_max_bytes,
        .journal_max_age_s = (gint64)config->events_max_age_s,
        .journal_keep_events = config->events_keep_count,
        .journal_keep_age_s = (gint64)config->events_keep_age_s,
    };
    VpError *error = NULL;

    /* The store's lock keeps a second daemon away from everything else. */
    daemon->store = vp_store_open_sqlite(&store_options, &error);
    if (!error)
        daemon->loop = vp_loop_new("vp-loop", &error);
    if (!error)
        daemon->pool = vp_pool_new("vp-worker", WORKERS, MAX_QUEUED_WORK, &error);
    if (!error)
        daemon->job_pool = vp_pool_new("vp-job", JOB_WORKERS, MAX_QUEUED_WORK, &error);
    if (!error)
        daemon->start_pool = vp_pool_new("vp-start", START_WORKERS, MAX_QUEUED_WORK, &error);
    if (!error)
        daemon->slow_pool = vp_pool_new("vp-slow", VP_SLOW_THREADS, MAX_QUEUED_SLOW, &error);
    if (error)
        return error;

    const VpSecretsOptions secrets_options = {.store = daemon->store,
                                              .key_file = config->security.secrets_key,
                                              .state_dir = config->state_dir,
                                              .max_secrets = config->max_secrets};
    daemon->secrets = vp_secrets_new(&secrets_options, &error);
    if (error)
        return error;
    daemon->screens = vp_screens_new(config->security.certificate != NULL, &error);
    if (error)
        return error;
    daemon->jobs = vp_jobs_new(daemon->job_pool, daemon->loop, KEEP_OPERATIONS, MAX_WAITING_JOBS);
    const VpDomainsOptions domains_options = {
        .store = daemon->store,
        .jobs = daemon->jobs,
        .loop = daemon->loop,
        .pool = daemon->job_pool,
        .slow_pool = daemon->start_pool,
        .config = config->file,
        .images = &config->images,
        .secrets = daemon->secrets,
        .screens = vp_screens_host(daemon->screens),
        .max_domains = config->max_domains,
        .state_dir = config->state_dir,
        .run_dir = config->run_dir,
    };
    daemon->domains = vp_domains_new(&domains_options, &error);
    if (!error)
        vp_secrets_set_user(daemon->secrets, secret_user, daemon->domains);
    return error;
}

static VpError *start(VpDaemon *daemon)
{
    const VpConfig *config = daemon->config;
    VpServices *services = &daemon->services;
    VpError *error = tell_journal(daemon, PB_EVENT_TYPE_DAEMON_STARTED);
    if (error)
        return error;
    vp_domains_adopt(daemon->domains, vp_now_us() + ADOPT_US);

    *services = (VpServices){
        .store = daemon->store,
        .jobs = daemon->jobs,
        .domains = daemon->domains,
        .secrets = daemon->secrets,
        .pool = daemon->pool,
        .loop = daemon->loop,
        .state_dir = config->state_dir,
        .images = &config->images,
        .start_wall_us = vp_wall_us(),
    };
    error = vp_page_key_init(&services->page_key);
    if (!error)
        services->events = vp_event_hub_new(daemon->store, daemon->pool, daemon->loop, &error);
    services->stats = vp_stats_hub_new(daemon->domains, daemon->loop);
    vp_log_switch_init(&services->log_level, daemon->loop);
    services->lines = vp_lines_new(daemon->domains, daemon->loop, daemon->pool);
    if (!error)
        daemon->guard = vp_guard_new(config, services, &error);
    if (error)
        return error;

    const VpScreensOptions screens_options = {
        .domains = daemon->domains,
        .access = services->access,
        .pool = daemon->pool,
        .anonymous = config->security.policy != NULL,
    };
    vp_screens_start(daemon->screens, &screens_options);

    static const char *const none[] = {NULL};
    services->addresses = none;
    daemon->tables = vp_services_tables(services);
    VpRpcOptions rpc_options = {
        .listen = (const char *const *)config->listen,
        .threads = config->rpc_threads,
        .max_connections = config->max_connections,
        .max_calls = config->max_calls,
        .max_streams = config->max_streams,
        .max_calls_per_second = config->max_calls_per_second,
        .max_request_bytes = config->max_message_bytes,
        .pool = daemon->pool,
        .slow_pool = daemon->slow_pool,
        .loop = daemon->loop,
        .tables = daemon->tables,
    };
    vp_guard_options(daemon->guard, &rpc_options);
    daemon->server = vp_rpc_server_new(&rpc_options, &error);
    if (error)
        return error;
    g_atomic_pointer_set(&services->server, daemon->server);
    g_atomic_pointer_set(&services->addresses, vp_rpc_server_addresses(daemon->server));
    error = vp_guard_start(daemon->guard, daemon->server, daemon->screens);
    if (!error)
        vp_domains_autostart(daemon->domains, config->autostart_parallel);
    return error;
}

VpDaemon *vp_daemon_new(const VpConfig *config, VpError **error)
{
    g_autoptr(VpDaemon) daemon = g_new0(VpDaemon, 1);

    daemon->config = config;
    VpError *failure = open_parts(daemon);
    if (!failure)
        failure = start(daemon);
    if (failure) {
        *error = failure;
        return NULL;
    }
    /* Reading the descriptors took memory that is not needed again. */
    malloc_trim(0);
    return g_steal_pointer(&daemon);
}

const char *const *vp_daemon_addresses(VpDaemon *daemon)
{
    return vp_rpc_server_addresses(daemon->server);
}

void vp_daemon_reload(VpDaemon *daemon)
{
    vp_guard_reload(daemon->guard);
}

void vp_daemon_free(VpDaemon *daemon)
{
    if (!daemon)
        return;

    vp_guard_stop(daemon->guard);
    /* Nobody asks about their viewers again from here on, and the drain may take its time. */
    vp_screens_stop(daemon->screens);
    if (daemon->server)
        vp_log_switch_stop(&daemon->services.log_level);
    if (daemon->server) {
        g_autoptr(VpError) error = tell_journal(daemon, PB_EVENT_TYPE_DAEMON_STOPPING);
        if (error)
            vp_log(VP_LOG_ERROR, "at the end: %s", error->message);
        /* Nothing can be freed under a handler that does not end. What was acknowledged is on the disk, and the next daemon goes on from there. */
        if (!vp_rpc_server_drain(daemon->server, vp_now_us() + (gint64)daemon->config->drain_ms * 1000)) {
            vp_guard_abandon(daemon->guard);
            _exit(EXIT_FAILURE);
        }
    }
    vp_jobs_free(daemon->jobs, vp_now_us() + JOBS_END_US);
    vp_domains_free(daemon->domains);
    vp_screens_free(daemon->screens);
    vp_event_hub_free(daemon->services.events);
    vp_stats_hub_free(daemon->services.stats);
    vp_lines_free(daemon->services.lines);
    vp_rpc_server_free(daemon->server);
    vp_guard_free(daemon->guard);
    vp_secrets_free(daemon->secrets);
    vp_pool_free(daemon->pool);
    vp_pool_free(daemon->job_pool);
    vp_pool_free(daemon->start_pool);
    vp_pool_free(daemon->slow_pool);
    vp_loop_free(daemon->loop);
    vp_store_close(daemon->store);
    g_free(daemon->tables);
    g_free(daemon);
}
