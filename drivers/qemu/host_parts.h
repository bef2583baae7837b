/* What a domain has of the host itself: folders by virtiofsd, vhost-vsock, PCI devices by VFIO, memory of its NUMA nodes. Blocks for a moment. */
#pragma once

#include "process.h"
#include "virtplane/v1/domain.pb-c.h"

/* Starts virtiofsd for the folder that is open as `folder_fd`, number `index` of the spec, and waits until it serves that folder and none that was put in
 * its place. It logs to the domain's folder `dir`, is added to `helpers` (VpProcess) and ends with the connection, `ret_fd`. */
VpError *vp_virtiofs_start(const char *dir, size_t index, int folder_fd, GArray *helpers, int *ret_fd);

/* vhost-vsock with its address set. FAILED_PRECONDITION: UNSUPPORTED, VSOCK_CID_TAKEN. */
VpError *vp_vsock_open(guint32 cid, int *ret_fd);

/* Whether the PCI devices and NUMA nodes of the host that a spec names can be used. `sysfs`: "/sys". FAILED_PRECONDITION, with violations that say what to
 * do. */
VpError *vp_host_parts_check(const PbDomainSpec *spec, const char *sysfs);
