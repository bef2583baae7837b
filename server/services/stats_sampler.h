/* Inside the stats hub: reads the counters of one domain once for all who ask at the same time. Any thread; never blocks. */
#pragma once

#include "server/domains/domains.h"
#include "virtplane/v1/domain_stats.pb-c.h"

typedef struct VpSampler VpSampler;

VpSampler *vp_sampler_new(VpDomains *domains);
/* No sample may be under way. NULL is let pass. */
void vp_sampler_free(VpSampler *sampler);

/* How a sample ended: `error`, or `stats`, a packed PbDomainStats; both borrowed. On any thread; must not block. */
typedef void (*VpSampled)(void *data, const VpError *error, GBytes *stats);

/* `done` always comes, once, perhaps before this returns. */
void vp_sampler_take(VpSampler *sampler, const VpDomainView *view, VpSampled done, void *data);
