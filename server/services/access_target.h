/* What a request is about: found in it by the names of its fields, which are the same all over the contract, and completed by what is known of it. */
#pragma once

#include "server/services/access.h"

/* More than one where a change has a result that the policy must cover too: an update's new labels, a clone's pool. */
#define VP_TARGETS_MOST 2

typedef struct VpTarget {
    VpResource resources[VP_TARGETS_MOST];
    guint n_resources;
    gboolean missing; /* it should be there, and is not */
    char *text;       /* "domain/web", for people */

    /* What the resources point to. */
    VpDomainView *view;
    PbOperation *operation;
    PbSecret *secret;
    GPtrArray *labels;
} VpTarget;

/* Of a method that works on one resource or makes one. Never blocks. */
void vp_target_find(const VpAccessContext *context, const VpMethod *method, const void *message, VpTarget *ret_target);
/* The same for a name or uid alone; of a volume "POOL/NAME". */
void vp_target_find_named(const VpAccessContext *context, const char *type, const char *name, VpTarget *ret_target);
void vp_target_clear(VpTarget *target);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpTarget, vp_target_clear)

/* The parts of a resource that a domain has. */
VpResource vp_resource_of_domain(const PbDomain *domain);
