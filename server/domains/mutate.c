/*
 * The changes of a domain, one after another: copy what is committed, change the copy, commit it with its events, and only then show it. Each
 * transaction compares the revision that it was made from, so that nothing is ever written over.
 */
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"

#define RETRY_MS 1000

/* The most that is kept of what a driver has to say: an event has a bound, and what has happened must fit. */
#define MAX_DETAIL_BYTES 8192

/* A change under way. */
typedef struct Attempt {
    VpRecord *record;
    VpMutation *mutation;
    PbDomain *draft;
} Attempt;

static void pump(VpRecord *record);

static void enter(VpDomains *domains)
{
    VP_LOCK(&domains->mutex);
    domains->inside++;
}

void vp_domains_leave(VpDomains *domains)
{
    VP_LOCK(&domains->mutex);
    if (--domains->inside == 0)
        pthread_cond_broadcast(&domains->idle);
}

static void mutation_free(VpMutation *mutation)
{
    if (mutation->destroy)
        mutation->destroy(mutation->data);
    g_free(mutation);
}

/* An event with what it takes from the domain: driver and labels, for filters. */
static void add_event(VpTxn *txn, const PbDomain *domain, PbEvent *event)
{
    g_autofree PbEvent__LabelsEntry *labels = g_new(PbEvent__LabelsEntry, domain->n_labels);
    g_autofree PbEvent__LabelsEntry **pointers = g_new(PbEvent__LabelsEntry *, domain->n_labels);

    for (size_t i = 0; i < domain->n_labels; i++) {
        pb_event__labels_entry__init(&labels[i]);
        labels[i].key = domain->labels[i]->key;
        labels[i].value = domain->labels[i]->value;
        pointers[i] = &labels[i];
    }
    event->driver = domain->spec->driver;
    event->n_labels = domain->n_labels;
    event->labels = pointers;
    vp_txn_event(txn, event);
}

char *vp_event_text(const char *words)
{
    return words ? g_utf8_make_valid(words, (gssize)strnlen(words, MAX_DETAIL_BYTES)) : NULL;
}

void vp_domain_event(VpTxn *txn, const PbDomain *domain, PbEventType type, const char *reason, const char *detail)
{
    PbEvent event = PB_EVENT__INIT;

    event.type = type;
    event.resource_type = (char *)"domain";
    event.name = domain->name;
    event.uid = domain->uid;
    event.reason = (char *)reason;
    event.detail = (char *)(detail ? detail : "");
    event.state = domain->status->state;
    add_event(txn, domain, &event);
}

void vp_operation_event(VpTxn *txn, const PbDomain *domain, const VpOperationEvent *told)
{
    PbEvent event = PB_EVENT__INIT;
    g_autofree char *words = g_strdup_printf("%s: %s", domain->name, told->detail);
    g_autofree char *detail = vp_event_text(words);

    event.type = told->event;
    event.resource_type = (char *)"operation";
    event.name = (char *)told->type;
    event.uid = (char *)told->uid;
    event.reason = (char *)(told->reason ? told->reason : "");
    event.detail = detail;
    add_event(txn, domain, &event);
}

/* The head of the queue is done, well or not: tells, and goes on with the next. */
static void head_done(VpRecord *record, VpMutation *mutation, gint64 revision, const VpError *error)
{
    pthread_mutex_lock(&record->domains->mutex);
    g_queue_pop_head(&record->mutations);
    record->busy = FALSE;
    pthread_mutex_unlock(&record->domains->mutex);

    if (mutation->done)
        mutation->done(record, mutation->data, revision, error);
    mutation_free(mutation);
    pump(record);
}

static void retry(void *data)
{
    VpRecord *record = data;
    VpDomains *domains = record->domains;

    pthread_mutex_lock(&domains->mutex);
    domains->inside++;
    VpTimer *timer = g_steal_pointer(&record->retry);
    record->busy = FALSE;
    pthread_mutex_unlock(&domains->mutex);
    vp_timer_cancel(timer);
    pump(record);
    vp_record_unref(record);
    vp_domains_leave(domains);
}

/* Takes those that do not wait on out of the queue; the head is what they wait for. Under the mutex. */
static GPtrArray *take_impatient(VpRecord *record)
{
    GPtrArray *taken = g_ptr_array_new();

    for (GList *link = record->mutations.head->next, *next; link; link = next) {
        const VpMutation *mutation = link->data;

        next = link->next;
        if (!mutation->impatient)
            continue;
        g_ptr_array_add(taken, link->data);
        g_queue_delete_link(&record->mutations, link);
    }
    return taken;
}

static void tell_refused(VpRecord *record, const GPtrArray *mutations, const VpError *error)
{
    for (guint i = 0; i < mutations->len; i++) {
        VpMutation *mutation = mutations->pdata[i];

        mutation->done(record, mutation->data, 0, error);
        mutation_free(mutation);
    }
}

/* It has happened, whether the disk has room for it or not. At the daemon's end there is no later: the next one finds out by adoption. */
static gboolean try_again(VpRecord *record, const VpError *error)
{
    VpDomains *domains = record->domains;

    pthread_mutex_lock(&domains->mutex);
    const gboolean again = !domains->stopping;
    g_autoptr(GPtrArray) refused = take_impatient(record);
    if (again)
        record->retry = vp_timer_start(domains->loop, RETRY_MS, retry, vp_record_ref(record));
    pthread_mutex_unlock(&domains->mutex);
    tell_refused(record, refused, error);
    vp_log(VP_LOG_ERROR, "the state of the domain %s could not be recorded%s: %s", record->name,
           again ? ", trying again" : "", error->message);
    return again;
}

/* Shows what was committed, or notes that it is to be tried again. */
static void end_attempt(VpRecord *record, VpMutation *mutation, PbDomain *made, gint64 revision, const VpError *error)
{
    PbDomain *draft = made;

    if (error && mutation->observed && try_again(record, error)) {
        vp_pb_free(draft);
        return;
    }
    if (!error && !mutation->remove && !mutation->event_only) {
        draft->revision = revision;
        pthread_mutex_lock(&record->domains->mutex);
        PbDomain *before = record->committed;
        const PbDomain *now = record->committed = g_steal_pointer(&draft);
        vp_record_touch(record);
        pthread_mutex_unlock(&record->domains->mutex);
        vp_pb_free(before);
        /* The next change of it begins after this. */
        vp_screens_changed(record->domains, now);
    }
    if (!error && mutation->remove) {
        vp_registry_remove(record);
        vp_owners_removed(record->domains->owners, record->uid);
    }
    if (!error && !mutation->event_only)
        vp_domains_wake_waits(record);
    vp_pb_free(draft);
    head_done(record, mutation, revision, error);
}

static void committed(void *data, gint64 revision, const VpError *error)
{
    g_autofree Attempt *attempt = data;
    VpDomains *domains = attempt->record->domains;

    end_attempt(attempt->record, attempt->mutation, attempt->draft, revision, error);
    vp_record_unref(attempt->record);
    vp_domains_leave(domains);
}

/* Begins the next change, if none is under way. The caller holds the record: telling that a change has ended may drop all other references. */
static void pump(VpRecord *record)
{
    VpDomains *domains = record->domains;
    g_autoptr(VpTxn) txn = vp_txn_new();
    g_autofree char *key = vp_domain_key(record->uid);

    pthread_mutex_lock(&domains->mutex);
    VpMutation *mutation = record->busy ? NULL : g_queue_peek_head(&record->mutations);
    if (!mutation) {
        pthread_mutex_unlock(&domains->mutex);
        return;
    }
    record->busy = TRUE;
    const gboolean removed = record->removed;
    vp_pb_auto PbDomain *draft = vp_pb_dup(record->committed);
    pthread_mutex_unlock(&domains->mutex);

    const gint64 revision = draft ? draft->revision : 0;
    if (!mutation->apply) {
        head_done(record, mutation, revision, NULL);
        return;
    }
    if (!draft)
        draft = vp_pb_new(&pb_domain__descriptor);
    /* What waited behind a delete has nothing to change any more. */
    g_autoptr(VpError) error =
        removed ? vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "the domain %s was deleted", record->name)
                : mutation->apply(record, draft, txn, mutation->data);
    if (error) {
        head_done(record, mutation, revision, error);
        return;
    }

    vp_txn_compare(txn, key, revision);
    if (mutation->remove) {
        vp_txn_delete(txn, key);
        vp_owners_remove(txn, domains->owners, record->uid);
    } else if (!mutation->event_only) {
        /* The revision is the key's own; what is stored does not repeat it. */
        draft->revision = 0;
        g_autoptr(GBytes) packed = vp_pb_pack(draft);
        vp_txn_put(txn, key, packed);
    }
    Attempt *attempt = g_new0(Attempt, 1);
    *attempt = (Attempt){.record = vp_record_ref(record), .mutation = mutation, .draft = g_steal_pointer(&draft)};
    enter(domains);
    vp_store_commit(domains->store, g_steal_pointer(&txn), committed, attempt);
}

void vp_record_mutate(VpRecord *mutated, const VpMutation *mutation)
{
    g_autoptr(VpRecord) record = vp_record_ref(mutated);
    VpMutation *queued = g_memdup2(mutation, sizeof(*mutation));

    pthread_mutex_lock(&record->domains->mutex);
    record->domains->inside++;
    g_queue_push_tail(&record->mutations, queued);
    pthread_mutex_unlock(&record->domains->mutex);
    pump(record);
    vp_domains_leave(record->domains);
}

void vp_record_hurry(VpRecord *record)
{
    pthread_mutex_lock(&record->domains->mutex);
    VpTimer *timer = g_steal_pointer(&record->retry);
    pthread_mutex_unlock(&record->domains->mutex);
    /* Otherwise it is being fired, and tries by itself. */
    if (!vp_timer_cancel(timer))
        return;
    pthread_mutex_lock(&record->domains->mutex);
    record->busy = FALSE;
    pthread_mutex_unlock(&record->domains->mutex);
    pump(record);
    vp_record_unref(record);
}
