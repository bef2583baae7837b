/* The arguments of each kind of device, the places that devices get, and what firmware and a QEMU are found to offer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <glib/gstdio.h>

#include "base/pb.h"
#include "bench.h"
#include "drivers/qemu/command_line.h"
#include "drivers/qemu/firmware.h"
#include "drivers/qemu/known.h"
#include "drivers/qemu/layout.h"
#include "drivers/qemu/threshold.h"

#define MIB (1024ULL * 1024)

/* The arguments of a domain whose disks have one raw layer each; descriptors are numbered by their kind. One string: " -option value ..." */
static char *arguments_of(PbDomain *domain)
{
    g_autofree VpDiskFds *disks = g_new0(VpDiskFds, domain->spec->n_disks + 1);
    const VpLayerFds layer = {.format = PB_IMAGE_FORMAT_RAW, .fd = 10, .data_fd = -1};
    const VpPortFds serial[] = {{20, -1}, {21, -1}};
    const int folders[] = {37};
    const VpNicFds nics[] = {
        {.n_queues = 1, .tap_fds = {31}, .vhost_fds = {-1}, .stream_fd = -1},
        {.n_queues = 2, .tap_fds = {32, 33}, .vhost_fds = {34, 35}, .stream_fd = -1},
        {.stream_fd = 36},
    };
    g_auto(GStrv) argv = NULL;

    vp_spec_complete_qemu(domain->spec);
    g_autoptr(VpError) wrong = vp_spec_validate(domain->spec);
    assert_null(wrong);
    for (size_t i = 0; i < domain->spec->n_disks; i++)
        disks[i] = (VpDiskFds){.layers = &layer, .n_layers = domain->spec->disks[i]->path[0] ? 1 : 0};
    const VpCommandLine line = {
        .binary = "qemu",
        .uid = domain->uid,
        .name = domain->name,
        .spec = domain->spec,
        .architecture = "x86_64",
        .accelerator = PB_ACCELERATOR_TCG,
        .cpu = "max",
        .qmp_fd = 3,
        .disks = disks,
        .nics = nics,
        .serial_ports = serial,
        .agent = {40, -1},
        .kernel_fd = 50,
        .initrd_fd = 51,
        .firmware = {60, 61, TRUE},
        .screen_path = "/screen",
        .tpm_fd = 80,
        .folder_fds = folders,
        .vsock_fd = 38,
    };
    assert_null(vp_command_line(&line, &argv));
    g_autofree char *joined = g_strjoinv(" ", argv);
    return g_strconcat(joined, " ", NULL);
}

/* Each of the words, up to NULL, is there as it stands. */
static void expect_all(PbDomain *domain, const char *const *words)
{
    g_autofree char *arguments = arguments_of(domain);

    for (; *words; words++) {
        if (!strstr(arguments, *words))
            fail_msg("\"%s\" is not in: %s", *words, arguments);
    }
}

#define EXPECT(domain, ...) expect_all((domain), (const char *const[]){__VA_ARGS__, NULL})

static PbDisk *add_disk(PbDomain *domain, const char *target, PbDiskBus bus)
{
    g_autofree char *path = g_strconcat("/images/", target, NULL);

    bench_disk(domain, target, path, PB_IMAGE_FORMAT_RAW);
    domain->spec->disks[domain->spec->n_disks - 1]->bus = bus;
    return domain->spec->disks[domain->spec->n_disks - 1];
}

static void test_disks(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);

    (void)state;
    domain->spec->iothreads = 2;
    PbDisk *disk = add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    disk->cache = PB_DISK_CACHE_NONE;
    disk->io = PB_DISK_IO_NATIVE;
    disk->discard = PB_DISK_DISCARD_IGNORE;
    disk->iothread = 2;
    vp_pb_set(&disk->serial, "A 1");
    disk = add_disk(domain, "nvme0", PB_DISK_BUS_NVME);
    disk->io = PB_DISK_IO_IO_URING;
    disk->cache = PB_DISK_CACHE_DIRECTSYNC;
    add_disk(domain, "sda", PB_DISK_BUS_SATA);
    disk = add_disk(domain, "sr0", PB_DISK_BUS_SATA);
    disk->device = PB_DISK_DEVICE_CDROM;
    vp_pb_set(&disk->path, "");
    disk->boot_index = 1;
    add_disk(domain, "sdb", PB_DISK_BUS_USB)->slot = 3;
    disk = add_disk(domain, "sr1", PB_DISK_BUS_SCSI);
    disk->device = PB_DISK_DEVICE_CDROM;
    disk->iothread = 1;
    disk->slot = 66;
    EXPECT(domain, " -object {\"qom-type\":\"iothread\",\"id\":\"io2\"} ",
           "\"filename\":\"/dev/fdset/"
           "1\",\"read-only\":false,\"discard\":\"ignore\",\"cache\":{\"direct\":true,\"no-flush\":"
           "false},\"aio\":\"native\"}",
           "{\"driver\":\"virtio-blk-pci\",\"bus\":\"slot1\",\"addr\":\"0.0\",\"iothread\":\"io2\",\"id\":\"disk-vda\","
           "\"drive\":"
           "\"pci1-0\",\"serial\":\"A 1\"}",
           "\"aio\":\"io_uring\"}",
           "{\"driver\":\"nvme\",\"bus\":\"slot2\",\"addr\":\"0.0\",\"id\":\"disk-nvme0\",\"drive\":\"pci2-0\",\"write-"
           "cache\":"
           "\"off\",\"serial\":\"4c1f5b6e-nvme0\"}",
           "{\"driver\":\"ide-hd\",\"bus\":\"ide.0\",\"id\":\"disk-sda\",\"drive\":\"sata1-0\"}",
           "{\"driver\":\"ide-cd\",\"bus\":\"ide.1\",\"id\":\"disk-sr0\",\"bootindex\":1}",
           "{\"driver\":\"qemu-xhci\",\"id\":\"usb\",\"p2\":15,\"p3\":15,\"bus\":\"pcie.0\",\"addr\":\"7.0\"}",
           "{\"driver\":\"usb-storage\",\"bus\":\"usb.0\",\"port\":\"11\",\"id\":\"disk-sdb\",\"drive\":\"usb3-0\"}",
           "{\"driver\":\"virtio-scsi-pci\",\"id\":\"scsi0\",\"bus\":\"pcie.0\",\"addr\":\"4.0\",\"iothread\":\"io1\"}",
           "\"node-name\":\"scsi66-0\",\"file\":\"scsi66-0-file\",\"read-only\":true",
           "{\"driver\":\"scsi-cd\",\"bus\":\"scsi0.0\",\"channel\":0,\"scsi-id\":1,\"lun\":1,\"id\":\"disk-sr1\"");
}

/* The old machine has no ports: devices sit in the slots themselves, and SATA needs a controller. */
static void test_pc(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);

    (void)state;
    vp_pb_set(&domain->spec->machine, "pc-i440fx-7.2");
    add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "sda", PB_DISK_BUS_SATA);
    g_autofree char *arguments = arguments_of(domain);
    assert_null(strstr(arguments, "pcie"));
    EXPECT(domain, "{\"driver\":\"virtio-blk-pci\",\"bus\":\"pci.0\",\"addr\":\"10.0\"",
           "{\"driver\":\"ahci\",\"id\":\"sata0\",\"bus\":\"pci.0\",\"addr\":\"9.0\"}",
           "{\"driver\":\"ide-hd\",\"bus\":\"sata0.0\"");
}

static void test_machine(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    PbDomainSpec *spec = domain->spec;

    (void)state;
    spec->vcpus = 2;
    spec->cpu = vp_pb_new(&pb_cpu__descriptor);
    vp_pb_set(&spec->cpu->model, "EPYC");
    spec->cpu->cores = 2;
    spec->cpu->threads = 2;
    spec->cpu->max_vcpus = 8;
    PbCpuFeature *feature = vp_pb_new(&pb_cpu_feature__descriptor);
    vp_pb_set(&feature->name, "aes");
    feature->disabled = TRUE;
    vp_pb_append(&spec->cpu->n_features, &spec->cpu->features, feature);
    spec->memory = vp_pb_new(&pb_memory__descriptor);
    spec->memory->max_bytes = 256 * MIB;
    spec->memory->slots = 2;
    spec->memory->hugepages = TRUE;
    spec->memory->no_balloon = TRUE;
    spec->clock = vp_pb_new(&pb_clock__descriptor);
    spec->clock->zone = PB_CLOCK_ZONE_LOCALTIME;
    spec->firmware = vp_pb_new(&pb_firmware__descriptor);
    spec->firmware->type = PB_FIRMWARE_TYPE_UEFI;
    spec->firmware->secure_boot = TRUE;
    spec->kernel = vp_pb_new(&pb_kernel_boot__descriptor);
    vp_pb_set(&spec->kernel->kernel_path, "/boot/vmlinuz");
    vp_pb_set(&spec->kernel->initrd_path, "/boot/initrd");
    vp_pb_set(&spec->kernel->command_line, "quiet");
    vp_pb_append(&spec->n_arguments, &spec->arguments, g_strdup("-no-hpet"));
    EXPECT(
        domain, " -machine q35,accel=tcg,pflash0=firmware,pflash1=variables,smm=on,memory-backend=ram ",
        " -cpu EPYC,aes=off ", " -m size=64M,slots=2,maxmem=256M ",
        " -object "
        "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"ram\",\"size\":67108864,\"hugetlb\":true,\"prealloc\":true} ",
        " -smp cpus=2,maxcpus=8,sockets=2,cores=2,threads=2 ", " -rtc base=localtime ",
        " -global driver=cfi.pflash01,property=secure,value=on ", " -add-fd fd=60,set=1,opaque=firmware-file ",
        "{\"driver\":\"raw\",\"node-name\":\"variables\",\"file\":\"variables-file\",\"read-only\":false}",
        " -kernel /dev/fd/50 -initrd /dev/fd/51 -append quiet ", " -no-hpet ");
    g_autofree char *arguments = arguments_of(domain);
    assert_null(strstr(arguments, "virtio-balloon"));
}

static void test_devices(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    PbDomainSpec *spec = domain->spec;

    (void)state;
    PbSerialPort *port = vp_pb_new(&pb_serial_port__descriptor);
    vp_pb_append(&spec->n_serial_ports, &spec->serial_ports, port);
    port = vp_pb_new(&pb_serial_port__descriptor);
    port->model = PB_SERIAL_PORT_MODEL_VIRTIO;
    vp_pb_append(&spec->n_serial_ports, &spec->serial_ports, port);
    PbInterface *interface = vp_pb_new(&pb_interface__descriptor);
    interface->type = PB_INTERFACE_TYPE_BRIDGE;
    interface->boot_index = 2;
    vp_pb_set(&interface->bridge, "br0");
    vp_pb_append(&spec->n_interfaces, &spec->interfaces, interface);
    spec->guest_agent = TRUE;
    spec->n_graphics = 2;
    spec->graphics = g_new0(PbGraphicsType, 2);
    spec->graphics[0] = PB_GRAPHICS_TYPE_VNC;
    spec->graphics[1] = PB_GRAPHICS_TYPE_SPICE;
    spec->n_usb_devices = 1;
    spec->usb_devices = g_new0(PbUsbDevice, 1);
    spec->usb_devices[0] = PB_USB_DEVICE_TABLET;
    spec->tpm = PB_TPM_MODEL_CRB;
    spec->rng = vp_pb_new(&pb_rng__descriptor);
    spec->rng->bytes_per_second = 1000;
    spec->watchdog = vp_pb_new(&pb_watchdog__descriptor);
    spec->watchdog->action = PB_WATCHDOG_ACTION_NMI;
    interface = vp_pb_new(&pb_interface__descriptor);
    interface->type = PB_INTERFACE_TYPE_BRIDGE;
    interface->queues = 2;
    vp_pb_set(&interface->bridge, "br0");
    vp_pb_append(&spec->n_interfaces, &spec->interfaces, interface);
    interface = vp_pb_new(&pb_interface__descriptor);
    interface->type = PB_INTERFACE_TYPE_PASST;
    vp_pb_append(&spec->n_interfaces, &spec->interfaces, interface);
    EXPECT(domain, " -netdev tap,id=net1,fd=31 ", " -netdev tap,id=net2,fds=32:33,vhost=on,vhostfds=34:35 ",
           "\"netdev\":\"net2\",\"mq\":true,\"vectors\":6,",
           " -netdev stream,id=net3,server=off,addr.type=fd,addr.str=36 ",
           "{\"driver\":\"virtio-net-pci\",\"id\":\"nic1\",\"netdev\":\"net1\",\"bootindex\":2,\"bus\":\"slot1\","
           "\"addr\":\"0.0\"}",
           " -chardev socket,id=serial0,fd=20,server=on,wait=off -serial chardev:serial0 ",
           "{\"driver\":\"virtio-serial-pci\",\"id\":\"vserial\",\"bus\":\"pcie.0\",\"addr\":\"3.0\"}",
           "{\"driver\":\"virtconsole\",\"bus\":\"vserial.0\",\"chardev\":\"serial1\"}",
           " -chardev socket,id=agent,fd=40,server=on,wait=off ",
           "{\"driver\":\"virtserialport\",\"id\":\"agent\",\"bus\":\"vserial.0\",\"chardev\":\"agent\",\"name\":\"org."
           "qemu.guest_agent."
           "0\"}",
           " -vnc unix:/screen/vnc.sock ", " -spice unix=on,addr=/screen/spice.sock,disable-ticketing=on ",
           "{\"driver\":\"VGA\",\"id\":\"video0\",\"bus\":\"pcie.0\",\"addr\":\"2.0\"}",
           "{\"driver\":\"usb-tablet\",\"id\":\"usb0\",\"bus\":\"usb.0\",\"port\":\"1\"}",
           " -chardev socket,id=tpm,fd=80 -tpmdev emulator,id=tpm0,chardev=tpm ",
           "{\"driver\":\"tpm-crb\",\"tpmdev\":\"tpm0\"}",
           "{\"driver\":\"virtio-rng-pci\",\"id\":\"rng0\",\"rng\":\"entropy\",\"bus\":\"pcie.0\",\"addr\":\"6.0\","
           "\"max-bytes\":"
           "1000,\"period\":1000}",
           "{\"driver\":\"i6300esb\",\"id\":\"watchdog0\",\"bus\":\"pcie.0\",\"addr\":\"8.0\"}",
           " -action watchdog=inject-nmi ");
}

static PbNumaNode *add_node(PbDomainSpec *spec, const char *cpus, guint64 mib)
{
    PbNumaNode *node = vp_pb_new(&pb_numa_node__descriptor);

    vp_pb_set(&node->cpus, cpus);
    node->memory_bytes = mib << 20;
    vp_pb_append(&spec->n_numa_nodes, &spec->numa_nodes, node);
    return node;
}

/* What a guest has of its host, and the nodes that it sees. */
static void test_host_parts(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    PbDomainSpec *spec = domain->spec;

    (void)state;
    PbSharedFolder *folder = vp_pb_new(&pb_shared_folder__descriptor);
    vp_pb_set(&folder->tag, "data");
    vp_pb_set(&folder->path, "/srv");
    vp_pb_append(&spec->n_shared_folders, &spec->shared_folders, folder);
    spec->vsock = vp_pb_new(&pb_vsock__descriptor);
    spec->vsock->cid = 4000000000;
    PbHostDevice *host = vp_pb_new(&pb_host_device__descriptor);
    vp_pb_set(&host->address, "0000:3b:00.0");
    host->boot_index = 1;
    host->no_rom = TRUE;
    vp_pb_append(&spec->n_host_devices, &spec->host_devices, host);
    spec->vcpus = 4;
    spec->memory_bytes = 192 << 20;
    EXPECT(domain, ",memory-backend=ram ",
           "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"ram\",\"size\":201326592,\"share\":true}",
           " -chardev socket,id=fs1,fd=37 ",
           "{\"driver\":\"vhost-user-fs-pci\",\"id\":\"fs1\",\"chardev\":\"fs1\",\"tag\":\"data\",\"queue-size\":1024,"
           "\"bus\":\"slot1\",\"addr\":\"0.0\"}",
           "{\"driver\":\"vhost-vsock-pci\",\"id\":\"vsock0\",\"guest-cid\":4000000000,\"vhostfd\":\"38\",\"bus\":"
           "\"slot3\",\"addr\":\"0.0\"}",
           "{\"driver\":\"vfio-pci\",\"id\":\"host2\",\"host\":\"0000:3b:00.0\",\"bus\":\"slot2\",\"addr\":\"0.0\","
           "\"bootindex\":1,\"rombar\":0}");

    PbNumaNode *first = add_node(spec, "0,2-3", 128);
    vp_pb_set(&first->host_nodes, "0-1,3");
    first->policy = PB_NUMA_POLICY_INTERLEAVE;
    first->n_distances = 2;
    first->distances = g_new0(guint32, 2);
    first->distances[0] = 10;
    first->distances[1] = 21;
    add_node(spec, "1", 64);
    spec->memory = vp_pb_new(&pb_memory__descriptor);
    spec->memory->hugepages = TRUE;
    spec->memory->hugepage_bytes = 2 << 20;
    EXPECT(domain,
           "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"ram-node0\",\"size\":134217728,\"hugetlb\":true,"
           "\"prealloc\":true,\"hugetlbsize\":2097152,\"share\":true,\"host-nodes\":[0,1,3],\"policy\":\"interleave\"}",
           " -numa node,nodeid=0,memdev=ram-node0,cpus=0,cpus=2-3 ", " -numa node,nodeid=1,memdev=ram-node1,cpus=1 ",
           " -numa dist,src=0,dst=1,val=21 ");
    g_autofree char *arguments = arguments_of(domain);
    assert_null(strstr(arguments, "memory-backend=ram"));
}

static void test_before_run(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);

    (void)state;
    PbDisk *disk = add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    disk->throttle = vp_pb_new(&pb_throttle__descriptor);
    disk->throttle->read_bytes_per_second = 5;
    vp_pb_set(&disk->throttle->group, "g");
    disk = add_disk(domain, "sda", PB_DISK_BUS_SATA);
    disk->throttle = vp_pb_new(&pb_throttle__descriptor);
    disk->throttle->total_requests_per_second = 7;
    PbInterface *interface = vp_pb_new(&pb_interface__descriptor);
    interface->type = PB_INTERFACE_TYPE_NONE;
    vp_pb_append(&domain->spec->n_interfaces, &domain->spec->interfaces, interface);
    vp_spec_complete_qemu(domain->spec);
    json_t *commands = vp_commands_before_run(domain->spec);
    char *text = json_dumps(commands, JSON_COMPACT | JSON_PRESERVE_ORDER);
    assert_string_equal(text,
                        "[{\"execute\":\"set_link\",\"arguments\":{\"name\":\"nic2\",\"up\":false}},"
                        "{\"execute\":\"block_set_io_throttle\",\"arguments\":{\"id\":\"/machine/peripheral/"
                        "disk-vda/virtio-backend\",\"bps\":0,"
                        "\"bps_rd\":5,\"bps_wr\":0,\"iops\":0,\"iops_rd\":0,\"iops_wr\":0,\"group\":\"g\"}},"
                        "{\"execute\":\"block_set_io_throttle\",\"arguments\":{\"id\":\"disk-sda\",\"bps\":0,\"bps_"
                        "rd\":0,\"bps_wr\":0,\"iops\":7,"
                        "\"iops_rd\":0,\"iops_wr\":0}}]");
    free(text);
    json_decref(commands);
}

/* Only where QEMU has another mark; an external data file is what the guest writes to. */
static void test_thresholds(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);

    (void)state;
    add_disk(domain, "vda", PB_DISK_BUS_VIRTIO)->write_threshold_bytes = MIB;
    add_disk(domain, "sda", PB_DISK_BUS_SCSI)->write_threshold_bytes = 7;
    add_disk(domain, "vdb", PB_DISK_BUS_VIRTIO)->write_threshold_bytes = 8;
    add_disk(domain, "vdc", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "vdd", PB_DISK_BUS_VIRTIO);
    vp_spec_complete_qemu(domain->spec);
    json_t *nodes = json_loads("[{\"node-name\":\"pci1-0\"},{\"node-name\":\"pci1-0-file\",\"write_threshold\":0},"
                               "{\"node-name\":\"scsi1-0-file\"},{\"node-name\":\"scsi1-0-data\"},"
                               "{\"node-name\":\"pci2-0-file\",\"write_threshold\":8},"
                               "{\"node-name\":\"pci3-0-file\",\"write_threshold\":0},"
                               "{\"node-name\":\"pci4-0-file\",\"write_threshold\":9}]",
                               0, NULL);
    json_t *commands = vp_threshold_commands(domain->spec, nodes);
    char *text = json_dumps(commands, JSON_COMPACT | JSON_PRESERVE_ORDER);
    assert_string_equal(text,
                        "[{\"execute\":\"block-set-write-threshold\",\"arguments\":{\"node-name\":\"pci1-0-file\","
                        "\"write-threshold\":1048576}},"
                        "{\"execute\":\"block-set-write-threshold\",\"arguments\":{\"node-name\":\"scsi1-0-data\","
                        "\"write-threshold\":7}},"
                        "{\"execute\":\"block-set-write-threshold\",\"arguments\":{\"node-name\":\"pci4-0-file\","
                        "\"write-threshold\":0}}]");
    free(text);
    json_decref(commands);
    /* Of one disk alone. */
    commands = vp_threshold_commands_of(domain->spec->disks[1], nodes);
    assert_int_equal(json_array_size(commands), 1);
    json_decref(commands);
    commands = vp_threshold_commands_of(domain->spec->disks[2], nodes);
    assert_int_equal(json_array_size(commands), 0);
    json_decref(commands);
    json_decref(nodes);
}

/* Slots that are given stay; the others get the first free ones, on each bus of its own. */
static void test_slots(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    PbDomainSpec *spec = domain->spec;

    (void)state;
    add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "vdb", PB_DISK_BUS_VIRTIO)->slot = 1;
    add_disk(domain, "sda", PB_DISK_BUS_SCSI);
    add_disk(domain, "nvme0", PB_DISK_BUS_NVME);
    PbInterface *interface = vp_pb_new(&pb_interface__descriptor);
    interface->slot = 2;
    vp_pb_append(&spec->n_interfaces, &spec->interfaces, interface);
    vp_layout_complete(spec);
    assert_int_equal(spec->disks[0]->slot, 3);
    assert_int_equal(spec->disks[1]->slot, 1);
    assert_int_equal(spec->disks[2]->slot, 1);
    assert_int_equal(spec->disks[3]->slot, 4);
    assert_int_equal(interface->slot, 2);
}

/* ---- firmware ---- */

static void write_firmware(const char *dir, const char *name, const char *features, const char *code)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *text = g_strdup_printf("{\"interface-types\":[\"uefi\"],\"mapping\":{\"device\":\"flash\","
                                            "\"executable\":{\"filename\":\"%s\",\"format\":"
                                            "\"raw\"},\"nvram-template\":{\"filename\":\"%s\",\"format\":\"raw\"}},"
                                            "\"targets\":[{\"architecture\":\"x86_64\","
                                            "\"machines\":[\"pc-q35-*\"]}],\"features\":[%s]}",
                                            code, path, features);

    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void expect_firmware(const char *dir, const char *machine, gboolean secure_boot, const char *code)
{
    const char *const folders[] = {"/nonexistent", dir, NULL};
    const VpFirmwareWish wish = {.architecture = "x86_64", .machine = machine, .secure_boot = secure_boot};
    VpFirmware firmware = {0};
    g_autoptr(VpError) error = vp_firmware_find_in(folders, &wish, &firmware);

    if (code) {
        assert_null(error);
        assert_string_equal(firmware.code_path, code);
        assert_int_equal(firmware.secure, secure_boot);
    } else {
        check_error(error, VP_FAILED_PRECONDITION, "UNSUPPORTED");
    }
    vp_firmware_clear(&firmware);
}

static void test_firmware(void **state)
{
    g_autofree char *dir = g_dir_make_tmp("vp-firmware-XXXXXX", NULL);
    g_autofree char *bad = g_build_filename(dir, "00-bad.json", NULL);

    (void)state;
    expect_firmware(dir, "pc-q35-7.2", FALSE, NULL);
    assert_true(g_file_set_contents(bad, "{\"interface-types\":7,\"targets\":[[]],\"mapping\":", -1, NULL));
    write_firmware(dir, "10-gone.json", "", "/nonexistent/code.fd");
    write_firmware(dir, "40-keys.json", "\"secure-boot\",\"enrolled-keys\",\"requires-smm\"", "/bin/ls");
    write_firmware(dir, "50-smm.json", "\"secure-boot\",\"requires-smm\"", "/bin/cat");
    write_firmware(dir, "60-plain.json", "\"acpi-s3\"", "/bin/sh");
    expect_firmware(dir, "pc-q35-7.2", FALSE, "/bin/sh");
    expect_firmware(dir, "pc-q35-7.2", TRUE, "/bin/ls");
    expect_firmware(dir, "pc-i440fx-7.2", FALSE, NULL);
    static const char *const names[] = {"00-bad.json", "10-gone.json", "40-keys.json", "50-smm.json", "60-plain.json"};
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(dir, names[i], NULL);

        assert_int_equal(g_unlink(path), 0);
    }
    assert_int_equal(g_rmdir(dir), 0);
}

/* ---- what a QEMU can do ---- */

static char *real_qemu(void)
{
    return g_find_program_in_path("qemu-system-x86_64");
}

static void test_known(void **state)
{
    vp_pb_auto PbDomain *domain = bench_domain("qemu", 1);
    g_autofree char *binary = real_qemu();
    g_autoptr(VpQemuKnown) known = NULL;

    (void)state;
    assert_non_null(binary);
    assert_null(vp_qemu_ask(binary, &known));
    assert_true(g_regex_match_simple("^\\d+\\.\\d+\\.\\d+$", known->version, 0, 0));
    assert_true(g_hash_table_contains(known->types, "qxl-vga")); /* of a module */
    assert_true(g_hash_table_contains(known->cpus, "EPYC"));
    assert_true(g_hash_table_contains(known->commands, "query-vnc"));
    assert_true(g_hash_table_contains(known->aio, "io_uring"));
    vp_qemu_known_set_machine(known, "x86_64", domain->spec);
    assert_true(g_str_has_prefix(domain->spec->machine, "pc-q35-"));
    /* As a later daemon reads it. */
    g_autofree char *dir = g_dir_make_tmp("vp-known-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "known", NULL);
    assert_null(vp_qemu_known_load(path, "a"));
    vp_qemu_known_save(known, path, "a");
    assert_null(vp_qemu_known_load(path, "b"));
    g_autoptr(VpQemuKnown) again = vp_qemu_known_load(path, "a");
    assert_string_equal(again->version, known->version);
    assert_int_equal(g_hash_table_size(again->types), g_hash_table_size(known->types));
    assert_string_equal(g_hash_table_lookup(again->machines, "q35"), domain->spec->machine);
    assert_int_equal(g_unlink(path), 0);
    assert_int_equal(g_rmdir(dir), 0);
    assert_null(vp_qemu_known_check(known, "x86_64", PB_ACCELERATOR_TCG, domain->spec));

    add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "nvme0", PB_DISK_BUS_NVME);
    g_hash_table_remove(known->types, "nvme");
    g_autoptr(VpError) error = vp_qemu_known_check(known, "x86_64", PB_ACCELERATOR_TCG, domain->spec);
    check_error(error, VP_FAILED_PRECONDITION, "UNSUPPORTED");
    assert_int_equal(error->violations->len, 1);
    assert_string_equal(g_array_index(error->violations, VpErrorPair, 0).key, "domain.spec.disks[1].bus");
    assert_non_null(strstr(error->message, known->version));
}

static void test_no_qemu(void **state)
{
    g_autoptr(VpQemuKnown) known = NULL;
    g_autoptr(VpError) error = vp_qemu_ask("/bin/true", &known);

    (void)state;
    check_error(error, VP_FAILED_PRECONDITION, "QEMU_UNUSABLE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disks),      cmocka_unit_test(test_pc),         cmocka_unit_test(test_machine),
        cmocka_unit_test(test_devices),    cmocka_unit_test(test_host_parts), cmocka_unit_test(test_before_run),
        cmocka_unit_test(test_thresholds), cmocka_unit_test(test_slots),      cmocka_unit_test(test_firmware),
        cmocka_unit_test(test_known),      cmocka_unit_test(test_no_qemu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
