/*
 * Small helpers for protobuf-c messages. All messages that are passed around are as if unpacked: every string and array in them
 * is owned by the message (malloc or GLib's allocator, which are the same), and vp_pb_free() frees the whole.
 */
#pragma once

#include <glib.h>
#include <protobuf-c/protobuf-c.h>

#include "google/protobuf/timestamp.pb-c.h"

/* A new, empty message of this type, owned by the caller: `PbDomain *domain = vp_pb_new(&pb_domain__descriptor);` */
void *vp_pb_new(const ProtobufCMessageDescriptor *descriptor);

/* A deep copy (by way of the wire), or NULL for NULL. */
void *vp_pb_dup(const void *message);

/* The packed bytes. */
GBytes *vp_pb_pack(const void *message);

/* Whether two messages of one type say the same, and whether they do in one field. */
gboolean vp_pb_equal(const void *a, const void *b);
gboolean vp_pb_field_equal(const void *a, const void *b, const ProtobufCFieldDescriptor *field);

/* Unpacks; NULL if the bytes are no such message. Only for bytes that we packed ourselves or that the validator has passed:
 * protobuf-c recurses without limit. */
void *vp_pb_unpack(const ProtobufCMessageDescriptor *descriptor, GBytes *bytes);

/* What stands before a message (or string) of `size` bytes in field `field` of another, on the wire; answers how many bytes that are. */
#define VP_PB_PREFIX_MAX 20
gsize vp_pb_put_prefix(guint8 *at, guint field, gsize size);

/* Replaces a string field by a copy of `value` (NULL: empty). */
void vp_pb_set(char **field, const char *value);
/* The same with printf's format. */
void vp_pb_printf(char **field, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Appends `item` (owned by the message from now on) to a repeated field: vp_pb_append(&m->n_disks, &m->disks, disk). The array
 * pointer may be of any type. */
#define vp_pb_append(count, array, item) vp_pb_append_pointer((count), (void ***)(array), (item))
void vp_pb_append_pointer(size_t *count, void ***array, void *item);

/* A timestamp of microseconds since 1970, and back (0 for NULL). */
Google__Protobuf__Timestamp *vp_pb_timestamp(gint64 wall_us);
gint64 vp_pb_timestamp_us(const Google__Protobuf__Timestamp *timestamp);

/* The name of an enum's value as in the .proto ("DOMAIN_STATE_RUNNING"), or NULL. */
const char *vp_pb_enum_name(const ProtobufCEnumDescriptor *descriptor, int value);

/* Frees a message of any type, strings and all; NULL is let pass. */
void vp_pb_free(void *message);

static inline void vp_pb_freep(void *pointer)
{
    vp_pb_free(*(void **)pointer);
}

/* `vp_pb_auto PbDomain *domain = ...;` is freed when the scope ends. */
#define vp_pb_auto __attribute__((cleanup(vp_pb_freep)))
