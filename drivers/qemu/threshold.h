/*
 * The marks of disks (Disk.write_threshold_bytes): QEMU is told them at each start, with each disk that comes and when they change, says once that a
 * write went beyond one, and forgets it then. Pure; used on the loop's thread.
 */
#pragma once

#include <glib.h>
#include <jansson.h>

#include "virtplane/v1/domain.pb-c.h"

/* The commands that make QEMU's marks those of the spec, by its answer to query-named-block-nodes: an array as that of vp_commands_before_run(). Owned by the
 * caller. */
json_t *vp_threshold_commands(const PbDomainSpec *spec, const json_t *nodes);
/* The same for one disk: those of the others, which QEMU may have told already, are let be. */
json_t *vp_threshold_commands_of(const PbDisk *disk, const json_t *nodes);
/* The command itself. */
json_t *vp_threshold_command(const char *node, guint64 bytes);
