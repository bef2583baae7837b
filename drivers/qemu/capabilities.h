/* What this host's QEMU and KVM can do. Blocks for a moment: QEMU is asked for its version once per binary, as told by its time and size. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/host.pb-c.h"

typedef struct VpQemuProbe VpQemuProbe;

/* Reads [qemu] binary=, accelerator= and cpu=. */
VpQemuProbe *vp_qemu_probe_new(GKeyFile *config);
void vp_qemu_probe_free(VpQemuProbe *probe);

typedef struct VpQemuFound {
    char *binary;
    char *architecture; /* of its guests */
    PbAccelerator accelerator;
    char *cpu;
} VpQemuFound;

/* The binary and what is to run the CPUs of a domain that wishes for `wish`. FAILED_PRECONDITION: QEMU_NOT_FOUND, KVM_UNAVAILABLE. */
VpError *vp_qemu_probe_find(VpQemuProbe *probe, PbAccelerator wish, VpQemuFound *ret_found);
void vp_qemu_found_clear(VpQemuFound *found);

/* Fills in all but name and methods. */
void vp_qemu_probe_capabilities(VpQemuProbe *probe, PbDriverCapabilities *capabilities);
