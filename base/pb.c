/* Helpers for protobuf-c messages: see pb.h. */
#include "base/pb.h"

#include <stdlib.h>
#include <string.h>

void *vp_pb_new(const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = g_malloc0(descriptor->sizeof_message);

    protobuf_c_message_init(descriptor, message);
    return message;
}

void *vp_pb_dup(const void *message)
{
    const ProtobufCMessage *from = message;

    if (!from)
        return NULL;
    g_autoptr(GBytes) packed = vp_pb_pack(from);
    void *copy = vp_pb_unpack(from->descriptor, packed);
    gsize size;
    const void *bytes = g_bytes_get_data(packed, &size);

    /* There may have been a password in it. */
    if (size > 0)
        explicit_bzero((void *)bytes, size);
    return copy;
}

GBytes *vp_pb_pack(const void *message)
{
    const size_t size = protobuf_c_message_get_packed_size(message);
    guint8 *bytes = g_malloc(size ? size : 1);

    protobuf_c_message_pack(message, bytes);
    return g_bytes_new_take(bytes, size);
}

gboolean vp_pb_equal(const void *a, const void *b)
{
    g_autoptr(GBytes) x = vp_pb_pack(a);
    g_autoptr(GBytes) y = vp_pb_pack(b);

    return g_bytes_equal(x, y);
}

static gsize field_bytes(const ProtobufCFieldDescriptor *field)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return sizeof(void *);
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return 4;
    }
}

/* A message with nothing but this field, which stays the owner's. */
static GBytes *pack_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    g_autofree ProtobufCMessage *alone = g_malloc0(message->descriptor->sizeof_message);
    const gboolean repeated = field->label == PROTOBUF_C_LABEL_REPEATED;

    protobuf_c_message_init(message->descriptor, alone);
    memcpy((guint8 *)alone + field->offset, (const guint8 *)message + field->offset, field_bytes(field));
    if (field->quantifier_offset)
        memcpy((guint8 *)alone + field->quantifier_offset, (const guint8 *)message + field->quantifier_offset,
               repeated ? sizeof(size_t) : sizeof(protobuf_c_boolean));
    return vp_pb_pack(alone);
}

gboolean vp_pb_field_equal(const void *a, const void *b, const ProtobufCFieldDescriptor *field)
{
    g_autoptr(GBytes) x = pack_field(a, field);
    g_autoptr(GBytes) y = pack_field(b, field);

    return g_bytes_equal(x, y);
}

void *vp_pb_unpack(const ProtobufCMessageDescriptor *descriptor, GBytes *bytes)
{
    gsize size;
    const guint8 *data = g_bytes_get_data(bytes, &size);

    return protobuf_c_message_unpack(descriptor, NULL, size, data);
}

static gsize put_varint(guint8 *at, guint64 value)
{
    gsize n = 0;

    for (; value >= 0x80; value >>= 7)
        at[n++] = (guint8)(value | 0x80);
    at[n++] = (guint8)value;
    return n;
}

gsize vp_pb_put_prefix(guint8 *at, guint field, gsize size)
{
    const gsize n = put_varint(at, (guint64)field << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);

    return n + put_varint(at + n, size);
}

static void take_string(char **field, char *value)
{
    if (*field != protobuf_c_empty_string)
        g_free(*field);
    *field = value;
}

void vp_pb_set(char **field, const char *value)
{
    take_string(field, g_strdup(value ? value : ""));
}

void vp_pb_printf(char **field, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *value = g_strdup_vprintf(format, args);
    va_end(args);
    take_string(field, value);
}

void vp_pb_append_pointer(size_t *count, void ***array, void *item)
{
    /* An unpacked message has room for just what it holds, so there is no room to count on. */
    *array = g_realloc_n(*array, *count + 1, sizeof(void *));
    (*array)[(*count)++] = item;
}

Google__Protobuf__Timestamp *vp_pb_timestamp(gint64 wall_us)
{
    Google__Protobuf__Timestamp *timestamp = vp_pb_new(&google__protobuf__timestamp__descriptor);

    timestamp->seconds = wall_us / G_USEC_PER_SEC;
    timestamp->nanos = (gint32)(wall_us % G_USEC_PER_SEC) * 1000;
    return timestamp;
}

gint64 vp_pb_timestamp_us(const Google__Protobuf__Timestamp *timestamp)
{
    return timestamp ? timestamp->seconds * G_USEC_PER_SEC + timestamp->nanos / 1000 : 0;
}

const char *vp_pb_enum_name(const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(descriptor, value);

    return found ? found->name : NULL;
}

void vp_pb_free(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}
