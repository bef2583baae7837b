/*
 * What an identity may use, for the gate: what the policy says of it, else what [limits] of the settings says of everyone, else a half of what there is for
 * all; but root and the daemon's own user, who look after it, have no limits that nobody has set.
 */
#include <unistd.h>

#include "server/services/access_limits.h"

static gboolean looks_after_it(const VpIdentity *identity)
{
    g_autofree char *own = g_strdup_printf("uid:%u", geteuid());

    return identity->kind == PB_IDENTITY_KIND_LOCAL &&
           (g_str_equal(identity->name, "uid:0") || g_str_equal(identity->name, own));
}

static guint limit(const VpAccessContext *context, const VpPolicy *policy, const VpIdentity *identity,
                   VpPolicyLimit which, guint otherwise)
{
    const gint64 by_policy = vp_policy_limit(policy, identity, which);
    const gint64 value = by_policy >= 0 ? by_policy : context->limits ? context->limits[which] : -1;

    if (value >= 0)
        return (guint)value;
    return looks_after_it(identity) ? 0 : otherwise;
}

void vp_access_limits(const VpAccessContext *context, const VpIdentity *identity, VpLimits *ret_limits)
{
    g_autoptr(VpPolicy) policy = vp_auth_policy(context->auth);
    const VpLimits *halves = &context->halves;

    *ret_limits = (VpLimits){
        .connections = limit(context, policy, identity, VP_POLICY_CONNECTIONS, halves->connections),
        .calls = limit(context, policy, identity, VP_POLICY_CALLS, halves->calls),
        .streams = limit(context, policy, identity, VP_POLICY_STREAMS, halves->streams),
        .calls_per_second = limit(context, policy, identity, VP_POLICY_CALLS_PER_SECOND, 0),
        .message_bytes = limit(context, policy, identity, VP_POLICY_MESSAGE_BYTES, 0),
        .domains = limit(context, policy, identity, VP_POLICY_DOMAINS, 0),
        .secrets = limit(context, policy, identity, VP_POLICY_SECRETS, 0),
        .shared = g_str_equal(identity->name, VP_ANONYMOUS),
    };
}
