/*
 * The file of a saved domain: a frame, the head (virtplane/v1/save_file.proto) and QEMU's stream. Pure: bytes in, message out. The frame's numbers are
 * little-endian, so that a file reads the same on every host. A code (HMAC-SHA-256 with the daemon's key) covers frame and head: what it does not fit is not
 * looked into any further, so that nobody but the daemon can have a domain restored with devices of his choice.
 */
#pragma once

#include "base/error.h"
#include "virtplane/v1/save_file.pb-c.h"

#define VP_SAVE_FRAME_BYTES 64U
#define VP_SAVE_MAX_HEAD_BYTES (1024U * 1024)
#define VP_SAVE_ALIGNMENT 4096U
#define VP_SAVE_KEY_BYTES 32U

/* What the frame tells. */
typedef struct VpSaveFrame {
    guint64 head_bytes;
    guint64 stream_offset; /* from the file's begin */
    guint64 stream_bytes;
} VpSaveFrame;

/* Where the stream begins behind this head, whatever numbers will be in its files (SavedFile). FAILED_PRECONDITION, reason SAVE_TOO_LARGE, if the head would
 * have no room. */
VpError *vp_save_file_room(const PbSaveFileHead *head, guint64 *ret_stream_offset);

/* Frame, head and zeros up to `stream_offset`, which vp_save_file_room() gave for this head. */
GBytes *vp_save_file_pack(const PbSaveFileHead *head, guint64 stream_offset, guint64 stream_bytes, const guint8 *key);

/* Reads the frame: the first VP_SAVE_FRAME_BYTES of a file of `file_bytes`. FAILED_PRECONDITION: SAVE_FILE_UNKNOWN (no such file), SAVE_FILE_VERSION (of a
 * later daemon), SAVE_FILE_TRUNCATED, SAVE_FILE_DAMAGED. */
VpError *vp_save_file_read_frame(const guint8 *frame, gsize length, guint64 file_bytes, VpSaveFrame *ret_frame);

/* Reads the head, which follows the frame. FAILED_PRECONDITION: SAVE_FILE_FOREIGN (the code does not fit: damaged, or written by another daemon),
 * SAVE_FILE_DAMAGED. */
VpError *vp_save_file_read_head(const guint8 *frame, const guint8 *head, gsize head_bytes, const guint8 *key,
                                PbSaveFileHead **ret_head);
