/* The domains in memory: records by name and uid, and the views that reads are answered from. */
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"

/* Clients take messages of 4 MiB by default. */
#define MAX_PAGE_BYTES (3 * 1024 * 1024)

/* ---- views ---- */

VpDomainView *vp_domain_view_ref(VpDomainView *view)
{
    g_atomic_int_inc(&view->refs);
    return view;
}

void vp_domain_view_unref(VpDomainView *view)
{
    if (!view || !g_atomic_int_dec_and_test(&view->refs))
        return;
    vp_pb_free(view->domain);
    g_bytes_unref(view->get_response);
    g_free(view);
}

static VpDomainView *view_new(PbDomain *domain, const VpJobInfo *job)
{
    VpDomainView *view = g_new0(VpDomainView, 1);

    if (job) {
        PbDomainJob *shown = vp_pb_new(&pb_domain_job__descriptor);

        vp_pb_set(&shown->type, job->type);
        vp_pb_set(&shown->caller, job->caller);
        vp_pb_set(&shown->operation_uid, job->operation_uid);
        shown->start_time = vp_pb_timestamp(job->start_wall_us);
        shown->waiting = job->waiting;
        domain->status->job = shown;
    }
    view->refs = 1;
    view->domain = domain;
    const PbGetDomainResponse response = {
        .base = PROTOBUF_C_MESSAGE_INIT(&pb_get_domain_response__descriptor),
        .domain = domain,
    };
    view->get_response = vp_pb_pack(&response);
    return view;
}

void vp_record_touch(VpRecord *record)
{
    g_clear_pointer(&record->view, vp_domain_view_unref);
}

/* The view under the mutex, a reference; NULL if it has to be built. */
static VpDomainView *cached_view(VpRecord *record)
{
    return record->view ? vp_domain_view_ref(record->view) : NULL;
}

VpDomainView *vp_record_view(VpRecord *record)
{
    VpDomains *domains = record->domains;
    VpJobInfo job = {0};

    pthread_mutex_lock(&domains->mutex);
    VpDomainView *view = cached_view(record);
    const guint generation = record->job_generation;
    vp_pb_auto PbDomain *domain = view ? NULL : vp_pb_dup(record->committed);
    pthread_mutex_unlock(&domains->mutex);
    if (view || !domain)
        return view;

    const gboolean has_job = vp_jobs_current(domains->jobs, record->uid, &job);
    const gint64 revision = domain->revision;
    view = view_new(g_steal_pointer(&domain), has_job ? &job : NULL);
    vp_job_info_clear(&job);

    /* It is kept for the next reader if it is still the present state; this reader may have it in any case. */
    VP_LOCK(&domains->mutex);
    if (!record->view && record->job_generation == generation && record->committed &&
        record->committed->revision == revision)
        record->view = vp_domain_view_ref(view);
    return view;
}

/* ---- records ---- */

VpRecord *vp_record_ref(VpRecord *record)
{
    g_atomic_int_inc(&record->refs);
    return record;
}

void vp_record_unref(VpRecord *record)
{
    if (!record || !g_atomic_int_dec_and_test(&record->refs))
        return;
    vp_pb_free(record->committed);
    vp_domain_view_unref(record->view);
    g_free(record->uid);
    g_free(record->name);
    g_free(record);
}

char *vp_domain_key(const char *uid)
{
    return g_strconcat("/domains/", uid, NULL);
}

VpDriver *vp_domains_driver(VpDomains *domains, const char *name)
{
    for (guint i = 0; i < domains->n_drivers; i++) {
        if (g_str_equal(domains->drivers[i]->ops->name, name))
            return domains->drivers[i];
    }
    return NULL;
}

static VpError *taken(const VpRecord *record, const char *what, const char *value)
{
    if (record->committed)
        return vp_error_with(vp_error_new(VP_ALREADY_EXISTS, "DOMAIN_EXISTS",
                                          "there is a domain with the %s %s already", what, value),
                             "uid", record->uid);
    return vp_error_retry(vp_error_new(VP_ABORTED, "CREATE_IN_PROGRESS",
                                       "a domain with the %s %s is being created right now; try again", what, value),
                          100);
}

VpRecord *vp_registry_add(VpDomains *domains, VpDriver *driver, const char *name, const char *uid, PbDomain *committed,
                          VpError **error)
{
    VP_LOCK(&domains->mutex);
    const VpRecord *same_name = g_tree_lookup(domains->by_name, name);
    const VpRecord *same_uid = g_hash_table_lookup(domains->by_uid, uid);
    if (same_name || same_uid) {
        *error = same_name ? taken(same_name, "name", name) : taken(same_uid, "uid", uid);
        vp_pb_free(committed);
        return NULL;
    }

    VpRecord *record = g_new0(VpRecord, 1);
    record->refs = 2;
    record->domains = domains;
    record->driver = driver;
    record->name = g_strdup(name);
    record->uid = g_strdup(uid);
    record->committed = committed;
    g_queue_init(&record->mutations);
    g_tree_insert(domains->by_name, record->name, record);
    g_hash_table_insert(domains->by_uid, record->uid, record);
    return record;
}

guint vp_registry_size(VpDomains *domains)
{
    VP_LOCK(&domains->mutex);
    return g_hash_table_size(domains->by_uid);
}

void vp_registry_remove(VpRecord *record)
{
    VpDomains *domains = record->domains;

    pthread_mutex_lock(&domains->mutex);
    const gboolean there = g_hash_table_remove(domains->by_uid, record->uid);
    if (there)
        g_tree_steal(domains->by_name, record->name);
    /* Jobs that wait still hold the record: for them too the domain is gone. */
    PbDomain *committed = g_steal_pointer(&record->committed);
    record->removed = TRUE;
    vp_record_touch(record);
    pthread_mutex_unlock(&domains->mutex);
    vp_pb_free(committed);
    if (there)
        vp_record_unref(record);
}

VpRecord *vp_registry_find_uid(VpDomains *domains, const char *uid)
{
    VP_LOCK(&domains->mutex);
    VpRecord *record = g_hash_table_lookup(domains->by_uid, uid);
    return record ? vp_record_ref(record) : NULL;
}

static VpError *not_found(const char *what, const char *value)
{
    return vp_error_with(vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "there is no domain with the %s %s", what,
                                      value),
                         what, value);
}

/* Under the mutex; borrowed. */
static VpRecord *find(VpDomains *domains, const char *name, const char *uid, VpError **error)
{
    const gboolean by_name = name && name[0];
    const gboolean by_uid = uid && uid[0];

    if (!by_name && !by_uid) {
        VpError *failure = vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                        "the request names no domain: give its name or its uid");
        *error = vp_error_violation(failure, "name", "must be set if uid is not");
        return NULL;
    }
    VpRecord *record = by_uid ? g_hash_table_lookup(domains->by_uid, uid) : g_tree_lookup(domains->by_name, name);
    if (!record || !record->committed) {
        *error = by_uid ? not_found("uid", uid) : not_found("name", name);
        return NULL;
    }
    if (by_name && by_uid && !g_str_equal(record->name, name)) {
        *error = vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "the domain with the uid %s is named %s, not %s", uid,
                              record->name, name);
        return NULL;
    }
    return record;
}

VpRecord *vp_registry_find(VpDomains *domains, const char *name, const char *uid, VpError **error)
{
    VP_LOCK(&domains->mutex);
    VpRecord *record = find(domains, name, uid, error);
    return record ? vp_record_ref(record) : NULL;
}

VpDomainView *vp_domains_get(VpDomains *domains, const char *name, const char *uid, VpError **error)
{
    pthread_mutex_lock(&domains->mutex);
    g_autoptr(VpRecord) record = find(domains, name, uid, error);
    VpDomainView *view = record ? cached_view(record) : NULL;
    if (record)
        vp_record_ref(record);
    pthread_mutex_unlock(&domains->mutex);

    if (!record || view)
        return view;
    view = vp_record_view(record);
    if (!view)
        *error = not_found("uid", record->uid);
    return view;
}

/* ---- lists ---- */

static gboolean matches_any_name(const PbDomainFilter *filter, const char *name)
{
    for (size_t i = 0; i < filter->n_names; i++) {
        if (g_pattern_match_simple(filter->names[i], name))
            return TRUE;
    }
    return filter->n_names == 0;
}

static gboolean has_label(const PbDomain *domain, const char *key, const char *value)
{
    for (size_t i = 0; i < domain->n_labels; i++) {
        if (g_str_equal(domain->labels[i]->key, key))
            return g_str_equal(domain->labels[i]->value, value);
    }
    return FALSE;
}

static gboolean matches(const PbDomainFilter *filter, const PbDomain *domain)
{
    gboolean state = filter->n_states == 0;
    gboolean driver = filter->n_drivers == 0;

    for (size_t i = 0; i < filter->n_states && !state; i++)
        state = filter->states[i] == domain->status->state;
    for (size_t i = 0; i < filter->n_drivers && !driver; i++)
        driver = g_str_equal(filter->drivers[i], domain->spec->driver);
    for (size_t i = 0; i < filter->n_labels; i++) {
        if (!has_label(domain, filter->labels[i]->key, filter->labels[i]->value))
            return FALSE;
    }
    return state && driver && matches_any_name(filter, domain->name);
}

/* The records of a page. `ret_more` tells whether others follow. */
static GPtrArray *select_records(VpDomains *domains, const PbDomainFilter *filter, const char *after, guint limit,
                                 gboolean *ret_more)
{
    GPtrArray *records = g_ptr_array_new_with_free_func((GDestroyNotify)vp_record_unref);

    *ret_more = FALSE;
    VP_LOCK(&domains->mutex);
    GTreeNode *node = after ? g_tree_upper_bound(domains->by_name, after) : g_tree_node_first(domains->by_name);
    for (; node && !*ret_more; node = g_tree_node_next(node)) {
        VpRecord *record = g_tree_node_value(node);

        if (!record->committed || (filter && !matches(filter, record->committed)))
            continue;
        if (records->len == limit)
            *ret_more = TRUE;
        else
            g_ptr_array_add(records, vp_record_ref(record));
    }
    return records;
}

GPtrArray *vp_domains_list(VpDomains *domains, const PbDomainFilter *filter, const char *after, guint limit,
                           gboolean *ret_more)
{
    GPtrArray *views = g_ptr_array_new_with_free_func((GDestroyNotify)vp_domain_view_unref);
    g_autoptr(GPtrArray) records = NULL;
    gsize bytes = 0;

    /* A page whose domains were all deleted meanwhile is no end of the list. */
    do {
        g_autoptr(GPtrArray) before = g_steal_pointer(&records);
        const VpRecord *last = before ? before->pdata[before->len - 1] : NULL;

        records = select_records(domains, filter, last ? last->name : after, limit, ret_more);
        for (guint i = 0; i < records->len; i++) {
            g_autoptr(VpDomainView) view = vp_record_view(records->pdata[i]);

            if (!view)
                continue;
            bytes += g_bytes_get_size(view->get_response);
            if (bytes > MAX_PAGE_BYTES && views->len > 0) {
                *ret_more = TRUE;
                return views;
            }
            g_ptr_array_add(views, g_steal_pointer(&view));
        }
    } while (views->len == 0 && *ret_more);
    return views;
}
