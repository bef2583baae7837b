/*
 * What the walks of one InspectPath know together: the layers that were told already, so that a base of a thousand overlays is read and told once.
 * Any thread. Private to storage/chain.
 */
#pragma once

#include <sys/stat.h>

#include "virtplane/v1/image_service.pb-c.h"

#include <glib.h>

typedef struct VpWalk VpWalk;

/* A layer as one chain sees it: the same file declared otherwise is another layer. */
typedef struct VpShareKey {
    dev_t device;
    ino_t inode;
    guint64 start;
    guint64 size;         /* of a window; 0: up to the end */
    PbImageFormat format; /* declared; UNSPECIFIED: not */
} VpShareKey;

/* What lies below, from this layer on; of no use to a walk where `cut` is set. */
typedef struct VpShareTail {
    const char *path; /* as it was told; lives as long as the share */
    guint32 depth;
    guint32 errors;
    guint32 warnings;
    gboolean cut; /* the walk that told of it did not see the end, for the depth of its own top */
    PbImageFormat looks_like;
    guint64 virtual_size;
} VpShareTail;

typedef struct VpShare VpShare;

/* Remembers at most `max_layers`; beyond that layers may be told again. */
VpShare *vp_share_new(guint max_layers);
void vp_share_free(VpShare *share);

/* Whether the layer is known. */
gboolean vp_share_find(VpShare *share, const VpShareKey *key, VpShareTail *ret);

/* Takes the layers of a walk in. Answers how many of them, from the top on, are to be told now; the layer after these was told by another walk, and
 * `ret_continues_at` is its path then (borrowed), else NULL. */
guint vp_share_commit(VpShare *share, const VpWalk *walk, const char **ret_continues_at);

/* Whether a finding is about a layer and its overlay together: it is no part of the tail that the layer begins. */
gboolean vp_share_is_of_overlay(const PbFinding *finding);

/* The bases that more than one overlay names: calls `each` for every one; no walk is under way any more. How many. FALSE from `each` ends it. */
guint vp_share_bases(VpShare *share, gboolean (*each)(void *data, const PbSharedBase *base), void *data);

/* How many layers were told. */
guint vp_share_layers(VpShare *share);
