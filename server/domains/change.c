/* Create, update, delete: the changes that clients make to what is stored. */
#include "server/domains/change.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/spec.h"

/* For the disk, and for a guest that lets go of what it has. */
#define CHANGE_TIMEOUT_MS 60000

VpChange *vp_change_new(VpDomains *domains, const void *request, const VpDomainCaller *caller, VpDomainDone done,
                        void *data)
{
    VpChange *change = g_new0(VpChange, 1);

    change->domains = domains;
    change->identity = g_strdup(caller->identity);
    change->caller = g_strdup(caller->text);
    change->request_id = g_strdup(caller->request_id ? caller->request_id : "");
    change->fingerprint = change->request_id[0] ? vp_request_fingerprint(request) : g_strdup("");
    change->scope = PB_CHANGE_SCOPE_STORED;
    change->done = done;
    change->data = data;
    pthread_mutex_init(&change->mutex, NULL);
    vp_progress_init(&change->progress);
    return change;
}

void vp_change_free(void *data)
{
    VpChange *change = data;

    vp_record_unref(change->record);
    vp_pb_free(change->wanted);
    vp_pb_free(change->mask);
    vp_pb_free(change->device);
    vp_pb_free(change->planned);
    vp_error_free(change->task_error);
    vp_task_unref(change->task);
    vp_progress_clear(&change->progress);
    pthread_mutex_destroy(&change->mutex);
    g_free(change->target);
    g_free(change->mac);
    g_free(change->identity);
    g_free(change->caller);
    g_free(change->request_id);
    g_free(change->fingerprint);
    g_free(change);
}

static void tell(VpChange *change, const VpDomainResult *result)
{
    VpDomainDone done = change->done;

    change->done = NULL;
    if (done)
        done(change->data, result);
}

void vp_change_fail(VpChange *change, const VpError *error)
{
    vp_pb_auto PbOperation *operation =
        change->job ? vp_jobs_get_operation(change->domains->jobs, vp_job_uid(change->job)) : NULL;
    const VpDomainResult result = {.error = error, .operation = operation};

    tell(change, &result);
}

/* Tells that the change is done: with the domain as it is now. A create or an update that is told again may find that it was deleted since. */
static void change_tell(VpChange *change, const char *uid, gint64 revision)
{
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpDomainView) view = change->deletes ? NULL : vp_domains_get(change->domains, NULL, uid, &error);
    vp_pb_auto PbOperation *operation =
        change->job ? vp_jobs_get_operation(change->domains->jobs, vp_job_uid(change->job)) : NULL;

    if (error) {
        vp_change_fail(change, error);
        return;
    }
    const VpDomainResult result = {.domain = view ? view->domain : NULL, .operation = operation, .revision = revision};
    tell(change, &result);
}

gboolean vp_change_answered_before(VpChange *change)
{
    g_autoptr(VpError) error = NULL;
    g_autofree char *uid = NULL;
    gint64 revision = 0;

    if (!vp_requests_find(change->domains->requests, change->identity, change->request_id, change->fingerprint, &uid,
                          &revision, &error))
        return FALSE;
    if (error)
        vp_change_fail(change, error);
    else
        change_tell(change, uid, revision);
    return TRUE;
}

VpError *vp_domain_validate(VpDomains *domains, PbDomain *domain, VpDriver **ret_driver)
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
    VpChange *change = data;
    PbDomain *wanted = change->wanted;

    vp_pb_set(&draft->name, wanted->name);
    vp_pb_set(&draft->uid, record->uid);
    draft->spec = g_steal_pointer(&wanted->spec);
    draft->autostart = wanted->autostart;
    draft->autostart_order = wanted->autostart_order;
    draft->n_labels = wanted->n_labels;
    draft->labels = g_steal_pointer(&wanted->labels);
    wanted->n_labels = 0;
    draft->create_time = vp_pb_timestamp(vp_wall_us());
    draft->status = vp_pb_new(&pb_domain_status__descriptor);
    draft->status->state = PB_DOMAIN_STATE_SHUTOFF;
    draft->status->state_time = vp_pb_timestamp(vp_wall_us());
    vp_pb_set(&draft->status->reason, "CREATED");

    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_CREATED, "REQUESTED", change->caller);
    vp_owners_add(txn, change->domains->owners, record->uid, change->identity);
    vp_requests_add(change->domains->requests, txn, change->identity, change->request_id, change->fingerprint,
                    record->uid);
    return NULL;
}

static void create_done(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    VpChange *change = data;

    if (error) {
        vp_registry_remove(record);
        vp_owners_give_back(change->domains->owners, change->identity);
        vp_change_fail(change, error);
        return;
    }
    vp_owners_added(change->domains->owners, record->uid, change->identity);
    vp_requests_done(change->domains->requests, change->identity, change->request_id, change->fingerprint, record->uid,
                     revision);
    change_tell(change, record->uid, revision);
}

void vp_domains_create(VpDomains *domains, const PbCreateDomainRequest *request, const VpDomainCaller *caller,
                       VpDomainDone done, void *data)
{
    g_autoptr(VpChange) change = vp_change_new(domains, request, caller, done, data);
    g_autoptr(VpError) error = NULL;
    VpDriver *driver = NULL;

    if (vp_change_answered_before(change))
        return;
    change->wanted = request->domain ? vp_pb_dup(request->domain) : vp_pb_new(&pb_domain__descriptor);
    error = vp_domain_validate(domains, change->wanted, &driver);
    if (!error)
        error = vp_screens_check(domains, change->wanted);
    if (error) {
        vp_change_fail(change, error);
        return;
    }
    if (request->validate_only) {
        const VpDomainResult result = {.domain = change->wanted};

        done(data, &result);
        return;
    }
    error = vp_owners_take(domains->owners, change->identity, caller->most_domains, vp_registry_size(domains));
    if (!error) {
        change->record = vp_registry_add(domains, driver, change->wanted->name, change->wanted->uid, NULL, &error);
        if (error)
            vp_owners_give_back(domains->owners, change->identity);
    }
    if (!change->record) {
        vp_change_fail(change, error);
        return;
    }
    VpRecord *record = change->record;
    const VpMutation mutation = {.apply = apply_create,
                                 .done = create_done,
                                 .destroy = vp_change_free,
                                 .data = g_steal_pointer(&change)};
    vp_record_mutate(record, &mutation);
}

/* ---- update and delete: jobs, so that no start is under way beside them ---- */

static VpError *check_revision(const VpChange *change, const PbDomain *domain)
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

/* What is the domain's own, and not its spec's. */
static void take_own(PbDomain *draft, PbDomain *from)
{
    const size_t n_labels = draft->n_labels;
    PbDomain__LabelsEntry **labels = draft->labels;

    draft->n_labels = from->n_labels;
    draft->labels = from->labels;
    from->n_labels = n_labels;
    from->labels = labels;
    draft->autostart = from->autostart;
    draft->autostart_order = from->autostart_order;
}

/* Makes the change in a draft, or says why it cannot be made. */
static VpError *update_draft(const VpChange *change, PbDomain *draft)
{
    g_auto(VpPlan) plan = {0};
    PbDomain *stored = change->planned;
    VpError *error = NULL;

    if (!stored) {
        error = check_revision(change, draft);
        if (!error)
            error = vp_change_plan(change, draft, &plan);
        stored = plan.stored;
    }
    if (error)
        return error;
    take_own(draft, stored);
    vp_domain_set_spec(draft, g_steal_pointer(&stored->spec));
    return NULL;
}

static void add_request(const VpChange *change, VpTxn *txn, const char *uid)
{
    vp_requests_add(change->domains->requests, txn, change->identity, change->request_id, change->fingerprint, uid);
}

static VpError *apply_update(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const VpChange *change = data;
    VpError *error = update_draft(change, draft);

    (void)record;
    if (error)
        return error;
    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_UPDATED, "REQUESTED", change->caller);
    add_request(change, txn, draft->uid);
    return NULL;
}

/* Of a change of what runs alone its driver has told; that it was asked for is remembered. */
static VpError *apply_request(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    (void)draft;
    add_request(data, txn, record->uid);
    return NULL;
}

static gboolean may_delete(const VpChange *change, const PbDomain *domain)
{
    return vp_domain_is_off(domain) || (change->discard_saved && domain->status->state == PB_DOMAIN_STATE_SAVED);
}

static VpError *apply_delete(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const VpChange *change = data;

    (void)record;
    VpError *error = check_revision(change, draft);
    if (error)
        return error;
    if (!may_delete(change, draft) && draft->status->state == PB_DOMAIN_STATE_SAVED)
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_SAVED",
                            "the domain %s is saved: what it was doing would be lost; restore it, or delete it with "
                            "discard_saved (vpctl domain delete --discard-saved)",
                            draft->name);
    if (!may_delete(change, draft))
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_RUNNING",
                            "the domain %s is not shut off; power it off first", draft->name);
    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_DELETED, "REQUESTED", change->caller);
    add_request(change, txn, draft->uid);
    return NULL;
}

static void job_mutated(VpRecord *record, void *data, gint64 revision, const VpError *error)
{
    VpChange *change = data;
    VpError *told = vp_error_copy(error);

    if (!error) {
        change->revision = revision;
        vp_requests_done(change->domains->requests, change->identity, change->request_id, change->fingerprint,
                         record->uid, revision);
    } else if (change->begun) {
        told = vp_error_prefix(told,
                               "the running domain %s was changed (status.live_spec tells how), but that could "
                               "not be stored",
                               record->name);
    }
    vp_job_finish(change->job, told);
}

/* A change that its job has; told when the job has ended. */
static void mutate_in_job(VpChange *change, VpMutation mutation)
{
    mutation.done = job_mutated;
    mutation.data = change;
    vp_record_mutate(change->record, &mutation);
}

void vp_change_store(VpChange *change)
{
    const gboolean live_only = change->begun && !change->planned;

    if (change->deletes)
        mutate_in_job(change, (VpMutation){.apply = apply_delete, .remove = TRUE});
    else if (live_only)
        mutate_in_job(change, (VpMutation){.apply = apply_request, .event_only = TRUE});
    else
        mutate_in_job(change, (VpMutation){.apply = apply_update});
}

/* A retry that came before the first one was answered waited behind it. TRUE: the job is through. */
static gboolean ends_as_before(VpChange *change)
{
    g_autofree char *uid = NULL;
    VpError *error = NULL;

    if (!vp_requests_find(change->domains->requests, change->identity, change->request_id, change->fingerprint, &uid,
                          &change->revision, &error))
        return FALSE;
    vp_job_finish(change->job, error);
    return TRUE;
}

static VpError *deleted_error(const VpChange *change)
{
    return vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "the domain %s was deleted", change->record->name);
}

static void run_update(VpJob *job, void *data)
{
    VpChange *change = data;
    g_autoptr(VpDomainView) view = vp_record_view(change->record);
    g_auto(VpPlan) plan = {0};

    change->job = job;
    if (ends_as_before(change))
        return;
    VpError *error = view ? check_revision(change, view->domain) : deleted_error(change);
    if (view && !error)
        error = vp_change_plan(change, view->domain, &plan);
    if (!view || error) {
        vp_job_finish(job, error);
        return;
    }
    if (!plan.live) {
        vp_change_store(change);
        return;
    }
    change->planned = g_steal_pointer(&plan.stored);
    vp_change_live(change, view->domain, plan.live, change->planned ? PB_CHANGE_SCOPE_BOTH : PB_CHANGE_SCOPE_LIVE);
}

/* On a worker: what the driver keeps on the disk goes first. Of a domain that is shut off it needs none of it, should the deletion fail after all. */
static void run_delete(VpJob *job, void *data)
{
    VpChange *change = data;
    VpDriver *driver = change->record->driver;
    g_autoptr(VpDomainView) view = vp_record_view(change->record);

    change->job = job;
    if (driver->ops->forget && view && may_delete(change, view->domain)) {
        VpError *error = driver->ops->forget(driver, change->record->uid);

        if (error) {
            vp_job_finish(job, vp_error_prefix(error, "cannot delete the domain %s", change->record->name));
            return;
        }
    }
    if (!ends_as_before(change))
        vp_change_store(change);
}

static void cancel_update(VpJob *job, void *data)
{
    (void)job;
    vp_change_live_cancel(data);
}

static void change_job_done(VpJob *job, void *data, const VpError *error)
{
    VpChange *change = data;

    if (error && change->task_error)
        vp_record_journal_failure(change->record, job, change->type, error);
    if (error)
        vp_change_fail(change, error);
    else
        change_tell(change, change->record->uid, change->revision);
}

void vp_change_submit(VpChange *change, gboolean no_wait)
{
    VpRecord *record = change->record;
    VpDomains *domains = change->domains;
    VpDomainDone done = change->done;
    void *data = change->data;
    const VpJobSpec spec = {
        .type = change->type,
        .resource_type = "domain",
        .resource_name = record->name,
        .resource_uid = record->uid,
        .caller = change->caller,
        .timeout_ms = change->timeout_ms ? change->timeout_ms : CHANGE_TIMEOUT_MS,
        .run = change->deletes ? run_delete : run_update,
        .cancel = change->deletes ? NULL : cancel_update,
        .done = change_job_done,
        .destroy = vp_change_free,
        .data = change,
    };
    vp_pb_auto PbOperation *operation = NULL;
    g_autoptr(VpDomainView) view = vp_record_view(record);

    if (no_wait)
        change->done = NULL;
    g_autoptr(VpError) error = vp_jobs_submit(domains->jobs, &spec, &operation);
    const VpDomainResult result = {
        .error = error,
        .domain = !error && view ? view->domain : NULL,
        .operation = error ? NULL : operation,
    };
    if (error || no_wait)
        done(data, &result);
}

void vp_change_try(VpChange *change)
{
    g_autoptr(VpDomainView) view = vp_record_view(change->record);
    vp_pb_auto PbDomain *draft = view ? vp_pb_dup(view->domain) : NULL;
    g_auto(VpPlan) plan = {0};
    g_autoptr(VpError) error = draft ? check_revision(change, draft) : deleted_error(change);

    if (draft && !error)
        error = vp_change_plan(change, draft, &plan);
    if (draft && !error && plan.stored) {
        take_own(draft, plan.stored);
        vp_domain_set_spec(draft, g_steal_pointer(&plan.stored->spec));
    }
    if (draft && !error && plan.live)
        vp_domain_set_live_spec(draft, g_steal_pointer(&plan.live));
    const VpDomainResult result = {.error = error, .domain = error ? NULL : draft};

    tell(change, &result);
}

/* The fields that the mask names. A running domain takes them as they were completed for the stored one, so that both have the same addresses. */
static VpError *edit_fields(const VpChange *change, PbDomain *stored, PbDomain *live, gboolean *ret_spec_changed)
{
    VpError *error = NULL;

    if (stored)
        error = vp_spec_update(stored, change->wanted, change->mask, ret_spec_changed);
    if (!error && stored && live)
        error = vp_domain_validate(change->domains, stored, NULL);
    if (!error && live)
        error = vp_spec_update(live, stored ? stored : change->wanted, change->mask, ret_spec_changed);
    return error;
}

void vp_domains_update(VpDomains *domains, const PbUpdateDomainRequest *request, const VpDomainCaller *caller,
                       guint64 timeout_ms, VpDomainDone done, void *data)
{
    g_autoptr(VpChange) change = vp_change_new(domains, request, caller, done, data);
    g_autoptr(VpError) error = NULL;

    if (vp_change_answered_before(change))
        return;
    change->type = "domain.update";
    change->edit = edit_fields;
    change->wanted = request->domain ? vp_pb_dup(request->domain) : vp_pb_new(&pb_domain__descriptor);
    change->mask = vp_pb_dup(request->update_mask);
    change->expected_revision = change->wanted->revision;
    change->scope = request->scope;
    change->force = request->force;
    change->timeout_ms = timeout_ms;
    change->record = vp_registry_find(domains, change->wanted->name, change->wanted->uid, &error);
    if (!change->record)
        vp_change_fail(change, error);
    else if (request->validate_only)
        vp_change_try(change);
    else
        vp_change_submit(g_steal_pointer(&change), /* no_wait= */ FALSE);
}

void vp_domains_delete(VpDomains *domains, const PbDeleteDomainRequest *request, const VpDomainCaller *caller,
                       VpDomainDone done, void *data)
{
    g_autoptr(VpChange) change = vp_change_new(domains, request, caller, done, data);
    g_autoptr(VpError) error = NULL;

    change->deletes = TRUE;
    change->discard_saved = request->discard_saved;
    if (vp_change_answered_before(change))
        return;
    change->type = "domain.delete";
    change->expected_revision = request->revision;
    change->record = vp_registry_find(domains, request->name, request->uid, &error);
    if (!change->record)
        vp_change_fail(change, error);
    else
        vp_change_submit(g_steal_pointer(&change), /* no_wait= */ FALSE);
}
