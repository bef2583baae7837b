/* What can be said of a spec without QEMU and without any file: defaults, and what is wrong with it. Pure. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* Fills in what a spec leaves open and what must not change once it was chosen. What is there stays, so that it may be called again. */
void vp_spec_complete_qemu(PbDomainSpec *spec);

/* INVALID_ARGUMENT with violations for what can be told to be wrong without looking at any file. `spec` is complete. */
VpError *vp_spec_validate(const PbDomainSpec *spec);

/* Of a spec that does not say. */
#define VP_DEFAULT_MEMORY_BYTES (G_GUINT64_CONSTANT(512) << 20)

/* ---- between the files of the checks ---- */

typedef struct VpSpecCheck {
    const PbDomainSpec *spec;
    VpError *error;
} VpSpecCheck;

/* Adds a violation of domain.spec.FIELD, making the error with the first. */
void vp_spec_violation(VpSpecCheck *check, const char *text, const char *field, ...) G_GNUC_PRINTF(3, 4);

/* Adds one if `value` is no value of the enum. */
void vp_spec_check_enum(VpSpecCheck *check, const ProtobufCEnumDescriptor *descriptor, int value, const char *field);

void vp_spec_check_disks(VpSpecCheck *check);
void vp_spec_check_interfaces(VpSpecCheck *check);
void vp_spec_check_limits(VpSpecCheck *check);
void vp_spec_check_host_parts(VpSpecCheck *check);
void vp_spec_check_numa(VpSpecCheck *check);
