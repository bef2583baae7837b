/* See headers.h. */
#include "tests/unit/storage/headers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

void header_put32(GByteArray *file, gsize offset, guint32 value)
{
    for (guint i = 0; i < 4; i++) {
        file->data[offset + i] = (guint8)(value >> (24 - 8 * i));
    }
}

void header_put64(GByteArray *file, gsize offset, guint64 value)
{
    header_put32(file, offset, (guint32)(value >> 32));
    header_put32(file, offset + 4, (guint32)value);
}

GByteArray *header_new(guint32 version)
{
    GByteArray *file = g_byte_array_sized_new(HEADER_FILE);
    g_byte_array_set_size(file, HEADER_FILE);
    memset(file->data, 0, file->len);
    memcpy(file->data, "QFI\xfb", 4);
    header_put32(file, 4, version);
    header_put32(file, 20, 16);
    header_put64(file, 24, 1u << 20);
    header_put32(file, 36, 1);
    header_put64(file, 40, 3 * HEADER_CLUSTER);
    header_put64(file, 48, HEADER_CLUSTER);
    header_put32(file, 56, 1);
    if (version >= 3) {
        header_put32(file, 96, 4);
        header_put32(file, 100, 104);
    }
    return file;
}

gsize header_extension(GByteArray *file, gsize offset, guint32 type, const void *data, gsize size)
{
    header_put32(file, offset, type);
    header_put32(file, offset + 4, (guint32)size);
    memcpy(file->data + offset + 8, data, size);
    return offset + 8 + ((size + 7) & ~(gsize)7);
}

void header_backing(GByteArray *file, gsize offset, const char *name)
{
    header_put64(file, 8, offset);
    header_put32(file, 16, (guint32)strlen(name));
    memcpy(file->data + offset, name, strlen(name));
}

void probe_bytes(const guint8 *bytes, gsize size, PbImageFormat declared, VpProbe *probe)
{
    VpProbeInput input = {.head = bytes, .file_size = size};
    gboolean whole = declared == PB_IMAGE_FORMAT_UNSPECIFIED && size <= VP_PROBE_HEAD_ALL;
    input.head_size = MIN(size, whole ? VP_PROBE_HEAD_ALL : VP_PROBE_HEAD_FIRST);

    while (!vp_probe(&input, declared, probe)) {
        VpProbeRange need = probe->need;
        assert_true(need.size > 0 && need.offset <= size && need.size <= size - need.offset);
        if (need.offset == 0) {
            assert_true(need.size > input.head_size && need.size <= VP_PROBE_HEAD_MAX);
            input.head_size = need.size;
        } else {
            assert_true(need.size <= VP_PROBE_WINDOW_MAX && input.n_windows < VP_PROBE_WINDOWS_MAX);
            input.windows[input.n_windows++] = (VpProbeWindow){need.offset, bytes + need.offset, need.size};
        }
    }
}

void probe_file(const GByteArray *file, PbImageFormat declared, VpProbe *probe)
{
    probe_bytes(file->data, file->len, declared, probe);
}

gboolean has_issue(const VpProbe *probe, PbFindingCode code)
{
    for (guint i = 0; i < probe->n_issues; i++) {
        if (probe->issues[i].code == code) {
            return TRUE;
        }
    }
    return FALSE;
}
