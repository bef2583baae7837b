/*
 * What the makers of QEMU's arguments share: one function for each kind of device, called by command_line.c in a fixed order. Everything with a name or a
 * path in it is JSON, where quoting is the library's.
 */
#pragma once

#include <jansson.h>

#include "command_line.h"

typedef struct VpArguments {
    const VpCommandLine *line;
    GPtrArray *argv;
    json_t *
        commands; /* for a domain that runs: the commands (live_commands.h) that take the arguments' place; NULL: none runs yet */
    guint fd_sets;
    guint scsi_disks;
    guint sata_controllers;  /* a bit each */
    gboolean has_serial_bus; /* the virtio-serial controller is there */
    gboolean has_usb;        /* so is that for USB */
} VpArguments;

/* Appends; `value` may be NULL. */
void vp_args_add(VpArguments *args, const char *option, const char *value);
/* Takes `value` over. */
void vp_args_json(VpArguments *args, const char *option, json_t *value);
/* QEMU's key=value options end at a comma; a doubled one stands for itself. Owned by the caller. */
char *vp_args_quoted(const char *text);

gboolean vp_args_is_x86(const VpArguments *args);
const char *vp_args_machine_type(const VpArguments *args);

/* Adds what a network device is connected to; takes `netdev` over. */
void vp_args_netdev(VpArguments *args, json_t *netdev);

/* Puts a device into a slot of the root bus, and into one of those that devices come to and go from (layout.h). */
void vp_args_address(const VpArguments *args, json_t *device, guint slot);
void vp_args_slot(const VpArguments *args, json_t *device, guint slot);
/* Adds the USB controller, if it is not there. */
void vp_args_need_usb(VpArguments *args);

/* Passes a descriptor in a set of its own: the path that it has in QEMU, owned by the caller. */
char *vp_args_fd_set(VpArguments *args, int fd, const char *label);
/* What a network device knows a descriptor by; the same. */
char *vp_args_fd_name(VpArguments *args, int fd, const char *name);

/* One function a kind of device. */
void vp_args_machine(VpArguments *args);
void vp_args_memory(VpArguments *args);
void vp_args_numa(VpArguments *args);
/* Memory that is attached, number `index`. */
void vp_args_dimm(VpArguments *args, guint index, guint64 bytes);
/* Whether all memory is one object, "ram", that the machine names. */
gboolean vp_args_has_one_backend(const VpArguments *args);
void vp_args_shared_folder(VpArguments *args, guint index);
void vp_args_vsock(VpArguments *args);
void vp_args_host_device(VpArguments *args, guint index);
void vp_args_ports(VpArguments *args); /* of PCI Express */
VpError *vp_args_disk(VpArguments *args, guint index);
VpError *vp_args_disk_nodes(VpArguments *args, guint index); /* without the device */
void vp_args_interface(VpArguments *args, guint index);
void vp_args_serial_port(VpArguments *args, guint index);
void vp_args_guest_agent(VpArguments *args);
void vp_args_firmware(VpArguments *args);
void vp_args_kernel(VpArguments *args);
void vp_args_screen(VpArguments *args);
void vp_args_usb_devices(VpArguments *args);
void vp_args_tpm(VpArguments *args);
void vp_args_rng(VpArguments *args);
void vp_args_watchdog(VpArguments *args);
void vp_args_panic(VpArguments *args);
void vp_args_actions(VpArguments *args);
void vp_args_balloon(VpArguments *args);
