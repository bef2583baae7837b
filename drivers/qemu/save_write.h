/* The file of a saved domain, for writing: under a name of its own until it is whole and on the disk. Blocks on the disk: for threads of the slow pool. */
#pragma once

#include "process.h"
#include "proof.h"
#include "save_folder.h"

typedef struct VpSaveWriter {
    /* Set by the caller. */
    const VpDriverHost *host;
    char *dir;        /* the domain's folder */
    char *path;       /* of the file when it is done; NULL: the one that the daemon keeps */
    gboolean managed; /* it is that one */
    pid_t pid;        /* of QEMU */
    gboolean was_running;
    PbSaveFileHead *head; /* without its files */
    const gint *abort;    /* atomic; set: give up */

    /* Its own. */
    guint8 key[VP_SAVE_KEY_BYTES];
    VpProof proof;
    gboolean has_proof;
    char *temporary; /* name in the folder; NULL: none */
    int folder_fd;
    int fd; /* the stream goes to where it stands */
    guint64 stream_offset;
    PbSavedState *saved; /* once it is done */
} VpSaveWriter;

void vp_save_writer_clear(VpSaveWriter *writer);

/* Proves the disks, makes the file, and the note of the save. ALREADY_EXISTS, reason SAVE_FILE_EXISTS; FAILED_PRECONDITION, reason SAVE_FILE_REFUSED or
 * DISK_REPLACED. */
VpError *vp_save_writer_open(VpSaveWriter *writer);

/* The stream is written, and QEMU writes to the disks no more: completes the file and gives it its name. It is on the disk then, and `saved` is set.
 * RESOURCE_EXHAUSTED, reason SAVE_NO_SPACE, if that is full. */
VpError *vp_save_writer_finish(VpSaveWriter *writer);

/* Removes what was made. */
void vp_save_writer_drop(VpSaveWriter *writer);
