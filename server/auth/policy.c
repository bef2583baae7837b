/* Answers from the policy: see policy.h. */
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "server/auth/policy_rules.h"
#include "virtplane/v1/domain.pb-c.h"

/* ---- making ---- */

static void role_free(gpointer data)
{
    VpRole *role = data;

    g_free(role->name);
    if (role->methods)
        g_hash_table_unref(role->methods);
    g_free(role);
}

static void binding_free(gpointer data)
{
    VpBinding *binding = data;

    g_free(binding->place);
    g_ptr_array_unref(binding->subjects);
    g_strfreev(binding->resources);
    g_clear_pointer(&binding->names, g_ptr_array_unref);
    g_clear_pointer(&binding->labels, g_ptr_array_unref);
    g_clear_pointer(&binding->pools, g_ptr_array_unref);
    g_strfreev(binding->drivers);
    g_free(binding);
}

VpRole *vp_policy_add_role(VpPolicy *policy, const char *name, PbRole builtin)
{
    VpRole *role = g_new0(VpRole, 1);

    role->name = g_strdup(name);
    role->builtin = builtin;
    g_ptr_array_add(policy->roles, role);
    return role;
}

const VpRole *vp_policy_find_role(const VpPolicy *policy, const char *name)
{
    for (guint i = 0; i < policy->roles->len; i++) {
        const VpRole *role = policy->roles->pdata[i];

        if (g_str_equal(role->name, name))
            return role;
    }
    return NULL;
}

VpBinding *vp_policy_add_binding(VpPolicy *policy, const char *place, const VpRole *role)
{
    VpBinding *binding = g_new0(VpBinding, 1);

    binding->place = g_strdup(place);
    binding->role = role;
    binding->subjects = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(policy->bindings, binding);
    return binding;
}

static void limits_free(gpointer data)
{
    VpPolicyLimits *limits = data;

    g_ptr_array_unref(limits->subjects);
    g_free(limits);
}

VpPolicyLimits *vp_policy_add_limits(VpPolicy *policy)
{
    VpPolicyLimits *limits = g_new0(VpPolicyLimits, 1);

    limits->subjects = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < VP_POLICY_LIMITS; i++)
        limits->values[i] = -1;
    g_ptr_array_add(policy->limits, limits);
    return limits;
}

VpPolicy *vp_policy_new(const VpPolicyOptions *options, VpError **error)
{
    g_autoptr(VpPolicy) policy = g_new0(VpPolicy, 1);

    policy->refs = 1;
    policy->roles = g_ptr_array_new_with_free_func(role_free);
    policy->bindings = g_ptr_array_new_with_free_func(binding_free);
    policy->limits = g_ptr_array_new_with_free_func(limits_free);
    vp_policy_add_role(policy, "viewer", PB_ROLE_VIEWER);
    vp_policy_add_role(policy, "operator", PB_ROLE_OPERATOR);
    const VpRole *admin = vp_policy_add_role(policy, "admin", PB_ROLE_ADMIN);
    VpBinding *own = vp_policy_add_binding(policy, "built in", admin);
    g_ptr_array_add(own->subjects, g_strdup("uid:0"));
    if (geteuid() != 0)
        g_ptr_array_add(own->subjects, g_strdup_printf("uid:%u", geteuid()));
    if (options->anonymous_is_root)
        g_ptr_array_add(vp_policy_add_binding(policy, "--insecure-tcp", admin)->subjects, g_strdup(VP_ANONYMOUS));

    VpError *failure = options->path ? vp_policy_read_file(policy, options->path, options->methods) : NULL;
    if (failure) {
        *error = failure;
        return NULL;
    }
    return g_steal_pointer(&policy);
}

VpPolicy *vp_policy_ref(VpPolicy *policy)
{
    g_atomic_int_inc(&policy->refs);
    return policy;
}

void vp_policy_unref(VpPolicy *policy)
{
    if (!policy || !g_atomic_int_dec_and_test(&policy->refs))
        return;
    g_ptr_array_unref(policy->bindings);
    g_ptr_array_unref(policy->limits);
    g_ptr_array_unref(policy->roles);
    g_free(policy);
}

/* ---- matching ---- */

static gboolean glob(const char *pattern, const char *text)
{
    return strpbrk(pattern, "*?") ? g_pattern_match_simple(pattern, text) : g_str_equal(pattern, text);
}

static gboolean any_glob(const GPtrArray *patterns, const char *text)
{
    for (guint i = 0; text && i < patterns->len; i++) {
        if (glob(patterns->pdata[i], text))
            return TRUE;
    }
    return FALSE;
}

static gboolean is_among(const GPtrArray *subjects, const VpIdentity *identity)
{
    if (any_glob(subjects, identity->name))
        return TRUE;
    for (char **group = identity->groups; *group; group++) {
        if (any_glob(subjects, *group))
            return TRUE;
    }
    return FALSE;
}

static gboolean subject_matches(const VpBinding *binding, const VpIdentity *identity)
{
    return is_among(binding->subjects, identity);
}

gint64 vp_policy_limit(const VpPolicy *policy, const VpIdentity *identity, VpPolicyLimit limit)
{
    for (guint i = 0; i < policy->limits->len; i++) {
        const VpPolicyLimits *limits = policy->limits->pdata[i];

        if (limits->values[limit] >= 0 && is_among(limits->subjects, identity))
            return limits->values[limit];
    }
    return -1;
}

static gboolean role_has(const VpRole *role, const VpMethod *method)
{
    return method->role <= PB_ROLE_MEMBER || (role->builtin && method->role <= role->builtin) ||
           (role->methods && g_hash_table_contains(role->methods, method->method));
}

/* The entries of all maps with string keys and values have this shape. */
static gboolean has_label(const VpResource *resource, const char *key, const char *value)
{
    gboolean has = FALSE;

    /* Of entries with one key the last counts, as everywhere with protobuf. */
    for (size_t i = 0; i < resource->n_labels; i++) {
        const PbDomain__LabelsEntry *entry = resource->labels[i];

        if (g_str_equal(entry->key, key))
            has = g_str_equal(entry->value, value);
    }
    return has;
}

/* NULL: the binding covers the resource; else what of it does not. */
static const char *uncovered_by(const VpBinding *binding, const VpResource *resource)
{
    if (binding->resources && !g_strv_contains((const char *const *)binding->resources, resource->type))
        return "its resources are of other types";
    if (binding->names && !any_glob(binding->names, resource->name))
        return "its names do not match";
    if (binding->pools && !any_glob(binding->pools, resource->pool))
        return "its pools do not match";
    if (binding->drivers &&
        (!resource->driver || !g_strv_contains((const char *const *)binding->drivers, resource->driver)))
        return "its drivers do not match";
    for (guint i = 0; binding->labels && i + 1 < binding->labels->len; i += 2) {
        if (!has_label(resource, binding->labels->pdata[i], binding->labels->pdata[i + 1]))
            return "its labels do not match";
    }
    return NULL;
}

/* Operations and events are of the type of what they are about. */
static gboolean is_about_others(const char *type)
{
    return g_str_equal(type, "operation") || g_str_equal(type, "event");
}

/* What a binding must cover for a method to be called on something. */
static const char *never_covers(const VpBinding *binding, const VpMethod *method)
{
    const VpResource host = {.type = method->resource};

    if (method->role <= PB_ROLE_MEMBER)
        return NULL;
    if (method->scope == PB_METHOD_SCOPE_HOST)
        return uncovered_by(binding, &host);
    if (binding->resources && !is_about_others(method->resource) &&
        !g_strv_contains((const char *const *)binding->resources, method->resource))
        return "its resources are of other types";
    return NULL;
}

static const char *why_not(const VpBinding *binding, const VpMethod *method, const VpResource *resource)
{
    if (!resource || method->role <= PB_ROLE_MEMBER || method->scope == PB_METHOD_SCOPE_HOST)
        return never_covers(binding, method);
    return uncovered_by(binding, resource);
}

static gboolean allows(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method,
                       const VpResource *resource)
{
    if (method->role == PB_ROLE_ANYONE)
        return TRUE;
    for (guint i = 0; i < policy->bindings->len; i++) {
        const VpBinding *binding = policy->bindings->pdata[i];

        if (role_has(binding->role, method) && subject_matches(binding, identity) &&
            !why_not(binding, method, resource))
            return TRUE;
    }
    return FALSE;
}

gboolean vp_policy_may_call(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method)
{
    return allows(policy, identity, method, NULL);
}

gboolean vp_policy_allows(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method,
                          const VpResource *resource)
{
    return allows(policy, identity, method, resource);
}

gboolean vp_policy_allows_all(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method)
{
    for (guint i = 0; i < policy->bindings->len; i++) {
        const VpBinding *binding = policy->bindings->pdata[i];
        const gboolean selects =
            binding->resources || binding->names || binding->labels || binding->pools || binding->drivers;

        if (!selects && role_has(binding->role, method) && subject_matches(binding, identity))
            return TRUE;
    }
    return method->role == PB_ROLE_ANYONE;
}

/* ---- telling ---- */

GPtrArray *vp_policy_roles(const VpPolicy *policy, const VpIdentity *identity)
{
    GPtrArray *roles = g_ptr_array_new();

    for (guint i = 0; i < policy->bindings->len; i++) {
        const VpBinding *binding = policy->bindings->pdata[i];

        if (subject_matches(binding, identity) && !g_ptr_array_find(roles, binding->role->name, NULL))
            g_ptr_array_add(roles, binding->role->name);
    }
    return roles;
}

void vp_policy_explain(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method,
                       const VpResource *resource, PbCheckAccessResponse *response)
{
    const VpBinding *granted = NULL;

    for (guint i = 0; i < policy->bindings->len; i++) {
        const VpBinding *binding = policy->bindings->pdata[i];
        PbBindingCheck *check = vp_pb_new(&pb_binding_check__descriptor);
        const char *uncovered = why_not(binding, method, resource);

        vp_pb_set(&check->place, binding->place);
        vp_pb_set(&check->role, binding->role->name);
        check->subject_matches = subject_matches(binding, identity);
        check->role_matches = role_has(binding->role, method);
        check->resource_matches = !uncovered;
        if (!check->subject_matches)
            vp_pb_set(&check->detail, "none of its subjects is this identity");
        else if (!check->role_matches)
            vp_pb_set(&check->detail, "its role does not have the method");
        else if (uncovered)
            vp_pb_set(&check->detail, uncovered);
        else if (!granted)
            granted = binding;
        vp_pb_append(&response->n_bindings, &response->bindings, check);
    }
    response->allowed = granted || method->role == PB_ROLE_ANYONE;
    if (granted)
        vp_pb_printf(&response->reason, "role %s, %s", granted->role->name, granted->place);
    else if (response->allowed)
        vp_pb_set(&response->reason, "whoever can connect may call it");
    else
        vp_pb_set(&response->reason, "no binding of the policy grants it");
}
