/* Who may take how much before it is known who it is, and afterwards: the bounds of internal.h. */
#include "base/thread.h"
#include "server/screens/internal.h"

/* Refusals of those who are unknown that are written down. */
#define REFUSALS_AT_ONCE 10
#define REFUSAL_EACH_US G_USEC_PER_SEC

/* ---- room ---- */

void vp_strangers_make_room(VpScreens *screens)
{
    /* One that ends takes itself out. */
    while (screens->strangers->len >= screens->most_strangers)
        vp_viewer_end(screens->strangers->pdata[0], NULL);
}

void vp_strangers_add(VpScreens *screens, VpViewer *viewer)
{
    vp_strangers_make_room(screens);
    g_ptr_array_add(screens->strangers, viewer);
}

void vp_strangers_remove(VpScreens *screens, VpViewer *viewer)
{
    g_ptr_array_remove(screens->strangers, viewer);
}

static guint count_open(const VpScreenListener *listener)
{
    guint open = 0;

    for (guint i = 0; i < listener->connections->len; i++)
        open += !vp_viewer_is_shaking(listener->connections->pdata[i]);
    return open;
}

VpError *vp_strangers_check_open(const VpScreenListener *listener)
{
    const VpScreens *screens = listener->screens;

    if (count_open(listener) >= VP_SCREEN_MOST_OPEN)
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_MANY_VIEWERS",
                            "the screen %s has %d connections, which is the limit; close some", listener->device,
                            VP_SCREEN_MOST_OPEN);
    if (screens->open >= screens->most_open)
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_MANY_VIEWERS",
                            "all screens together have %u connections, which is the limit; close some, or let the "
                            "daemon have more descriptors",
                            screens->open);
    return NULL;
}

/* ---- what is written down ---- */

/* A bucket of REFUSALS_AT_ONCE that gets one more each second, kept as the time at which it was empty. */
gboolean vp_refusal_is_told(VpScreens *screens)
{
    const gint64 now_us = vp_now_us();

    screens->refusals_us = MAX(screens->refusals_us, now_us - REFUSALS_AT_ONCE * REFUSAL_EACH_US);
    if (screens->refusals_us + REFUSAL_EACH_US > now_us) {
        screens->left_out++;
        return FALSE;
    }
    screens->refusals_us += REFUSAL_EACH_US;
    return TRUE;
}
