/* What --on-poweroff, --on-reboot, --on-panic, --on-crash and --panic-device say, as fields. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

typedef struct VpLifecycleWish {
    char *on_poweroff; /* each may be NULL */
    char *on_reboot;
    char *on_panic;
    char *on_crash;
    char *panic_device;
} VpLifecycleWish;

void vp_lifecycle_wish_clear(VpLifecycleWish *wish);
VpError *vp_lifecycle_apply(PbDomainSpec *spec, const VpLifecycleWish *wish);
