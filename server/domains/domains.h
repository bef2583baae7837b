/*
 * The domains of this host: what is known of each in memory, its changes through the store, its verbs as jobs of its driver.
 *
 * Reads are served from memory and never wait. Every change is one transaction of the store: row and events together; memory follows
 * once it is committed. Changes of one domain are made one after another; what a driver reports is one of them and is never dropped.
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/pool.h"
#include "drivers/task.h"
#include "server/jobs/jobs.h"
#include "server/secrets/secrets.h"
#include "server/store/store.h"
#include "storage/chain/policy.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/host_service.pb-c.h"

typedef struct VpDomains VpDomains;

/* Where screens are served by TCP (DomainSpec.tls_screens): server/screens. Its functions are called on any thread, and never wait for a client. */
typedef struct VpScreenHost {
    /* FAILED_PRECONDITION, reason TLS_NOT_SET_UP, if it cannot serve what a spec asks for. */
    VpError *(*check)(void *data, const PbDomain *domain);
    /* Takes the addresses for a start of `domain`, or says why it cannot have them. */
    VpError *(*take)(void *data, const PbDomain *domain);
    /* That start has ended, well or not: what `domain` (NULL: it was deleted) does not use is given back. */
    void (*settle)(void *data, const char *uid, const PbDomain *domain);
    /* Tells in `endpoint` where it is served. */
    void (*tell)(void *data, const char *uid, PbDomainEndpoint *endpoint);
    /* The domain as it is now: what its endpoints tell of is served from here on, and nothing else. */
    void (*changed)(void *data, const PbDomain *domain);
    void *data;
} VpScreenHost;

typedef struct VpDomainsOptions {
    VpStore *store;
    VpJobs *jobs;
    VpLoop *loop;
    VpPool *pool;      /* as in VpDriverHost; that of the jobs */
    VpPool *slow_pool; /* as in VpDriverHost */
    GKeyFile *config;
    const VpImagePolicy *images;
    VpSecrets *secrets;          /* NULL: there are none */
    const VpScreenHost *screens; /* NULL: none is served by TCP. Borrowed */
    guint max_domains;           /* 0: no limit */
    const char *state_dir;       /* the daemon's; each driver gets a folder in it */
    const char *run_dir;
} VpDomainsOptions;

/* Opens the drivers and loads the domains from the store. What `options` points to outlives the result, but for the strings. */
VpDomains *vp_domains_new(const VpDomainsOptions *options, VpError **error);

/* The name of a domain whose spec names this secret, owned by the caller; NULL: none does. Any thread, never blocks. */
char *vp_domains_find_secret_user(VpDomains *domains, const char *secret);

/* The secrets that a message names, wherever in it: adds to `names`, which borrows. */
void vp_secret_names(const ProtobufCMessage *message, GPtrArray *names);

/* Takes up the domains that were running when the daemon ended, and those of which something runs whatever is stored; waits until that is done or
 * `deadline_us` of vp_now_us() has passed (it goes on then). Once, before any other call. */
void vp_domains_adopt(VpDomains *domains, gint64 deadline_us);

/* Starts the domains that are to be started with the host, if that was not done in this boot: `parallel` of them at a time (0: none). Goes on beside
 * everything else. Once, after vp_domains_adopt(). */
void vp_domains_autostart(VpDomains *domains, guint parallel);

/* Closes the drivers (their domains run on) and frees. No job may run any more. NULL is let pass. */
void vp_domains_free(VpDomains *domains);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpDomains, vp_domains_free)

/* ---- reading; any thread, never blocks ---- */

/* A domain as clients see it; immutable and counted. */
typedef struct VpDomainView {
    gint refs;
    PbDomain *domain;
    GBytes *get_response; /* a packed GetDomainResponse */
} VpDomainView;

VpDomainView *vp_domain_view_ref(VpDomainView *view);
void vp_domain_view_unref(VpDomainView *view);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpDomainView, vp_domain_view_unref)

/* Whether a hypervisor runs it and can be talked to about it: it is neither off, nor being started. Pure. */
gboolean vp_domain_is_up(const PbDomain *domain);

/* By name or uid (empty or NULL: not given; both must agree). NOT_FOUND; INVALID_ARGUMENT if neither is given. Owned by the caller. */
VpDomainView *vp_domains_get(VpDomains *domains, const char *name, const char *uid, VpError **error);

/* Those that match `filter` (may be NULL), in the order of their names, after `after` (NULL: from the first), at most `limit` and some 3 MiB:
 * a GPtrArray of VpDomainView that owns them. `ret_more` tells whether others follow. */
GPtrArray *vp_domains_list(VpDomains *domains, const PbDomainFilter *filter, const char *after, guint limit,
                           gboolean *ret_more);

/* The drivers' capabilities, appended to `response`. May block for a moment. */
void vp_domains_capabilities(VpDomains *domains, PbGetCapabilitiesResponse *response);

/* ---- changing; the answer comes by a callback, on any thread, which must not block ---- */

/* How a change ended: `error` (borrowed) or `domain` (borrowed; NULL after a delete). `operation` (borrowed) for jobs, else NULL. */
typedef struct VpDomainResult {
    const VpError *error;
    const PbDomain *domain;
    const PbOperation *operation;
    gint64 revision;
} VpDomainResult;
typedef void (*VpDomainDone)(void *data, const VpDomainResult *result);

/* Who asks, and the request's id that makes a retry safe (empty: none). Copied. */
typedef struct VpDomainCaller {
    const char *identity; /* "uid:1000": request ids of different identities do not meet */
    const char *text;     /* for people */
    const char *request_id;
    guint most_domains; /* that the identity may have created; 0: no limit */
} VpDomainCaller;

void vp_domains_create(VpDomains *domains, const PbCreateDomainRequest *request, const VpDomainCaller *caller,
                       VpDomainDone done, void *data);
/* `timeout_ms`, 0: the default, is the request's, as a number. */
void vp_domains_update(VpDomains *domains, const PbUpdateDomainRequest *request, const VpDomainCaller *caller,
                       guint64 timeout_ms, VpDomainDone done, void *data);
void vp_domains_attach(VpDomains *domains, const PbAttachDeviceRequest *request, const VpDomainCaller *caller,
                       guint64 timeout_ms, VpDomainDone done, void *data);
void vp_domains_detach(VpDomains *domains, const PbDetachDeviceRequest *request, const VpDomainCaller *caller,
                       guint64 timeout_ms, VpDomainDone done, void *data);
void vp_domains_delete(VpDomains *domains, const PbDeleteDomainRequest *request, const VpDomainCaller *caller,
                       VpDomainDone done, void *data);

typedef enum VpVerb {
    VP_VERB_START,
    VP_VERB_SHUTDOWN,
    VP_VERB_POWER_OFF,
    VP_VERB_REBOOT,
    VP_VERB_RESET,
    VP_VERB_PAUSE,
    VP_VERB_RESUME,
    VP_VERB_SAVE,
    VP_VERB_RESTORE,
    VP_VERB_DISCARD,
    VP_VERB_ADOPT, /* the daemon's own, at start */
} VpVerb;

typedef enum VpQuestion {
    VP_QUESTION_STATS,      /* answered with PbDomainStats */
    VP_QUESTION_SCREENSHOT, /* with PbScreenshotHeader; the picture is in `output` */
    VP_QUESTION_GUEST,      /* see VpDriverOps.guest */
    VP_QUESTIONS,
} VpQuestion;

typedef struct VpAsk {
    VpQuestion question;
    const char *name;
    const char *uid;
    const void *request; /* a message for the driver, or NULL; copied */
    guint64 timeout_ms;  /* 0: the question's default */
    gboolean has_output; /* as vp_task_set_output() */
    int output;
    VpTaskStream *stream; /* or NULL; see vp_task_set_stream() */
} VpAsk;

/* How a question was answered: `error` or `answer`, both borrowed. On any thread; must not block. */
typedef void (*VpAnswered)(void *data, const VpError *error, const void *answer);

/* Asks the driver of a domain something that waits behind no job. `done` always comes, once, perhaps before this returns. Returns a reference to the task,
 * which may be cancelled, or NULL if `done` was told why not. Any thread; never blocks. */
VpTask *vp_domains_ask(VpDomains *domains, const VpAsk *question, VpAnswered done, void *data);

typedef struct VpVerbRequest {
    VpVerb verb;
    const char *name;
    const char *uid;
    gboolean no_wait;    /* `done` is called once the job is taken */
    gboolean paused;     /* of a start */
    guint64 timeout_ms;  /* 0: the verb's default */
    const void *message; /* the method's request, for the driver, or NULL; copied */
    const char *reason;  /* of a start that nobody asked for, as events tell it; NULL: somebody did. Copied */
    gboolean restart;    /* a start that is done only if status.restart still says so */
} VpVerbRequest;

void vp_domains_verb(VpDomains *domains, const VpVerbRequest *request, const VpDomainCaller *caller, VpDomainDone done,
                     void *data);

/* Waits until nothing of a domain runs any more. */
typedef struct VpOffWait VpOffWait;

/* Calls `done(data, error)` once, on any thread, when the domain is shut off, has crashed, was saved or deleted; with DEADLINE_EXCEEDED, reason
 * STILL_RUNNING, at `deadline_us` of vp_now_us(); with UNAVAILABLE at the end of `domains`. `error` is borrowed. Never on the caller's thread before this
 * returns. Owned by the caller. */
VpOffWait *vp_domains_wait_off(VpDomains *domains, const char *uid, gint64 deadline_us,
                               void (*done)(void *data, const VpError *error), void *data);
/* Lets go of it: TRUE if `done` has not been called and will not be. NULL is let pass (FALSE). Once. */
gboolean vp_off_wait_end(VpOffWait *wait);
