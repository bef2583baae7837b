/* A set of domains with all that it stands on, and its calls made to wait for their answers. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/pb.h"
#include "server/domains/domains.h"

/* More than any test needs, and less than its limit. */
#define SOON_US (20 * G_USEC_PER_SEC)

typedef struct World {
    char *dir;
    char *run_dir;
    GKeyFile *config;
    VpStore *store;
    VpLoop *loop;
    VpPool *pool;
    VpPool *slow_pool;
    VpJobs *jobs;
    VpDomains *domains;
} World;

/* cmocka's setup and teardown. */
int world_setup(void **state);
int world_teardown(void **state);

/* Ends it in the daemon's order, and starts it again from what is stored. */
void world_restart(World *world);

/* ---- what a call answered ---- */

typedef struct Answer {
    VpError *error;
    PbDomain *domain;
    PbOperation *operation;
    gint64 revision;
    guint times; /* told; must be one */
} Answer;

void answer_clear(Answer *answer);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Answer, answer_clear)

/* A call under way, to be waited for. */
typedef struct Call Call;
Call *call_new(void);
/* The VpDomainDone of a call; `data` is the Call. */
void call_done(void *data, const VpDomainResult *result);
gboolean call_is_done(Call *call);
/* Waits, and frees the call. */
Answer call_wait(Call *call);

extern const VpDomainCaller alice;

/* ---- requests ---- */

/* A request to create `name` with the test driver; `labels` is "key=value", NULL at the end. */
PbCreateDomainRequest *create_request(const char *name, const char *const *labels);
#define LABELS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_LABELS ((const char *const[]){NULL})

Answer create_with(World *world, PbCreateDomainRequest *request, const char *request_id);
/* Creates a domain; must succeed. Its uid is the caller's. */
char *create(World *world, const char *name, const char *const *labels);

Answer update(World *world, const PbUpdateDomainRequest *request, const char *request_id);
PbUpdateDomainRequest *update_request(const char *name, const char *const *paths);
Answer remove_domain(World *world, const char *name, gint64 revision, const char *request_id);

Answer verb(World *world, VpVerb which, const char *name);
/* Takes the job and does not wait for it; its operation's uid is the caller's. */
char *verb_no_wait(World *world, VpVerb which, const char *name);
Call *verb_begin(World *world, const VpVerbRequest *request);

/* ---- checks ---- */

void succeeded(const Answer *answer);
void failed(const Answer *answer, VpCode code, const char *reason);
/* The store's revision once all who were answered are counted in it. */
gint64 settled_revision(World *world);
PbDomainState state_of(World *world, const char *name);
/* Waits until the domain is in this state. */
void wait_state(World *world, const char *name, PbDomainState state);
/* Waits until the operation has ended; the copy is the caller's. */
PbOperation *wait_operation(World *world, const char *uid);

/* "CREATED STARTING STARTED": the journal's events of a domain so far, without their common beginning. The caller frees it. */
char *events_of(World *world, const char *name);
