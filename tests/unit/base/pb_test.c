/* Helpers for protobuf-c messages: ownership (under AddressSanitizer), copies, times, names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/pb.h"
#include "virtplane/v1/domain.pb-c.h"

static PbDomain *make(void)
{
    PbDomain *domain = vp_pb_new(&pb_domain__descriptor);

    vp_pb_set(&domain->name, "web");
    domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_printf(&domain->spec->driver, "te%s", "st");
    for (guint i = 0; i < 20; i++) {
        PbDisk *disk = vp_pb_new(&pb_disk__descriptor);

        vp_pb_printf(&disk->path, "/images/%u", i);
        vp_pb_append(&domain->spec->n_disks, &domain->spec->disks, disk);
    }
    return domain;
}

static void strings_are_replaced(void **state)
{
    vp_pb_auto PbDomain *domain = vp_pb_new(&pb_domain__descriptor);

    (void)state;
    assert_string_equal(domain->name, "");
    vp_pb_set(&domain->name, "a");
    vp_pb_set(&domain->name, "b");
    /* The old value may be the source of the new one. */
    vp_pb_printf(&domain->name, "%s-%s", domain->name, "c");
    assert_string_equal(domain->name, "b-c");
    vp_pb_set(&domain->name, domain->name);
    assert_string_equal(domain->name, "b-c");
    vp_pb_set(&domain->name, NULL);
    assert_string_equal(domain->name, "");
}

static void a_copy_is_deep(void **state)
{
    vp_pb_auto PbDomain *domain = make();
    vp_pb_auto PbDomain *copy = vp_pb_dup(domain);

    (void)state;
    vp_pb_set(&domain->spec->disks[3]->path, "/changed");
    assert_int_equal(copy->spec->n_disks, 20);
    assert_string_equal(copy->spec->disks[3]->path, "/images/3");
    assert_string_equal(copy->spec->driver, "test");
    assert_null(vp_pb_dup(NULL));
}

/* What was unpacked has no room to spare: an append must make some. */
static void an_unpacked_array_grows(void **state)
{
    vp_pb_auto PbDomain *domain = make();
    vp_pb_auto PbDomain *copy = vp_pb_dup(domain);

    (void)state;
    for (guint i = 0; i < 5; i++)
        vp_pb_append(&copy->spec->n_disks, &copy->spec->disks, vp_pb_new(&pb_disk__descriptor));
    assert_int_equal(copy->spec->n_disks, 25);
    assert_string_equal(copy->spec->disks[19]->path, "/images/19");
    assert_string_equal(copy->spec->disks[24]->path, "");
}

static void pack_and_unpack(void **state)
{
    vp_pb_auto PbDomain *domain = make();
    g_autoptr(GBytes) packed = vp_pb_pack(domain);
    vp_pb_auto PbDomain *again = vp_pb_unpack(&pb_domain__descriptor, packed);
    g_autoptr(GBytes) packed_again = vp_pb_pack(again);
    g_autoptr(GBytes) cut = g_bytes_new_from_bytes(packed, 0, g_bytes_get_size(packed) - 1);
    vp_pb_auto PbDomain *empty = vp_pb_new(&pb_domain__descriptor);
    g_autoptr(GBytes) nothing = vp_pb_pack(empty);

    (void)state;
    assert_true(g_bytes_equal(packed, packed_again));
    assert_null(vp_pb_unpack(&pb_domain__descriptor, cut));
    assert_int_equal(g_bytes_get_size(nothing), 0);
    vp_pb_auto PbDomain *of_nothing = vp_pb_unpack(&pb_domain__descriptor, nothing);
    assert_non_null(of_nothing);
}

static void times_come_back(void **state)
{
    static const gint64 times[] = {0, 1, 999999, 1000000, 1700000000123456, 253402300799999999};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(times); i++) {
        vp_pb_auto Google__Protobuf__Timestamp *timestamp = vp_pb_timestamp(times[i]);

        assert_true(timestamp->nanos >= 0 && timestamp->nanos < 1000000000);
        assert_int_equal(timestamp->seconds, times[i] / 1000000);
        assert_int_equal(vp_pb_timestamp_us(timestamp), times[i]);
    }
    assert_int_equal(vp_pb_timestamp_us(NULL), 0);
}

/* A domain packed by hand, with a name of each length at which the prefix grows. */
static void prefixes(void **state)
{
    static const gsize sizes[] = {0, 1, 127, 128, 16383, 16384, 100000};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(sizes); i++) {
        guint8 *bytes = g_malloc(VP_PB_PREFIX_MAX + sizes[i]);
        const gsize n = vp_pb_put_prefix(bytes, 1, sizes[i]);

        assert_in_range(n, 2, VP_PB_PREFIX_MAX);
        memset(bytes + n, 'x', sizes[i]);
        g_autoptr(GBytes) packed = g_bytes_new_take(bytes, n + sizes[i]);
        vp_pb_auto PbDomain *domain = vp_pb_unpack(&pb_domain__descriptor, packed);
        assert_non_null(domain);
        assert_int_equal(strlen(domain->name), sizes[i]);
    }
    guint8 most[VP_PB_PREFIX_MAX];
    assert_in_range(vp_pb_put_prefix(most, G_MAXUINT32 >> 3, G_MAXSIZE), 1, VP_PB_PREFIX_MAX);
}

static void names_of_enum_values(void **state)
{
    (void)state;
    assert_string_equal(vp_pb_enum_name(&pb_domain_state__descriptor, PB_DOMAIN_STATE_RUNNING), "DOMAIN_STATE_RUNNING");
    assert_null(vp_pb_enum_name(&pb_domain_state__descriptor, 4711));
    assert_null(vp_pb_enum_name(&pb_domain_state__descriptor, -1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_replaced),
        cmocka_unit_test(a_copy_is_deep),
        cmocka_unit_test(an_unpacked_array_grows),
        cmocka_unit_test(pack_and_unpack),
        cmocka_unit_test(times_come_back),
        cmocka_unit_test(names_of_enum_values),
        cmocka_unit_test(prefixes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
