/*
 * A few threads for work that may block on a disk for a moment (probing, spawning). Not for work that waits on a
 * hypervisor or a peer: that is asynchronous on the event loop (base/loop.h), so that a hung one costs no thread.
 */
#pragma once

#include "base/error.h"

typedef struct VpPool VpPool;

/* At most `threads` threads (1 or more) named `name`-N (`name` of at most 12 characters), made as there is work for them; at most `max_queued` items
 * wait. */
VpPool *vp_pool_new(const char *name, guint threads, guint max_queued, VpError **error);

/* Queues `run(data)`. FALSE if the queue is full or the pool is stopping: `run` will not be called. Any thread; never blocks. */
gboolean vp_pool_submit(VpPool *pool, void (*run)(void *data), void *data);

/*
 * The same for work of others: one lane (a connection) of one group (an identity, not 0) after another has its turn, whatever waits of the others. FALSE
 * also if half of the queue is of its lane, or three quarters are of its group: there is always room for the next one's.
 */
gboolean vp_pool_submit_for(VpPool *pool, guint64 group, guint64 lane, void (*run)(void *data), void *data);

/* Refuses new work, runs what is queued, joins the threads, frees. NULL is let pass. */
void vp_pool_free(VpPool *pool);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpPool, vp_pool_free)
