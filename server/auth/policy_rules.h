/* Inside the policy: what a file is read into (policy_file.c) and questions are answered from (policy.c). */
#pragma once

#include "server/auth/policy.h"

/* A role: a built-in one, or a list of methods and what a built-in one has. */
typedef struct VpRole {
    char *name;
    PbRole builtin;      /* PB_ROLE_UNSPECIFIED: the methods alone */
    GHashTable *methods; /* their names, borrowed; NULL for a built-in one */
} VpRole;

/* Selectors: each that is set must cover the resource; one of its values suffices, but for labels, of which all must be there. */
typedef struct VpBinding {
    char *place; /* "/etc/virtplane/policy.yaml:12" */
    const VpRole *role;
    GPtrArray *subjects; /* of char *, with "*" and "?" */
    char **resources;    /* types; these and the next four NULL: not set */
    GPtrArray *names;    /* of char *, with "*" and "?" */
    GPtrArray *labels;   /* of char *: key and value in turn */
    GPtrArray *pools;
    char **drivers;
} VpBinding;

/* What the policy says of the limits of those whom it names. */
typedef struct VpPolicyLimits {
    GPtrArray *subjects;             /* of char *, with "*" and "?" */
    gint64 values[VP_POLICY_LIMITS]; /* -1: it says nothing of this one */
} VpPolicyLimits;

struct VpPolicy {
    gint refs;
    GPtrArray *roles;    /* of VpRole */
    GPtrArray *bindings; /* of VpBinding */
    GPtrArray *limits;   /* of VpPolicyLimits */
};

VpRole *vp_policy_add_role(VpPolicy *policy, const char *name, PbRole builtin);
/* NULL: there is none of this name. */
const VpRole *vp_policy_find_role(const VpPolicy *policy, const char *name);
/* `place` is copied. */
VpBinding *vp_policy_add_binding(VpPolicy *policy, const char *place, const VpRole *role);

VpPolicyLimits *vp_policy_add_limits(VpPolicy *policy);

/* Adds what the file says. */
VpError *vp_policy_read_file(VpPolicy *policy, const char *path, const GArray *methods);
