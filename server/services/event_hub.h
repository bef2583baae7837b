/*
 * What wakes event streams. One thread waits for the store's commits and pumps the streams that are idle; a stream that is sending is pumped by its own
 * completions. So the store's writer thread does one wake-up, however many streams there are.
 */
#pragma once

#include "base/loop.h"
#include "base/pool.h"
#include "server/rpc/rpc.h"
#include "server/store/store.h"
#include "virtplane/v1/event_service.pb-c.h"

typedef struct VpEventHub VpEventHub;

/* All that is given outlives the hub. */
VpEventHub *vp_event_hub_new(VpStore *store, VpPool *pool, VpLoop *loop, VpError **error);

/* After the server's drain, while the pool and the loop still run; waits for work on streams that is under way. NULL is let pass. */
void vp_event_hub_free(VpEventHub *hub);

/* Serves a WatchEvents call. `request` lives as long as the call. */
void vp_event_hub_watch(VpEventHub *hub, VpCall *call, const PbWatchEventsRequest *request);

/* Whether an event is one that a filter (may be NULL) lets pass. Pure. */
gboolean vp_event_matches(const PbEventFilter *filter, const PbEvent *event);

/* Whether a domain is one of those that such a stream begins with: as for events, but for their types. Pure. */
gboolean vp_event_filter_matches_domain(const PbEventFilter *filter, const PbDomain *domain);
