/*
 * libFuzzer on the parser of one format, FUZZ_FORMAT: declared and undeclared. The input describes a file that may be large and mostly empty: its
 * size in 8 bytes, then pieces, each an offset of 4 bytes (with the highest bit: from the end), a length of 2 and bytes. Checksums are taken as
 * right in this build. make_seeds.py writes such inputs from real images.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/probe/bytes.h"
#include "storage/probe/probe.h"

#define PIECES_MAX 64
#define FROM_END 0x80000000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Piece {
    guint64 offset;
    const uint8_t *bytes;
    gsize size;
} Piece;

typedef struct File {
    guint64 size;
    Piece pieces[PIECES_MAX];
    guint n_pieces;
} File;

#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            (void)fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                              \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static void file_read(const uint8_t *data, size_t size, File *file)
{
    size_t at = 8;
    *file = (File){.size = vp_le64(data) & (((guint64)1 << 62) - 1)};
    while (at + 6 <= size && file->n_pieces < PIECES_MAX) {
        guint64 offset = vp_le32(data + at);
        gsize length = MIN((gsize)vp_le16(data + at + 4), size - at - 6);
        if (offset & FROM_END) {
            offset &= ~(guint64)FROM_END;
            offset = offset <= file->size ? file->size - offset : 0;
        }
        if (offset < file->size) {
            file->pieces[file->n_pieces++] =
                (Piece){offset, data + at + 6, (gsize)MIN((guint64)length, file->size - offset)};
        }
        at += 6 + length;
    }
}

/* Exactly so many bytes, so that a read beyond them is seen. */
static guint8 *file_bytes(const File *file, guint64 offset, gsize size)
{
    guint8 *bytes = g_malloc0(size);
    for (guint i = 0; i < file->n_pieces; i++) {
        const Piece *piece = &file->pieces[i];
        guint64 start = MAX(piece->offset, offset);
        guint64 end = MIN(piece->offset + piece->size, offset + size);
        if (start < end) {
            memcpy(bytes + (start - offset), piece->bytes + (start - piece->offset), (gsize)(end - start));
        }
    }
    return bytes;
}

static gboolean within(const VpProbeInput *input, VpProbeText text)
{
    const guint8 *start = (const guint8 *)text.bytes;
    if (text.size == 0 || (start >= input->head && start + text.size <= input->head + input->head_size)) {
        return TRUE;
    }
    for (guint i = 0; i < input->n_windows; i++) {
        const VpProbeWindow *window = &input->windows[i];
        if (start >= window->bytes && start + text.size <= window->bytes + window->size) {
            return TRUE;
        }
    }
    return FALSE;
}

/* QEMU would find a parent where this word stands, so that an image with it may not be used as one without. */
static gboolean hides_parent(const File *file, const VpProbe *result)
{
    static const char word[] = "parentFileNameHint";
    gboolean hidden = FALSE;
    if (result->format == PB_IMAGE_FORMAT_VMDK && result->format_matches && result->well_formed &&
        !result->other_role && result->backing_path.size == 0 && file->size > 512) {
        gsize size = (gsize)MIN(file->size - 512, (guint64)10240);
        guint8 *text = file_bytes(file, 512, size);
        hidden = memmem(text, strnlen((char *)text, size), word, sizeof(word) - 1) != NULL;
        g_free(text);
    }
    return hidden;
}

static void check(const VpProbeInput *input, const File *file, const VpProbe *result)
{
    must(within(input, result->backing_path) && within(input, result->data_file));
    must(result->backing_path.size <= 1023 &&
         !memchr(result->backing_path.bytes ? result->backing_path.bytes : "x", 0, result->backing_path.size));
    must(memchr(result->other_file, 0, sizeof(result->other_file)) != NULL);
    must(result->n_issues <= VP_PROBE_ISSUES_MAX && result->n_features <= VP_PROBE_FEATURES_MAX);
    for (guint i = 0; i < result->n_issues; i++) {
        must(memchr(result->issues[i].text, 0, sizeof(result->issues[i].text)) != NULL);
        must(result->issues[i].severity != PB_SEVERITY_ERROR || !result->well_formed);
    }
    if (result->well_formed && result->format_matches) {
        must(result->virtual_size <= (guint64)G_MAXINT64);
    }
    must(!hides_parent(file, result));
}

static void probe(const File *file, PbImageFormat declared)
{
    guint8 *buffers[VP_PROBE_WINDOWS_MAX + 4];
    guint n = 0;
    VpProbeInput input = {.file_size = file->size};
    VpProbe result;

    while (!vp_probe(&input, declared, &result)) {
        VpProbeRange need = result.need;
        must(need.size > 0 && need.offset <= file->size && need.size <= file->size - need.offset);
        must(n < G_N_ELEMENTS(buffers));
        buffers[n] = file_bytes(file, need.offset, need.size);
        if (need.offset == 0) {
            must(need.size > input.head_size && need.size <= VP_PROBE_HEAD_MAX);
            input.head = buffers[n];
            input.head_size = need.size;
        } else {
            must(need.size <= VP_PROBE_WINDOW_MAX && input.n_windows < VP_PROBE_WINDOWS_MAX);
            input.windows[input.n_windows++] = (VpProbeWindow){need.offset, buffers[n], need.size};
        }
        n++;
    }
    check(&input, file, &result);
    while (n > 0) {
        g_free(buffers[--n]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    File file;
    if (size < 8) {
        return 0;
    }
    file_read(data, size, &file);
    probe(&file, FUZZ_FORMAT);
    probe(&file, PB_IMAGE_FORMAT_UNSPECIFIED);
    return 0;
}
