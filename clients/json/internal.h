/* What printing and parsing share: names, maps, sizes, and the text forms of times. */
#pragma once

#include <glib.h>
#include <protobuf-c/protobuf-c.h>

/* "memory_bytes" to "memoryBytes", as protoc makes json_name. */
char *vp_json_camel(const char *name);
/* And back, for the paths of a field mask; NULL where there is no way back (an underscore in it). */
char *vp_json_snake(const char *name);

/* Whether the field is a map: protobuf-c does not say it, so that it is told by the name of the entry type that
 * protoc makes. */
gboolean vp_json_is_map(const ProtobufCMessageDescriptor *parent, const ProtobufCFieldDescriptor *field);

/* The bytes of one value of this field in memory. */
size_t vp_json_value_size(const ProtobufCFieldDescriptor *field);

/* "2026-01-02T03:04:05.678Z", or NULL for a time outside of the years 1 to 9999. */
char *vp_json_timestamp_text(gint64 seconds, gint32 nanos);
gboolean vp_json_timestamp_parse(const char *text, gint64 *ret_seconds, gint32 *ret_nanos);

/* "1.500s", or NULL for a duration that is not valid. */
char *vp_json_duration_text(gint64 seconds, gint32 nanos);
gboolean vp_json_duration_parse(const char *text, gint64 *ret_seconds, gint32 *ret_nanos);
