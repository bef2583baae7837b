/* The level of the log, with its way back: see log_level.h. */
#include "server/services/log_level.h"

#include "base/thread.h"

void vp_log_switch_init(VpLogSwitch *log_switch, VpLoop *loop)
{
    *log_switch = (VpLogSwitch){.loop = loop, .lasting = vp_log_level(), .due_us = G_MAXINT64};
    pthread_mutex_init(&log_switch->mutex, NULL);
}

static void go_back(void *data)
{
    VpLogSwitch *log_switch = data;

    VP_LOCK(&log_switch->mutex);
    /* One that comes late does not undo what was set after it. */
    if (vp_now_us() < log_switch->due_us)
        return;
    log_switch->due_us = G_MAXINT64;
    vp_log_set_level(log_switch->lasting);
}

VpLogLevel vp_log_switch_set(VpLogSwitch *log_switch, VpLogLevel level, guint64 duration_ms)
{
    VP_LOCK(&log_switch->mutex);
    const VpLogLevel before = vp_log_level();

    vp_timer_cancel(g_steal_pointer(&log_switch->timer));
    log_switch->due_us = G_MAXINT64;
    if (!duration_ms) {
        log_switch->lasting = level;
    } else {
        log_switch->due_us = vp_now_us() + (gint64)duration_ms * 1000;
        /* A little later than that, by whatever clock. */
        log_switch->timer = vp_timer_start(log_switch->loop, duration_ms + 2, go_back, log_switch);
    }
    vp_log_set_level(level);
    return before;
}

void vp_log_switch_stop(VpLogSwitch *log_switch)
{
    VP_LOCK(&log_switch->mutex);
    vp_timer_cancel(g_steal_pointer(&log_switch->timer));
    log_switch->due_us = G_MAXINT64;
}
