/*
 * The names that devices and nodes have in QEMU. They follow from what names a device in the spec or from its slot, never from its place in a list, so that
 * they stay as they are when others come and go, and a later daemon finds them again. All results are owned by the caller.
 */
#pragma once

#include <glib.h>

#include "virtplane/v1/domain.pb-c.h"

/* The device: "disk-vda", the target behind what all such names begin with. */
#define VP_ID_DISK "disk-"
char *vp_id_disk(const PbDisk *disk);
/* What the names of its nodes begin with, "pci3" for the third slot: QEMU takes 31 characters of a node's name, and a target may be longer. The nodes of its
 * top layer is "pci3-0". While a medium is changed, those of the old one and of the new one are there: one has the names of side 0, the other those of
 * side 1, "sata3b". */
char *vp_id_disk_nodes(const PbDisk *disk, guint side);
/* The side that a node of the disk is on. */
guint vp_id_disk_side(const PbDisk *disk, const char *node);
/* The object with the passphrase of its encrypted layers. */
char *vp_id_secret(const PbDisk *disk);
/* The node of the file that its writes go to, of a disk whose medium never changes: "pci3-0-data" if the top layer has an external data file, else
 * "pci3-0-file". */
char *vp_id_disk_written(const PbDisk *disk, gboolean has_data_file);
/* What block_set_io_throttle and query-block call the disk: the device, or what has the disk behind it. */
char *vp_id_disk_backend(const PbDisk *disk);

/* The disk of the spec that a node belongs to, by the node's name; NULL: none. */
const PbDisk *vp_id_disk_of_node(const PbDomainSpec *spec, const char *node);

/* By the slot: the device, "nic4", and what it is connected to, "net4". */
char *vp_id_nic(const PbInterface *interface);
char *vp_id_netdev(const PbInterface *interface);

/* The graphics adapter. */
#define VP_ID_VIDEO "video0"
/* Attached memory, by its number from 0 on: the device, and what is behind it. */
#define VP_ID_DIMM "dimm"
char *vp_id_dimm(guint index);
char *vp_id_dimm_memory(guint index);

/* What the names of virtual CPUs begin with that came later. */
#define VP_ID_CPU "cpu"

/* The port of the guest's agent, a device, and what is behind it, a character device. */
#define VP_ID_AGENT "agent"
