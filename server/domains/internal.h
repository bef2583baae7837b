/* Inside server/domains: the record of one domain and the queue of its changes. */
#pragma once

#include <pthread.h>

#include "drivers/driver.h"
#include "server/domains/domains.h"
#include "server/domains/requests.h"
#include "server/store/owners.h"

#define VP_MAX_DRIVERS 16

typedef struct VpRecord VpRecord;
typedef struct VpMutation VpMutation;

/* One change of one domain, waiting for its turn. */
struct VpMutation {
    /* Changes `draft` (a copy of the domain as committed) and adds events to `txn`. An error ends the change. NULL: changes nothing, only waits for
     * the changes before it. */
    VpError *(*apply)(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data);
    /* Told at the end, without locks; on the store's writer thread or the caller's. May be NULL. */
    void (*done)(VpRecord *record, void *data, gint64 revision, const VpError *error);
    void (*destroy)(void *data);
    void *data;
    gboolean remove;     /* deletes the domain */
    gboolean observed;   /* has happened already: is tried again until the store takes it */
    gboolean event_only; /* `apply` adds events and leaves the domain, and its revision, as they are */
    gboolean impatient;  /* without `apply`: is told the store's refusal of what it waits for, and does not wait on */
};

/* One domain. Lives in the registry from the moment its creation is under way until its deletion is committed. */
struct VpRecord {
    gint refs;
    VpDomains *domains;
    VpDriver *driver;
    char *uid;
    char *name;

    /* Under domains->mutex. */
    PbDomain *committed; /* NULL until the creation is committed, and after the deletion */
    gboolean removed;    /* from the registry: deleted, or never created */
    VpDomainView *view;  /* NULL: to be built anew */
    guint job_generation;
    guint questions[VP_QUESTIONS]; /* to its driver, under way */
    GQueue mutations;              /* of VpMutation; the head is under way while busy */
    gboolean busy;
    VpTimer *retry;
    VpTimer *restart;
};

struct VpDomains {
    VpStore *store;
    VpSecrets *secrets;
    const VpScreenHost *screens; /* or NULL */
    VpJobs *jobs;
    VpLoop *loop;
    VpPool *pool;
    VpRequests *requests;
    VpOwners *owners;
    guint max_domains; /* 0: no limit */
    VpDriver *drivers[VP_MAX_DRIVERS];
    VpDriverHost hosts[VP_MAX_DRIVERS];
    guint n_drivers;

    pthread_mutex_t mutex;
    pthread_cond_t idle; /* fewer adoptions are under way, fewer questions are handed over, or fewer are inside */
    guint adopting;
    guint handing_over; /* questions that their drivers do not have yet */
    guint
        inside; /* questions and commits under way, and threads that tell of one: nothing is freed before they are out */
    gboolean stopping;    /* what the store does not take now is not tried again */
    char *autostart_path; /* of the marker */
    VpTimer *autostart_timer;
    void *autostart_data; /* of the timer */
    GPtrArray *off_waits; /* of VpOffWait, each with a reference */
    GTree *by_name;       /* char * -> VpRecord (one reference) */
    GHashTable *by_uid;   /* char * -> VpRecord (none) */
};

/* ---- registry.c ---- */

VpRecord *vp_record_ref(VpRecord *record);
void vp_record_unref(VpRecord *record);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpRecord, vp_record_unref)

/* Puts a new domain into the registry, taking `committed` (NULL: its creation is under way). ALREADY_EXISTS, or ABORTED if one of that name is being
 * created right now. */
VpRecord *vp_registry_add(VpDomains *domains, VpDriver *driver, const char *name, const char *uid, PbDomain *committed,
                          VpError **error);
void vp_registry_remove(VpRecord *record);
/* How many there are, those that are being created among them. */
guint vp_registry_size(VpDomains *domains);

/* The record of a committed domain, a reference; errors as vp_domains_get(). */
VpRecord *vp_registry_find(VpDomains *domains, const char *name, const char *uid, VpError **error);
VpRecord *vp_registry_find_uid(VpDomains *domains, const char *uid);

/* The domain as clients see it now; NULL if it is not committed yet. */
VpDomainView *vp_record_view(VpRecord *record);

/* Something that a view shows has changed: under domains->mutex. */
void vp_record_touch(VpRecord *record);

/* The key of a domain in the store. Owned by the caller. */
char *vp_domain_key(const char *uid);

/* The driver of this name, or NULL. */
VpDriver *vp_domains_driver(VpDomains *domains, const char *name);

/* ---- status.c ---- */

/* Nothing of it runs, nor is kept of a run. */
gboolean vp_domain_is_off(const PbDomain *domain);
gboolean vp_domain_runs(const PbDomain *domain);
/* The spec with which a domain that runs does so; borrowed. */
const PbDomainSpec *vp_domain_live_spec(const PbDomain *domain);
/* Takes `live` (NULL: nothing runs); it is kept where it is not the stored one. */
void vp_domain_set_live_spec(PbDomain *domain, PbDomainSpec *live);
/* Puts another spec in the place of the stored one; what runs goes on as it does. Takes `spec`. */
void vp_domain_set_spec(PbDomain *domain, PbDomainSpec *spec);
/* What runs now, as its driver sees it (`live` NULL: nothing), and which devices are on their way out. What was pending for the stored spec as well, and is
 * gone, goes from there too. Copies. */
void vp_domain_set_running(PbDomain *domain, const PbDomainSpec *live, PbPendingDetach *const *detaches, gsize n);

/* ---- verbs.c ---- */

/* FAILED_PRECONDITION unless the domain is in one of `states`, a set of 1u << PbDomainState. `words`: "cannot ... the domain". */
VpError *vp_domain_check_state(const PbDomain *domain, guint states, const char *words);

/* Operations are forgotten with the daemon, the journal is not: adds the event that a driver's work on the domain has failed. */
void vp_record_journal_failure(VpRecord *record, VpJob *job, const char *type, const VpError *error);

/* ---- progress.c ---- */

/* What the journal has been told of how far an operation is; zeroed at first. */
typedef struct VpProgress {
    pthread_mutex_t mutex;
    gint64 next_us; /* not before this */
    guint percent;
    char *message;
} VpProgress;

void vp_progress_init(VpProgress *progress);
void vp_progress_clear(VpProgress *progress);

/* A driver tells how far its work in a job is: the operation shows it, the journal has it now and then. Any thread; never blocks. */
void vp_record_progress(VpRecord *record, VpJob *job, VpProgress *progress, const char *type, guint percent,
                        const char *message);

/* UNIMPLEMENTED: this driver has no such method. */
VpError *vp_domain_cannot(const VpDriver *driver, const char *method);

/* ---- mutate.c ---- */

/* The end of something that was counted in VpDomains.inside. */
void vp_domains_leave(VpDomains *domains);

/* Queues a change. Copies the struct; `data` is destroyed after `done`. Any thread; never blocks. */
void vp_record_mutate(VpRecord *mutated, const VpMutation *mutation);

/* The words of a hypervisor and the names of files are any bytes, of any length; this much of them, as UTF-8, is told. NULL for NULL. */
char *vp_event_text(const char *words);

/* Adds an event about a domain to a transaction. */
void vp_domain_event(VpTxn *txn, const PbDomain *domain, PbEventType type, const char *reason, const char *detail);

/* The event of an operation on a domain. */
typedef struct VpOperationEvent {
    PbEventType event;
    const char *type; /* of the operation */
    const char *uid;
    const char *reason;
    const char *detail;
} VpOperationEvent;
void vp_operation_event(VpTxn *txn, const PbDomain *domain, const VpOperationEvent *told);

/* Makes a retry that waits happen now. */
void vp_record_hurry(VpRecord *record);

/* ---- autostart.c ---- */

/* If it has not begun it does not any more. */
void vp_domains_end_autostart(VpDomains *domains);

/* ---- restart.c ---- */

/* Within the transaction that tells of `event`, after it: decides whether the domain is to be started again. `ran` is what it ran with until then. */
void vp_restart_seen(PbDomain *draft, const PbDomainSpec *ran, PbEventType event, const char *reason, VpTxn *txn);
gboolean vp_restart_is_pending(const PbDomain *domain);
/* Waits for the time of the restart that is due, if there is one. */
void vp_restart_arm(VpRecord *record);
void vp_restart_disarm(VpRecord *record);
/* Somebody has powered the domain off: FALSE if no restart was due; else it is called off, and the rest is as in VpMutation. */
gboolean vp_restart_call_off(VpRecord *record, void (*done)(VpRecord *, void *, gint64, const VpError *), void *data,
                             void (*destroy)(void *));

/* ---- wait.c ---- */

/* A change of this domain was committed. */
void vp_domains_wake_waits(VpRecord *record);
/* Ends all of them. */
void vp_domains_end_waits(VpDomains *domains);

/* ---- observe.c ---- */

/* VpDriverHost.report and .settle; `data` is the VpDomains. */
void vp_domains_report(void *data, const char *uid, const VpObservation *observation);
void vp_domains_settle(void *data, const char *uid, void (*done)(void *done_data, VpError *error), void *done_data);

/* ---- screens.c: VpScreenHost, where there is one ---- */

VpError *vp_screens_check(const VpDomains *domains, const PbDomain *domain);
/* Whether two specs ask for other screens. */
gboolean vp_screens_differ(const PbDomainSpec *before, const PbDomainSpec *after);
VpError *vp_screens_take(const VpDomains *domains, const PbDomain *domain);
void vp_screens_settle(VpRecord *record);
void vp_screens_changed(const VpDomains *domains, const PbDomain *domain);
/* Where the endpoints that a driver has just told of are served: as `before` tells, or else the host. */
void vp_screens_tell(const VpRecord *record, PbDomainStatus *status, PbDomainEndpoint *const *before, gsize n_before);

/* ---- secret_use.c ---- */

/* VpDriverHost.secret; `data` is the VpDomains. */
VpError *vp_domains_secret(void *data, const char *name, VpSecretUse use, void *use_data);

/* Ends a job's task early, since the job was cancelled or its time is over. In live.c. */
void vp_domain_give_up(const VpJob *job, VpTask *task);
