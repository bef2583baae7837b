/* Identities by what proved them, so that a signature is verified once and not at each call. Bounded: full, it starts anew; and after a minute
 * it is verified again. Any thread. */
#pragma once

#include "server/auth/identity.h"

typedef struct VpIdentityCache VpIdentityCache;

VpIdentityCache *vp_identity_cache_new(void);
/* A reference, or NULL. */
VpIdentity *vp_identity_cache_get(VpIdentityCache *cache, const char *proof, gsize length);
void vp_identity_cache_put(VpIdentityCache *cache, const char *proof, gsize length, VpIdentity *identity);
/* NULL is let pass. */
void vp_identity_cache_free(VpIdentityCache *cache);
