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
    gssize got = vp_read_at(file->fd, buffer->bytes, size, file->start);
    if (got < 0) {
        return errno;
    }
    buffer->used = (gsize)got;
    return buffer->used < size ? ESTALE : 0;
}

static void drop_windows(VpHeadBuffer *buffer)
{
    for (guint i = 0; i < buffer->n_windows; i++) {
        g_free(buffer->windows[i]);
    }
    buffer->n_windows = 0;
}

/* Reads a place further in, which the probe has found to lie within the file, into `bytes`. */
static int add_window(const VpOpened *file, guint8 *bytes, VpProbeRange range, VpProbeInput *input)
{
    gssize got = vp_read_at(file->fd, bytes, range.size, file->start + range.offset);
    if (got != (gssize)range.size) {
        return got < 0 ? errno : ESTALE;
    }
    input->windows[input->n_windows++] = (VpProbeWindow){range.offset, bytes, range.size};
    return 0;
}

static int read_more(const VpOpened *file, VpHeadBuffer *buffer, VpProbeRange need, VpProbeInput *input)
{
    if (need.offset > 0) {
        g_assert(need.size <= VP_PROBE_WINDOW_MAX && input->n_windows < VP_PROBE_WINDOWS_MAX);
        buffer->windows[buffer->n_windows] = g_malloc(need.size);
        return add_window(file, buffer->windows[buffer->n_windows++], need, input);
    }
    if (buffer->most > 0 && MIN((guint64)need.size, file->size) > buffer->most) {
        return EFBIG;
    }
    int errnum = fill(file, buffer, need.size);
    input->head = buffer->bytes;
    input->head_size = buffer->used;
    return errnum;
}

int vp_read_and_probe(const VpOpened *file, PbImageFormat declared, VpHeadBuffer *buffer, VpProbe *probe)
{
    gboolean undeclared = declared == PB_IMAGE_FORMAT_UNSPECIFIED;
    gboolean large = undeclared && file->size > VP_PROBE_HEAD_ALL;
    VpProbeRange need = {0, !undeclared || large ? VP_PROBE_HEAD_FIRST : VP_PROBE_HEAD_ALL};
    VpProbeInput input = {.file_size = file->size};
    int errnum = 0;

    drop_windows(buffer);
    /* The probe would ask for these anyway. */
    if (large) {
        errnum = add_window(file, buffer->content, (VpProbeRange){VP_PROBE_CONTENT, VP_PROBE_MARK}, &input);
    }
    if (large && !errnum) {
        errnum = add_window(file, buffer->tail, (VpProbeRange){file->size - VP_PROBE_TAIL, VP_PROBE_MARK}, &input);
    }
    do {
        errnum = errnum ? errnum : read_more(file, buffer, need, &input);
        if (errnum) {
            return errnum;
        }
        if (vp_probe(&input, declared, probe)) {
            return 0;
        }
        need = probe->need;
    } while (TRUE);
}

void vp_head_buffer_clear(VpHeadBuffer *buffer)
{
    drop_windows(buffer);
    g_clear_pointer(&buffer->bytes, g_free);
}
