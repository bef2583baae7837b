/*
 * The marks of disks (Disk.write_threshold_bytes): QEMU is told them at each start, says once that a write went beyond one, and forgets it then. Pure; used on
 * the loop's thread.
 */
#pragma once

#include <jansson.h>

#include "virtplane/v1/domain.pb-c.h"

/* The commands that make QEMU's marks those of the spec, by its answer to query-named-block-nodes: an array as that of vp_commands_before_run(). Owned by the
 * caller. */
json_t *vp_threshold_commands(const PbDomainSpec *spec, const json_t *nodes);
