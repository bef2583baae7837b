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
    guint fd_sets;
    guint functions; /* taken on the root bus */
    guint sata_disks;
    guint scsi_disks;
    gboolean has_serial_bus; /* the virtio-serial controller is there */
} VpArguments;

/* Appends; `value` may be NULL. */
void vp_args_add(VpArguments *args, const char *option, const char *value);
/* Takes `value` over. */
void vp_args_json(VpArguments *args, const char *option, json_t *value);
/* QEMU's key=value options end at a comma; a doubled one stands for itself. Owned by the caller. */
char *vp_args_quoted(const char *text);

gboolean vp_args_is_x86(const VpArguments *args);
const char *vp_args_machine_type(const VpArguments *args);

/* Puts a device on the root bus, at an address that depends on nothing but the order of the calls. */
void vp_args_address(VpArguments *args, json_t *device);

/* Passes a descriptor in a set of its own: the path that it has in QEMU, owned by the caller. */
char *vp_args_fd_set(VpArguments *args, int fd, const char *label);

/* One function a kind of device. */
VpError *vp_args_disk(VpArguments *args, guint index);
void vp_args_interface(VpArguments *args, guint index);
void vp_args_serial_port(VpArguments *args, guint index);
void vp_args_kernel(VpArguments *args);
