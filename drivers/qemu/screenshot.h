/*
 * Pictures of a domain's screen. QEMU writes them into a file in memory that it is given once; from there they are copied to those who asked. One is taken at a
 * time: who asks meanwhile gets the next one. On the loop's thread.
 */
#pragma once

#include "domain.h"

void vp_qemu_screenshot_begin(VpQemuDomain *domain, VpQemuOp *op);

/* The connection to QEMU has gone, and what it was given with it. */
void vp_qemu_screenshot_disconnected(VpQemuDomain *domain);

/* NULL is let pass. */
void vp_qemu_screenshot_free(VpQemuScreenshot *screenshot);
