/*
 * The way of a start to its process: images proven, STARTING on the disk, process made. It takes no thread while it waits, and can be given up at any moment
 * but while the process is being made. All on the loop's thread.
 */
#pragma once

#include "domain.h"

/* Sets domain->start, which it clears again before it ends with vp_qemu_domain_made(), in this call if no thread can take it. The domain is in the driver's
 * table, and STARTING was reported. */
void vp_qemu_start_begin(VpQemuDomain *domain, VpTask *task);

/* Gives up domain->start. TRUE: no process will come of it, and nothing is told. FALSE: the process is being made right now, and vp_qemu_domain_made()
 * will come. */
gboolean vp_qemu_start_give_up(VpQemuDomain *domain);
