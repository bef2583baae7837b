/*
 * From a spec and the descriptors of its proven chains to QEMU's arguments. Pure: opens nothing, asks nobody. QEMU is told every node with
 * its format, so that it never probes a file and never follows a path.
 */
#pragma once

#include <jansson.h>

#include "base/error.h"
#include "spec.h"
#include "storage/chain/nbd.h"

/* One layer of a disk, by the numbers that its descriptors have in the QEMU process. */
typedef struct VpLayerFds {
    PbImageFormat format;
    int fd;
    int data_fd; /* the external data file; -1: none */
    gboolean block_device;
    gboolean data_block_device;
    gboolean encrypted;
    gboolean is_window; /* the layer is not the whole file, but `size` bytes from `offset` on */
    guint64 offset;
    guint64 size;
    const VpNbd
        *nbd; /* a remote layer: `fd` is a connection to a unix socket, or there is none; NULL: a file of this host */
} VpLayerFds;

typedef struct VpDiskFds {
    const VpLayerFds *layers; /* the top first */
    gsize n_layers;
    guint side; /* 0, or 1 for a medium that comes to a drive whose own has the names of side 0; see ids.h */
} VpDiskFds;

/* A port by the numbers of its descriptors in the QEMU process. */
typedef struct VpPortFds {
    int socket_fd; /* a listening socket */
    int log_fd;    /* opened to append; -1: no log */
} VpPortFds;

/* What an interface is connected to, by the numbers of its descriptors in the QEMU process. */
#define VP_MAX_QUEUES 8U
typedef struct VpNicFds {
    guint n_queues;               /* of the tap device; 0: it has none */
    int tap_fds[VP_MAX_QUEUES];   /* a queue each */
    int vhost_fds[VP_MAX_QUEUES]; /* -1: QEMU moves the packets itself */
    int stream_fd;                /* a connection to passt; -1: none */
} VpNicFds;

/* UEFI's code and its variables. */
typedef struct VpFirmwareFds {
    int code_fd;
    int variables_fd;
    gboolean secure; /* the code runs in System Management Mode and guards the variables */
} VpFirmwareFds;

typedef struct VpCommandLine {
    const char *binary;
    const char *uid;
    const char *name;
    const PbDomainSpec *spec; /* complete (spec.h) */
    const char *architecture; /* "x86_64", "aarch64": the machine where the spec names none */
    PbAccelerator accelerator;
    const char *cpu;        /* the CPU model where the spec names none */
    int qmp_fd;             /* a listening socket */
    const VpDiskFds *disks; /* as many as the spec has; an empty drive has no layers */
    const int *secret_fds;  /* of the disks with a secret, by their place in the spec: a pipe that has its value */
    const VpNicFds *nics;   /* of the interfaces, by their place in the spec */
    const int *folder_fds;  /* of the shared folders: a connection to virtiofsd */
    int vsock_fd;           /* with vsock in the spec: vhost-vsock */
    const VpPortFds *serial_ports; /* as many as the spec has */
    VpPortFds agent;               /* with a guest agent in the spec */
    int kernel_fd;                 /* with a kernel in the spec */
    int initrd_fd;                 /* -1: none */
    VpFirmwareFds firmware;        /* with UEFI in the spec */
    gboolean incoming;             /* it waits to be told where its memory comes from */
    const char *screen_path;       /* with graphics in the spec: the folder for their sockets, short */
    int tpm_fd;                    /* with a TPM in the spec: a connection to swtpm */
} VpCommandLine;

/* `ret_argv` (g_strfreev) is set on NULL alone. FAILED_PRECONDITION, reason UNSUPPORTED_FORMAT, for a layer that QEMU would be let loose on. */
VpError *vp_command_line(const VpCommandLine *line, char ***ret_argv);

/* QEMU's word, for set-action, for what it does when the guest restarts itself. */
const char *vp_action_of_reboot(const PbDomainSpec *spec);

/* What QEMU is to be told over QMP before the guest runs, as it has no arguments for it: an array of commands, each with "execute" and "arguments".
 * Owned by the caller. */
json_t *vp_commands_before_run(const PbDomainSpec *spec);
/* The same for one device that has to be told something: appends to the array. */
void vp_commands_for_interface(json_t *commands, const PbInterface *interface);
void vp_commands_for_disk(json_t *commands, const PbDisk *disk);
