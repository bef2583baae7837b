/*
 * Counters of domains, for the calls and streams that ask for them. Whoever asks for a domain's while they are being read gets the same sample, so that many
 * watchers cost the hypervisor as much as one; one that does not answer holds up nobody but those who asked for it. Nothing here blocks.
 */
#pragma once

#include "server/services/access.h"
#include "virtplane/v1/domain_stats.pb-c.h"

typedef struct VpStatsHub VpStatsHub;

/* All that is given outlives the hub. */
VpStatsHub *vp_stats_hub_new(VpDomains *domains, VpLoop *loop);

/* After vp_domains_free(), when no question is under way any more; waits for streams that are about to end. NULL is let pass. */
void vp_stats_hub_free(VpStatsHub *hub);

/* Serve GetDomainStats and WatchDomainStats. */
void vp_stats_hub_get(VpStatsHub *hub, VpCall *call, const PbGetDomainStatsRequest *request);
void vp_stats_hub_watch(VpStatsHub *hub, VpCall *call, const PbWatchDomainStatsRequest *request);
