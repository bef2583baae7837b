/* From messages to JSON: see json.h. */
#include "clients/json/json.h"

#include <math.h>
#include <string.h>

#include "clients/json/internal.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

static json_t *print_text(const char *text)
{
    if (!text)
        text = "";
    if (g_utf8_validate(text, -1, NULL))
        return json_string(text);

    g_autofree char *valid = g_utf8_make_valid(text, -1);
    return json_string(valid);
}

static json_t *print_text_or_null(char *text)
{
    json_t *json = text ? json_string(text) : json_null();

    g_free(text);
    return json;
}

static json_t *print_real(double value)
{
    if (isnan(value))
        return json_string("NaN");
    if (isinf(value))
        return json_string(value > 0 ? "Infinity" : "-Infinity");
    return json_real(value);
}

/* A float has fewer digits than the double it becomes: the shortest text that gives the same float again is what is
 * meant. */
static json_t *print_float(float value)
{
    char text[G_ASCII_DTOSTR_BUF_SIZE];

    for (int digits = 6; digits <= 9 && isfinite(value); digits++) {
        char format[] = "%.6g";

        format[2] = (char)('0' + digits);
        g_ascii_formatd(text, sizeof(text), format, (double)value);
        if ((float)g_ascii_strtod(text, NULL) == value)
            return json_real(g_ascii_strtod(text, NULL));
    }
    return print_real((double)value);
}

static json_t *print_enum(const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(descriptor, value);

    return found ? json_string(found->name) : json_integer(value);
}

static json_t *print_bytes(const ProtobufCBinaryData *bytes)
{
    g_autofree char *text = g_base64_encode(bytes->data, bytes->len);

    return json_string(text);
}

static json_t *print_wide(const ProtobufCFieldDescriptor *field, const void *value)
{
    char text[32];

    if (field->type == PROTOBUF_C_TYPE_UINT64 || field->type == PROTOBUF_C_TYPE_FIXED64)
        g_snprintf(text, sizeof(text), "%" G_GUINT64_FORMAT, *(const guint64 *)value);
    else
        g_snprintf(text, sizeof(text), "%" G_GINT64_FORMAT, *(const gint64 *)value);
    return json_string(text);
}

/* One value, not the whole of a repeated field. */
static json_t *print_value(const ProtobufCFieldDescriptor *field, const void *value)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const gint32 *)value);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const guint32 *)value);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return print_wide(field, value);
    case PROTOBUF_C_TYPE_FLOAT:
        return print_float(*(const float *)value);
    case PROTOBUF_C_TYPE_DOUBLE:
        return print_real(*(const double *)value);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)value);
    case PROTOBUF_C_TYPE_ENUM:
        return print_enum(field->descriptor, *(const int *)value);
    case PROTOBUF_C_TYPE_STRING:
        return print_text(*(char *const *)value);
    case PROTOBUF_C_TYPE_BYTES:
        return print_bytes(value);
    case PROTOBUF_C_TYPE_MESSAGE:
        /* The value of a map's entry may be missing; it counts as an empty message. */
        return *(void *const *)value ? vp_json_print(*(void *const *)value) : json_object();
    }
    return json_null();
}

static char *map_key_text(const ProtobufCFieldDescriptor *field, const void *key)
{
    if (field->type == PROTOBUF_C_TYPE_BOOL)
        return g_strdup(*(const protobuf_c_boolean *)key ? "true" : "false");

    json_t *json = print_value(field, key);
    char *text = json_is_string(json) ? g_strdup(json_string_value(json))
                                      : g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(json));
    json_decref(json);
    return text;
}

static json_t *print_map(const ProtobufCMessage *const *entries, size_t count)
{
    json_t *map = json_object();

    for (size_t i = 0; i < count; i++) {
        const ProtobufCFieldDescriptor *key = &entries[i]->descriptor->fields[0];
        const ProtobufCFieldDescriptor *value = &entries[i]->descriptor->fields[1];
        g_autofree char *text = map_key_text(key, (const char *)entries[i] + key->offset);

        /* The last of equal keys wins, as on the wire. */
        json_object_set_new(map, text, print_value(value, (const char *)entries[i] + value->offset));
    }
    return map;
}

static json_t *print_repeated(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const size_t count = *(const size_t *)((const char *)message + field->quantifier_offset);
    const char *items = *(char *const *)((const char *)message + field->offset);

    if (count == 0)
        return NULL;
    if (vp_json_is_map(message->descriptor, field))
        return print_map((const ProtobufCMessage *const *)items, count);

    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, print_value(field, items + i * vp_json_value_size(field)));
    return array;
}

static gboolean is_default(const ProtobufCFieldDescriptor *field, const void *value)
{
    static const char zeroes[8] = {0};

    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return !*(char *const *)value || !**(char *const *)value;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)value)->len == 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return !*(void *const *)value;
    default:
        return memcmp(value, zeroes, vp_json_value_size(field)) == 0;
    }
}

/* The field's value, or NULL where the mapping leaves it out. */
static json_t *print_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *value = (const char *)message + field->offset;

    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return print_repeated(message, field);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        const guint32 set = *(const guint32 *)((const char *)message + field->quantifier_offset);

        return set == field->id ? print_value(field, value) : NULL;
    }
    return is_default(field, value) ? NULL : print_value(field, value);
}

static json_t *print_field_mask(const Google__Protobuf__FieldMask *mask)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (size_t i = 0; i < mask->n_paths; i++) {
        g_autofree char *path = vp_json_camel(mask->paths[i]);

        g_string_append_printf(out, "%s%s", i ? "," : "", path);
    }
    return print_text(out->str);
}

json_t *vp_json_print(const void *message)
{
    const ProtobufCMessageDescriptor *descriptor = ((const ProtobufCMessage *)message)->descriptor;

    if (descriptor == &google__protobuf__timestamp__descriptor) {
        const Google__Protobuf__Timestamp *time = message;
        return print_text_or_null(vp_json_timestamp_text(time->seconds, time->nanos));
    }
    if (descriptor == &google__protobuf__duration__descriptor) {
        const Google__Protobuf__Duration *duration = message;
        return print_text_or_null(vp_json_duration_text(duration->seconds, duration->nanos));
    }
    if (descriptor == &google__protobuf__field_mask__descriptor)
        return print_field_mask(message);

    json_t *object = json_object();
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        json_t *value = print_field(message, &descriptor->fields[i]);

        if (value) {
            g_autofree char *name = vp_json_camel(descriptor->fields[i].name);
            json_object_set_new(object, name, value);
        }
    }
    return object;
}
