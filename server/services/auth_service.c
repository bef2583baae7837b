/* virtplane.v1.AuthService: who calls, and what they may do. */
#include "base/pb.h"
#include "server/services/access.h"
#include "server/services/services.h"
#include "virtplane/v1/auth_service.pb-c.h"

static PbIdentity *describe(const VpIdentity *identity)
{
    PbIdentity *described = vp_pb_new(&pb_identity__descriptor);

    vp_pb_set(&described->name, identity->name);
    for (char **group = identity->groups; *group; group++)
        vp_pb_append(&described->n_groups, &described->groups, g_strdup(*group));
    described->kind = identity->kind;
    if (identity->expires_wall_us != G_MAXINT64)
        described->expire_time = vp_pb_timestamp(identity->expires_wall_us);
    return described;
}

static void get_identity(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;
    const VpIdentity *identity = vp_access_identity(call);
    vp_pb_auto PbGetIdentityResponse *response = vp_pb_new(&pb_get_identity_response__descriptor);
    g_autoptr(VpPolicy) policy = vp_auth_policy(services->access->auth);
    g_autoptr(GPtrArray) roles = vp_policy_roles(policy, identity);

    (void)message;
    response->identity = describe(identity);
    for (guint i = 0; i < roles->len; i++)
        vp_pb_append(&response->n_roles, &response->roles, g_strdup(roles->pdata[i]));
    vp_call_reply(call, response);
}

/* The identity that a request asks about: its own, or the caller's. */
static VpIdentity *asked_for(const PbCheckAccessRequest *request, const VpIdentity *caller)
{
    g_autoptr(GPtrArray) groups = g_ptr_array_new();

    if (!request->identity)
        return vp_identity_ref((VpIdentity *)caller);
    for (size_t i = 0; i < request->identity->n_groups; i++)
        g_ptr_array_add(groups, request->identity->groups[i]);
    g_ptr_array_add(groups, NULL);
    return vp_identity_new(request->identity->kind, request->identity->name, (const char *const *)groups->pdata,
                           G_MAXINT64);
}

/* Whether the caller may know what others may do: who may read all there is, as a copy. */
static gboolean is_admin(const VpServices *services, const VpIdentity *identity)
{
    g_autoptr(VpPolicy) policy = vp_auth_policy(services->access->auth);

    return vp_policy_may_call(policy, identity,
                              vp_auth_find_method(services->access->auth, "AdminService/BackupStore"));
}

static void check_access(VpCall *call, const void *message, void *context)
{
    const PbCheckAccessRequest *request = message;
    const VpServices *services = context;
    const VpIdentity *caller = vp_access_identity(call);
    vp_pb_auto PbCheckAccessResponse *response = vp_pb_new(&pb_check_access_response__descriptor);
    g_autoptr(VpIdentity) identity = asked_for(request, caller);
    const gboolean admin = is_admin(services, caller);

    if (request->identity && !admin) {
        vp_call_fail(call, vp_error_new(VP_PERMISSION_DENIED, "NOT_ALLOWED",
                                        "%s may ask for itself alone; only an admin may ask for others", caller->name));
        return;
    }
    VpError *error = vp_access_check(services->access, identity, request, response);
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    /* The policy's other bindings are not for everyone to read. */
    for (size_t i = 0; !admin && i < response->n_bindings;) {
        if (response->bindings[i]->subject_matches) {
            i++;
            continue;
        }
        vp_pb_free(response->bindings[i]);
        response->bindings[i] = response->bindings[--response->n_bindings];
    }
    response->identity = describe(identity);
    vp_call_reply(call, response);
}

const VpMethodHandler vp_auth_handlers[] = {
    {"virtplane.v1.AuthService/GetIdentity", get_identity, VP_RPC_INLINE},
    {"virtplane.v1.AuthService/CheckAccess", check_access, VP_RPC_INLINE},
    {0},
};
