/* A short fuzz run with a fixed seed: mutated headers, cut anywhere. What must hold for any bytes at all is checked; the sanitizers see the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "storage/probe/qcow2.h"
#include "tests/unit/storage/headers.h"

#define ROUNDS 20000

static gboolean within(VpProbeText text, const guint8 *bytes, gsize size)
{
    const guint8 *start = (const guint8 *)text.bytes;
    return text.size == 0 || (start >= bytes && text.size <= size && (gsize)(start - bytes) <= size - text.size);
}

static void check(const guint8 *bytes, gsize size, PbImageFormat declared)
{
    VpProbe probe;
    probe_bytes(bytes, size, declared, &probe);
    assert_true(within(probe.backing_path, bytes, size));
    assert_true(within(probe.backing_format, bytes, size));
    assert_true(within(probe.data_file, bytes, size));
    assert_true(probe.backing_path.size <= VP_QCOW2_BACKING_NAME_MAX);
    assert_true(probe.n_issues <= VP_PROBE_ISSUES_MAX && probe.n_features <= VP_PROBE_FEATURES_MAX);
    /* What has the mark and is called well formed never hides a reference that the header names. */
    if (size >= 20 && probe.format == PB_IMAGE_FORMAT_QCOW2 && probe.format_matches && probe.well_formed) {
        assert_true((probe.backing_path.size > 0) == (memcmp(bytes + 8, "\0\0\0\0\0\0\0\0\0\0\0\0", 12) != 0));
    }
}

static void mutated_headers(void **state)
{
    static const guint64 edges[] = {0,     1,      7,         8,          72,         104,        512,
                                    65535, 65536,  0x7ffffff, 0x80000000, 0xffffffff, 1ull << 62, 0x7fffffffffffffffull,
                                    ~0ull, 1 << 21};
    (void)state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(20240501);
    for (guint round = 0; round < ROUNDS; round++) {
        g_autoptr(GByteArray) file = header_new(2 + (round & 1));
        guint changes = (guint)g_rand_int_range(rand, 1, 6);
        gsize at = header_extension(file, round & 1 ? 104 : 72, VP_QCOW2_EXT_BACKING_FORMAT, "qcow2", 5);
        at = header_extension(file, at, VP_QCOW2_EXT_FEATURE_NAMES, file->data, 96);
        header_extension(file, at, VP_QCOW2_EXT_DATA_FILE, "/data", 5);
        header_backing(file, 512, "/base");
        for (guint i = 0; i < changes; i++) {
            gsize offset = (gsize)g_rand_int_range(rand, 4, 520);
            if (g_rand_boolean(rand)) {
                file->data[offset] = (guint8)g_rand_int(rand);
            } else {
                guint64 edge = edges[g_rand_int_range(rand, 0, G_N_ELEMENTS(edges))];
                header_put64(file, offset & ~(gsize)7, edge);
            }
        }
        gsize size = round % 3 ? file->len : (gsize)g_rand_int_range(rand, 0, (gint32)file->len);
        check(file->data, size, PB_IMAGE_FORMAT_UNSPECIFIED);
        check(file->data, size, PB_IMAGE_FORMAT_QCOW2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mutated_headers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
