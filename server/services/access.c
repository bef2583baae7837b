/* The gate: see access.h. */
#include "server/services/access.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/services/access_limits.h"
#include "server/services/access_target.h"
#include "server/services/access_visit.h"

/* What is noted of a call. */
typedef struct Pass {
    VpAccessContext *context;
    VpIdentity *identity; /* NULL: what it showed was refused */
    gint64 start_us;
    /* Of a client stream these are known when it is open already, and perhaps being ended by another thread: atomic. */
    char *resource; /* "domain/web"; NULL: none, or not looked at */
    gint refused;   /* by the gate itself */
} Pass;

static void pass_free(void *data)
{
    Pass *pass = data;

    vp_identity_unref(pass->identity);
    g_free(pass->resource);
    g_free(pass);
}

const VpIdentity *vp_access_identity(VpCall *call)
{
    const Pass *pass = vp_call_identity(call);

    return pass ? pass->identity : NULL;
}

/* ---- refusals ---- */

static const char *short_name(const VpMethod *method)
{
    const char *dot = strrchr(method->method, '.');

    return dot ? dot + 1 : method->method;
}

static VpError *not_allowed(const VpIdentity *identity, const VpMethod *method, const char *resource)
{
    VpError *error;

    if (g_str_equal(identity->name, VP_ANONYMOUS))
        error = vp_error_new(VP_UNAUTHENTICATED, "NO_IDENTITY",
                             "%s is not for everyone: come by the unix socket, or show a certificate or a token",
                             short_name(method));
    else
        error = vp_error_new(VP_PERMISSION_DENIED, "NOT_ALLOWED",
                             "%s may not call %s%s%s; \"vpctl auth can-i\" tells which bindings the policy has",
                             identity->name, short_name(method), resource ? " on " : "", resource ? resource : "");
    return vp_error_with(vp_error_with(error, "identity", identity->name), "method", method->method);
}

/* One answer for what is not there and for what the caller may not know to be there. */
static VpError *not_found(const VpMethod *method, const VpTarget *target)
{
    g_autofree char *type = g_ascii_strup(method->resource, -1);
    g_autofree char *reason = g_strdup_printf("%s_NOT_FOUND", type);

    return vp_error_new(VP_NOT_FOUND, reason, "there is no %s %s", method->resource, strchr(target->text, '/') + 1);
}

/* ---- the gate ---- */

static void identity_free(void *identity)
{
    vp_identity_unref(identity);
}

static VpError *identify(VpAccessContext *context, VpCall *call, VpIdentity **ret_identity)
{
    VpIdentity *kept = vp_call_kept(call);
    VpCredentials credentials;
    VpError *error = NULL;

    if (kept) {
        *ret_identity = vp_identity_ref(kept);
        return NULL;
    }
    vp_call_credentials(call, &credentials);
    /* Root needs no groups, and is the one who calls most. */
    g_autoptr(GArray) groups = credentials.local && credentials.uid != 0 ? vp_call_groups(call) : NULL;
    *ret_identity = vp_auth_identify(context->auth, &credentials, groups, &error);
    /* The kernel's word stands for as long as the connection does. */
    if (*ret_identity && credentials.local)
        vp_call_keep(call, vp_identity_ref(*ret_identity), identity_free);
    return error;
}

static VpError *enter(void *data, VpCall *call, const VpMethod *method)
{
    VpAccessContext *context = data;
    Pass *pass = g_new0(Pass, 1);

    pass->context = context;
    pass->start_us = vp_now_us();
    VpError *error = identify(context, call, &pass->identity);
    vp_call_set_identity(call, pass->identity ? pass->identity->name : NULL, pass, pass_free);
    if (!error) {
        g_autoptr(VpPolicy) policy = vp_auth_policy(context->auth);

        if (!vp_policy_may_call(policy, pass->identity, method))
            error = not_allowed(pass->identity, method, NULL);
    }
    pass->refused = error != NULL;
    if (!error && context->visitors) {
        VpCaller caller;

        vp_call_caller(call, &caller);
        vp_visitors_note(context->visitors, pass->identity->name, caller.text);
    }
    return error;
}

/* The method that lets its caller know of a resource; NULL: whoever is refused may know as well. */
static const VpMethod *method_to_see(VpAccessContext *context, const char *type)
{
    static const char *const methods[][2] = {
        {"domain", "DomainService/GetDomain"}, {"operation", "OperationService/GetOperation"},
        {"pool", "StorageService/GetPool"},    {"volume", "StorageService/GetVolume"},
        {"secret", "SecretService/GetSecret"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(methods); i++) {
        if (g_str_equal(methods[i][0], type))
            return vp_auth_find_method(context->auth, methods[i][1]);
    }
    return NULL;
}

static VpError *judge(VpAccessContext *context, const VpPolicy *policy, const VpIdentity *identity,
                      const VpMethod *method, const VpTarget *target)
{
    const VpMethod *see = method->scope == PB_METHOD_SCOPE_ONE ? method_to_see(context, method->resource) : NULL;

    if (target->missing)
        return not_found(method, target);
    for (guint i = 0; i < target->n_resources; i++) {
        if (vp_policy_allows(policy, identity, method, &target->resources[i]))
            continue;
        if (i == 0 && see && !vp_policy_allows(policy, identity, see, &target->resources[0]))
            return not_found(method, target);
        return not_allowed(identity, method, target->text);
    }
    return NULL;
}

static gboolean names_secret(const GPtrArray *names, const char *name)
{
    for (guint i = 0; i < names->len; i++) {
        if (g_str_equal(names->pdata[i], name))
            return TRUE;
    }
    return FALSE;
}

/* With a secret in a domain's spec its guest reads what that secret keeps from others. So whoever puts it there must be one who may set its value: who
 * may only see it may not use it. Those that the domain has already are its own. */
static VpError *judge_secrets(VpAccessContext *context, const VpPolicy *policy, const VpIdentity *identity,
                              const ProtobufCMessage *request, const VpTarget *target)
{
    const VpMethod *set = vp_auth_find_method(context->auth, "SecretService/SetSecretValue");
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autoptr(GPtrArray) own = g_ptr_array_new();

    if (vp_policy_allows_all(policy, identity, set))
        return NULL;
    vp_secret_names(request, names);
    if (target->view && target->view->domain->spec)
        vp_secret_names(&target->view->domain->spec->base, own);
    for (guint i = 0; i < names->len; i++) {
        g_auto(VpTarget) secret = {0};

        if (names_secret(own, names->pdata[i]))
            continue;
        vp_target_find_named(context, "secret", names->pdata[i], &secret);
        /* One that is not there is as one that may not be used: nothing is told of either. */
        if (!secret.missing && vp_policy_allows(policy, identity, set, &secret.resources[0]))
            continue;
        return vp_error_with(vp_error_new(VP_PERMISSION_DENIED, "SECRET_NOT_ALLOWED",
                                          "%s may not use a secret %s: that needs the right to set its value, and that "
                                          "there is one",
                                          identity->name, (const char *)names->pdata[i]),
                             "secret", names->pdata[i]);
    }
    return NULL;
}

static VpError *permit_identity(VpAccessContext *context, const VpIdentity *identity, const VpMethod *method,
                                const void *request, char **ret_resource)
{
    g_autoptr(VpPolicy) policy = vp_auth_policy(context->auth);
    const gboolean all = vp_policy_allows_all(policy, identity, method);
    g_auto(VpTarget) target = {0};

    if (method->scope != PB_METHOD_SCOPE_ONE && method->scope != PB_METHOD_SCOPE_NEW)
        return NULL;
    /* Most calls are of those who may do all, and need no looking up. */
    if (all && !method->audited)
        return NULL;
    vp_target_find(context, method, request, &target);
    VpError *error = all ? NULL : judge(context, policy, identity, method, &target);
    if (!error && g_str_equal(method->resource, "domain"))
        error = judge_secrets(context, policy, identity, request, &target);
    *ret_resource = g_steal_pointer(&target.text);
    return error;
}

static VpError *permit(void *data, VpCall *call, const VpMethod *method, const void *request)
{
    Pass *pass = vp_call_identity(call);

    char *resource = NULL;
    VpError *error = permit_identity(data, pass->identity, method, request, &resource);
    g_atomic_pointer_set(&pass->resource, resource);
    g_atomic_int_set(&pass->refused, error != NULL);
    return error;
}

static VpError *recheck(void *data, VpCall *call, const VpMethod *method, const void *request)
{
    VpAccessContext *context = data;
    g_autoptr(VpIdentity) identity = NULL;
    g_autofree char *resource = NULL;

    /* Looked at anew: its certificate may have been withdrawn, its token may have run out. */
    VpError *error = identify(context, call, &identity);
    if (error)
        return error;
    g_autoptr(VpPolicy) policy = vp_auth_policy(context->auth);
    if (!vp_policy_may_call(policy, identity, method))
        return not_allowed(identity, method, NULL);
    return request ? permit_identity(context, identity, method, request, &resource) : NULL;
}

/* The revision that an answer tells: its own, or that of the resource in it. */
static gint64 revision_of(const ProtobufCMessage *reply)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(reply->descriptor, "revision");

    if (field && field->type == PROTOBUF_C_TYPE_INT64 && field->label == PROTOBUF_C_LABEL_NONE)
        return *(const gint64 *)((const char *)reply + field->offset);
    for (unsigned i = 0; i < reply->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *part = &reply->descriptor->fields[i];

        if (part->type != PROTOBUF_C_TYPE_MESSAGE || part->label == PROTOBUF_C_LABEL_REPEATED)
            continue;
        const ProtobufCMessage *message = *(ProtobufCMessage *const *)((const char *)reply + part->offset);
        const ProtobufCFieldDescriptor *own =
            message ? protobuf_c_message_descriptor_get_field_by_name(message->descriptor, "revision") : NULL;
        if (own && own->type == PROTOBUF_C_TYPE_INT64)
            return *(const gint64 *)((const char *)message + own->offset);
    }
    return 0;
}

static void ended(void *data, VpCall *call, const VpMethod *method, const VpError *error, const void *reply)
{
    const VpAccessContext *context = data;
    Pass *pass = vp_call_identity(call);
    const gboolean refused =
        pass && (g_atomic_int_get(&pass->refused) ||
                 (error && (error->code == VP_PERMISSION_DENIED || error->code == VP_UNAUTHENTICATED)));
    VpCaller caller;

    if (!context->audit || !pass || (!refused && !method->audited))
        return;
    vp_call_caller(call, &caller);
    const VpAuditRecord record = {
        .identity = pass->identity ? pass->identity->name : VP_ANONYMOUS,
        .caller = caller.text,
        .method = method->method,
        .resource = g_atomic_pointer_get(&pass->resource),
        .refused = refused,
        .error = error,
        .revision = reply ? revision_of(reply) : 0,
        .duration_us = vp_now_us() - pass->start_us,
    };
    vp_audit_write(context->audit, &record);
}

static void limits(void *data, VpCall *call, VpLimits *ret_limits)
{
    const Pass *pass = vp_call_identity(call);

    vp_access_limits(data, pass->identity, ret_limits);
}

static void local_limits(void *data, const VpCredentials *credentials, const GArray *groups, VpLimits *ret_limits)
{
    const VpAccessContext *context = data;
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpIdentity) identity = vp_auth_identify(context->auth, credentials, groups, &error);

    /* The kernel's word is never refused. */
    if (identity)
        vp_access_limits(context, identity, ret_limits);
}

static char *local_name(void *data, const VpCredentials *credentials)
{
    const VpAccessContext *context = data;
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpIdentity) identity = vp_auth_identify(context->auth, credentials, NULL, &error);

    return g_strdup(identity ? identity->name : "");
}

VpRpcGate vp_access_gate(VpAccessContext *context)
{
    return (VpRpcGate){
        .enter = enter,
        .permit = permit,
        .recheck = recheck,
        .ended = ended,
        .limits = limits,
        .local_limits = local_limits,
        .local_name = local_name,
        .data = context,
    };
}

/* ---- who comes by another way ---- */

VpError *vp_access_visit(VpAccessContext *context, const VpCredentials *credentials, const char *method,
                         const void *request, VpVisit *ret_visit)
{
    VpError *error = NULL;

    *ret_visit = (VpVisit){.method = vp_auth_find_method(context->auth, method), .start_us = vp_now_us()};
    ret_visit->identity = vp_auth_identify(context->auth, credentials, NULL, &error);
    if (!ret_visit->identity)
        return error;
    g_autoptr(VpPolicy) policy = vp_auth_policy(context->auth);
    if (!vp_policy_may_call(policy, ret_visit->identity, ret_visit->method))
        return not_allowed(ret_visit->identity, ret_visit->method, NULL);
    return permit_identity(context, ret_visit->identity, ret_visit->method, request, &ret_visit->resource);
}

typedef struct LimitsOf {
    const VpAccessContext *context;
    const VpIdentity *identity;
} LimitsOf;

static void ask_limits(void *data, VpLimits *ret_limits)
{
    const LimitsOf *of = data;

    vp_access_limits(of->context, of->identity, ret_limits);
}

VpError *vp_access_visit_enter(const VpAccessContext *context, VpAccounts *accounts, VpVisit *visit)
{
    LimitsOf of = {.context = context, .identity = visit->identity};
    VpAccount *account = vp_accounts_get(accounts, visit->identity->name, ask_limits, &of);
    VpError *error = vp_account_enter_stream(account);

    if (error)
        vp_account_unref(account);
    else
        visit->account = account;
    return error;
}

static void leave_account(VpVisit *visit)
{
    if (visit->account)
        vp_account_leave_stream(visit->account);
    g_clear_pointer(&visit->account, vp_account_unref);
}

void vp_visit_clear(VpVisit *visit)
{
    leave_account(visit);
    g_clear_pointer(&visit->identity, vp_identity_unref);
    g_clear_pointer(&visit->resource, g_free);
}

char *vp_visit_caller(const VpVisit *visit, const char *peer)
{
    return visit->identity ? g_strdup_printf("%.100s %s", visit->identity->name, peer) : g_strdup(peer);
}

void vp_access_visit_began(const VpAccessContext *context, const VpVisit *visit, const char *peer)
{
    g_autofree char *caller = vp_visit_caller(visit, peer);

    if (context->visitors)
        vp_visitors_note(context->visitors, visit->identity->name, caller);
}

void vp_access_visit_ended(const VpAccessContext *context, VpVisit *visit, const char *peer, gboolean refused,
                           const VpError *error)
{
    g_autofree char *caller = vp_visit_caller(visit, peer);

    leave_account(visit);
    if (!context->audit)
        return;
    const VpAuditRecord record = {
        .identity = visit->identity ? visit->identity->name : VP_ANONYMOUS,
        .caller = caller,
        .method = visit->method->method,
        .resource = visit->resource,
        .refused = refused,
        .error = error,
        .duration_us = vp_now_us() - visit->start_us,
        .left_out = visit->left_out,
    };
    vp_audit_write(context->audit, &record);
}

/* ---- what lists show ---- */

void vp_sight_take(VpCall *call, const char *method_name, VpSight *ret_sight)
{
    const Pass *pass = vp_call_identity(call);

    *ret_sight = (VpSight){0};
    if (!pass)
        return;
    const VpMethod *method = method_name ? vp_auth_find_method(pass->context->auth, method_name) : vp_call_method(call);
    VpPolicy *policy = vp_auth_policy(pass->context->auth);
    const VpMethod *connections = vp_auth_find_method(pass->context->auth, "AdminService/ListConnections");
    const gboolean sees_connections = vp_policy_may_call(policy, pass->identity, connections);
    if (sees_connections && vp_policy_allows_all(policy, pass->identity, method)) {
        vp_policy_unref(policy);
        return;
    }
    *ret_sight =
        (VpSight){.policy = policy, .identity = pass->identity, .method = method, .connections = sees_connections};
}

void vp_sight_clear(VpSight *sight)
{
    g_clear_pointer(&sight->policy, vp_policy_unref);
}

gboolean vp_sight_sees(const VpSight *sight, const VpResource *resource)
{
    return !sight->policy || vp_policy_allows(sight->policy, sight->identity, sight->method, resource);
}

gboolean vp_sight_sees_domain(const VpSight *sight, const PbDomain *domain)
{
    const VpResource resource = vp_resource_of_domain(domain);

    return vp_sight_sees(sight, &resource);
}

gboolean vp_sight_sees_event(const VpSight *sight, const PbEvent *event)
{
    VpResource resource = {
        .type = event->resource_type,
        .name = event->name,
        .uid = event->uid,
        .driver = event->driver[0] ? event->driver : NULL,
        .n_labels = event->n_labels,
        .labels = (void *const *)event->labels,
    };

    if (!sight->policy)
        return TRUE;
    if (g_str_equal(event->resource_type, "connection"))
        return sight->connections;
    /* Its name is the operation's type; driver and labels are those of its domain. */
    if (g_str_equal(event->resource_type, "operation")) {
        resource.type = "domain";
        resource.name = NULL;
    }
    return vp_sight_sees(sight, &resource);
}

gboolean vp_sight_sees_operation(const VpSight *sight, VpDomains *domains, const PbOperation *operation)
{
    VpResource resource = {.type = operation->resource_type, .name = operation->resource_name};
    g_autoptr(VpDomainView) view = NULL;
    g_autoptr(VpError) error = NULL;

    if (!sight->policy)
        return TRUE;
    if (g_str_equal(operation->resource_type, "domain"))
        view = vp_domains_get(domains, "", operation->resource_uid, &error);
    if (view)
        resource = vp_resource_of_domain(view->domain);
    return vp_sight_sees(sight, &resource);
}

/* ---- asking ---- */

VpError *vp_access_check(VpAccessContext *context, const VpIdentity *identity, const PbCheckAccessRequest *request,
                         PbCheckAccessResponse *response)
{
    const VpMethod *method = vp_auth_find_method(context->auth, request->method);
    g_auto(VpTarget) target = {0};

    if (!method)
        return vp_error_violation(
            vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                         "there is no method \"%s\", or several; one is written as DomainService/StartDomain",
                         request->method),
            "method", "is none of the contract");
    const gboolean one = request->resource[0] && method->scope != PB_METHOD_SCOPE_HOST;
    if (one)
        vp_target_find_named(context, method->resource, request->resource, &target);
    g_autoptr(VpPolicy) policy = vp_auth_policy(context->auth);
    vp_policy_explain(policy, identity, method, one ? &target.resources[0] : NULL, response);
    vp_pb_set(&response->method, method->method);
    return NULL;
}
