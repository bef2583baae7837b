/* The file of a saved domain, for reading: opened where it may lie, its head read and held against the domain and its disks. Blocks on the disk. */
#pragma once

#include "proof.h"
#include "save_file.h"

typedef struct VpSaveReader {
    int fd; /* -1: not open */
    VpSaveFrame frame;
    PbSaveFileHead *head;
} VpSaveReader;

void vp_save_reader_clear(VpSaveReader *reader);

/* Opens the file. `dir` is the domain's folder, where it may lie whatever the policy. NOT_FOUND, reason SAVE_FILE_MISSING; FAILED_PRECONDITION, reason
 * SAVE_FILE_REFUSED. */
VpError *vp_save_reader_open(VpSaveReader *reader, const char *path, const char *dir, const VpImagePolicy *policy);

/* Reads frame and head of what is open: errors as in save_file.h. Leaves the descriptor at the begin of the stream. */
VpError *vp_save_reader_read(VpSaveReader *reader, const guint8 *key);

/* The files of the disks as they are now, in place of those that the head has. `dir` as above: UEFI keeps its variables there. */
void vp_save_list_files(PbSaveFileHead *head, const PbDomainSpec *spec, const VpProof *proof, const char *dir);

/* FAILED_PRECONDITION, reason DISK_CHANGED, if they are not as the head says. */
VpError *vp_save_check_files(const PbSaveFileHead *head, const PbDomainSpec *spec, const VpProof *proof,
                             const char *dir);
