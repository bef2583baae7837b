/* Devices and nodes of the host that a spec names, held against a sysfs that is made here: few hosts have a device to give away. */
#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pb.h"
#include "drivers/qemu/host_parts.h"
#include "tests/unit/drivers/bench.h"

#define ADDRESS "0000:3b:00.0"

static void make_folder(const char *root, const char *name)
{
    g_autofree char *path = g_build_filename(root, name, NULL);

    assert_int_equal(g_mkdir_with_parents(path, 0755), 0);
}

static void make_link(const char *root, const char *name, const char *target)
{
    g_autofree char *path = g_build_filename(root, "bus/pci/devices/" ADDRESS, name, NULL);

    unlink(path);
    assert_int_equal(symlink(target, path), 0);
}

static void expect_refusal(const PbDomainSpec *spec, const char *sysfs, const char *words)
{
    g_autoptr(VpError) error = vp_host_parts_check(spec, sysfs);

    check_error(error, VP_FAILED_PRECONDITION, "HOST_DEVICE");
    assert_non_null(strstr(error->message, words));
}

static void test_devices(void **state)
{
    g_autofree char *sysfs = g_dir_make_tmp("vp-sysfs-XXXXXX", NULL);
    vp_pb_auto PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);
    PbHostDevice *device = vp_pb_new(&pb_host_device__descriptor);
    const char *const argv[] = {"rm", "-r", sysfs, NULL};

    (void)state;
    vp_pb_set(&device->address, "0000:3B:00.0");
    vp_pb_append(&spec->n_host_devices, &spec->host_devices, device);
    expect_refusal(spec, sysfs, "there is no PCI device 0000:3B:00.0");
    make_folder(sysfs, "bus/pci/devices/" ADDRESS);
    expect_refusal(spec, sysfs, "IOMMU");
    make_link(sysfs, "iommu_group", "../../../kernel/iommu_groups/7");
    expect_refusal(spec, sysfs, "bound to no driver");
    make_link(sysfs, "driver", "../../../bus/pci/drivers/e1000e");
    expect_refusal(spec, sysfs, "bound to e1000e and not to vfio-pci; bind it: driverctl set-override " ADDRESS);
    make_link(sysfs, "driver", "../../../bus/pci/drivers/vfio-pci");
    assert_null(vp_host_parts_check(spec, sysfs));

    PbNumaNode *node = vp_pb_new(&pb_numa_node__descriptor);
    vp_pb_set(&node->host_nodes, "0-1");
    vp_pb_append(&spec->n_numa_nodes, &spec->numa_nodes, node);
    make_folder(sysfs, "devices/system/node/node0");
    expect_refusal(spec, sysfs, "no NUMA node 1");
    make_folder(sysfs, "devices/system/node/node1");
    assert_null(vp_host_parts_check(spec, sysfs));
    assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
