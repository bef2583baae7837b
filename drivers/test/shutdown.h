/* A shutdown or a reboot that the guest of a domain of the test driver is asked for, its reaction by the labels, and the fallback. The loop's thread. */
#pragma once

#include "drivers/driver.h"

typedef struct VpTestShutdown {
    const VpDriverHost *host;
    PbPendingShutdown *asked; /* NULL: nothing */
    VpTimer *guest;           /* its reaction */
    VpTimer *fallback;
    gboolean at_once; /* it is a reboot, and the guest does it as soon as it is asked: call `done` when that is told */
    /* It has done it, or (`fell_back`) has not in time; `asked` is still set. */
    void (*done)(void *data, gboolean fell_back);
    void *data;
} VpTestShutdown;

/* Asks, in the place of what it was asked for before; `request` is that of the task, as the kind says. FAILED_PRECONDITION if it has no agent. */
VpError *vp_test_shutdown_ask(VpTestShutdown *shutdown, const PbDomain *domain, gboolean reboot, const void *request);
/* Nothing is asked for any more. */
void vp_test_shutdown_clear(VpTestShutdown *shutdown);
