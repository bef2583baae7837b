/* Opening and closing: drivers, the load from the store, adoption. See domains.h. */
#include "server/domains/domains.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"
#include "virtplane/v1/guest_service.pb-c.h"

/* How long the end waits for changes that are under way on a disk that hardly moves. */
#define SETTLE_US (60 * G_USEC_PER_SEC)

static gint compare_names(gconstpointer a, gconstpointer b, gpointer data)
{
    (void)data;
    return strcmp(a, b);
}

static VpError *make_folder(const char *parent, const char *name, const char **ret_path)
{
    g_autofree char *path = g_build_filename(parent, name, NULL);

    if (g_mkdir_with_parents(path, 0700) < 0)
        return vp_error_errno(errno, "STATE_DIR", "cannot make the folder %s", path);
    *ret_path = g_steal_pointer(&path);
    return NULL;
}

static VpError *open_drivers(VpDomains *domains, const VpDomainsOptions *options)
{
    for (const VpDriverOps *const *ops = vp_driver_table; *ops && domains->n_drivers < VP_MAX_DRIVERS; ops++) {
        VpDriverHost *host = &domains->hosts[domains->n_drivers];

        *host = (VpDriverHost){
            .loop = options->loop,
            .pool = options->pool,
            .slow_pool = options->slow_pool,
            .config = options->config,
            .images = options->images,
            .report = vp_domains_report,
            .settle = vp_domains_settle,
            .secret = options->secrets ? vp_domains_secret : NULL,
            .data = domains,
        };
        VpError *error = make_folder(options->state_dir, (*ops)->name, &host->state_dir);
        if (!error)
            error = make_folder(options->run_dir, (*ops)->name, &host->run_dir);
        VpDriver *driver = error ? NULL : (*ops)->open(host, &error);
        if (!driver) {
            g_free((char *)host->state_dir);
            g_free((char *)host->run_dir);
            return vp_error_prefix(error, "the driver %s", (*ops)->name);
        }
        domains->drivers[domains->n_drivers++] = driver;
    }
    return NULL;
}

static VpError *load_one(VpDomains *domains, const VpKeyValue *kv)
{
    PbDomain *domain = vp_pb_unpack(&pb_domain__descriptor, kv->value);
    VpError *error = NULL;

    if (!domain || !domain->spec || !domain->status) {
        vp_pb_free(domain);
        return vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT",
                            "the stored domain %s cannot be read; restore the store from a backup", kv->key);
    }
    domain->revision = kv->mod_revision;
    VpDriver *driver = vp_domains_driver(domains, domain->spec->driver);
    if (!driver) {
        error = vp_error_new(VP_FAILED_PRECONDITION, "UNKNOWN_DRIVER",
                             "the domain %s needs the driver %s, which this daemon does not have", domain->name,
                             domain->spec->driver);
        vp_pb_free(domain);
        return error;
    }
    g_autoptr(VpRecord) record = vp_registry_add(domains, driver, domain->name, domain->uid, domain, &error);
    return error;
}

static VpError *load(VpDomains *domains)
{
    VpError *error = NULL;
    g_autoptr(GPtrArray) stored = vp_store_list(domains->store, "/domains/", NULL, 0, &error);

    for (guint i = 0; !error && i < stored->len; i++)
        error = load_one(domains, stored->pdata[i]);
    const VpOwnersOptions owners = {.store = domains->store,
                                    .prefix = "/domain-owners/",
                                    .reason = "TOO_MANY_DOMAINS",
                                    .what = "domains",
                                    .most = domains->max_domains};
    if (!error)
        domains->owners = vp_owners_new(&owners, &error);
    if (!error)
        domains->requests = vp_requests_new(domains->store, "/requests/", VP_REQUESTS_KEEP_SECONDS, &error);
    return error;
}

/* The job that a view shows has changed. */
static void job_changed(void *data, const char *resource_uid)
{
    VpDomains *domains = data;
    VP_LOCK(&domains->mutex);
    VpRecord *record = g_hash_table_lookup(domains->by_uid, resource_uid);

    if (!record)
        return;
    record->job_generation++;
    vp_record_touch(record);
}

VpDomains *vp_domains_new(const VpDomainsOptions *options, VpError **error)
{
    g_autoptr(VpDomains) domains = g_new0(VpDomains, 1);

    domains->store = options->store;
    domains->secrets = options->secrets;
    domains->screens = options->screens;
    domains->max_domains = options->max_domains;
    domains->jobs = options->jobs;
    domains->loop = options->loop;
    domains->pool = options->pool;
    pthread_mutex_init(&domains->mutex, NULL);
    vp_cond_init(&domains->idle);
    domains->by_name = g_tree_new_full(compare_names, NULL, NULL, (GDestroyNotify)vp_record_unref);
    domains->by_uid = g_hash_table_new(g_str_hash, g_str_equal);
    domains->off_waits = g_ptr_array_new();
    domains->autostart_path = g_build_filename(options->state_dir, "autostart", NULL);

    VpError *failure = open_drivers(domains, options);
    if (!failure)
        failure = load(domains);
    if (failure) {
        *error = failure;
        return NULL;
    }
    vp_jobs_set_listener(domains->jobs, job_changed, domains);
    return g_steal_pointer(&domains);
}

static gboolean collect(gpointer key, gpointer value, gpointer data)
{
    (void)key;
    g_ptr_array_add(data, vp_record_ref(value));
    return FALSE;
}

static GPtrArray *all_records(VpDomains *domains)
{
    GPtrArray *records = g_ptr_array_new_with_free_func((GDestroyNotify)vp_record_unref);

    VP_LOCK(&domains->mutex);
    g_tree_foreach(domains->by_name, collect, records);
    return records;
}

/* ---- adoption ---- */

static void adoption_taken(void *data, const VpDomainResult *result)
{
    VpDomains *domains = data;

    if (!result->error)
        return;
    vp_log(VP_LOG_ERROR, "a running domain could not be taken up again: %s", result->error->message);
    VP_LOCK(&domains->mutex);
    domains->adopting--;
}

static void adopt(VpDomains *domains, const char *uid)
{
    const VpDomainCaller caller = {.identity = "daemon", .text = "the daemon", .request_id = ""};
    const VpVerbRequest request = {.verb = VP_VERB_ADOPT, .uid = uid, .no_wait = TRUE};

    pthread_mutex_lock(&domains->mutex);
    domains->adopting++;
    pthread_mutex_unlock(&domains->mutex);
    vp_domains_verb(domains, &request, &caller, adoption_taken, domains);
}

static gboolean is_told_off(const VpRecord *record)
{
    const PbDomainState state = record->committed->status->state;

    return state == PB_DOMAIN_STATE_SHUTOFF || state == PB_DOMAIN_STATE_CRASHED || state == PB_DOMAIN_STATE_SAVED;
}

/* Something runs of a domain. What is stored may say otherwise: it may come from a backup. */
static void adopt_running(void *data, const char *uid, gint32 pid)
{
    VpDomains *domains = data;
    g_autoptr(VpRecord) record = vp_registry_find_uid(domains, uid);

    if (!record) {
        vp_log(
            VP_LOG_ERROR,
            "process %d runs for a domain with the uid %s, which the store does not know: restore a store that does, "
            "or end it with kill -9 %d",
            pid, uid, pid);
    } else if (is_told_off(record)) {
        vp_log(VP_LOG_WARNING, "the domain %s is stored as shut off, but its process %d runs: it is taken up",
               record->name, pid);
        adopt(domains, uid);
    }
}

void vp_domains_adopt(VpDomains *domains, gint64 deadline_us)
{
    g_autoptr(GPtrArray) records = all_records(domains);

    for (guint i = 0; i < records->len; i++)
        vp_screens_changed(domains, ((const VpRecord *)records->pdata[i])->committed);
    for (guint i = 0; i < domains->n_drivers; i++) {
        VpDriver *driver = domains->drivers[i];

        if (driver->ops->find_running)
            driver->ops->find_running(driver, adopt_running, domains);
    }
    for (guint i = 0; i < records->len; i++) {
        const VpRecord *record = records->pdata[i];

        if (!is_told_off(record))
            adopt(domains, record->uid);
    }

    for (guint i = 0; i < records->len; i++)
        vp_restart_arm(records->pdata[i]);
    gboolean in_time = TRUE;
    VP_LOCK(&domains->mutex);
    while (domains->adopting > 0 && in_time)
        in_time = vp_cond_wait_until(&domains->idle, &domains->mutex, deadline_us);
}

/* The methods that an operation of the table stands for. */
static void add_methods(const VpDriverOps *ops, PbDriverCapabilities *capabilities)
{
    const struct {
        gboolean there;
        const char *method;
    } methods[] = {
        {ops->start != NULL, "StartDomain"},         {ops->shutdown != NULL, "ShutdownDomain"},
        {ops->power_off != NULL, "PowerOffDomain"},  {ops->reboot != NULL, "RebootDomain"},
        {ops->reset != NULL, "ResetDomain"},         {ops->pause != NULL, "PauseDomain"},
        {ops->resume != NULL, "ResumeDomain"},       {ops->stats != NULL, "GetDomainStats"},
        {ops->screenshot != NULL, "TakeScreenshot"}, {ops->change != NULL, "AttachDevice"},
        {ops->change != NULL, "DetachDevice"},       {ops->save != NULL, "SaveDomain"},
        {ops->restore != NULL, "RestoreDomain"},     {ops->discard != NULL, "DiscardSavedState"},
        {ops->guest != NULL, "RunGuestCommand"},
    };
    const ProtobufCServiceDescriptor *guest = &pb_guest_service__descriptor;

    for (gsize i = 0; i < G_N_ELEMENTS(methods); i++) {
        if (methods[i].there)
            vp_pb_append(&capabilities->n_methods, &capabilities->methods, g_strdup(methods[i].method));
    }
    for (unsigned i = 0; ops->guest && i < guest->n_methods; i++)
        vp_pb_append(&capabilities->n_methods, &capabilities->methods, g_strdup(guest->methods[i].name));
}

void vp_domains_capabilities(VpDomains *domains, PbGetCapabilitiesResponse *response)
{
    for (guint i = 0; i < domains->n_drivers; i++) {
        VpDriver *driver = domains->drivers[i];
        PbDriverCapabilities *capabilities = vp_pb_new(&pb_driver_capabilities__descriptor);

        driver->ops->capabilities(driver, capabilities);
        vp_pb_set(&capabilities->name, driver->ops->name);
        add_methods(driver->ops, capabilities);
        vp_pb_append(&response->n_drivers, &response->drivers, capabilities);
    }
}

static gboolean has_changes_under_way(VpDomains *domains, const GPtrArray *records)
{
    VP_LOCK(&domains->mutex);
    for (guint i = 0; i < records->len; i++) {
        const VpRecord *record = records->pdata[i];

        if (record->mutations.length > 0)
            return TRUE;
    }
    return FALSE;
}

/* Nothing is tried again from now on: those who wait for it are told. */
static void stop_retries(VpDomains *domains)
{
    g_autoptr(GPtrArray) records = all_records(domains);

    pthread_mutex_lock(&domains->mutex);
    domains->stopping = TRUE;
    pthread_mutex_unlock(&domains->mutex);
    vp_domains_end_autostart(domains);
    for (guint i = 0; i < records->len; i++) {
        vp_restart_disarm(records->pdata[i]);
        vp_record_hurry(records->pdata[i]);
    }
}

/* What was reported until now shall be in the store. Commits always end, well or not, and call back: so nothing is freed before. */
static void settle(VpDomains *domains)
{
    const gint64 deadline_us = vp_now_us() + SETTLE_US;
    g_autoptr(GPtrArray) records = all_records(domains);

    while (has_changes_under_way(domains, records) && vp_now_us() < deadline_us) {
        g_autoptr(VpError) error = NULL;

        vp_store_commit_wait(domains->store, vp_txn_new(), &error);
        if (error)
            vp_log(VP_LOG_ERROR, "at the end: %s", error->message);
    }
    gboolean in_time = TRUE;
    VP_LOCK(&domains->mutex);
    while (domains->inside > 0 && in_time)
        in_time = vp_cond_wait_until(&domains->idle, &domains->mutex, deadline_us);
}

/* Questions are handed to the drivers at once; from there they end with them. */
static void wait_for_hand_over(VpDomains *domains)
{
    VP_LOCK(&domains->mutex);
    while (domains->handing_over > 0)
        pthread_cond_wait(&domains->idle, &domains->mutex);
}

void vp_domains_free(VpDomains *domains)
{
    if (!domains)
        return;

    stop_retries(domains);
    vp_domains_end_waits(domains);
    wait_for_hand_over(domains);
    for (guint i = 0; i < domains->n_drivers; i++)
        domains->drivers[i]->ops->close(domains->drivers[i]);
    settle(domains);
    for (guint i = 0; i < domains->n_drivers; i++) {
        g_free((char *)domains->hosts[i].state_dir);
        g_free((char *)domains->hosts[i].run_dir);
    }
    vp_requests_free(domains->requests);
    vp_owners_free(domains->owners);
    g_tree_unref(domains->by_name);
    g_hash_table_unref(domains->by_uid);
    g_ptr_array_unref(domains->off_waits);
    g_free(domains->autostart_path);
    pthread_cond_destroy(&domains->idle);
    pthread_mutex_destroy(&domains->mutex);
    g_free(domains);
}
