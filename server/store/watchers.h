/* Who is woken after a group of commits. The list is the store's; the lock is not held while one is called. */
#pragma once

#include "server/store/store.h"

typedef struct VpWatchers VpWatchers;

VpWatchers *vp_watchers_new(void);
VpStoreWatch *vp_watchers_add(VpWatchers *watchers, void (*wake)(void *data), void *data);
/* Waits for a call of it that is under way. */
void vp_watchers_remove(VpWatchers *watchers, VpStoreWatch *watch);
/* Calls all of them. From one thread only. */
void vp_watchers_wake(VpWatchers *watchers);
/* Also frees watches that nobody removed. */
void vp_watchers_free(VpWatchers *watchers);
