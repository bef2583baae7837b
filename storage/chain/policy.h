/*
 * What the administrator allows of images: where they may lie, how deep chains may be, which protocols and devices may be named. One policy holds
 * for the whole daemon: ImageService, and every driver that opens images. It is read once, at the daemon's start, and never changes.
 */
#pragma once

#include "base/error.h"

#define VP_CHAIN_MAX_DEPTH 200

/* What a finding about owners and modes amounts to. */
typedef enum VpOwnership {
    VP_OWNERSHIP_WARN,
    VP_OWNERSHIP_IGNORE,
    VP_OWNERSHIP_REFUSE,
} VpOwnership;

typedef struct VpImagePolicy {
    char **roots;         /* absolute folders, NULL at the end; NULL: any place */
    char **protocols;     /* remote layers that may be named: "nbd", "rbd"; NULL: none */
    char **block_devices; /* glob patterns of names under /dev, where `*` is no `/`; NULL: none */
    guint32 max_depth;    /* of the deepest layer, the top having 0; 0: VP_CHAIN_MAX_DEPTH, which is also the most */
    guint32 max_header_bytes; /* of a layer that may be read; 0: what its format needs (at most 2 MiB) */
    VpOwnership ownership;
} VpImagePolicy;

/* From the group [images] of the daemon's configuration (`file` may be NULL): INVALID_ARGUMENT, reason CONFIG, for what is no setting. */
VpError *vp_image_policy_read(GKeyFile *file, VpImagePolicy *ret_policy);
void vp_image_policy_clear(VpImagePolicy *policy);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpImagePolicy, vp_image_policy_clear)

/* The policy of a daemon without configuration. */
extern const VpImagePolicy vp_image_policy_default;

/* Whether a layer reached by this protocol (vp_reference_protocol()) may be part of a chain. */
gboolean vp_image_policy_allows_protocol(const VpImagePolicy *policy, const char *protocol);

/* Whether the block device of that name may be opened. `path`: as it is named; `real`: as the kernel has it. */
gboolean vp_image_policy_allows_device(const VpImagePolicy *policy, const char *path, const char *real);
