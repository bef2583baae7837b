/* See save_file.h. */
#include "save_file.h"

#include <string.h>

#include "base/pb.h"

#define VERSION 1U
#define CODE_BYTES 32U

/* Places in the frame. */
enum {
    AT_VERSION = 8,
    AT_HEAD_BYTES = 12,
    AT_STREAM_OFFSET = 16,
    AT_STREAM_BYTES = 24,
    AT_CODE = 32,
};

/* Not text, and damaged by what changes ends of lines. */
static const guint8 mark[8] = {0x89, 'V', 'P', 'S', 'V', '\r', '\n', 0x1a};

static void put32(guint8 *at, guint32 value)
{
    const guint32 little = GUINT32_TO_LE(value);

    memcpy(at, &little, sizeof(little));
}

static void put64(guint8 *at, guint64 value)
{
    const guint64 little = GUINT64_TO_LE(value);

    memcpy(at, &little, sizeof(little));
}

static guint32 get32(const guint8 *at)
{
    guint32 little;

    memcpy(&little, at, sizeof(little));
    return GUINT32_FROM_LE(little);
}

static guint64 get64(const guint8 *at)
{
    guint64 little;

    memcpy(&little, at, sizeof(little));
    return GUINT64_FROM_LE(little);
}

static void make_code(const guint8 *frame, const guint8 *head, gsize head_bytes, const guint8 *key, guint8 *code)
{
    gsize length = CODE_BYTES;
    g_autoptr(GHmac) hmac = g_hmac_new(G_CHECKSUM_SHA256, key, VP_SAVE_KEY_BYTES);

    g_hmac_update(hmac, frame, AT_CODE);
    g_hmac_update(hmac, head, (gssize)head_bytes);
    g_hmac_get_digest(hmac, code, &length);
}

/* In the same time wherever they differ. */
static gboolean same_code(const guint8 *a, const guint8 *b)
{
    guint8 difference = 0;

    for (guint i = 0; i < CODE_BYTES; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

/* ---- writing ---- */

VpError *vp_save_file_room(const PbSaveFileHead *head, guint64 *ret_stream_offset)
{
    vp_pb_auto PbSaveFileHead *fullest = vp_pb_dup(head);

    for (size_t i = 0; i < fullest->n_files; i++) {
        fullest->files[i]->inode = G_MAXUINT64;
        fullest->files[i]->size_bytes = G_MAXUINT64;
        fullest->files[i]->write_time_ns = G_MAXUINT64;
    }
    const gsize size = protobuf_c_message_get_packed_size(&fullest->base);
    if (size > VP_SAVE_MAX_HEAD_BYTES)
        return vp_error_new(VP_FAILED_PRECONDITION, "SAVE_TOO_LARGE",
                            "what has to be kept of its spec and its disks has %" G_GSIZE_FORMAT
                            " bytes; at most %u fit",
                            size, VP_SAVE_MAX_HEAD_BYTES);
    const guint64 end = VP_SAVE_FRAME_BYTES + size;
    *ret_stream_offset = (end + VP_SAVE_ALIGNMENT - 1) / VP_SAVE_ALIGNMENT * VP_SAVE_ALIGNMENT;
    return NULL;
}

GBytes *vp_save_file_pack(const PbSaveFileHead *head, guint64 stream_offset, guint64 stream_bytes, const guint8 *key)
{
    const gsize head_bytes = protobuf_c_message_get_packed_size(&head->base);
    guint8 *bytes = g_malloc0(stream_offset);

    g_assert(VP_SAVE_FRAME_BYTES + head_bytes <= stream_offset);
    memcpy(bytes, mark, sizeof(mark));
    put32(bytes + AT_VERSION, VERSION);
    put32(bytes + AT_HEAD_BYTES, (guint32)head_bytes);
    put64(bytes + AT_STREAM_OFFSET, stream_offset);
    put64(bytes + AT_STREAM_BYTES, stream_bytes);
    protobuf_c_message_pack(&head->base, bytes + VP_SAVE_FRAME_BYTES);
    make_code(bytes, bytes + VP_SAVE_FRAME_BYTES, head_bytes, key, bytes + AT_CODE);
    return g_bytes_new_take(bytes, stream_offset);
}

/* ---- reading ---- */

static VpError *damaged(const char *what)
{
    return vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_DAMAGED", "it is damaged: %s", what);
}

static VpError *check_places(const VpSaveFrame *frame, guint64 file_bytes)
{
    if (frame->head_bytes == 0 || frame->head_bytes > VP_SAVE_MAX_HEAD_BYTES)
        return damaged("the length of its head cannot be");
    if (frame->stream_offset % VP_SAVE_ALIGNMENT != 0 ||
        frame->stream_offset < VP_SAVE_FRAME_BYTES + frame->head_bytes ||
        frame->stream_offset > 2 * VP_SAVE_MAX_HEAD_BYTES)
        return damaged("its parts overlap");
    if (frame->stream_bytes == 0 || frame->stream_bytes > G_MAXINT64 - frame->stream_offset)
        return damaged("the length of its memory cannot be");
    if (file_bytes < frame->stream_offset + frame->stream_bytes)
        return vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_TRUNCATED",
                            "it is cut short: it has %" G_GUINT64_FORMAT " bytes and should have %" G_GUINT64_FORMAT,
                            file_bytes, frame->stream_offset + frame->stream_bytes);
    return NULL;
}

VpError *vp_save_file_read_frame(const guint8 *frame, gsize length, guint64 file_bytes, VpSaveFrame *ret_frame)
{
    if (length < sizeof(mark) || memcmp(frame, mark, sizeof(mark)) != 0)
        return vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_UNKNOWN", "it is no file that SaveDomain wrote");
    if (length < VP_SAVE_FRAME_BYTES)
        return vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_TRUNCATED", "it is cut short within its first bytes");
    const guint32 version = get32(frame + AT_VERSION);
    if (version == 0 || version > VERSION)
        return vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_VERSION",
                            "it is of version %u of the format, this daemon knows version %u; restore it with the "
                            "daemon that wrote it, or a later one",
                            version, VERSION);
    const VpSaveFrame told = {
        .head_bytes = get32(frame + AT_HEAD_BYTES),
        .stream_offset = get64(frame + AT_STREAM_OFFSET),
        .stream_bytes = get64(frame + AT_STREAM_BYTES),
    };
    VpError *error = check_places(&told, file_bytes);
    if (!error)
        *ret_frame = told;
    return error;
}

VpError *vp_save_file_read_head(const guint8 *frame, const guint8 *head, gsize head_bytes, const guint8 *key,
                                PbSaveFileHead **ret_head)
{
    guint8 code[CODE_BYTES];

    make_code(frame, head, head_bytes, key, code);
    if (!same_code(code, frame + AT_CODE))
        return vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_FOREIGN",
                            "its head is damaged, or was written by another daemon");
    g_autoptr(GBytes) bytes = g_bytes_new_static(head, head_bytes);
    vp_pb_auto PbSaveFileHead *read = vp_pb_unpack(&pb_save_file_head__descriptor, bytes);
    if (!read || !read->spec || !read->live_spec)
        return damaged("its head cannot be read");
    *ret_head = read;
    read = NULL;
    return NULL;
}
