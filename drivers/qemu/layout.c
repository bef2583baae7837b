/* See layout.h. */
#include <string.h>

#include "layout.h"

gboolean vp_layout_is_q35(const char *machine)
{
    return strcmp(machine, "q35") == 0 || g_str_has_prefix(machine, "pc-q35-");
}

gboolean vp_layout_has_pcie(const char *machine)
{
    return !machine[0] || vp_layout_is_q35(machine) || strcmp(machine, "virt") == 0 ||
           g_str_has_prefix(machine, "virt-");
}

guint vp_layout_slots(const char *machine)
{
    return vp_layout_has_pcie(machine) ? VP_PCIE_SLOTS : VP_PCI_SLOTS;
}

VpSlotBus vp_layout_disk_bus(const PbDisk *disk)
{
    switch (disk->bus) {
    case PB_DISK_BUS_SCSI:
        return VP_SLOT_BUS_SCSI;
    case PB_DISK_BUS_SATA:
        return VP_SLOT_BUS_SATA;
    case PB_DISK_BUS_USB:
        return VP_SLOT_BUS_USB;
    default:
        return VP_SLOT_BUS_PCI;
    }
}

guint vp_layout_bus_slots(VpSlotBus bus, const char *machine)
{
    switch (bus) {
    case VP_SLOT_BUS_SCSI:
        return VP_SCSI_UNITS * 4;
    case VP_SLOT_BUS_SATA:
        return VP_SATA_PORTS * (VP_SATA_CONTROLLERS + (vp_layout_is_q35(machine) ? 1 : 0));
    case VP_SLOT_BUS_USB:
        return VP_USB_DISKS;
    default:
        return vp_layout_slots(machine);
    }
}

guint vp_layout_pci(const PbDomainSpec *spec, VpPciPlace *ret_places)
{
    guint n = 0;

    for (size_t i = 0; i < spec->n_disks; i++) {
        if (vp_layout_disk_bus(spec->disks[i]) == VP_SLOT_BUS_PCI)
            ret_places[n++] = (VpPciPlace){"disks", i, &spec->disks[i]->slot, &spec->disks[i]->boot_index};
    }
    for (size_t i = 0; i < spec->n_interfaces; i++)
        ret_places[n++] = (VpPciPlace){"interfaces", i, &spec->interfaces[i]->slot, &spec->interfaces[i]->boot_index};
    for (size_t i = 0; i < spec->n_shared_folders; i++)
        ret_places[n++] = (VpPciPlace){"shared_folders", i, &spec->shared_folders[i]->slot, NULL};
    for (size_t i = 0; i < spec->n_host_devices; i++)
        ret_places[n++] =
            (VpPciPlace){"host_devices", i, &spec->host_devices[i]->slot, &spec->host_devices[i]->boot_index};
    if (spec->vsock)
        ret_places[n++] = (VpPciPlace){"vsock", VP_PCI_PLACE_ONE, &spec->vsock->slot, NULL};
    return n;
}

static gboolean is_taken(const PbDomainSpec *spec, VpSlotBus bus, guint32 slot)
{
    VpPciPlace places[VP_PCI_PLACES];
    const guint n = bus == VP_SLOT_BUS_PCI ? vp_layout_pci(spec, places) : 0;

    for (guint i = 0; i < n; i++) {
        if (*places[i].slot == slot)
            return TRUE;
    }
    for (size_t i = 0; bus != VP_SLOT_BUS_PCI && i < spec->n_disks; i++) {
        if (spec->disks[i]->slot == slot && vp_layout_disk_bus(spec->disks[i]) == bus)
            return TRUE;
    }
    return FALSE;
}

static guint32 free_slot(const PbDomainSpec *spec, VpSlotBus bus)
{
    guint32 slot = 1;

    while (is_taken(spec, bus, slot))
        slot++;
    return slot;
}

void vp_layout_complete(PbDomainSpec *spec)
{
    VpPciPlace places[VP_PCI_PLACES];
    const guint n = vp_layout_pci(spec, places);

    for (guint i = 0; i < n; i++) {
        if (*places[i].slot == 0)
            *places[i].slot = free_slot(spec, VP_SLOT_BUS_PCI);
    }
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (spec->disks[i]->slot == 0)
            spec->disks[i]->slot = free_slot(spec, vp_layout_disk_bus(spec->disks[i]));
    }
}
