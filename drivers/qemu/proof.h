/*
 * The proof of images before QEMU is given them: each disk's chain is walked, refused if anything about it is not safe, and kept open. Used by starts (start.c)
 * and by what is attached to a domain that runs (change_prepare.c); on a thread of the slow pool, as the disk that an image lies on may hang.
 */
#pragma once

#include "command_line.h"
#include "drivers/driver.h"
#include "storage/chain/chain.h"

typedef struct VpProof {
    const VpImagePolicy *policy;
    const gint *abort;   /* atomic; set: the walk is given up */
    GPtrArray *chains;   /* of VpChain, in the order of the disks that were proven; NULL for an empty drive */
    GPtrArray *disks;    /* of PbDiskStatus */
    GPtrArray *findings; /* of PbFinding */
} VpProof;

void vp_proof_init(VpProof *proof, const VpImagePolicy *policy, const gint *abort);
/* Closes the images by the host's slow pool if this is the loop's thread: to close a file can hang, too. */
void vp_proof_clear(VpProof *proof, const VpDriverHost *host);

/* FAILED_PRECONDITION with the finding's code, as StartDomain documents. Adds to all three lists on success. */
VpError *vp_proof_disk(VpProof *proof, const PbDisk *disk);

/* The layers of a chain as QEMU is told of them; the caller frees. `give` answers the number by which QEMU will know a descriptor. */
VpLayerFds *vp_proof_layers(const VpChain *chain, int (*give)(void *data, int fd), void *data);
