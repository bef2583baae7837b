/* What runs of a domain of the test driver, and its changes: devices that come at once, and go when the guest of the labels lets go of them. */
#pragma once

#include "drivers/driver.h"

typedef struct VpTestDevices {
    PbDomainSpec *live;
    GPtrArray *pending; /* of PbPendingDetach */
} VpTestDevices;

void vp_test_devices_init(VpTestDevices *devices, const PbDomainSpec *spec);
void vp_test_devices_clear(VpTestDevices *devices);

/* Reports the event with the devices as they are. */
void vp_test_devices_report(const VpTestDevices *devices, const VpDriverHost *host, const char *uid, PbEventType event,
                            const char *reason, const char *detail);

/* Makes the changes but for those that the guest must agree to: these are pending then, and reported. */
void vp_test_devices_change(VpTestDevices *devices, const VpDriverHost *host, const char *uid,
                            const PbUpdateDomainRequest *request);
/* The guest lets go of all that is pending. */
void vp_test_devices_let_go(VpTestDevices *devices, const VpDriverHost *host, const char *uid);

/* What is pending, for an error. Owned by the caller. */
char *vp_test_devices_pending(const VpTestDevices *devices);
