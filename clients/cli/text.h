/* Text for people: sizes, durations, times, enum names, and the escaping that every text from outside goes through. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "google/protobuf/timestamp.pb-c.h"

/* `text` (NULL: empty) fit for a terminal: control characters, bytes that are no UTF-8, and the characters that turn
 * the direction of writing come out as \n, \xNN or \uNNNN. A text from the daemon may have been written by anyone
 * who names an image or a domain. */
char *vp_text_escape(const char *text);

/* The same for text that is JSON or YAML: those that JSON's own escaping lets pass come out as \uNNNN. */
char *vp_text_escape_json(const char *json);

/* At most `most` characters of the text, "..." at the end if there is more of it. */
char *vp_text_shorten(const char *text, guint most);

/* "512 MiB", "1.5 GiB", "196 KiB", "17 B". */
char *vp_text_size(guint64 bytes);

/* "512M", "1.5GiB", "4096": K, M, G, T and P are powers of 1,024; no unit is bytes. FALSE: it is no size. */
gboolean vp_text_parse_size(const char *text, guint64 *ret_bytes);

/* "30s", "500ms", "2m", "1h30m"; a bare number is seconds. Beyond a year is refused. */
gboolean vp_text_parse_duration(const char *text, gint64 *ret_ms);

/* "2026-01-02 03:04:05" in local time, with ".678" where `fraction`; "-" if unset. */
char *vp_text_time(const Google__Protobuf__Timestamp *time, gboolean fraction);

/* DOMAIN_STATE_SHUTTING_DOWN as "shutting-down"; a number that is not known as "17"; the unset value as "". */
char *vp_text_enum(const ProtobufCEnumDescriptor *descriptor, int value);
/* The same as "SHUTTING_DOWN", for codes that programs compare. */
char *vp_text_code(const ProtobufCEnumDescriptor *descriptor, int value);

/* From any of those, or the full name, in any case; INVALID_ARGUMENT, which lists what there is. */
VpError *vp_text_parse_enum(const ProtobufCEnumDescriptor *descriptor, const char *text, int *ret_value);

/* The one of `words` (NULL at the end) that `text` was probably meant to be, or NULL. */
const char *vp_text_nearest(const char *text, const char *const *words);
