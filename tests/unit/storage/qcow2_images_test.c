/* Every option that qemu-img create takes for qcow2: what it makes is well formed here, and the figures are those of qemu-img info. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/unit/storage/images.h"

typedef struct Case {
    const char *options;
    const char *sizes;   /* separated by spaces */
    const char *feature; /* that is to be told, or NULL */
} Case;

static const Case cases[] = {
    {"cluster_size=512", "0 512 10M 10G", NULL},
    {"cluster_size=4k", "0 512 10M 1T", NULL},
    {"cluster_size=64k", "0 1536 10M 1T", NULL},
    {"cluster_size=2M", "0 512 10M 1T", NULL},
    {"compat=0.10", "0 512 10M 1T", NULL},
    {"compat=0.10,cluster_size=512", "0 512 10M 10G", NULL},
    {"lazy_refcounts=on", "10M", "lazy-refcounts"},
    {"extended_l2=on", "0 10M 10G 1T", "extended-l2"},
    {"extended_l2=on,cluster_size=16k", "10M 1G", "extended-l2"},
    {"compression_type=zstd", "10M 10G", "zstd"},
    {"preallocation=metadata", "0 512 10M", NULL},
    {"preallocation=falloc", "0 512 10M", NULL},
    {"preallocation=full,cluster_size=4k", "0 512 10M", NULL},
    {"refcount_bits=1", "0 10M 10G", NULL},
    {"refcount_bits=64", "0 10M 10G", NULL},
    {"data_file=$PWD/data", "10M", "external-data-file"},
    {"data_file=$PWD/data,data_file_raw=on", "10M", "data-file-raw"},
};

static gboolean has_feature(const PbImageLayer *layer, const char *feature)
{
    for (size_t i = 0; i < layer->n_features; i++) {
        if (strcmp(layer->features[i], feature) == 0) {
            return TRUE;
        }
    }
    return FALSE;
}

static void compare_with_qemu(const char *name, const char *what)
{
    g_autoptr(VpChain) chain = walk(name, PB_IMAGE_FORMAT_QCOW2);
    if (!chain->summary->safe) {
        print_message("%s\n", what);
    }
    assert_safe(chain, 1);
    const PbImageLayer *layer = file_at(chain, 0)->layer;
    g_autofree char *output = run("qemu-img info --output=json %s", name);
    json_t *info = json_loads(output, 0, NULL);
    assert_int_equal(layer->virtual_size_bytes, json_integer_value(json_object_get(info, "virtual-size")));
    assert_int_equal(layer->cluster_size_bytes, json_integer_value(json_object_get(info, "cluster-size")));
    json_t *data = json_object_get(json_object_get(info, "format-specific"), "data");
    assert_string_equal(layer->version == 2 ? "0.10" : "1.1", json_string_value(json_object_get(data, "compat")));
    const char *data_file = json_string_value(json_object_get(data, "data-file"));
    assert_string_equal(layer->data_file, data_file ? data_file : "");
    assert_int_equal(has_feature(layer, "lazy-refcounts"), json_is_true(json_object_get(data, "lazy-refcounts")));
    assert_int_equal(has_feature(layer, "extended-l2"), json_is_true(json_object_get(data, "extended-l2")));
    json_decref(info);
    if (!data_file) {
        g_autoptr(VpChain) probed = walk(name, PB_IMAGE_FORMAT_UNSPECIFIED);
        assert_safe(probed, 1);
    }
}

static void options_of_create(void **state)
{
    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(GStrv) sizes = g_strsplit(cases[i].sizes, " ", -1);
        for (gsize s = 0; sizes[s]; s++) {
            g_autofree char *what = g_strdup_printf("%s %s", cases[i].options, sizes[s]);
            must_run("rm -f i.q; qemu-img create -q -f qcow2 -o %s i.q %s", cases[i].options, sizes[s]);
            compare_with_qemu("i.q", what);
            if (cases[i].feature) {
                g_autoptr(VpChain) chain = walk("i.q", PB_IMAGE_FORMAT_QCOW2);
                assert_true(has_feature(file_at(chain, 0)->layer, cases[i].feature));
            }
        }
    }
}

static void used_images(void **state)
{
    (void)state;
    must_run(
        "qemu-img create -q -f qcow2 u.q 10M; qemu-io -f qcow2 -c 'write -P 1 1M 3M' u.q; qemu-img snapshot -c one u.q;"
        "qemu-img bitmap --add u.q dirty; qemu-img resize -q -f qcow2 u.q 20G; qemu-io -f qcow2 -c 'write 15G 64k' "
        "u.q");
    compare_with_qemu("u.q", "used");
    g_autoptr(VpChain) chain = walk("u.q", PB_IMAGE_FORMAT_QCOW2);
    assert_true(has_feature(file_at(chain, 0)->layer, "internal-snapshots"));
    assert_true(has_feature(file_at(chain, 0)->layer, "bitmaps"));
    must_run("qemu-img convert -f qcow2 -O qcow2 -c u.q c.q; qemu-img resize -q -f qcow2 --shrink c.q 512k");
    compare_with_qemu("c.q", "compressed and shrunk");
}

static void encrypted_images(void **state)
{
    (void)state;
    /* Debian's QEMU times the key derivation by CPU clock, which fails now and then on quick calls. */
    must_run("for t in 1 2 3 4 5; do qemu-img create -q -f qcow2 --object secret,id=s,data=abc -o "
             "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=500 e.q 10M && exit 0; done; exit 1");
    g_autoptr(VpChain) chain = walk("e.q", PB_IMAGE_FORMAT_QCOW2);
    assert_safe(chain, 1);
    assert_true(file_at(chain, 0)->layer->encrypted);
    assert_true(has_feature(file_at(chain, 0)->layer, "luks"));
    assert_non_null(find(chain, PB_FINDING_CODE_ENCRYPTED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_of_create),
        cmocka_unit_test(used_images),
        cmocka_unit_test(encrypted_images),
    };
    return cmocka_run_group_tests(tests, images_setup, images_teardown);
}
