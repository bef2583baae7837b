/*
 * The protobuf JSON mapping (https://protobuf.dev/programming-guides/json/) for proto3 messages of protobuf-c,
 * driven by their descriptors: lowerCamelCase names, 64-bit integers as strings, enums by name, bytes in base64,
 * maps as objects, Timestamp, Duration and FieldMask in their text forms, fields with their default value left out.
 * google.protobuf.Any is printed as a plain message; the contract has none.
 */
#pragma once

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "base/error.h"

/* The message as JSON, owned by the caller. Always answers: bytes that are not UTF-8 become U+FFFD, a time that
 * cannot be written becomes null. */
json_t *vp_json_print(const void *message);

/* A message of this type from JSON (vp_pb_free() frees it), or NULL and INVALID_ARGUMENT with the path of the field.
 * Takes the fields' original names as well, and numbers for 64-bit fields and enums; null is "not set"; unknown
 * names are refused. */
void *vp_json_parse(const ProtobufCMessageDescriptor *descriptor, const json_t *json, VpError **error);
