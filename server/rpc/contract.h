/*
 * The contract as the runtime needs it: each method with its message descriptors, streaming flags and who may call it, and the bounds of each field. Read from
 * the embedded descriptors once at start; immutable afterwards, so any thread may look.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "virtplane/v1/rules.pb-c.h"

typedef struct VpContract VpContract;

typedef struct VpMethod {
    char *path;         /* "/virtplane.v1.DomainService/GetDomain", as on the wire */
    const char *method; /* the same without the first slash */
    const ProtobufCMessageDescriptor *input;
    const ProtobufCMessageDescriptor *output;
    gboolean client_streaming;
    gboolean server_streaming;
    /* Who may call it: see rules.proto. */
    PbRole role;
    PbMethodScope scope;
    char *resource;
    gboolean audited;
} VpMethod;

/* The bounds of one field: see FieldRules in rules.proto. */
typedef struct VpFieldBounds {
    guint32 max_bytes; /* 0: a number, an enum, or a message without a limit of its own */
    guint32 max_items; /* 0: not repeated */
    guint64 min_value;
    guint64 max_value; /* 0: not checked */
    PbStringForm form;
} VpFieldBounds;

/* Reads proto/descriptors.h. INTERNAL, reason CONTRACT_MISMATCH, if code and descriptors do not fit together or a request has a field without
 * bounds: a bug of the build. */
VpContract *vp_contract_new(VpError **error);

/* All methods, in no order: array of VpMethod, borrowed. */
const GArray *vp_contract_methods(const VpContract *contract);

/* The full names of all services, NULL at the end; borrowed. */
const char *const *vp_contract_services(const VpContract *contract);

/* The bounds of a message's fields, as many as `descriptor->n_fields` and in their order; NULL: no request can hold this message. Borrowed. */
const VpFieldBounds *vp_contract_bounds(const VpContract *contract, const ProtobufCMessageDescriptor *descriptor);

void vp_contract_free(VpContract *contract);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpContract, vp_contract_free)
