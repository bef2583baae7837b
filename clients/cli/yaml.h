/* YAML over libyaml, to and from jansson's values. */
#pragma once

#include <jansson.h>

#include "base/error.h"

/* One YAML document, which ends with a newline. */
char *vp_yaml_print(const json_t *json);

/* The one document in `text` (JSON is YAML too), owned by the caller. Plain null, true, false and numbers get their
 * types; everything else is a string. INVALID_ARGUMENT with the line if it is malformed, has several documents, or
 * is too large or too deep. */
json_t *vp_yaml_parse(const char *text, gsize length, VpError **error);
