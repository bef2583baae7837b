/*
 * A queue of items from many sources that is served in turns: one group after another, within a group one lane after another, within a lane in order. So who
 * puts in much waits for itself and not others for it. Without a lock of its own.
 */
#pragma once

#include <glib.h>

typedef struct VpFair VpFair;

VpFair *vp_fair_new(void);
/* It is empty, or whoever has put the items in frees them. NULL is let pass. */
void vp_fair_free(VpFair *fair);

void vp_fair_push(VpFair *fair, guint64 group, guint64 lane, void *item);
/* The next one; NULL: there is none. */
void *vp_fair_pop(VpFair *fair);

guint vp_fair_length(const VpFair *fair);
/* What waits of a group, and of a lane of it. */
guint vp_fair_group_length(const VpFair *fair, guint64 group);
guint vp_fair_lane_length(const VpFair *fair, guint64 group, guint64 lane);
