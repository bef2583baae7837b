/* How much each field of a request may hold, from the rules in the descriptors. For contract.c alone. */
#pragma once

#include "google/protobuf/descriptor.pb-c.h"
#include "server/rpc/contract.h"

/* The message of an extension, which protobuf-c keeps among the unknown fields; owned by the caller. NULL if there is none. */
void *vp_bounds_extension(const ProtobufCMessage *options, guint number, const ProtobufCMessageDescriptor *type);

/* Adds the bounds of a message and of all below it to `bounds` (ProtobufCMessageDescriptor * -> VpFieldBounds[]). CONTRACT_MISMATCH if some field has none. */
VpError *vp_bounds_add(GHashTable *bounds, const Google__Protobuf__FileDescriptorSet *set,
                       const ProtobufCMessageDescriptor *descriptor);
