/* How much is logged, for a while or until it is said anew. */
#pragma once

#include <pthread.h>

#include "base/log.h"
#include "base/loop.h"

/* Outlives the loop: its timer may be at work until then. */
typedef struct VpLogSwitch {
    VpLoop *loop;
    pthread_mutex_t mutex; /* guards what follows */
    VpLogLevel lasting;    /* last set without a duration */
    gint64 due_us;         /* when to go back to it; G_MAXINT64: it is that one */
    VpTimer *timer;
} VpLogSwitch;

void vp_log_switch_init(VpLogSwitch *log_switch, VpLoop *loop);
/* No more going back. Before the loop's end. */
void vp_log_switch_stop(VpLogSwitch *log_switch);

/* Sets the level, and answers the one before. After `duration_ms` (0: never) it goes back to the one that was last set without a duration. Any thread. */
VpLogLevel vp_log_switch_set(VpLogSwitch *log_switch, VpLogLevel level, guint64 duration_ms);
