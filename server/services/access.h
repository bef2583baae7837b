/*
 * The gate: the one place where it is decided whether a call may be made. It learns who calls, asks the policy about the method before the request is looked
 * at, and about the resource when it is known; and writes down what came of it. What a policy's selectors ask of a resource that is there (its labels, its
 * driver) is looked up here; so handlers know nothing of all this, but for lists and streams, which ask what of theirs a caller sees.
 */
#pragma once

#include "server/auth/audit.h"
#include "server/auth/auth.h"
#include "server/domains/domains.h"
#include "server/jobs/jobs.h"
#include "server/rpc/rpc.h"
#include "server/secrets/secrets.h"
#include "server/services/visitors.h"

typedef struct VpAccessContext {
    VpAuth *auth;
    VpAudit *audit;       /* NULL: nothing is written down */
    VpVisitors *visitors; /* NULL: it is not told who comes in */
    VpDomains *domains;
    VpJobs *jobs;
    VpSecrets *secrets;
    const gint64 *limits; /* of each identity by the settings, one a VpPolicyLimit; -1: not set. NULL: none is */
    VpLimits halves;      /* those of whom nobody has set any */
} VpAccessContext;

/* `context` outlives the server. */
VpRpcGate vp_access_gate(VpAccessContext *context);

/* Who makes a call, borrowed; NULL without a gate. */
const VpIdentity *vp_access_identity(VpCall *call);

/* ---- lists and streams ---- */

/* What one call sees at this moment. */
typedef struct VpSight {
    VpPolicy *policy; /* NULL: all */
    const VpIdentity *identity;
    const VpMethod *method;
    gboolean connections; /* sees who else is there */
} VpSight;

/* By the call's own method, or (not NULL) as if it were another. To be cleared before the call is let go. Never blocks. */
void vp_sight_take(VpCall *call, const char *method, VpSight *ret_sight);
void vp_sight_clear(VpSight *sight);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpSight, vp_sight_clear)

gboolean vp_sight_sees(const VpSight *sight, const VpResource *resource);
gboolean vp_sight_sees_domain(const VpSight *sight, const PbDomain *domain);
gboolean vp_sight_sees_event(const VpSight *sight, const PbEvent *event);
/* An operation is seen by those who see what it works on. */
gboolean vp_sight_sees_operation(const VpSight *sight, VpDomains *domains, const PbOperation *operation);

/* ---- asking ---- */

/* Answers CheckAccess. */
VpError *vp_access_check(VpAccessContext *context, const VpIdentity *identity, const PbCheckAccessRequest *request,
                         PbCheckAccessResponse *response);
