/*
 * Plans the writes that add a backing format to a qcow2 header. Pure: bytes in, writes out; record.c performs them. The writes are ordered so that
 * the header is whole and right after each of them, whatever the moment of a crash:
 *
 *   1. (if the name of the backing file is in the way) a copy of the name into free bytes: nothing refers to it yet.
 *   2. (the same) the name's offset in the header: 8 bytes within the file's first 512. Both names are there and equal; the old format stands.
 *   3. the body of the new extension and the new end mark, behind the old end mark: no reader looks beyond that mark.
 *   4. the 8 bytes of the old end mark become the head of the new extension.
 *
 * 1 and 3 touch bytes that nothing refers to, so it does not matter if they are torn. 2 and 4 are one aligned piece within one 512-byte sector,
 * which a disk writes whole or not at all. Between them the writer waits for the disk. The new extension is the last: turning its first 8
 * bytes into zeroes, an end mark, takes the change back.
 */
#pragma once

#include <glib.h>

#define VP_RECORD_WRITES_MAX 4

typedef struct VpHeaderWrite {
    guint64 offset;
    GBytes *bytes;
} VpHeaderWrite;

typedef struct VpRecordPlan {
    VpHeaderWrite writes[VP_RECORD_WRITES_MAX];
    guint n_writes;
    guint64 extension_offset; /* of the new extension */
} VpRecordPlan;

/* `head` is the first cluster of a well formed qcow2 that has a backing file and no backing format extension; `format` QEMU's name.
 * NULL: planned. Else a constant that says why it cannot be done. `ret` is to be cleared. */
const char *vp_record_plan(const guint8 *head, gsize head_size, const char *format, VpRecordPlan *ret);

void vp_record_plan_clear(VpRecordPlan *plan);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpRecordPlan, vp_record_plan_clear)
