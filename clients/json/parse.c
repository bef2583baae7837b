/* From JSON to messages: see json.h. The messages are what vp_pb_free() frees: allocated by GLib, which is malloc. */
#include "clients/json/json.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/pb.h"
#include "clients/json/internal.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"

/* One value's destination. Paths are for errors alone: "domain.spec.disks[0].path". */
typedef struct Place {
    const ProtobufCFieldDescriptor *field;
    const char *path;
    void *value;
} Place;

static VpError *parse_into(ProtobufCMessage *message, const json_t *json, const char *path);

static VpError *wrong(const char *path, const char *wanted)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "JSON_INVALID", "%s: must be %s", *path ? path : "the document", wanted);
}

/* An integer from a number, a whole real, or a decimal string, as the mapping allows. */
static gboolean read_signed(const json_t *json, gint64 min, gint64 max, gint64 *ret)
{
    gint64 value;

    if (json_is_integer(json)) {
        value = json_integer_value(json);
    } else if (json_is_real(json)) {
        const double real = json_real_value(json);
        if (real != floor(real) || fabs(real) > 9007199254740992.0)
            return FALSE;
        value = (gint64)real;
    } else if (!json_is_string(json) ||
               !g_ascii_string_to_signed(json_string_value(json), 10, min, max, &value, NULL)) {
        return FALSE;
    }
    if (value < min || value > max)
        return FALSE;
    *ret = value;
    return TRUE;
}

static gboolean read_unsigned(const json_t *json, guint64 max, guint64 *ret)
{
    gint64 value;

    if (json_is_string(json))
        return g_ascii_string_to_unsigned(json_string_value(json), 10, 0, max, ret, NULL);
    if (!read_signed(json, 0, G_MAXINT64, &value) || (guint64)value > max)
        return FALSE;
    *ret = (guint64)value;
    return TRUE;
}

static gboolean read_double(const json_t *json, double *ret)
{
    if (json_is_number(json)) {
        *ret = json_number_value(json);
        return TRUE;
    }
    if (!json_is_string(json))
        return FALSE;

    const char *text = json_string_value(json);
    char *end;

    if (g_str_equal(text, "NaN"))
        *ret = NAN;
    else if (g_str_equal(text, "Infinity"))
        *ret = INFINITY;
    else if (g_str_equal(text, "-Infinity"))
        *ret = -INFINITY;
    else
        return *text && (*ret = g_ascii_strtod(text, &end), *end == '\0');
    return TRUE;
}

static VpError *parse_enum(const Place *place, const json_t *json)
{
    const ProtobufCEnumDescriptor *descriptor = place->field->descriptor;
    gint64 number;

    if (json_is_integer(json) && read_signed(json, G_MININT32, G_MAXINT32, &number)) {
        *(int *)place->value = (int)number;
        return NULL;
    }
    const char *name = json_string_value(json);
    const ProtobufCEnumValue *found = name ? protobuf_c_enum_descriptor_get_value_by_name(descriptor, name) : NULL;
    if (found) {
        *(int *)place->value = found->value;
        return NULL;
    }

    g_autoptr(GString) wanted = g_string_new("one of ");
    for (unsigned i = 0; i < descriptor->n_values; i++)
        g_string_append_printf(wanted, "%s%s", i ? ", " : "", descriptor->values[i].name);
    return wrong(place->path, wanted->str);
}

static VpError *parse_string(const Place *place, const json_t *json)
{
    if (!json_is_string(json))
        return wrong(place->path, "a string (quote it)");
    if (strlen(json_string_value(json)) != json_string_length(json))
        return wrong(place->path, "a string without NUL");
    vp_pb_set(place->value, json_string_value(json));
    return NULL;
}

static VpError *parse_bytes(const Place *place, const json_t *json)
{
    ProtobufCBinaryData *bytes = place->value;

    if (!json_is_string(json))
        return wrong(place->path, "base64 text");

    /* The URL-safe alphabet is taken too, and padding may be missing. */
    g_autoptr(GString) text = g_string_new(json_string_value(json));
    while (text->len && text->str[text->len - 1] == '=')
        g_string_truncate(text, text->len - 1);
    for (gsize i = 0; i < text->len; i++) {
        text->str[i] = text->str[i] == '-' ? '+' : text->str[i] == '_' ? '/' : text->str[i];
        if (!g_ascii_isalnum(text->str[i]) && text->str[i] != '+' && text->str[i] != '/')
            return wrong(place->path, "base64 text");
    }
    if (text->len % 4 == 1)
        return wrong(place->path, "base64 text");
    while (text->len % 4)
        g_string_append_c(text, '=');
    g_free(bytes->data);
    bytes->data = g_base64_decode(text->str, &bytes->len);
    return NULL;
}

static VpError *parse_message(const Place *place, const json_t *json)
{
    ProtobufCMessage *message = vp_pb_new(place->field->descriptor);

    *(ProtobufCMessage **)place->value = message;
    return parse_into(message, json, place->path);
}

static VpError *parse_signed(const Place *place, const json_t *json, gboolean wide)
{
    gint64 value;

    if (!read_signed(json, wide ? G_MININT64 : G_MININT32, wide ? G_MAXINT64 : G_MAXINT32, &value))
        return wrong(place->path, wide ? "a whole number of 64 bits" : "a whole number of 32 bits");
    if (wide)
        *(gint64 *)place->value = value;
    else
        *(gint32 *)place->value = (gint32)value;
    return NULL;
}

static VpError *parse_unsigned(const Place *place, const json_t *json, gboolean wide)
{
    guint64 value;

    if (!read_unsigned(json, wide ? G_MAXUINT64 : G_MAXUINT32, &value))
        return wrong(place->path, wide ? "a whole number from 0 to 2^64-1" : "a whole number from 0 to 2^32-1");
    if (wide)
        *(guint64 *)place->value = value;
    else
        *(guint32 *)place->value = (guint32)value;
    return NULL;
}

static VpError *parse_real(const Place *place, const json_t *json)
{
    double value;

    if (!read_double(json, &value))
        return wrong(place->path, "a number");
    if (place->field->type == PROTOBUF_C_TYPE_FLOAT)
        *(float *)place->value = (float)value;
    else
        *(double *)place->value = value;
    return NULL;
}

static VpError *parse_value(const Place *place, const json_t *json)
{
    switch (place->field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return parse_signed(place, json, /* wide= */ FALSE);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return parse_signed(place, json, /* wide= */ TRUE);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return parse_unsigned(place, json, /* wide= */ FALSE);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return parse_unsigned(place, json, /* wide= */ TRUE);
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        return parse_real(place, json);
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(json))
            return wrong(place->path, "true or false");
        *(protobuf_c_boolean *)place->value = json_is_true(json);
        return NULL;
    case PROTOBUF_C_TYPE_ENUM:
        return parse_enum(place, json);
    case PROTOBUF_C_TYPE_STRING:
        return parse_string(place, json);
    case PROTOBUF_C_TYPE_BYTES:
        return parse_bytes(place, json);
    case PROTOBUF_C_TYPE_MESSAGE:
        return parse_message(place, json);
    }
    return wrong(place->path, "of a known type");
}

static VpError *parse_array(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const json_t *json,
                            const char *path)
{
    size_t *count = (size_t *)((char *)message + field->quantifier_offset);
    char **items = (char **)((char *)message + field->offset);

    if (!json_is_array(json))
        return wrong(path, "a list");
    if (json_array_size(json) == 0)
        return NULL;

    *items = g_malloc0_n(json_array_size(json), vp_json_value_size(field));
    for (size_t i = 0; i < json_array_size(json); i++) {
        g_autofree char *item_path = g_strdup_printf("%s[%zu]", path, i);
        const Place place = {field, item_path, *items + i * vp_json_value_size(field)};
        const json_t *item = json_array_get(json, i);

        if (json_is_null(item))
            return wrong(item_path, "a value, not null");
        VpError *error = parse_value(&place, item);
        /* Counted even when half made, so that it is freed with the message; a string that failed is still NULL. */
        *count = i + 1;
        if (error)
            return error;
    }
    return NULL;
}

/* Keys are strings in JSON whatever they are in the message; true and false are the keys of a map of booleans. */
static VpError *parse_map_key(const Place *place, const char *key)
{
    json_t *json = place->field->type != PROTOBUF_C_TYPE_BOOL ? json_string(key)
                   : g_str_equal(key, "true")                 ? json_true()
                   : g_str_equal(key, "false")                ? json_false()
                                                              : json_string(key);
    VpError *error = parse_value(place, json);

    json_decref(json);
    return error;
}

static VpError *parse_map(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const json_t *json,
                          const char *path)
{
    const ProtobufCMessageDescriptor *descriptor = field->descriptor;
    const char *key;
    json_t *value;

    if (!json_is_object(json))
        return wrong(path, "a map");
    json_object_foreach((json_t *)json, key, value)
    {
        g_autofree char *entry_path = g_strdup_printf("%s[\"%s\"]", path, key);
        ProtobufCMessage *entry = vp_pb_new(descriptor);

        vp_pb_append((size_t *)((char *)message + field->quantifier_offset),
                     (void ***)((char *)message + field->offset), entry);

        const Place key_place = {&descriptor->fields[0], entry_path, (char *)entry + descriptor->fields[0].offset};
        const Place value_place = {&descriptor->fields[1], entry_path, (char *)entry + descriptor->fields[1].offset};
        if (json_is_null(value))
            return wrong(entry_path, "a value, not null");
        VpError *error = parse_map_key(&key_place, key);
        if (!error)
            error = parse_value(&value_place, value);
        if (error)
            return error;
    }
    return NULL;
}

static VpError *parse_oneof(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const json_t *json,
                            const char *path)
{
    guint32 *set = (guint32 *)((char *)message + field->quantifier_offset);
    const Place place = {field, path, (char *)message + field->offset};

    if (*set)
        return wrong(path, "the only one of its group that is set");
    *set = field->id;
    return parse_value(&place, json);
}

static VpError *parse_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const json_t *json,
                            const char *path)
{
    if (json_is_null(json))
        return NULL;
    if (vp_json_is_map(message->descriptor, field))
        return parse_map(message, field, json, path);
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return parse_array(message, field, json, path);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return parse_oneof(message, field, json, path);

    const Place place = {field, path, (char *)message + field->offset};
    return parse_value(&place, json);
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *descriptor, const char *name)
{
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        g_autofree char *camel = vp_json_camel(descriptor->fields[i].name);

        if (g_str_equal(camel, name) || g_str_equal(descriptor->fields[i].name, name))
            return &descriptor->fields[i];
    }
    return NULL;
}

static VpError *unknown_field(const ProtobufCMessageDescriptor *descriptor, const char *path)
{
    g_autoptr(GString) known = g_string_new(NULL);

    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        g_autofree char *camel = vp_json_camel(descriptor->fields[i].name);

        g_string_append_printf(known, "%s%s", i ? ", " : "", camel);
    }
    return vp_error_new(VP_INVALID_ARGUMENT, "JSON_INVALID", "%s: there is no such field; %s has %s", path,
                        descriptor->short_name, known->len ? known->str : "none");
}

static VpError *parse_object(ProtobufCMessage *message, const json_t *json, const char *path)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    const char *name;
    json_t *value;

    if (!json_is_object(json))
        return wrong(path, "a map of fields");
    json_object_foreach((json_t *)json, name, value)
    {
        g_autofree char *field_path = g_strdup_printf("%s%s%s", path, *path ? "." : "", name);
        const ProtobufCFieldDescriptor *field = find_field(descriptor, name);

        if (!field)
            return unknown_field(descriptor, field_path);
        if (!g_hash_table_add(seen, (gpointer)field))
            return wrong(field_path, "given once, not by both of its names");
        VpError *error = parse_field(message, field, value, field_path);
        if (error)
            return error;
    }
    return NULL;
}

static VpError *parse_field_mask(Google__Protobuf__FieldMask *mask, const json_t *json, const char *path)
{
    if (!json_is_string(json))
        return wrong(path, "field paths, separated by commas");

    g_auto(GStrv) paths = g_strsplit(json_string_value(json), ",", -1);
    for (char **item = paths; *item; item++) {
        char *snake = vp_json_snake(*item);

        if (!snake)
            return wrong(path, "field paths in lowerCamelCase");
        vp_pb_append(&mask->n_paths, &mask->paths, snake);
    }
    return NULL;
}

static VpError *parse_into(ProtobufCMessage *message, const json_t *json, const char *path)
{
    const char *text = json_string_value(json);

    if (message->descriptor == &google__protobuf__timestamp__descriptor) {
        Google__Protobuf__Timestamp *time = (Google__Protobuf__Timestamp *)message;
        if (!text || !vp_json_timestamp_parse(text, &time->seconds, &time->nanos))
            return wrong(path, "a time like \"2026-01-02T03:04:05Z\"");
        return NULL;
    }
    if (message->descriptor == &google__protobuf__duration__descriptor) {
        Google__Protobuf__Duration *duration = (Google__Protobuf__Duration *)message;
        if (!text || !vp_json_duration_parse(text, &duration->seconds, &duration->nanos))
            return wrong(path, "a duration like \"1.5s\"");
        return NULL;
    }
    if (message->descriptor == &google__protobuf__field_mask__descriptor)
        return parse_field_mask((Google__Protobuf__FieldMask *)message, json, path);
    return parse_object(message, json, path);
}

void *vp_json_parse(const ProtobufCMessageDescriptor *descriptor, const json_t *json, VpError **error)
{
    ProtobufCMessage *message = vp_pb_new(descriptor);
    VpError *failure = parse_into(message, json, "");

    if (failure) {
        *error = failure;
        vp_pb_free(message);
        return NULL;
    }
    return message;
}
