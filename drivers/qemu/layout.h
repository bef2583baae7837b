/* Where devices sit: constant places, so that a guest finds them there whatever else comes or goes. Used for the spec and for the arguments. */
#pragma once

#include <glib.h>

#include "virtplane/v1/domain.pb-c.h"

/* The root bus' slots. Those that are taken at most once are the same on all machines; behind them come those for what is attached and detached: one
 * behind each of eight functions on PCI Express, where only what is behind a port can be detached, else the slots themselves. */
enum {
    VP_SLOT_PANIC = 0x1, /* on PCI Express alone */
    VP_SLOT_VIDEO = 0x2,
    VP_SLOT_SERIAL = 0x3,
    VP_SLOT_SCSI = 0x4,
    VP_SLOT_BALLOON = 0x5,
    VP_SLOT_RNG = 0x6,
    VP_SLOT_USB = 0x7,
    VP_SLOT_WATCHDOG = 0x8,
    VP_SLOT_SATA = 0x9, /* and six more */
    VP_SLOT_FREE = 0x10,
};

#define VP_PCIE_SLOTS 112U
#define VP_PCI_SLOTS 16U
#define VP_SPARE_SLOTS 4U
#define VP_SATA_PORTS 6U
#define VP_SATA_CONTROLLERS 7U
#define VP_SCSI_UNITS 64U
/* The first eight ports of the USB controller are for what is no disk. */
#define VP_USB_DEVICES 8U
#define VP_USB_DISKS 7U

gboolean vp_layout_is_q35(const char *machine);
/* Whether the machine has PCI Express. Empty stands for the default, which has. */
gboolean vp_layout_has_pcie(const char *machine);
/* How many slots there are for devices that come and go. */
guint vp_layout_slots(const char *machine);

/* What disks share the numbers of their slots with. */
typedef enum VpSlotBus {
    VP_SLOT_BUS_PCI, /* with the interfaces */
    VP_SLOT_BUS_SCSI,
    VP_SLOT_BUS_SATA,
    VP_SLOT_BUS_USB,
} VpSlotBus;

VpSlotBus vp_layout_disk_bus(const PbDisk *disk);
/* The highest slot there is on such a bus. */
guint vp_layout_bus_slots(VpSlotBus bus, const char *machine);

/* A device of a spec that takes one of the PCI slots: the field that has it, and where its slot and its boot index are (NULL: it has none). */
typedef struct VpPciPlace {
    const char *field;
    size_t index; /* VP_PCI_PLACE_ONE: the field is no list */
    guint32 *slot;
    const guint32 *boot_index;
} VpPciPlace;

#define VP_PCI_PLACE_ONE G_MAXSIZE
/* As many as the contract lets a spec have: disks, interfaces, folders, host devices, vsock. */
#define VP_PCI_PLACES (64 + 32 + 8 + 16 + 1)

/* All of them, disks first; how many. */
guint vp_layout_pci(const PbDomainSpec *spec, VpPciPlace *ret_places);

/* Gives a slot to every device that has none. */
void vp_layout_complete(PbDomainSpec *spec);
