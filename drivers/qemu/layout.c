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

static gboolean is_taken(const PbDomainSpec *spec, VpSlotBus bus, guint32 slot)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (spec->disks[i]->slot == slot && vp_layout_disk_bus(spec->disks[i]) == bus)
            return TRUE;
    }
    for (size_t i = 0; bus == VP_SLOT_BUS_PCI && i < spec->n_interfaces; i++) {
        if (spec->interfaces[i]->slot == slot)
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
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (spec->disks[i]->slot == 0)
            spec->disks[i]->slot = free_slot(spec, vp_layout_disk_bus(spec->disks[i]));
    }
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        if (spec->interfaces[i]->slot == 0)
            spec->interfaces[i]->slot = free_slot(spec, VP_SLOT_BUS_PCI);
    }
}
