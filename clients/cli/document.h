/* A file that a person wrote, JSON or YAML, as a message. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"

/* The message in `path` ("-": standard input); an object whose only field is `wrapper`, as in an answer that was
 * saved, is unwrapped. */
void *vp_document_read(const char *path, const ProtobufCMessageDescriptor *descriptor, const char *wrapper,
                       VpError **error);
