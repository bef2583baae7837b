/* What the files of the walk share. Private to storage/chain. */
#pragma once

#include "storage/chain/chain.h"
#include "storage/chain/listing.h"
#include "storage/chain/read.h"
#include "storage/chain/reference.h"
#include "storage/chain/share.h"

/* A layer that is to be visited: how the one above names it, and what was said of its format. */
typedef struct VpNext {
    char *path;            /* as it is to be opened */
    PbImageFormat format;  /* UNSPECIFIED: nobody declared it */
    PbFormatSource source; /* who did */
    guint32 depth;
    gboolean is_window; /* not the whole file, but `size` bytes from `offset` on; size 0: up to the end */
    guint64 offset;
    guint64 size;
    gboolean is_device; /* it has to be a block device */
    char *overlay;      /* the layer above, NULL for the top */
    PbImageFormat overlay_format;
    char *name;           /* what the layer above calls this one; NULL for the top */
    guint64 overlay_size; /* virtual */
    uid_t overlay_uid;
    gid_t overlay_gid;
    const VpListed *listed; /* of the top, or NULL */
} VpNext;

/* What the share has to know of a layer of the walk. */
typedef struct VpWalkTrace {
    gboolean has_key; /* remote layers have none */
    VpShareKey key;
    PbImageFormat looks_like;
    gboolean has_data_key;
    VpShareKey data_key; /* of the external data file */
} VpWalkTrace;

/* The layer that another walk has told already, where ours ended. */
typedef struct VpWalkJoin {
    gboolean joined;
    VpShareKey key;
    VpShareTail tail;
    guint64 file_size;
} VpWalkJoin;

struct VpWalk {
    const VpImagePolicy *policy;
    guint32 max_depth;
    const VpChainOptions *options;
    const VpChainSink *sink;
    VpChain *chain;
    VpOpener opener;
    VpHeadBuffer buffer;
    GArray *traces; /* of VpWalkTrace, beside chain->files */
    VpShare *share; /* of the walks of a folder; else NULL */
    VpWalkJoin join;
    PbImageFormat alike; /* the format that the top is declared to have if it looks like it; UNSPECIFIED: none */
    gboolean gone;       /* the reader of the stream has left */
};

/* ---- the walk (walk.c) ---- */

/* Walks of one thread, one after the other: set up once, then walk->chain is what the last one found. Who wants to keep it takes it away. */
void vp_walk_init(VpWalk *walk, const VpChainOptions *options, const VpChainSink *sink);
/* `listed`: the top as a folder's listing has it, or NULL. */
VpError *vp_walk_run(VpWalk *walk, const char *path, PbImageFormat format, const VpListed *listed);
void vp_walk_clear(VpWalk *walk);

/* A chain without a layer: this one emptied, which may lack its summary, or with NULL a new one. */
VpChain *vp_chain_empty(VpChain *chain);

/* Tells of a finding and keeps it; takes it over. */
void vp_walk_find(VpWalk *walk, PbFinding *finding);

/* Tells of a layer; borrowed. */
void vp_walk_tell_layer(VpWalk *walk, const PbImageLayer *layer);

/* ---- a layer's file (walk_open.c) ---- */

/* The file, or the window of it, that `next` turned out to be. */
VpShareKey vp_walk_key(const VpNext *next, const VpOpened *file);

/* Opens a file of the chain and sees that it is new to it. `ret->fd` stays -1 if it was refused, which has been told then; the mode in
 * `ret->st` has the file's type, if that was why. */
VpError *vp_walk_open(VpWalk *walk, const VpNext *next, gboolean write, VpOpened *ret);

/* ---- a layer beside its overlay (walk_compare.c) ---- */

/* An overlay must not be a way to a file that its owner may not read. */
void vp_walk_check_owner(VpWalk *walk, const VpNext *next, const struct stat *st);
/* The same, and a disk must not be what everybody may write. */
void vp_walk_check_file(VpWalk *walk, const VpNext *next, const struct stat *st);
void vp_walk_compare_sizes(VpWalk *walk, const VpNext *next, guint64 size);

/* ---- what a layer names (walk_names.c) ---- */

/* The external data file `name` of a declared image: checked and kept open, as a layer beside its own. FALSE in `ret_ok`: refused. */
VpError *vp_walk_data_file(VpWalk *walk, const VpNext *next, const struct stat *image, const char *name,
                           VpChainFile *file, gboolean *ret_ok);
/* What the layer `at` names as its backing file. `ret_next->path` stays NULL if the chain ends there, refused or not. */
void vp_walk_follow(VpWalk *walk, const VpNext *at, const struct stat *st, const VpProbe *probe, VpNext *ret_next);

/* ---- one layer (judge.c) ---- */

/* A layer record of what the probe and the file say; its format and source are left unset. */
PbImageLayer *vp_layer_new(const char *path, guint32 depth, const VpOpened *file, const VpProbe *probe);

/* A guest has whole sectors: QEMU rounds a raw image of another size up. */
static inline void vp_layer_round_size(PbImageLayer *layer)
{
    if (layer->format == PB_IMAGE_FORMAT_RAW) {
        layer->virtual_size_bytes = (layer->virtual_size_bytes + 511) & ~(guint64)511;
    }
}

/*
 * Applies the rule to one layer: sets its format and source, and adds to `findings` what is to be told of it. FALSE: refused.
 * FORMAT_NOT_DECLARED comes first.
 */
gboolean vp_judge_layer(const VpNext *next, const VpProbe *probe, PbImageLayer *layer, GPtrArray *findings);

/* The finding that nobody declared the format of `next`; `looks_like` may be UNSPECIFIED. */
PbFinding *vp_not_declared(const VpNext *next, PbImageFormat looks_like);

/* The finding that an image names a file that is never opened for it: an extent, a parent of another program's, a segment. */
PbFinding *vp_not_opened(const char *path, guint32 depth, const VpProbe *probe);

/* The names of the formats that match, for a message; owned by the caller. */
char *vp_matches_words(guint32 matches);

/* Opens one file for a call that is about it alone; a refusal is an error then, as vp_image_probe() has it. */
VpError *vp_image_open(const char *path, const VpImagePolicy *policy, gboolean write, VpOpened *ret);

/* What a failed read of that file is. */
VpError *vp_image_read_error(const char *path, int errnum);
