/* The services of the contract: tables of handlers for the RPC runtime, one file a service. They check, call down and answer; policy is elsewhere. */
#pragma once

#include "base/version.h"
#include "server/domains/domains.h"
#include "server/jobs/jobs.h"
#include "server/rpc/rpc.h"
#include "server/services/access.h"
#include "server/services/console_line.h"
#include "server/services/event_hub.h"
#include "server/services/log_level.h"
#include "server/services/page_token.h"
#include "server/services/stats_hub.h"
#include "server/store/store.h"
#include "storage/chain/policy.h"

/* What the handlers work on; owned by the daemon, outlives the server. */
typedef struct VpServices {
    VpStore *store;
    VpJobs *jobs;
    VpDomains *domains;
    VpPool *pool;
    VpLoop *loop;
    VpEventHub *events;
    VpStatsHub *stats;
    VpLines *lines;
    VpSecrets *secrets;
    VpAccessContext *access; /* who calls and what they may do; NULL: nobody asks */
    VpPageKey page_key;
    const char *state_dir;
    const VpImagePolicy *images;
    gint inspecting;              /* InspectPath calls under way; atomic */
    gint copying;                 /* and those that read all of the store */
    gint pictures;                /* TakeScreenshot calls */
    const char *const *addresses; /* set once they are bound, while calls are served: atomic */
    VpRpcServer *server;          /* likewise */
    VpLogSwitch log_level;
    gint64 start_wall_us;
} VpServices;

/* Ends with NULL handlers; context is `services`. Owned by the caller (g_free). */
VpHandlerTable *vp_services_tables(VpServices *services);

extern const VpMethodHandler vp_admin_handlers[];
extern const VpMethodHandler vp_auth_handlers[];
extern const VpMethodHandler vp_domain_handlers[];
extern const VpMethodHandler vp_event_handlers[];
extern const VpMethodHandler vp_guest_handlers[];
extern const VpMethodHandler vp_host_handlers[];
extern const VpMethodHandler vp_image_handlers[];
extern const VpMethodHandler vp_operation_handlers[];
extern const VpMethodHandler vp_secret_handlers[];

/* What a page has at most, but for one larger entry: clients take messages of 4 MiB by default. */
#define VP_PAGE_MAX_BYTES (3u << 20)

/* How many of the calls that may take minutes run at once. They have threads of their own, more than these together, so that shorter ones get through. */
#define VP_MAX_INSPECTING 2
#define VP_MAX_COPYING 2
#define VP_SLOW_THREADS (VP_MAX_INSPECTING + VP_MAX_COPYING + 2)

/* Counts such a call in: RESOURCE_EXHAUSTED, reason TOO_BUSY, if `most` are under way. `what`: "folders are being inspected". */
VpError *vp_slow_enter(gint *count, gint most, const char *what);
void vp_slow_leave(gint *count);

/* The page size to use for what a client asked (the bound of 1,000 is the validator's). */
static inline guint vp_page_size(guint32 asked)
{
    return asked ? asked : 100;
}
