/* What the table of tests/corpus does not say: formats other than qcow2 within a chain, in a guest's raw disk, and the remedies that are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pb.h"
#include "tests/unit/storage/images.h"

#define UNDECLARED PB_IMAGE_FORMAT_UNSPECIFIED
#define CODE(name) PB_FINDING_CODE_##name

/* A qcow cannot record its backing file's format: the remedy makes a qcow2 of it, and the data is right. */
static void remedy_of_a_qcow_overlay(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f raw 'q,base' 4M; qemu-io -f raw -c 'write -P 5 1M 64k' 'q,base' >/dev/null;"
             "qemu-img create -q -f qcow -F raw -b 'q,base' q.qcow; qemu-io -f qcow -c 'write -P 6 2M 64k' q.qcow "
             ">/dev/null");
    g_autoptr(VpChain) chain = walk("q.qcow", PB_IMAGE_FORMAT_QCOW);
    assert_safe(chain, 2);
    const PbFinding *finding = find(chain, CODE(FORMAT_NOT_DECLARED));
    assert_non_null(finding);
    must_run("%s", finding->remedy);
    must_run("qemu-img convert -f qcow -O raw q.qcow expected; qemu-img compare -f raw -F qcow2 expected q.qcow.qcow2;"
             "qemu-io -r -f qcow2 -c 'read -P 5 1M 64k' -c 'read -P 6 2M 64k' q.qcow.qcow2");
    g_autoptr(VpChain) mended = walk("q.qcow.qcow2", UNDECLARED);
    assert_safe(mended, 1);
}

/* What nobody can prove has a remedy that asks. */
static void remedy_without_a_format(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f qcow2 r0 4M; qemu-img create -q -f qcow2 -F qcow2 -b r0 r1; qemu-img create -q -f "
             "qed -F "
             "qcow2 -b r1 r2");
    g_autoptr(VpChain) chain = walk("r2", PB_IMAGE_FORMAT_QED);
    assert_refused(chain, CODE(PROBE_REFUSED_BACKING_FILE), 1);
    const char *remedy = find(chain, CODE(PROBE_REFUSED_BACKING_FILE))->remedy;
    assert_non_null(strstr(remedy, "qemu-img convert --image-opts"));
    assert_non_null(strstr(remedy, "backing.driver=qcow2"));
    must_run("%s", remedy);
}

static void mixed_chain(void **state)
{
    (void)state;
    must_run("qemu-img create -q -f vdi m0 4M; qemu-img create -q -f qcow2 -F vdi -b m0 m1; qemu-img create -q -f vhdx "
             "m2 4M;"
             "qemu-img create -q -f qcow2 -F vhdx -b m2 m3; qemu-img create -q -f vmdk m4 4M; qemu-img create -q -f "
             "qcow2 -F "
             "vmdk -b m4 m5");
    static const struct {
        const char *name;
        PbImageFormat below;
    } cases[] = {{"m1", PB_IMAGE_FORMAT_VDI}, {"m3", PB_IMAGE_FORMAT_VHDX}, {"m5", PB_IMAGE_FORMAT_VMDK}};
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VpChain) chain = walk(cases[i].name, PB_IMAGE_FORMAT_QCOW2);
        assert_safe(chain, 2);
        assert_int_equal(chain->findings->len, 0);
        assert_int_equal(file_at(chain, 1)->layer->format, cases[i].below);
        assert_int_equal(file_at(chain, 1)->layer->virtual_size_bytes, 4 << 20);
    }
}

/* A base that names other files stays refused when an overlay declares what it is. */
static void base_that_names_files(void **state)
{
    (void)state;
    must_run(
        "qemu-img create -q -f vmdk -o subformat=monolithicFlat f0.vmdk 4M; qemu-img create -q -u -f qcow2 -F vmdk -b "
        "f0.vmdk f1 4M");
    g_autoptr(VpChain) chain = walk("f1", PB_IMAGE_FORMAT_QCOW2);
    assert_refused(chain, CODE(UNSUPPORTED_REFERENCE), 1);
    assert_int_equal(file_at(chain, 1)->fd, -1);
}

/* A guest writes the text of a vmdk that names a host's file into its raw disk; then a footer of a VHD that says that the disk is larger. */
static void what_a_guest_may_write(void **state)
{
    static const char descriptor[] = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
                                     "createType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/passwd\" 0\n";
    (void)state;
    must_run("qemu-img create -q -f raw g.raw 4M; qemu-img create -q -u -f qcow -b g.raw -F raw g.qcow 4M");
    int fd = open("g.raw", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, descriptor, sizeof(descriptor), 0), sizeof(descriptor));
    close(fd);
    g_autoptr(VpChain) undeclared = walk("g.raw", UNDECLARED);
    assert_refused(undeclared, CODE(PROBE_REFUSED_OTHER_FILE), 0);
    g_autoptr(VpChain) below = walk("g.qcow", PB_IMAGE_FORMAT_QCOW);
    assert_refused(below, CODE(PROBE_REFUSED_OTHER_FILE), 1);
    g_autoptr(VpChain) raw = walk("g.raw", PB_IMAGE_FORMAT_RAW);
    assert_safe(raw, 1);
    assert_int_equal(find(raw, CODE(FORMAT_MISMATCH))->severity, PB_SEVERITY_WARNING);
    assert_int_equal(file_at(raw, 0)->layer->format, PB_IMAGE_FORMAT_RAW);
    assert_int_equal(file_at(raw, 0)->layer->virtual_size_bytes, 4 << 20);
}

static void one_image(void **state)
{
    (void)state;
    static const struct {
        const char *make;
        PbImageFormat format;
        PbFindingCode code; /* UNSPECIFIED: none at all */
    } cases[] = {
        {"qemu-img create -q -f vdi i 4M", PB_IMAGE_FORMAT_VDI, CODE(UNSPECIFIED)},
        {"qemu-img create -q -f vmdk -o subformat=monolithicFlat i 4M", PB_IMAGE_FORMAT_VMDK,
         CODE(UNSUPPORTED_REFERENCE)},
        {"qemu-img create -q -f vhdx i 4M; truncate -s 1M i", PB_IMAGE_FORMAT_VHDX, CODE(TRUNCATED)},
        {"qemu-img create -q -f raw b 4M; qemu-img create -q -f qcow -b b -F raw i", PB_IMAGE_FORMAT_QCOW,
         CODE(FORMAT_NOT_DECLARED)},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GPtrArray) findings = g_ptr_array_new_with_free_func(vp_pb_free);
        PbImageLayer *layer = NULL;
        g_autofree char *path = path_of("i");
        must_run("%s", cases[i].make);
        assert_null(vp_image_probe(path, NULL, &layer, findings));
        assert_int_equal(layer->format, cases[i].format);
        gboolean found = cases[i].code == CODE(UNSPECIFIED) && findings->len == 0;
        for (guint f = 0; f < findings->len; f++) {
            const PbFinding *finding = g_ptr_array_index(findings, f);
            found = found || finding->code == cases[i].code;
        }
        assert_true(found);
        vp_pb_free(layer);
        must_run("rm -f i i-flat");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(remedy_of_a_qcow_overlay),
        cmocka_unit_test(remedy_without_a_format),
        cmocka_unit_test(mixed_chain),
        cmocka_unit_test(base_that_names_files),
        cmocka_unit_test(what_a_guest_may_write),
        cmocka_unit_test(one_image),
    };
    return cmocka_run_group_tests(tests, images_setup, images_teardown);
}
