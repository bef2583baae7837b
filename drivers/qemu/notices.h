/*
 * What QEMU tells of a guest and its devices that changes nothing in the domain's state: which event each message becomes, and how many of them a guest may
 * cause. Pure; called by the domain on the loop's thread.
 */
#pragma once

#include <jansson.h>

#include "base/error.h"
#include "virtplane/v1/event.pb-c.h"

#define VP_NOTICE_KINDS 7

typedef struct VpNotice {
    guint kind; /* below VP_NOTICE_KINDS */
    PbEventType event;
    const char *reason; /* static */
    char *detail;       /* owned by the caller */
    gboolean once;      /* the guest cannot cause it again by itself: is always told */
} VpNotice;

/* FALSE: the message is none of them. */
gboolean vp_notice_read(const char *name, const json_t *arguments, VpNotice *ret_notice);

/* Each event is a transaction on the disk, and a guest can cause some of them as fast as it likes. So many may come at once, and then one a second. */
#define VP_NOTICE_BURST 8

typedef struct VpNoticeLimit {
    gint64 full_at_us; /* when there is room for a burst again */
    guint swallowed;   /* since the last one that was let pass */
} VpNoticeLimit;

/* Whether one more may be told; `ret_swallowed` is how many were not since the last one that was. */
gboolean vp_notice_pass(VpNoticeLimit *limit, gint64 now_us, guint *ret_swallowed);
