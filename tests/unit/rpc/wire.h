/* Messages made by hand, byte by byte: what a hostile client sends. */
#pragma once

#include "server/rpc/validate.h"

/* Appends a field's key, and values in each wire type. */
void wire_varint(GByteArray *bytes, guint64 value);
void wire_key(GByteArray *bytes, guint field, guint wire_type);
void wire_number(GByteArray *bytes, guint field, guint64 value);
void wire_text(GByteArray *bytes, guint field, const char *text);
void wire_bytes(GByteArray *bytes, guint field, const void *data, gsize size);
/* Puts what `bytes` holds into field `field` of a message around it. */
void wire_wrap(GByteArray *bytes, guint field);

/* The method's request type, by "DomainService/CreateDomain"; fails the process if there is none. */
const VpMethod *method_of(const VpContract *contract, const char *name);
