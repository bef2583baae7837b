/* See ids.h. */
#include "ids.h"

#include <string.h>

#include "layout.h"

char *vp_id_disk(const PbDisk *disk)
{
    return g_strconcat(VP_ID_DISK, disk->target, NULL);
}

char *vp_id_disk_nodes(const PbDisk *disk, guint side)
{
    static const char *const buses[] = {
        [VP_SLOT_BUS_PCI] = "pci",
        [VP_SLOT_BUS_SCSI] = "scsi",
        [VP_SLOT_BUS_SATA] = "sata",
        [VP_SLOT_BUS_USB] = "usb",
    };

    return g_strdup_printf("%s%u%s", buses[vp_layout_disk_bus(disk)], disk->slot, side ? "b" : "");
}

static gboolean is_on_side(const PbDisk *disk, const char *node, guint side)
{
    g_autofree char *nodes = vp_id_disk_nodes(disk, side);
    const gsize length = strlen(nodes);

    return strncmp(node, nodes, length) == 0 && node[length] == '-';
}

guint vp_id_disk_side(const PbDisk *disk, const char *node)
{
    return is_on_side(disk, node, 1) ? 1 : 0;
}

char *vp_id_secret(const PbDisk *disk)
{
    return g_strconcat("secret-", disk->target, NULL);
}

char *vp_id_disk_written(const PbDisk *disk, gboolean has_data_file)
{
    g_autofree char *nodes = vp_id_disk_nodes(disk, 0);

    return g_strconcat(nodes, has_data_file ? "-0-data" : "-0-file", NULL);
}

char *vp_id_disk_backend(const PbDisk *disk)
{
    /* Of virtio it is the device behind the PCI one that has the disk. */
    const gboolean virtio = disk->bus == PB_DISK_BUS_VIRTIO || disk->bus == PB_DISK_BUS_UNSPECIFIED;
    g_autofree char *id = vp_id_disk(disk);

    return virtio ? g_strdup_printf("/machine/peripheral/%s/virtio-backend", id) : g_steal_pointer(&id);
}

const PbDisk *vp_id_disk_of_node(const PbDomainSpec *spec, const char *node)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (is_on_side(spec->disks[i], node, 0) || is_on_side(spec->disks[i], node, 1))
            return spec->disks[i];
    }
    return NULL;
}

char *vp_id_nic(const PbInterface *interface)
{
    return g_strdup_printf("nic%u", interface->slot);
}

char *vp_id_netdev(const PbInterface *interface)
{
    return g_strdup_printf("net%u", interface->slot);
}

char *vp_id_dimm(guint index)
{
    return g_strdup_printf(VP_ID_DIMM "%u", index);
}

char *vp_id_dimm_memory(guint index)
{
    return g_strdup_printf("dimm-memory%u", index);
}
