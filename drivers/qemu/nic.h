/* What an interface is connected to on the host: a tap device on a bridge with its limits, the kernel's vhost-net, passt. Blocks for a moment. */
#pragma once

#include "command_line.h"
#include "contain.h"
#include "process.h"

typedef struct VpNicMaking {
    PbAccelerator accelerator; /* vhost goes without saying with KVM alone */
    const char *uid;           /* the domain's */
    const char *dir;           /* the domain's folder, for a log */
    GArray *helpers;           /* of VpProcess: what was started is added */
    const VpContainment *containment;
} VpNicMaking;

/* Opens what interface number `index` of a spec needs; what is open is in `ret_fds` on an error too, and is the caller's to close. Errors name the field. */
VpError *vp_nic_open(const VpNicMaking *making, const PbInterface *interface, size_t index, VpNicFds *ret_fds);
