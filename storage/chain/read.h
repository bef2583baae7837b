/* Feeds the probe with the bytes of an open file. One buffer serves a whole walk. */
#pragma once

#include "storage/chain/open.h"
#include "storage/probe/probe.h"

typedef struct VpHeadBuffer {
    guint8 *bytes; /* what the probe's texts point into, until the next read */
    gsize size;
    gsize used;
    guint8 content[VP_PROBE_MARK];
    guint8 tail[VP_PROBE_MARK];
    guint8 *windows[VP_PROBE_WINDOWS_MAX]; /* what the probe asked for further in */
    guint n_windows;
    gsize most; /* that may be read of a head; 0: VP_PROBE_HEAD_MAX */
} VpHeadBuffer;

/* 0, or an errno value: ESTALE if the file shrank while it was read, EFBIG if more of its head is needed than
 * the buffer allows. */
int vp_read_and_probe(const VpOpened *file, PbImageFormat declared, VpHeadBuffer *buffer, VpProbe *probe);

/* Reads up to `size` bytes at `offset`, as many as there are; -1 and errno. */
gssize vp_read_at(int fd, void *bytes, gsize size, guint64 offset);

void vp_head_buffer_clear(VpHeadBuffer *buffer);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpHeadBuffer, vp_head_buffer_clear)
