/* The file of a saved domain: what is written is read again, what was changed anywhere in its head is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/pb.h"
#include "drivers/qemu/save_file.h"

#define STREAM_BYTES 12345U

static const guint8 key[VP_SAVE_KEY_BYTES] = "a key of thirty-two bytes, or so";

static PbSaveFileHead *make_head(guint n_files)
{
    PbSaveFileHead *head = vp_pb_new(&pb_save_file_head__descriptor);

    vp_pb_set(&head->id, "11111111-2222-3333-4444-555555555555");
    vp_pb_set(&head->domain_uid, "99999999-2222-3333-4444-555555555555");
    vp_pb_set(&head->domain_name, "vm");
    head->spec = vp_pb_new(&pb_domain_spec__descriptor);
    head->live_spec = vp_pb_new(&pb_domain_spec__descriptor);
    head->live_spec->memory_bytes = 64U << 20;
    for (guint i = 0; i < n_files; i++) {
        PbSavedFile *file = vp_pb_new(&pb_saved_file__descriptor);

        vp_pb_set(&file->target, "vda");
        vp_pb_printf(&file->path, "/images/%u.qcow2", i);
        vp_pb_append(&head->n_files, &head->files, file);
    }
    return head;
}

/* A whole file but for its stream. */
static GBytes *make_file(PbSaveFileHead *head)
{
    guint64 offset = 0;

    assert_null(vp_save_file_room(head, &offset));
    assert_int_equal(offset % VP_SAVE_ALIGNMENT, 0);
    return vp_save_file_pack(head, offset, STREAM_BYTES, key);
}

/* Reads it with a stream of this many bytes behind it; answers the reason why it cannot be read, NULL: it can. */
static const char *read_file(const guint8 *bytes, gsize size, guint64 stream_bytes, const guint8 *with_key,
                             PbSaveFileHead **ret_head)
{
    static char reason[64];
    VpSaveFrame frame;
    vp_pb_auto PbSaveFileHead *head = NULL;
    g_autoptr(VpError) error =
        vp_save_file_read_frame(bytes, MIN(size, VP_SAVE_FRAME_BYTES), size + stream_bytes, &frame);

    if (!error)
        error = vp_save_file_read_head(bytes, bytes + VP_SAVE_FRAME_BYTES, frame.head_bytes, with_key, &head);
    if (ret_head && !error)
        *ret_head = g_steal_pointer(&head);
    g_strlcpy(reason, error ? error->reason : "", sizeof(reason));
    return error ? reason : NULL;
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    for (guint n_files = 0; n_files < 3000; n_files = n_files * 7 + 1) {
        vp_pb_auto PbSaveFileHead *head = make_head(n_files);
        g_autoptr(GBytes) file = make_file(head);
        vp_pb_auto PbSaveFileHead *read = NULL;
        gsize size = 0;
        const guint8 *bytes = g_bytes_get_data(file, &size);

        assert_null(read_file(bytes, size, STREAM_BYTES, key, &read));
        assert_true(vp_pb_equal(head, read));
    }
}

/* The room that was made before the numbers were known holds them, whatever they are. */
static void test_the_room_holds_any_numbers(void **state)
{
    vp_pb_auto PbSaveFileHead *head = make_head(200);
    guint64 before = 0;
    guint64 after = 0;

    (void)state;
    assert_null(vp_save_file_room(head, &before));
    for (size_t i = 0; i < head->n_files; i++)
        head->files[i]->inode = head->files[i]->size_bytes = head->files[i]->write_time_ns = G_MAXUINT64 - i;
    assert_null(vp_save_file_room(head, &after));
    assert_int_equal(before, after);
    g_autoptr(GBytes) file = vp_save_file_pack(head, before, STREAM_BYTES, key);
    assert_int_equal(g_bytes_get_size(file), before);
}

static void test_a_head_that_is_too_large(void **state)
{
    vp_pb_auto PbSaveFileHead *head = make_head(40000);
    guint64 offset = 0;
    g_autoptr(VpError) error = vp_save_file_room(head, &offset);

    (void)state;
    assert_non_null(error);
    assert_string_equal(error->reason, "SAVE_TOO_LARGE");
}

/* Each bit of frame and head counts. */
static void test_every_bit_counts(void **state)
{
    vp_pb_auto PbSaveFileHead *head = make_head(1);
    g_autoptr(GBytes) file = make_file(head);
    gsize size = 0;
    const guint8 *good = g_bytes_get_data(file, &size);
    g_autofree guint8 *bytes = g_memdup2(good, size);
    const gsize end = VP_SAVE_FRAME_BYTES + protobuf_c_message_get_packed_size(&head->base);

    (void)state;
    for (gsize i = 0; i < end * 8; i++) {
        bytes[i / 8] ^= (guint8)(1U << (i % 8));
        assert_non_null(read_file(bytes, size, STREAM_BYTES, key, NULL));
        bytes[i / 8] ^= (guint8)(1U << (i % 8));
    }
    assert_null(read_file(bytes, size, STREAM_BYTES, key, NULL));
}

static void test_what_is_refused(void **state)
{
    static const guint8 other[VP_SAVE_KEY_BYTES] = "another key of 32 bytes, or so..";
    vp_pb_auto PbSaveFileHead *head = make_head(1);
    g_autoptr(GBytes) file = make_file(head);
    gsize size = 0;
    const guint8 *good = g_bytes_get_data(file, &size);
    g_autofree guint8 *bytes = g_memdup2(good, size);

    (void)state;
    assert_string_equal(read_file(bytes, 0, 0, key, NULL), "SAVE_FILE_UNKNOWN");
    assert_string_equal(read_file(bytes, 40, 0, key, NULL), "SAVE_FILE_TRUNCATED");
    assert_string_equal(read_file(bytes, size, STREAM_BYTES - 1, key, NULL), "SAVE_FILE_TRUNCATED");
    assert_string_equal(read_file(bytes, size, STREAM_BYTES, other, NULL), "SAVE_FILE_FOREIGN");
    bytes[0] = 'x';
    assert_string_equal(read_file(bytes, size, STREAM_BYTES, key, NULL), "SAVE_FILE_UNKNOWN");
    bytes[0] = good[0];
    bytes[8] = 2;
    assert_string_equal(read_file(bytes, size, STREAM_BYTES, key, NULL), "SAVE_FILE_VERSION");
    bytes[8] = 0;
    assert_string_equal(read_file(bytes, size, STREAM_BYTES, key, NULL), "SAVE_FILE_VERSION");
    bytes[8] = 1;
    /* Lengths that cannot be. */
    for (gsize at = 12; at < 32; at += at == 12 ? 4 : 8) {
        memset(bytes + at, 0xff, at == 12 ? 4 : 8);
        assert_string_equal(read_file(bytes, size, STREAM_BYTES, key, NULL), "SAVE_FILE_DAMAGED");
        memset(bytes + at, 0, at == 12 ? 4 : 8);
        assert_string_equal(read_file(bytes, size, STREAM_BYTES, key, NULL), "SAVE_FILE_DAMAGED");
        memcpy(bytes + at, good + at, at == 12 ? 4 : 8);
    }
    assert_null(read_file(bytes, size, STREAM_BYTES, key, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),  cmocka_unit_test(test_the_room_holds_any_numbers),
        cmocka_unit_test(test_a_head_that_is_too_large), cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_what_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
