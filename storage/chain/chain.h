/*
 * The walk of a backing chain from its top to its end: each layer, each finding, and whether the chain may be opened. What was proven is
 * kept open: the qemu driver hands these very descriptors to QEMU.
 *
 * The rule (docs/images.md). A declared format is obeyed, whatever the bytes look like. For a layer whose format nobody declared the
 * probed one is used only if exactly one format matches, its metadata is well formed and it names no other file at all; nothing
 * matched means raw. Otherwise the chain is refused, and the finding names the layer and the remedy. No chain is ever cut short.
 */
#pragma once

#include "base/error.h"
#include "storage/chain/nbd.h"
#include "storage/chain/policy.h"
#include "virtplane/v1/image.pb-c.h"

typedef struct VpChainOptions {
    PbImageFormat format;        /* of the top, as its owner declared it; UNSPECIFIED: not declared */
    guint32 max_depth;           /* of the deepest layer, the top having 0; 0: the policy's, which is also the most */
    const VpImagePolicy *policy; /* NULL: that of a daemon without configuration */
    gboolean write_top;          /* open the top layer (and its data file) read-write */
    gboolean look_only;          /* keep no descriptor open: nobody is going to open the chain */
} VpChainOptions;

/* Told of each layer and finding as they are met, on the calling thread. Either may be NULL. Messages are borrowed. FALSE from either ends
 * the walk early (the reader has gone): vp_chain_walk() then answers CANCELLED. */
typedef struct VpChainSink {
    gboolean (*layer)(void *data, const PbImageLayer *layer);
    gboolean (*finding)(void *data, const PbFinding *finding);
    void *data;
} VpChainSink;

/* One file of a chain, open. */
typedef struct VpChainFile {
    PbImageLayer *layer;
    int fd; /* O_RDONLY, or O_RDWR for the top with write_top; -1 where the layer was refused, is remote, or with look_only */
    int data_fd;              /* the external data file of this layer, or -1 */
    PbImageLayer *data_layer; /* what the sink is told of that file (is_data_file), or NULL */
    VpNbd *nbd;               /* where a remote layer is, if a driver can be told, or NULL */
} VpChainFile;

typedef struct VpChain {
    GArray *files;       /* of VpChainFile, the top first */
    GPtrArray *findings; /* of PbFinding */
    PbChainSummary *summary;
} VpChain;

/* Walks the chain whose top is `path` (absolute; any bytes but NUL: the path fields of layers and findings have \xNN for what is no UTF-8). An
 * unsafe chain is an answer: NULL with summary->safe false. An error is only that the walk itself could not be made (bad arguments, cancelled,
 * out of descriptors). `ret_chain` is set on NULL alone and owned by the caller. At most 2 descriptors a layer stay open. Blocks on the disk only.
 * Special files are never opened for reading and never block. */
VpError *vp_chain_walk(const char *path, const VpChainOptions *options, const VpChainSink *sink, VpChain **ret_chain);

/* NULL if the chain is safe, else why it is refused, from its first finding of severity ERROR: FAILED_PRECONDITION, reason the code's name
 * without FINDING_CODE_, metadata `path`, `depth`, `remedy`. */
VpError *vp_chain_refusal(const VpChain *chain);

/* Closes the descriptors and frees. NULL is let pass. */
void vp_chain_free(VpChain *chain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpChain, vp_chain_free)

/* Looks at one file and at nothing that it names: ImageService.ProbeImage. `findings` gets PbFinding (its free function set). NOT_FOUND,
 * PERMISSION_DENIED, FAILED_PRECONDITION (not a regular file or block device) if it cannot be looked at. */
VpError *vp_image_probe(const char *path, const VpImagePolicy *policy, PbImageLayer **ret_layer, GPtrArray *findings);

/* Writes the backing format into a qcow2 overlay's header: ImageService.RecordBackingFormat. `format` UNSPECIFIED: the probed one, if the rule
 * allows it. `ret_changed` false: it was recorded already; with `validate_only`, whether it would be changed. `ret_undo` (may be NULL): a command that
 * takes the change back, owned by the caller; untouched if nothing changes. Refused while any program has the image open. Blocks on the disk. */
VpError *vp_image_record_backing_format(const char *path, PbImageFormat format, gboolean validate_only,
                                        const VpImagePolicy *policy, PbImageLayer **ret_layer,
                                        PbImageFormat *ret_format, gboolean *ret_changed, char **ret_undo);
