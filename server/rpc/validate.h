/*
 * The one check that every inbound message passes before protobuf-c may unpack it: protobuf-c 1.4 recurses as deep as the bytes say, takes
 * invalid UTF-8 and cuts strings at a NUL. Works on the bytes, driven by the descriptors and the bounds in them. Pure; any thread.
 */
#pragma once

#include "server/rpc/contract.h"

/* NULL if `bytes` are a message of this type within all bounds; else INVALID_ARGUMENT: reason MALFORMED_REQUEST if they are no message at all,
 * INVALID_REQUEST with the violation's field path otherwise. */
VpError *vp_validate(const VpContract *contract, const ProtobufCMessageDescriptor *descriptor, const guint8 *bytes,
                     gsize size);

/* Whether a string has this form; the empty one always has. */
gboolean vp_string_has_form(PbStringForm form, const char *text, gsize length);
