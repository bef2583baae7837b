/*
 * From a spec and the descriptors of its proven chains to QEMU's arguments. Pure: opens nothing, asks nobody. QEMU is told every node with
 * its format, so that it never probes a file and never follows a path.
 */
#pragma once

#include "base/error.h"
#include "storage/chain/nbd.h"
#include "virtplane/v1/domain.pb-c.h"

/* One layer of a disk, by the numbers that its descriptors have in the QEMU process. */
typedef struct VpLayerFds {
    PbImageFormat format;
    int fd;
    int data_fd; /* the external data file; -1: none */
    gboolean block_device;
    gboolean data_block_device;
    gboolean is_window; /* the layer is not the whole file, but `size` bytes from `offset` on */
    guint64 offset;
    guint64 size;
    const VpNbd *nbd; /* a remote layer, which has no descriptor; NULL: a file of this host */
} VpLayerFds;

typedef struct VpDiskFds {
    const VpLayerFds *layers; /* the top first */
    gsize n_layers;
} VpDiskFds;

/* A port by the numbers of its descriptors in the QEMU process. */
typedef struct VpPortFds {
    int socket_fd; /* a listening socket */
    int log_fd;    /* opened to append; -1: no log */
} VpPortFds;

typedef struct VpCommandLine {
    const char *binary;
    const char *uid;
    const char *name;
    const PbDomainSpec *spec;
    const char *architecture; /* "x86_64", "aarch64": the machine where the spec names none */
    PbAccelerator accelerator;
    const char *cpu;               /* the CPU model */
    int qmp_fd;                    /* a listening socket */
    const VpDiskFds *disks;        /* as many as the spec has */
    const VpPortFds *serial_ports; /* the same */
    int kernel_fd;                 /* with a kernel in the spec */
    int initrd_fd;                 /* -1: none */
} VpCommandLine;

/* `ret_argv` (g_strfreev) is set on NULL alone. FAILED_PRECONDITION, reason UNSUPPORTED_FORMAT, for a layer that QEMU would be let loose on. */
VpError *vp_command_line(const VpCommandLine *line, char ***ret_argv);

/* Fills in what a spec leaves open and what must not change once it was chosen. What is there stays, so that it may be called again. */
void vp_spec_complete_qemu(PbDomainSpec *spec);

/* INVALID_ARGUMENT with violations for what can be told to be wrong without looking at any file. */
VpError *vp_spec_validate(const PbDomainSpec *spec);
