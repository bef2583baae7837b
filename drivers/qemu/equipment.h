/*
 * What a QEMU process is given besides its disks: the kernel that it loads, sockets and logs of its ports. Opened before the process is made, by the
 * blocking part of a start (start.c), and closed once it has been.
 */
#pragma once

#include "command_line.h"
#include "contain.h"
#include "drivers/driver.h"

typedef struct VpEquipment {
    GArray *fds;          /* of int; owned */
    GArray *serial_ports; /* of VpPortFds */
    GArray *secrets;      /* of int, one a disk; -1: none */
    GArray *nics;         /* of VpNicFds, one an interface */
    GArray *folders;      /* of int, one a shared folder: the folder, and then the connection to virtiofsd */
    int vsock_fd;
    GArray *helpers; /* of VpProcess: what was started for it, and ends with QEMU */
    VpPortFds agent;
    int kernel_fd;
    int initrd_fd;
    VpFirmwareFds firmware;
    int template_fd; /* of the firmware's variables */
    int screen_fd;   /* the folder of the screens' sockets */
    char *screen_path;
    int tpm_fd;
    GPtrArray *endpoints; /* of PbDomainEndpoint: where the far ends are */
} VpEquipment;

void vp_equipment_init(VpEquipment *equipment);
/* Closes all that is open; what was told of the endpoints stays until vp_equipment_clear(). */
void vp_equipment_close(VpEquipment *equipment);
void vp_equipment_clear(VpEquipment *equipment);

/* Opens the files that the spec names, as the policy allows, and the firmware; asks for the secrets. May hang with the disk that they are on.
 * FAILED_PRECONDITION with violations naming the field. */
VpError *vp_equipment_open(VpEquipment *equipment, const PbDomainSpec *spec, const char *architecture,
                           const VpDriverHost *host);

/* The reading end of a pipe that has the value of the secret of this name. */
VpError *vp_secret_pipe(const VpDriverHost *host, const char *secret, int *ret_fd);

/* Makes what lies in the domain's own folder, which exists, and what else is made anew at each start: tap devices, programs that serve QEMU. */
VpError *vp_equipment_make(VpEquipment *equipment, const PbDomainSpec *spec, PbAccelerator accelerator, const char *uid,
                           const char *dir, const VpContainment *containment);

/* Appends the descriptors to `fds`, the child's from VP_PROCESS_FIRST_FD on, and tells the command line their numbers there. */
void vp_equipment_give(VpEquipment *equipment, GArray *fds, VpCommandLine *line);
