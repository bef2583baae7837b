/* What QEMU tells of a running domain's devices, read. Pure. */
#pragma once

#include <glib.h>
#include <jansson.h>

#include "virtplane/v1/domain.pb-c.h"

/* Whether an answer to qom-list has something of this name. */
gboolean vp_live_has(json_t *list, const char *name);

/* The disk's entry in the answer to query-block, borrowed; NULL: none. */
json_t *vp_live_find_block(json_t *blocks, const PbDisk *disk);
/* The node of what is in it, borrowed; NULL: nothing. */
const char *vp_live_node(json_t *block);

/* The limits of a disk, by its entry: whether they are those of the spec, and to put them there. */
gboolean vp_live_same_throttle(json_t *block, const PbDisk *disk);
void vp_live_read_throttle(json_t *block, PbDisk *disk);
