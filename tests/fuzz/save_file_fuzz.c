/* libFuzzer on the file of a saved domain: as it comes, and again with a code that fits, so that what is behind it is reached. No bytes lead out of bounds, and
 * what is read can be written again. */
#include <stdlib.h>
#include <string.h>

#include "base/pb.h"
#include "drivers/qemu/save_file.h"

#define CODE_AT 32U
#define CODE_BYTES 32U

static const guint8 key[VP_SAVE_KEY_BYTES] = "of the fuzzer";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whether the file could be read. */
static gboolean try_file(const guint8 *bytes, gsize size)
{
    vp_pb_auto PbSaveFileHead *head = NULL;
    VpSaveFrame frame;
    g_autoptr(VpError) error =
        vp_save_file_read_frame(bytes, MIN(size, VP_SAVE_FRAME_BYTES), (guint64)size + (1U << 30), &frame);

    if (!error && frame.head_bytes > size - VP_SAVE_FRAME_BYTES)
        return FALSE;
    if (!error)
        error = vp_save_file_read_head(bytes, bytes + VP_SAVE_FRAME_BYTES, frame.head_bytes, key, &head);
    if (error)
        return FALSE;
    guint64 offset = 0;
    g_autoptr(VpError) too_large = vp_save_file_room(head, &offset);
    if (!too_large)
        g_bytes_unref(vp_save_file_pack(head, offset, frame.stream_bytes, key));
    return TRUE;
}

/* Puts the code that fits into its place. */
static void sign(guint8 *bytes, gsize size)
{
    guint32 head_bytes;
    gsize length = CODE_BYTES;

    memcpy(&head_bytes, bytes + 12, sizeof(head_bytes));
    head_bytes = GUINT32_FROM_LE(head_bytes);
    if (head_bytes > size - VP_SAVE_FRAME_BYTES)
        return;
    g_autoptr(GHmac) hmac = g_hmac_new(G_CHECKSUM_SHA256, key, sizeof(key));
    g_hmac_update(hmac, bytes, CODE_AT);
    g_hmac_update(hmac, bytes + VP_SAVE_FRAME_BYTES, (gssize)head_bytes);
    g_hmac_get_digest(hmac, bytes + CODE_AT, &length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree guint8 *bytes = g_memdup2(data, size);

    try_file(data, size);
    if (size < VP_SAVE_FRAME_BYTES)
        return 0;
    sign(bytes, size);
    try_file(bytes, size);
    return 0;
}
