/*
 * The counters of a domain that is up. QEMU is asked in one write, and once at a time: who asks meanwhile gets the same answer. What QEMU does not tell in
 * time is left out; the host's own part (stats_host.h) is always there. All on the loop's thread.
 */
#pragma once

#include "domain.h"

void vp_qemu_stats_begin(VpQemuDomain *domain, VpQemuOp *op);
/* Its time has passed: it is answered without QEMU. Or it was cancelled. `error` is consumed. */
void vp_qemu_stats_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error);
/* Now and then: once nobody asks any more, the guest is not asked either. */
void vp_qemu_stats_tick(VpQemuDomain *domain);
/* NULL is let pass. */
void vp_qemu_stats_free(VpQemuStats *stats);
