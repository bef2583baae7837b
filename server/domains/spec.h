/* What a client may ask of a domain's model: checks, defaults, and field masks. Pure but for the random MAC address and uid. */
#pragma once

#include "base/error.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "virtplane/v1/domain.pb-c.h"

/* Checks what every driver asks for, and fills in what a client left out: uid, vcpus, memory, targets, MACs, bus. INVALID_ARGUMENT with violations. */
VpError *vp_spec_complete(PbDomain *domain);

/* Takes the fields that `mask` names from `wanted` into `draft`. Unknown paths are refused: INVALID_ARGUMENT. `ret_spec_changed`: something in the spec
 * was named that a running domain cannot take. */
VpError *vp_spec_update(PbDomain *draft, const PbDomain *wanted, const Google__Protobuf__FieldMask *mask,
                        gboolean *ret_spec_changed);
