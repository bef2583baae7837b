/* Create, update, delete: the changes that clients make to what is stored. */
#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"
#include "server/domains/spec.h"

/* Updates and deletes wait for the disk alone, once it is their turn. */
#define CHANGE_TIMEOUT_MS 60000

/* One change under way: what it needs and whom it tells. */
typedef struct Change {
    VpDomains *domains;
    VpRecord *record;
    char *identity;
    char *caller;
    char *request_id;
    char *fingerprint;
    PbDomain *wanted; /* of a create or an update */
    Google__Protobuf__FieldMask *mask;
    gint64 expected_revision;
    gboolean deletes;
    VpDomainDone done;
    void *data;
    gint64 revision; /* of the change */
} Change;

static Change *change_new(VpDomains *domains, const void *request, const VpDomainCaller *caller, VpDomainDone done,
                          void *data)
{
    Change *change = g_new0(Change, 1);

    change->domains = domains;
    change->identity = g_strdup(caller->identity);
    change->caller = g_strdup(caller->text);
    change->request_id = g_strdup(caller->request_id ? caller->request_id : "");
    change->fingerprint = change->request_id[0] ? vp_request_fingerprint(request) : g_strdup("");
    change->done = done;
    change->data = data;
    return change;
}

static void change_free(void *data)
{
    Change *change = data;

    vp_record_unref(change->record);
    vp_pb_free(change->wanted);
    vp_pb_free(change->mask);
    g_free(change->identity);
    g_free(change->caller);
    g_free(change->request_id);
    g_free(change->fingerprint);
    g_free(change);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Change, change_free)

static void change_fail(Change *change, const VpError *error)
{
    const VpDomainResult result = {.error = error};

    change->done(change->data, &result);
}

/* Tells that the change is done: with the domain as it is now. A create or an update that is told again may find that it was deleted since. */
static void change_tell(Change *change, const char *uid, gint64 revision)
{
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpDomainView) view = change->deletes ? NULL : vp_domains_get(change->domains, NULL, uid, &error);

    if (error) {
        change_fail(change, error);
        return;
    }
    const VpDomainResult result = {.domain = view ? view->domain : NULL, .revision = revision};
    change->done(change->data, &result);
}

/* Whether the request was made before: then it is answered as then. */
static gboolean answered_before(Change *change)
{
    g_autoptr(VpError) error = NULL;
    g_autofree char *uid = NULL;
    gint64 revision = 0;

    if (!vp_requests_find(change->domains->requests, change->identity, change->request_id, change->fingerprint, &uid,
                          &revision, &error))
        return FALSE;
    if (error)
        change_fail(change, error);
    else
        change_tell(change, uid, revision);
    return TRUE;
}

static VpError *validate(VpDomains *domains, PbDomain *domain, VpDriver **ret_driver)
{
    VpError *error = vp_spec_complete(domain);
    if (error)
        return error;

    VpDriver *driver = vp_domains_driver(domains, domain->spec->driver);
    if (!driver) {
        error = vp_error_new(VP_INVALID_ARGUMENT, "UNKNOWN_DRIVER",
                             "there is no driver \"%s\"; GetCapabilities lists them", domain->spec->driver);
        return vp_error_violation(error, "domain.spec.driver", "is no driver of this daemon");
    }
    if (ret_driver)
        *ret_driver = driver;
    if (driver->ops->complete)
        driver->ops->complete(driver, domain->spec);
    return driver->ops->validate ? driver->ops->validate(driver, domain->spec) : NULL;
}

/* ---- create ---- */

static VpError *apply_create(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    Change *change = data;
    PbDomain *wanted = change->wanted;

    vp_pb_set(&draft->name, wanted->name);
    vp_pb_set(&draft->uid, record->uid);
    draft->spec = g_steal_pointer(&wanted->spec);
    draft->n_labels = wanted->n_labels;
    draft->labels = g_steal_pointer(&wanted->labels);
    wanted->n_labels = 0;
    draft->create_time = vp_pb_timestamp(vp_wall_us());
    draft->status = vp_pb_new(&pb_domain_status__descriptor);
    draft->status->state = PB_DOMAIN_STATE_SHUTOFF;
    draft->status->state_time = vp_pb_timestamp(vp_wall_us());
    vp_pb_set(&draft->status->reason, "CREATED");

    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_CREATED, "REQUESTED", change->caller);
    vp_requests_add(change->domains->requests, txn, change->identity, change->request_id, change->fingerprint,
                    record->uid);
    return NULL;
}

static void create_done(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    Change *change = data;

    if (error) {
        vp_registry_remove(record);
        change_fail(change, error);
        return;
    }
    vp_requests_done(change->domains->requests, change->identity, change->request_id, change->fingerprint, record->uid,
                     revision);
    change_tell(change, record->uid, revision);
}

void vp_domains_create(VpDomains *domains, const PbCreateDomainRequest *request, const VpDomainCaller *caller,
                       VpDomainDone done, void *data)
{
    g_autoptr(Change) change = change_new(domains, request, caller, done, data);
    g_autoptr(VpError) error = NULL;
    VpDriver *driver = NULL;

    if (answered_before(change))
        return;
    change->wanted = request->domain ? vp_pb_dup(request->domain) : vp_pb_new(&pb_domain__descriptor);
    error = validate(domains, change->wanted, &driver);
    if (error) {
        change_fail(change, error);
        return;
    }
    if (request->validate_only) {
        const VpDomainResult result = {.domain = change->wanted};

        done(data, &result);
        return;
    }
    change->record = vp_registry_add(domains, driver, change->wanted->name, change->wanted->uid, NULL, &error);
    if (!change->record) {
        change_fail(change, error);
        return;
    }
    VpRecord *record = change->record;
    const VpMutation mutation = {.apply = apply_create,
                                 .done = create_done,
                                 .destroy = change_free,
                                 .data = g_steal_pointer(&change)};
    vp_record_mutate(record, &mutation);
}

/* ---- update and delete: jobs, so that no start is under way beside them ---- */

/* A mutation that a job makes; the client is told when the job has ended. */
typedef struct ChangeJob {
    VpJob *job;
    Change *change;
} ChangeJob;

static gboolean is_shut_off(const PbDomain *domain)
{
    return domain->status->state == PB_DOMAIN_STATE_SHUTOFF || domain->status->state == PB_DOMAIN_STATE_CRASHED;
}

static VpError *check_revision(const Change *change, const PbDomain *domain)
{
    if (change->expected_revision == 0 || change->expected_revision == domain->revision)
        return NULL;

    g_autofree char *revision = g_strdup_printf("%" G_GINT64_FORMAT, domain->revision);
    VpError *error =
        vp_error_new(VP_ABORTED, "REVISION_CONFLICT",
                     "the domain %s is at revision %s and not at %" G_GINT64_FORMAT "; read it again and decide anew",
                     domain->name, revision, change->expected_revision);
    return vp_error_with(error, "revision", revision);
}

/* Makes the change in a draft, or says why it cannot be made. */
static VpError *update_draft(const Change *change, PbDomain *draft)
{
    gboolean spec_changed = FALSE;
    VpError *error = check_revision(change, draft);

    if (!error)
        error = vp_spec_update(draft, change->wanted, change->mask, &spec_changed);
    if (error)
        return error;
    if (spec_changed && !is_shut_off(draft))
        return vp_error_new(
            VP_FAILED_PRECONDITION, "DOMAIN_RUNNING",
            "the domain %s is not shut off; of a running one only labels and spec.description can be changed",
            draft->name);
    return validate(change->domains, draft, NULL);
}

static VpError *apply_update(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const Change *change = ((const ChangeJob *)data)->change;
    VpError *error = update_draft(change, draft);

    (void)record;
    if (error)
        return error;
    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_UPDATED, "REQUESTED", change->caller);
    vp_requests_add(change->domains->requests, txn, change->identity, change->request_id, change->fingerprint,
                    draft->uid);
    return NULL;
}

static VpError *apply_delete(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const Change *change = ((const ChangeJob *)data)->change;

    (void)record;
    VpError *error = check_revision(change, draft);
    if (error)
        return error;
    if (!is_shut_off(draft))
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_RUNNING",
                            "the domain %s is not shut off; power it off first", draft->name);
    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_DELETED, "REQUESTED", change->caller);
    vp_requests_add(change->domains->requests, txn, change->identity, change->request_id, change->fingerprint,
                    draft->uid);
    return NULL;
}

static void job_mutated(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    ChangeJob *step = data;
    Change *change = step->change;

    if (!error) {
        change->revision = revision;
        vp_requests_done(change->domains->requests, change->identity, change->request_id, change->fingerprint,
                         record->uid, revision);
    }
    vp_job_finish(step->job, vp_error_copy(error));
}

static void mutate_in_job(VpJob *job, Change *change, VpMutation mutation)
{
    g_autofree char *uid = NULL;
    VpError *error = NULL;

    /* A retry that came before the first one was answered waited behind it. */
    if (vp_requests_find(change->domains->requests, change->identity, change->request_id, change->fingerprint, &uid,
                         &change->revision, &error)) {
        vp_job_finish(job, error);
        return;
    }
    ChangeJob *step = g_new0(ChangeJob, 1);
    *step = (ChangeJob){.job = job, .change = change};
    mutation.done = job_mutated;
    mutation.destroy = g_free;
    mutation.data = step;
    vp_record_mutate(change->record, &mutation);
}

static void run_update(VpJob *job, void *data)
{
    mutate_in_job(job, data, (VpMutation){.apply = apply_update});
}

/* On a worker: what the driver keeps on the disk goes first. Of a domain that is shut off it needs none of it, should the deletion fail after all. */
static void run_delete(VpJob *job, void *data)
{
    const Change *change = data;
    VpDriver *driver = change->record->driver;
    g_autoptr(VpDomainView) view = vp_record_view(change->record);

    if (driver->ops->forget && view && is_shut_off(view->domain)) {
        VpError *error = driver->ops->forget(driver, change->record->uid);

        if (error) {
            vp_job_finish(job, vp_error_prefix(error, "cannot delete the domain %s", change->record->name));
            return;
        }
    }
    mutate_in_job(job, data, (VpMutation){.apply = apply_delete, .remove = TRUE});
}

static void change_job_done(VpJob *job, void *data, const VpError *error)
{
    Change *change = data;

    (void)job;
    if (error)
        change_fail(change, error);
    else
        change_tell(change, change->record->uid, change->revision);
}

/* Takes the change. */
static void submit(Change *change, const VpJobSpec *template)
{
    VpRecord *record = change->record;
    VpJobSpec spec = *template;
    VpDomainDone done = change->done;
    void *data = change->data;

    spec.resource_type = "domain";
    spec.resource_name = record->name;
    spec.resource_uid = record->uid;
    spec.caller = change->caller;
    spec.timeout_ms = CHANGE_TIMEOUT_MS;
    spec.destroy = change_free;
    spec.data = change;
    g_autoptr(VpError) error = vp_jobs_submit(change->domains->jobs, &spec, NULL);
    if (error) {
        const VpDomainResult result = {.error = error};

        done(data, &result);
    }
}

/* Tells what an update would give. */
static void try_update(Change *change)
{
    g_autoptr(VpDomainView) view = vp_record_view(change->record);
    vp_pb_auto PbDomain *draft = view ? vp_pb_dup(view->domain) : NULL;
    g_autoptr(VpError) error =
        draft ? update_draft(change, draft)
              : vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "the domain %s was deleted", change->record->name);
    const VpDomainResult result = {.error = error, .domain = error ? NULL : draft};

    change->done(change->data, &result);
}

void vp_domains_update(VpDomains *domains, const PbUpdateDomainRequest *request, const VpDomainCaller *caller,
                       VpDomainDone done, void *data)
{
    static const VpJobSpec template = {.type = "domain.update", .run = run_update, .done = change_job_done};
    g_autoptr(Change) change = change_new(domains, request, caller, done, data);
    g_autoptr(VpError) error = NULL;

    if (answered_before(change))
        return;
    change->wanted = request->domain ? vp_pb_dup(request->domain) : vp_pb_new(&pb_domain__descriptor);
    change->mask = vp_pb_dup(request->update_mask);
    change->expected_revision = change->wanted->revision;
    change->record = vp_registry_find(domains, change->wanted->name, change->wanted->uid, &error);
    if (!change->record) {
        change_fail(change, error);
        return;
    }
    if (request->validate_only)
        try_update(change);
    else
        submit(g_steal_pointer(&change), &template);
}

void vp_domains_delete(VpDomains *domains, const PbDeleteDomainRequest *request, const VpDomainCaller *caller,
                       VpDomainDone done, void *data)
{
    static const VpJobSpec template = {.type = "domain.delete", .run = run_delete, .done = change_job_done};
    g_autoptr(Change) change = change_new(domains, request, caller, done, data);
    g_autoptr(VpError) error = NULL;

    change->deletes = TRUE;
    if (answered_before(change))
        return;
    change->expected_revision = request->revision;
    change->record = vp_registry_find(domains, request->name, request->uid, &error);
    if (!change->record) {
        change_fail(change, error);
        return;
    }
    submit(g_steal_pointer(&change), &template);
}
