/* Names of fields in JSON, which fields are maps, and how large a value is: see internal.h. */
#include "clients/json/internal.h"

#include <string.h>

static char *camel(const char *name, gboolean upper)
{
    GString *out = g_string_sized_new(strlen(name));

    for (const char *c = name; *c; c++) {
        if (*c == '_') {
            upper = TRUE;
            continue;
        }
        g_string_append_c(out, upper ? g_ascii_toupper(*c) : *c);
        upper = FALSE;
    }
    return g_string_free(out, FALSE);
}

char *vp_json_camel(const char *name)
{
    return camel(name, /* upper= */ FALSE);
}

char *vp_json_snake(const char *name)
{
    GString *out = g_string_sized_new(strlen(name) + 4);

    for (const char *c = name; *c; c++) {
        if (*c == '_') {
            g_string_free(out, TRUE);
            return NULL;
        }
        if (g_ascii_isupper(*c))
            g_string_append_c(out, '_');
        g_string_append_c(out, g_ascii_tolower(*c));
    }
    return g_string_free(out, FALSE);
}

gboolean vp_json_is_map(const ProtobufCMessageDescriptor *parent, const ProtobufCFieldDescriptor *field)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return FALSE;

    const ProtobufCMessageDescriptor *entry = field->descriptor;
    if (entry->n_fields != 2 || !g_str_equal(entry->fields[0].name, "key") ||
        !g_str_equal(entry->fields[1].name, "value"))
        return FALSE;

    g_autofree char *stem = camel(field->name, /* upper= */ TRUE);
    g_autofree char *name = g_strdup_printf("%s.%sEntry", parent->name, stem);
    return g_str_equal(entry->name, name);
}

size_t vp_json_value_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    default:
        return 4;
    }
}
