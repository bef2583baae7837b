/* The command line as a whole, for a domain with one of each; and the checks of a spec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/pb.h"
#include "bench.h"
#include "drivers/qemu/command_line.h"

/* An option and its value on a line. */
/* clang-format off */
static const char *const golden[] = {
    "/usr/bin/qemu-system-x86_64",
    "-nodefaults",
    "-no-user-config",
    "-S",
    "-name", "guest=guest,,1,process=qemu-4c1f5b6e-0",
    "-uuid", "4c1f5b6e-0000-4000-8000-000000000001",
    "-machine", "q35,accel=kvm",
    "-cpu", "host",
    "-m", "size=64M",
    "-smp", "cpus=3",
    "-display", "none",
    "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    "-msg", "timestamp=on",
    "-chardev", "socket,id=qmp,fd=3,server=on,wait=off",
    "-mon", "chardev=qmp,mode=control",
    "-device", "pvpanic",
    /* a slot each for vda and two interfaces, and two spare ones */
    "-device", "{\"driver\":\"pcie-root-port\",\"id\":\"slot1\",\"chassis\":1,\"bus\":\"pcie.0\",\"addr\":\"10.0\",\"multifunction\":true}",
    "-device", "{\"driver\":\"pcie-root-port\",\"id\":\"slot2\",\"chassis\":2,\"bus\":\"pcie.0\",\"addr\":\"10.1\",\"multifunction\":false}",
    "-device", "{\"driver\":\"pcie-root-port\",\"id\":\"slot3\",\"chassis\":3,\"bus\":\"pcie.0\",\"addr\":\"10.2\",\"multifunction\":false}",
    "-device", "{\"driver\":\"pcie-root-port\",\"id\":\"slot4\",\"chassis\":4,\"bus\":\"pcie.0\",\"addr\":\"10.3\",\"multifunction\":false}",
    "-device", "{\"driver\":\"pcie-root-port\",\"id\":\"slot5\",\"chassis\":5,\"bus\":\"pcie.0\",\"addr\":\"10.4\",\"multifunction\":false}",
    /* vda: an overlay with a data file, over a raw block device */
    "-add-fd", "fd=6,set=1,opaque=pci1-1-file",
    "-blockdev", "{\"driver\":\"host_device\",\"node-name\":\"pci1-1-file\",\"filename\":\"/dev/fdset/1\",\"read-only\":true"
                 ",\"auto-read-only\":true,\"discard\":\"unmap\"}",
    "-blockdev", "{\"driver\":\"raw\",\"node-name\":\"pci1-1\",\"file\":\"pci1-1-file\",\"read-only\":true,\"discard\":\"unmap\"}",
    "-add-fd", "fd=4,set=2,opaque=pci1-0-file",
    "-blockdev", "{\"driver\":\"file\",\"node-name\":\"pci1-0-file\",\"filename\":\"/dev/fdset/2\",\"read-only\":false,\"discard\":\"unmap\"}",
    "-add-fd", "fd=5,set=3,opaque=pci1-0-data",
    "-blockdev", "{\"driver\":\"file\",\"node-name\":\"pci1-0-data\",\"filename\":\"/dev/fdset/3\",\"read-only\":false,\"discard\":\"unmap\"}",
    "-blockdev", "{\"driver\":\"qcow2\",\"node-name\":\"pci1-0\",\"file\":\"pci1-0-file\",\"read-only\":false"
                 ",\"discard\":\"unmap\",\"backing\":\"pci1-1\",\"data-file\":\"pci1-0-data\"}",
    "-device", "{\"driver\":\"virtio-blk-pci\",\"bus\":\"slot1\",\"addr\":\"0.0\",\"id\":\"disk-vda\",\"drive\":\"pci1-0\",\"bootindex\":1}",
    /* sda: a read-only qcow2 on SCSI */
    "-add-fd", "fd=7,set=4,opaque=scsi1-0-file",
    "-blockdev", "{\"driver\":\"file\",\"node-name\":\"scsi1-0-file\",\"filename\":\"/dev/fdset/4\",\"read-only\":true"
                 ",\"auto-read-only\":true,\"discard\":\"unmap\"}",
    "-blockdev", "{\"driver\":\"qcow2\",\"node-name\":\"scsi1-0\",\"file\":\"scsi1-0-file\",\"read-only\":true"
                 ",\"discard\":\"unmap\",\"backing\":null}",
    "-device", "{\"driver\":\"virtio-scsi-pci\",\"id\":\"scsi0\",\"bus\":\"pcie.0\",\"addr\":\"4.0\"}",
    "-device", "{\"driver\":\"scsi-hd\",\"bus\":\"scsi0.0\",\"channel\":0,\"scsi-id\":0,\"lun\":0,\"id\":\"disk-sda\""
               ",\"drive\":\"scsi1-0\",\"bootindex\":2}",
    "-netdev", "user,id=net2",
    "-device", "{\"driver\":\"virtio-net-pci\",\"id\":\"nic2\",\"netdev\":\"net2\",\"romfile\":\"\",\"mac\":\"52:54:00:12:34:56\""
               ",\"bus\":\"slot2\",\"addr\":\"0.0\"}",
    "-netdev", "hubport,id=net3,hubid=3",
    "-device", "{\"driver\":\"e1000\",\"id\":\"nic3\",\"netdev\":\"net3\",\"romfile\":\"\",\"bus\":\"slot3\",\"addr\":\"0.0\"}",
    "-add-fd", "fd=21,set=5,opaque=serial0-log",
    "-chardev", "socket,id=serial0,fd=20,server=on,wait=off,logfile=/dev/fdset/5,logappend=on",
    "-serial", "chardev:serial0",
    "-device", "{\"driver\":\"virtio-balloon-pci\",\"id\":\"balloon0\",\"bus\":\"pcie.0\",\"addr\":\"5.0\",\"deflate-on-oom\":true}",
    NULL,
};
/* clang-format on */

static PbInterface *add_interface(PbDomain *domain, PbInterfaceType type, PbInterfaceModel model, const char *mac)
{
    PbInterface *interface = vp_pb_new(&pb_interface__descriptor);

    interface->type = type;
    interface->model = model;
    vp_pb_set(&interface->mac, mac);
    vp_pb_append(&domain->spec->n_interfaces, &domain->spec->interfaces, interface);
    return interface;
}

static void test_golden(void **state)
{
    const VpLayerFds vda[] = {
        {.format = PB_IMAGE_FORMAT_QCOW2, .fd = 4, .data_fd = 5},
        {.format = PB_IMAGE_FORMAT_RAW, .fd = 6, .data_fd = -1, .block_device = TRUE},
    };
    const VpLayerFds sda[] = {{.format = PB_IMAGE_FORMAT_QCOW2, .fd = 7, .data_fd = -1}};
    const VpDiskFds disks[] = {{vda, 2, 0}, {sda, 1, 0}};
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_auto(GStrv) argv = NULL;

    (void)state;
    domain->spec->vcpus = 3;
    domain->spec->hotplug_slots = 2;
    bench_disk(domain, "vda", "/images/a", PB_IMAGE_FORMAT_QCOW2);
    bench_disk(domain, "sda", "/images/b", PB_IMAGE_FORMAT_QCOW2);
    domain->spec->disks[1]->bus = PB_DISK_BUS_SCSI;
    domain->spec->disks[1]->read_only = TRUE;
    add_interface(domain, PB_INTERFACE_TYPE_USER, PB_INTERFACE_MODEL_VIRTIO, "52:54:00:12:34:56");
    add_interface(domain, PB_INTERFACE_TYPE_NONE, PB_INTERFACE_MODEL_E1000, "");
    vp_spec_complete_qemu(domain->spec);
    const VpPortFds serial = {20, 21};
    const VpCommandLine line = {
        .binary = "/usr/bin/qemu-system-x86_64",
        .uid = domain->uid,
        .name = "guest,1",
        .spec = domain->spec,
        .architecture = "x86_64",
        .accelerator = PB_ACCELERATOR_KVM,
        .cpu = "host",
        .qmp_fd = 3,
        .disks = disks,
        .serial_ports = &serial,
    };

    assert_null(vp_command_line(&line, &argv));
    for (gsize i = 0; golden[i] || argv[i]; i++) {
        assert_non_null(argv[i]);
        assert_non_null(golden[i]);
        assert_string_equal(argv[i], golden[i]);
    }
}

/* The arguments of a domain with one disk of these layers. */
static VpError *with_layers(const VpLayerFds *layers, gsize n, char ***argv)
{
    const VpDiskFds disks[] = {{layers, n, 0}};
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    VpCommandLine line = {
        .binary = "qemu",
        .uid = domain->uid,
        .name = domain->name,
        .spec = domain->spec,
        .architecture = "aarch64",
        .cpu = "max",
        .qmp_fd = 3,
        .disks = disks,
    };

    const VpPortFds serial = {20, 21};

    bench_disk(domain, "vda", "/images/a", PB_IMAGE_FORMAT_UNSPECIFIED);
    vp_spec_complete_qemu(domain->spec);
    line.serial_ports = &serial;
    line.accelerator = PB_ACCELERATOR_TCG;
    return vp_command_line(&line, argv);
}

/* No layer is left for QEMU to guess at, and no chain is cut. */
static void test_formats_that_are_refused(void **state)
{
    const VpLayerFds unknown[] = {{.format = PB_IMAGE_FORMAT_UNSPECIFIED, .fd = 4, .data_fd = -1}};
    const VpLayerFds folder[] = {{.format = PB_IMAGE_FORMAT_DIRECTORY, .fd = 4, .data_fd = -1}};
    const VpLayerFds vdi_over[] = {
        {.format = PB_IMAGE_FORMAT_VDI, .fd = 4, .data_fd = -1},
        {.format = PB_IMAGE_FORMAT_VDI, .fd = 5, .data_fd = -1},
    };
    const VpLayerFds raw_over[] = {
        {.format = PB_IMAGE_FORMAT_RAW, .fd = 4, .data_fd = -1},
        {.format = PB_IMAGE_FORMAT_RAW, .fd = 5, .data_fd = -1},
    };
    char **argv = NULL;

    (void)state;
    VpError *errors[] = {with_layers(unknown, 1, &argv), with_layers(folder, 1, &argv), with_layers(raw_over, 2, &argv),
                         with_layers(vdi_over, 2, &argv)};
    for (gsize i = 0; i < G_N_ELEMENTS(errors); i++) {
        check_error(errors[i], VP_FAILED_PRECONDITION, "UNSUPPORTED_FORMAT");
        assert_string_equal(vp_error_get(errors[i], "disk"), "vda");
        vp_error_free(errors[i]);
    }
    assert_null(argv);
}

/* A remote base is told by its parts, or is a connection. */
static void test_remote_base(void **state)
{
    VpNbd by_host = {.host = (char *)"::1", .port = (char *)"10809", .name = (char *)"a,b"};
    VpNbd by_socket = {.socket = (char *)"/run/s", .name = (char *)""};
    const VpLayerFds layers[][2] = {
        {{.format = PB_IMAGE_FORMAT_QCOW2, .fd = 4, .data_fd = -1},
         {.format = PB_IMAGE_FORMAT_RAW, .fd = -1, .data_fd = -1, .nbd = &by_host}},
        {{.format = PB_IMAGE_FORMAT_QCOW2, .fd = 4, .data_fd = -1},
         {.format = PB_IMAGE_FORMAT_RAW, .fd = -1, .data_fd = -1, .nbd = &by_socket}},
        {{.format = PB_IMAGE_FORMAT_QCOW2, .fd = 4, .data_fd = -1},
         {.format = PB_IMAGE_FORMAT_RAW, .fd = 5, .data_fd = -1, .nbd = &by_socket}},
    };
    static const char *const nodes[] = {
        "{\"driver\":\"nbd\",\"node-name\":\"pci1-1-file\",\"server\":{\"type\":\"inet\",\"host\":\"::1\",\"port\":"
        "\"10809\"},"
        "\"export\":\"a,b\",\"read-only\":true}",
        "{\"driver\":\"nbd\",\"node-name\":\"pci1-1-file\",\"server\":{\"type\":\"unix\",\"path\":\"/run/s\"},"
        "\"export\":\"\",\"read-only\":true}",
        "{\"driver\":\"nbd\",\"node-name\":\"pci1-1-file\",\"server\":{\"type\":\"fd\",\"str\":\"5\"},"
        "\"export\":\"\",\"read-only\":true}",
    };

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(nodes); i++) {
        g_auto(GStrv) argv = NULL;

        assert_null(with_layers(layers[i], 2, &argv));
        assert_true(g_strv_contains((const char *const *)argv, nodes[i]));
        assert_true(g_strv_contains((const char *const *)argv, "fd=4,set=1,opaque=pci1-0-file"));
    }
}

static void test_other_architecture(void **state)
{
    const VpLayerFds raw[] = {{.format = PB_IMAGE_FORMAT_RAW, .fd = 4, .data_fd = -1}};
    g_auto(GStrv) argv = NULL;

    (void)state;
    assert_null(with_layers(raw, 1, &argv));
    assert_true(g_strv_contains((const char *const *)argv, "virt,accel=tcg"));
    assert_false(g_strv_contains((const char *const *)argv, "pvpanic"));
}

/* ---- specs ---- */

static void expect_violation(const PbDomain *domain, const char *field)
{
    g_autoptr(VpError) error = vp_spec_validate(domain->spec);

    check_error(error, VP_INVALID_ARGUMENT, "INVALID_SPEC");
    assert_int_equal(error->violations->len, 1);
    assert_string_equal(g_array_index(error->violations, VpErrorPair, 0).key, field);
}

static void test_validate(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    PbDomainSpec *spec = domain->spec;

    (void)state;
    bench_disk(domain, "vda", "/a", PB_IMAGE_FORMAT_UNSPECIFIED);
    bench_disk(domain, "vdb", "/b", PB_IMAGE_FORMAT_RAW);
    spec->disks[0]->slot = 1;
    spec->disks[1]->slot = 2;
    PbInterface *first =
        add_interface(domain, PB_INTERFACE_TYPE_UNSPECIFIED, PB_INTERFACE_MODEL_UNSPECIFIED, "52:54:00:12:34:aB");
    PbInterface *second = add_interface(domain, PB_INTERFACE_TYPE_NONE, PB_INTERFACE_MODEL_E1000, "");
    assert_null(vp_spec_validate(spec));

    spec->memory_bytes++;
    expect_violation(domain, "domain.spec.memory_bytes");
    spec->memory_bytes--;
    spec->accelerator = (PbAccelerator)99;
    expect_violation(domain, "domain.spec.accelerator");
    spec->accelerator = PB_ACCELERATOR_TCG;
    vp_pb_set(&spec->disks[1]->target, "vda");
    expect_violation(domain, "domain.spec.disks[1].target");
    vp_pb_set(&spec->disks[1]->target, "");
    expect_violation(domain, "domain.spec.disks[1].target");
    vp_pb_set(&spec->disks[1]->target, "vdb");
    vp_pb_set(&spec->disks[1]->path, "");
    expect_violation(domain, "domain.spec.disks[1].path");
    vp_pb_set(&spec->disks[1]->path, "/a");
    spec->disks[0]->read_only = TRUE;
    expect_violation(domain, "domain.spec.disks[1].path");
    spec->disks[1]->read_only = TRUE;
    assert_null(vp_spec_validate(spec));
    spec->disks[1]->bus = PB_DISK_BUS_SATA;
    expect_violation(domain, "domain.spec.disks[1].read_only");
    spec->disks[1]->bus = (PbDiskBus)77;
    expect_violation(domain, "domain.spec.disks[1].bus");
    spec->disks[1]->bus = PB_DISK_BUS_NVME;
    spec->disks[1]->format = PB_IMAGE_FORMAT_DIRECTORY;
    expect_violation(domain, "domain.spec.disks[1].format");
    spec->disks[1]->format = PB_IMAGE_FORMAT_QCOW2;

    static const char *const bad[] = {"52:54:00:12:34", "52:54:00:12:34:5g", "52-54-00-12-34-56", "53:54:00:12:34:56",
                                      "00:00:00:00:00:00"};
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        vp_pb_set(&first->mac, bad[i]);
        expect_violation(domain, "domain.spec.interfaces[0].mac");
    }
    vp_pb_set(&first->mac, "52:54:00:12:34:ab");
    vp_pb_set(&second->mac, "52:54:00:12:34:AB");
    expect_violation(domain, "domain.spec.interfaces[1].mac");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),      cmocka_unit_test(test_formats_that_are_refused),
        cmocka_unit_test(test_remote_base), cmocka_unit_test(test_other_architecture),
        cmocka_unit_test(test_validate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
