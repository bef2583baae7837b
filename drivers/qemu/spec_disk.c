/* The checks of disks: see spec.h. */
#include <string.h>

#include "image_format.h"
#include "layout.h"
#include "spec.h"

static gboolean is_cdrom(const PbDisk *disk)
{
    return disk->device == PB_DISK_DEVICE_CDROM;
}

static void check_kind(VpSpecCheck *check, const PbDisk *disk, size_t index)
{
    if (!disk->path[0] && !is_cdrom(disk))
        vp_spec_violation(check, "must be set; a cd-rom drive alone may be empty", "disks[%zu].path", index);
    if (disk->path[0] && disk->path[0] != '/')
        vp_spec_violation(check, "must be an absolute path", "disks[%zu].path", index);
    if (is_cdrom(disk) && disk->bus != PB_DISK_BUS_SATA && disk->bus != PB_DISK_BUS_SCSI)
        vp_spec_violation(check, "a cd-rom drive is SATA or SCSI", "disks[%zu].bus", index);
    if (!is_cdrom(disk) && disk->bus == PB_DISK_BUS_SATA && disk->read_only)
        vp_spec_violation(check, "a SATA disk cannot be read-only; use virtio or SCSI", "disks[%zu].read_only", index);
    if (disk->format != PB_IMAGE_FORMAT_UNSPECIFIED && !vp_qemu_format(disk->format))
        vp_spec_violation(check, "QEMU is not given images of this format; convert it with qemu-img convert -O qcow2",
                          "disks[%zu].format", index);
    if (disk->secret[0] && !disk->path[0])
        vp_spec_violation(check, "is for a disk with an image", "disks[%zu].secret", index);
    if (disk->secret[0] && disk->format != PB_IMAGE_FORMAT_UNSPECIFIED && disk->format != PB_IMAGE_FORMAT_LUKS &&
        disk->format != PB_IMAGE_FORMAT_QCOW2)
        vp_spec_violation(check, "is for images of the formats LUKS and QCOW2", "disks[%zu].secret", index);
}

static void check_enums(VpSpecCheck *check, const PbDisk *disk, size_t index)
{
    const struct {
        const char *field;
        const ProtobufCEnumDescriptor *descriptor;
        int value;
    } enums[] = {
        {"bus", &pb_disk_bus__descriptor, (int)disk->bus},
        {"device", &pb_disk_device__descriptor, (int)disk->device},
        {"cache", &pb_disk_cache__descriptor, (int)disk->cache},
        {"io", &pb_disk_io__descriptor, (int)disk->io},
        {"discard", &pb_disk_discard__descriptor, (int)disk->discard},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(enums); i++) {
        g_autofree char *field = g_strdup_printf("disks[%zu].%s", index, enums[i].field);

        vp_spec_check_enum(check, enums[i].descriptor, enums[i].value, field);
    }
}

static void check_io(VpSpecCheck *check, const PbDisk *disk, size_t index)
{
    const gboolean direct = disk->cache == PB_DISK_CACHE_NONE || disk->cache == PB_DISK_CACHE_DIRECTSYNC;

    if (disk->io == PB_DISK_IO_NATIVE && !direct)
        vp_spec_violation(check, "needs the cache DISK_CACHE_NONE or DISK_CACHE_DIRECTSYNC", "disks[%zu].io", index);
    if (disk->iothread > check->spec->iothreads)
        vp_spec_violation(check, "is more than there are, see iothreads", "disks[%zu].iothread", index);
    if (disk->iothread && disk->bus != PB_DISK_BUS_VIRTIO && disk->bus != PB_DISK_BUS_SCSI)
        vp_spec_violation(check, "virtio and SCSI disks alone have one", "disks[%zu].iothread", index);
}

static void check_threshold(VpSpecCheck *check, const PbDisk *disk, size_t index)
{
    if (disk->write_threshold_bytes && (disk->read_only || is_cdrom(disk)))
        vp_spec_violation(check, "is for a disk that is written to", "disks[%zu].write_threshold_bytes", index);
}

static void check_throttle(VpSpecCheck *check, const PbDisk *disk, size_t index)
{
    const PbThrottle *t = disk->throttle;

    if (!t)
        return;
    if (disk->bus == PB_DISK_BUS_USB)
        vp_spec_violation(check, "a USB disk has no limits", "disks[%zu].throttle", index);
    if (t->total_bytes_per_second && (t->read_bytes_per_second || t->write_bytes_per_second))
        vp_spec_violation(check, "excludes the limits of reads and writes",
                          "disks[%zu].throttle.total_bytes_per_second", index);
    if (t->total_requests_per_second && (t->read_requests_per_second || t->write_requests_per_second))
        vp_spec_violation(check, "excludes the limits of reads and writes",
                          "disks[%zu].throttle.total_requests_per_second", index);
}

static gboolean same_throttle(const PbThrottle *a, const PbThrottle *b)
{
    return a->total_bytes_per_second == b->total_bytes_per_second &&
           a->read_bytes_per_second == b->read_bytes_per_second &&
           a->write_bytes_per_second == b->write_bytes_per_second &&
           a->total_requests_per_second == b->total_requests_per_second &&
           a->read_requests_per_second == b->read_requests_per_second &&
           a->write_requests_per_second == b->write_requests_per_second;
}

static gboolean reads_only(const PbDisk *disk)
{
    return disk->read_only || is_cdrom(disk);
}

/* With those before it. */
static void check_pair(VpSpecCheck *check, const PbDisk *disk, size_t index, const PbDisk *other)
{
    if (disk->target[0] && strcmp(disk->target, other->target) == 0)
        vp_spec_violation(check, "is the target of another disk as well", "disks[%zu].target", index);
    if (disk->path[0] && strcmp(disk->path, other->path) == 0 && !(reads_only(disk) && reads_only(other)))
        vp_spec_violation(check, "is the image of another disk as well, and one of them writes to it",
                          "disks[%zu].path", index);
    if (disk->boot_index && disk->boot_index == other->boot_index)
        vp_spec_violation(check, "is that of another disk as well", "disks[%zu].boot_index", index);
    if (disk->slot && disk->slot == other->slot && vp_layout_disk_bus(disk) == vp_layout_disk_bus(other))
        vp_spec_violation(check, "is the slot of another disk as well", "disks[%zu].slot", index);
    if (disk->bus == PB_DISK_BUS_SCSI && other->bus == PB_DISK_BUS_SCSI && disk->iothread != other->iothread)
        vp_spec_violation(check, "all SCSI disks have the same", "disks[%zu].iothread", index);
    if (disk->throttle && other->throttle && disk->throttle->group[0] &&
        strcmp(disk->throttle->group, other->throttle->group) == 0 && !same_throttle(disk->throttle, other->throttle))
        vp_spec_violation(check, "has other limits with another disk", "disks[%zu].throttle.group", index);
}

void vp_spec_check_disks(VpSpecCheck *check)
{
    for (size_t i = 0; i < check->spec->n_disks; i++) {
        const PbDisk *disk = check->spec->disks[i];
        const VpSlotBus bus = vp_layout_disk_bus(disk);

        if (!disk->target[0])
            vp_spec_violation(check, "a disk needs a target, as in \"vda\"", "disks[%zu].target", i);
        check_kind(check, disk, i);
        check_enums(check, disk, i);
        check_io(check, disk, i);
        check_throttle(check, disk, i);
        check_threshold(check, disk, i);
        if (disk->slot > vp_layout_bus_slots(bus, check->spec->machine))
            vp_spec_violation(check, "there are not so many on this bus of this machine", "disks[%zu].slot", i);
        for (size_t j = 0; j < i; j++)
            check_pair(check, disk, i, check->spec->disks[j]);
    }
}
