/* What a spec wishes for, held against what QEMU can do: see known.h. */
#include <string.h>

#include "base/pb.h"
#include "known.h"

typedef struct Check {
    const VpQemuKnown *known;
    VpError *error;
} Check;

static void missing(Check *check, const char *field, const char *what)
{
    g_autofree char *path = g_strconcat("domain.spec.", field, NULL);

    if (!check->error)
        check->error = vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED", "%s: the QEMU of this host (%s) has no %s",
                                    path, check->known->version, what);
    vp_error_violation(check->error, path, "the QEMU of this host (%s) has no %s", check->known->version, what);
}

static void need(Check *check, const char *type, const char *field, ...) G_GNUC_PRINTF(3, 4);
static void need(Check *check, const char *type, const char *field, ...)
{
    va_list args;

    if (!type || g_hash_table_contains(check->known->types, type))
        return;
    va_start(args, field);
    g_autofree char *name = g_strdup_vprintf(field, args);
    va_end(args);
    missing(check, name, type);
}

static const char *disk_type(const PbDisk *disk)
{
    const gboolean cdrom = disk->device == PB_DISK_DEVICE_CDROM;

    switch (disk->bus) {
    case PB_DISK_BUS_SCSI:
        return cdrom ? "scsi-cd" : "scsi-hd";
    case PB_DISK_BUS_SATA:
        return cdrom ? "ide-cd" : "ide-hd";
    case PB_DISK_BUS_NVME:
        return "nvme";
    case PB_DISK_BUS_USB:
        return "usb-storage";
    default:
        return "virtio-blk-pci";
    }
}

static void check_disks(Check *check, const PbDomainSpec *spec)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        const PbDisk *disk = spec->disks[i];
        g_autofree char *io = g_strdup_printf("disks[%zu].io", i);

        need(check, disk_type(disk), "disks[%zu].bus", i);
        if (disk->bus == PB_DISK_BUS_SCSI)
            need(check, "virtio-scsi-pci", "disks[%zu].bus", i);
        if (disk->io == PB_DISK_IO_IO_URING && !g_hash_table_contains(check->known->aio, "io_uring"))
            missing(check, io, "io_uring");
        if (disk->io == PB_DISK_IO_NATIVE && !g_hash_table_contains(check->known->aio, "native"))
            missing(check, io, "Linux AIO");
    }
}

static void check_machine(Check *check, const PbDomainSpec *spec, PbAccelerator accelerator)
{
    const char *model = spec->cpu ? spec->cpu->model : "";
    g_autofree char *machine = g_strdup_printf("machine %s", spec->machine);
    g_autofree char *cpu = g_strdup_printf("CPU model %s", model);

    if (spec->machine[0] && !g_hash_table_contains(check->known->machines, spec->machine))
        missing(check, "machine", machine);
    if (strcmp(model, "host") == 0 && accelerator != PB_ACCELERATOR_KVM)
        missing(check, "cpu.model", "CPU model host without KVM");
    else if (model[0] && !g_hash_table_contains(check->known->cpus, model))
        missing(check, "cpu.model", cpu);
    if (spec->memory && spec->memory->hugepages)
        need(check, "memory-backend-memfd", "memory.hugepages");
    if (spec->iothreads)
        need(check, "iothread", "iothreads");
}

static const char *video_type(const PbDomainSpec *spec, gboolean x86)
{
    switch (spec->video) {
    case PB_VIDEO_MODEL_VGA:
        return "VGA";
    case PB_VIDEO_MODEL_VIRTIO:
        return x86 ? "virtio-vga" : "virtio-gpu-pci";
    case PB_VIDEO_MODEL_QXL:
        return "qxl-vga";
    default:
        return NULL;
    }
}

static void check_devices(Check *check, const PbDomainSpec *spec, gboolean x86)
{
    for (size_t i = 0; i < spec->n_interfaces; i++)
        need(check, spec->interfaces[i]->model == PB_INTERFACE_MODEL_E1000 ? "e1000" : "virtio-net-pci",
             "interfaces[%zu].model", i);
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        g_autofree char *field = g_strdup_printf("interfaces[%zu].type", i);

        if (spec->interfaces[i]->type == PB_INTERFACE_TYPE_PASST &&
            !g_hash_table_contains(check->known->netdevs, "stream"))
            missing(check, field, "network back end \"stream\", which passt needs");
    }
    for (size_t i = 0; i < spec->n_serial_ports; i++)
        need(check, spec->serial_ports[i]->model == PB_SERIAL_PORT_MODEL_VIRTIO ? "virtconsole" : NULL,
             "serial_ports[%zu].model", i);
    for (size_t i = 0; i < spec->n_graphics; i++) {
        const gboolean spice = spec->graphics[i] == PB_GRAPHICS_TYPE_SPICE;
        g_autofree char *field = g_strdup_printf("graphics[%zu]", i);

        if (!g_hash_table_contains(check->known->commands, spice ? "query-spice" : "query-vnc"))
            missing(check, field, spice ? "SPICE" : "VNC");
    }
    for (size_t i = 0; i < spec->n_shared_folders; i++)
        need(check, "vhost-user-fs-pci", "shared_folders[%zu]", i);
    for (size_t i = 0; i < spec->n_host_devices; i++)
        need(check, "vfio-pci", "host_devices[%zu]", i);
    need(check, spec->vsock ? "vhost-vsock-pci" : NULL, "vsock");
    need(check, spec->n_shared_folders ? "memory-backend-memfd" : NULL, "shared_folders");
    need(check, video_type(spec, x86), "video");
    need(check, spec->n_usb_devices ? "qemu-xhci" : NULL, "usb_devices");
    if (spec->tpm) {
        need(check, "tpm-emulator", "tpm");
        need(check, spec->tpm == PB_TPM_MODEL_CRB ? "tpm-crb" : x86 ? "tpm-tis" : "tpm-tis-device", "tpm");
    }
    need(check, spec->rng ? "virtio-rng-pci" : NULL, "rng");
    if (spec->watchdog)
        need(check, spec->watchdog->model == PB_WATCHDOG_MODEL_IB700 ? "ib700" : "i6300esb", "watchdog.model");
    need(check, spec->guest_agent ? "virtserialport" : NULL, "guest_agent");
}

VpError *vp_qemu_known_check(const VpQemuKnown *known, const char *architecture, PbAccelerator accelerator,
                             const PbDomainSpec *spec)
{
    Check check = {.known = known};

    check_machine(&check, spec, accelerator);
    check_disks(&check, spec);
    check_devices(&check, spec, strcmp(architecture, "x86_64") == 0);
    return check.error;
}

void vp_qemu_known_set_machine(const VpQemuKnown *known, const char *architecture, PbDomainSpec *spec)
{
    const char *wanted = spec->machine[0] ? spec->machine : strcmp(architecture, "x86_64") == 0 ? "q35" : "virt";
    const char *name = g_hash_table_lookup(known->machines, wanted);

    if (name)
        vp_pb_set(&spec->machine, name);
}
