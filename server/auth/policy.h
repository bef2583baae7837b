/*
 * The policy: which identity has which role over which resources. What no binding grants is refused.
 *
 * Always there are two bindings of its own: root and the user that the daemon runs as, when they come by the unix socket, are admins. A file adds others
 * (docs/security.md has its form). A policy is immutable and counted: a reload makes another one. Pure but for the reading of the file.
 */
#pragma once

#include "base/error.h"
#include "server/auth/identity.h"
#include "server/rpc/contract.h"

typedef struct VpPolicy VpPolicy;

/* What a call is about, as far as the policy's selectors can ask. Strings are borrowed; NULL: has none, and no selector for it covers it. */
typedef struct VpResource {
    const char *type; /* as in MethodRules.resource */
    const char *name; /* of an image its path */
    const char *uid;
    const char *pool;
    const char *driver;
    size_t n_labels;
    void *const *labels; /* entries of a map<string, string> */
} VpResource;

typedef struct VpPolicyOptions {
    const char *path;           /* the file; NULL: none */
    const GArray *methods;      /* the contract's, of VpMethod: roles name them */
    gboolean anonymous_is_root; /* plain TCP was asked for and there is no file: who comes so does everything */
} VpPolicyOptions;

/* Reads the file. INVALID_ARGUMENT, reason POLICY_INVALID, with "FILE:LINE: " if it says something that is not understood, in any part; FAILED_PRECONDITION
 * if others than root and the daemon's user can write it. Blocks on the disk and the user database. */
VpPolicy *vp_policy_new(const VpPolicyOptions *options, VpError **error);
VpPolicy *vp_policy_ref(VpPolicy *policy);
void vp_policy_unref(VpPolicy *policy);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpPolicy, vp_policy_unref)

/* Whether the identity may call the method on something at all: asked before a request is looked at. */
gboolean vp_policy_may_call(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method);

/* Whether it may call the method on this resource; for methods that list, whether this one is in the list. */
gboolean vp_policy_allows(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method,
                          const VpResource *resource);

/* Whether it may call the method on every resource, so that none has to be looked at. */
gboolean vp_policy_allows_all(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method);

/* What can be limited for an identity. */
typedef enum VpPolicyLimit {
    VP_POLICY_CONNECTIONS,
    VP_POLICY_CALLS,
    VP_POLICY_STREAMS,
    VP_POLICY_CALLS_PER_SECOND,
    VP_POLICY_MESSAGE_BYTES,
    VP_POLICY_DOMAINS,
    VP_POLICY_SECRETS,
    VP_POLICY_LIMITS
} VpPolicyLimit;

/* The largest number that a limit can be. */
#define VP_POLICY_MOST 1000000000

/* What the first of the policy's limits that names the identity and says something of this one says; 0: it has no limit. -1: none does. */
gint64 vp_policy_limit(const VpPolicy *policy, const VpIdentity *identity, VpPolicyLimit limit);

/* The names of the roles that it is bound to, each once; the array owns nothing. */
GPtrArray *vp_policy_roles(const VpPolicy *policy, const VpIdentity *identity);

/* Fills in `bindings`, `allowed` and `reason`. `resource` NULL: as vp_policy_may_call(). */
void vp_policy_explain(const VpPolicy *policy, const VpIdentity *identity, const VpMethod *method,
                       const VpResource *resource, PbCheckAccessResponse *response);
