/* See read.h. The buffer's size follows the probe's constants, never a number out of a header beyond VP_PROBE_HEAD_MAX. */
#include "storage/chain/read.h"

#include <errno.h>
#include <unistd.h>

gssize vp_read_at(int fd, void *bytes, gsize size, guint64 offset)
{
    gsize done = 0;
    while (done < size) {
        ssize_t got = pread(fd, (guint8 *)bytes + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        done += (gsize)got;
    }
    return (gssize)done;
}

static int fill(const VpOpened *file, VpHeadBuffer *buffer, gsize want)
{
    gsize size = (gsize)MIN(file->size, (guint64)MIN(want, (gsize)VP_PROBE_HEAD_MAX));
    if (buffer->size < size) {
        gsize room = MAX(size, (gsize)VP_PROBE_HEAD_ALL);
        g_free(buffer->bytes);
        buffer->bytes = g_malloc(room);
        buffer->size = room;
    }
    buffer->used = 0;
    gssize got = vp_read_at(file->fd, buffer->bytes, size, 0);
    if (got < 0) {
        return errno;
    }
    buffer->used = (gsize)got;
    return buffer->used < size ? ESTALE : 0;
}

int vp_read_and_probe(const VpOpened *file, PbImageFormat declared, VpHeadBuffer *buffer, VpProbe *probe)
{
    guint8 tail[VP_PROBE_TAIL];
    gboolean undeclared = declared == PB_IMAGE_FORMAT_UNSPECIFIED;
    gsize want = undeclared ? VP_PROBE_HEAD_ALL : VP_PROBE_HEAD_FIRST;
    VpProbeInput input = {.file_size = file->size};

    if (undeclared && file->size >= sizeof(tail)) {
        gssize got = vp_read_at(file->fd, tail, sizeof(tail), file->size - sizeof(tail));
        if (got != (gssize)sizeof(tail)) {
            return got < 0 ? errno : ESTALE;
        }
        input.tail = tail;
        input.tail_size = sizeof(tail);
    }
    while (want > 0) {
        int errnum = fill(file, buffer, want);
        if (errnum) {
            return errnum;
        }
        input.head = buffer->bytes;
        input.head_size = buffer->used;
        want = vp_probe(&input, declared, probe);
    }
    return 0;
}

void vp_head_buffer_clear(VpHeadBuffer *buffer)
{
    g_clear_pointer(&buffer->bytes, g_free);
}
