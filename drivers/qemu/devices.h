/*
 * The devices of a domain that runs, and what changes them: what of the spec it runs with (domain->live), what its guest was asked to let go of, and the change
 * that is under way. The loop's thread, but for vp_qemu_check_change().
 */
#pragma once

#include "domain.h"

VpQemuDevices *vp_qemu_devices_new(const PbDomain *model);
/* NULL is let pass. */
void vp_qemu_devices_free(VpQemuDevices *devices);
/* The connection and the handles are being closed: nothing is waited for any more. */
void vp_qemu_devices_stop(VpQemuDomain *domain);

/* On a worker's thread, before the domain arrives: what an earlier daemon has written down of a change. */
void vp_qemu_devices_read(VpQemuDomain *domain);
/* The connection is there, anew: events may have been missed. QEMU is asked for its devices, and what has changed is told with this reason. */
void vp_qemu_devices_look(VpQemuDomain *domain, const char *reason);

/* VpDriverOps.check_change and .change. */
VpError *vp_qemu_check_change(VpDriver *driver, const PbDomainStatus *status, const PbDomainSpec *live,
                              const PbDomainSpec *wanted);
void vp_qemu_change_begin(VpQemuDomain *domain, VpQemuOp *op);
void vp_qemu_change_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error);

/* An event of QEMU's. TRUE: it is of a change that is told by itself, and nobody else's affair. */
gboolean vp_qemu_devices_on_event(VpQemuDomain *domain, const char *name, json_t *arguments);
