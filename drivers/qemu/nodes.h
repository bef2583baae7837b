/* What QEMU says that it has opened, held against what it was told to open. For the start of a domain, before the guest runs. */
#pragma once

#include <jansson.h>

#include "base/error.h"

/*
 * The answer to query-named-block-nodes. Every node that the command line makes has a name of ours. One that QEMU named by itself is a file that an
 * image's header names: the content of a proven image was changed in the short time before QEMU read it. FAILED_PRECONDITION, reason IMAGE_CHANGED,
 * metadata `path`.
 */
VpError *vp_qemu_check_nodes(json_t *nodes);
