/* What this host's QEMU and KVM can do. Blocks for a moment: QEMU is asked once per binary, as told by its time and size (known.h). */
#pragma once

#include "base/error.h"
#include "known.h"
#include "virtplane/v1/host.pb-c.h"

typedef struct VpQemuProbe VpQemuProbe;

/* Reads [qemu] binary=, accelerator= and cpu=. What QEMU told is kept in the file `memory` for the next daemon. */
VpQemuProbe *vp_qemu_probe_new(GKeyFile *config, const char *memory);
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

/* What that binary can do. FAILED_PRECONDITION, reason QEMU_UNUSABLE, if it does not tell. */
VpError *vp_qemu_probe_ask(VpQemuProbe *probe, const char *binary, VpQemuKnown **ret_known);

/* Makes a spec fit for a start with what was found: the machine with its version. FAILED_PRECONDITION, reason UNSUPPORTED, where it wishes for what this
 * QEMU lacks. */
VpError *vp_qemu_probe_fit(VpQemuProbe *probe, const VpQemuFound *found, PbDomainSpec *spec);

/* Puts the version of the machine into a spec, as far as the QEMU that there is now knows it. */
void vp_qemu_probe_set_machine(VpQemuProbe *probe, PbDomainSpec *spec);

/* Fills in all but name and methods. */
void vp_qemu_probe_capabilities(VpQemuProbe *probe, PbDriverCapabilities *capabilities);
