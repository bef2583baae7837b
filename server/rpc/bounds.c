/* The bounds of fields: see bounds.h. */
#include "server/rpc/bounds.h"

#include <string.h>

#include "base/pb.h"

/* The field number of `extend google.protobuf.FieldOptions` in rules.proto. */
#define RULES_FIELD_NUMBER 50731
/* What a form implies. */
#define NAME_BYTES 63
#define UUID_BYTES 36
#define PATH_BYTES 4096

/* Messages of others, whose files cannot say it. */
static const struct {
    const char *message;
    VpFieldBounds bounds; /* of all their fields */
} foreign[] = {
    {"google.protobuf.FieldMask", {.max_bytes = 256, .max_items = 128}},
    {"grpc.health.v1.HealthCheckRequest", {.max_bytes = 256}},
    {"grpc.reflection.v1.ServerReflectionRequest", {.max_bytes = 1024}},
    {"grpc.reflection.v1.ExtensionRequest", {.max_bytes = 1024}},
};

void *vp_bounds_extension(const ProtobufCMessage *options, guint number, const ProtobufCMessageDescriptor *type)
{
    for (unsigned i = 0; options && i < options->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *field = &options->unknown_fields[i];
        size_t skip = 0;

        if (field->tag != number || field->wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
            continue;
        /* protobuf-c keeps the length prefix with the data. */
        while (skip < field->len && (field->data[skip] & 0x80))
            skip++;
        skip++;
        if (skip <= field->len)
            return protobuf_c_message_unpack(type, NULL, field->len - skip, field->data + skip);
    }
    return NULL;
}

static guint32 bytes_of_form(PbStringForm form)
{
    switch (form) {
    case PB_STRING_FORM_NAME:
        return NAME_BYTES;
    case PB_STRING_FORM_UUID:
        return UUID_BYTES;
    case PB_STRING_FORM_ABSOLUTE_PATH:
        return PATH_BYTES;
    default:
        return 0;
    }
}

static VpFieldBounds read_rules(const Google__Protobuf__FieldOptions *options)
{
    vp_pb_auto PbFieldRules *rules =
        vp_bounds_extension(options ? &options->base : NULL, RULES_FIELD_NUMBER, &pb_field_rules__descriptor);

    if (!rules)
        return (VpFieldBounds){0};
    return (VpFieldBounds){
        .max_bytes = rules->max_bytes ? rules->max_bytes : bytes_of_form(rules->form),
        .max_items = rules->max_items,
        .min_value = rules->min_value,
        .max_value = rules->max_value,
        .form = rules->form,
    };
}

static const Google__Protobuf__DescriptorProto *find_message(const Google__Protobuf__FileDescriptorSet *set,
                                                             const char *full_name)
{
    for (size_t f = 0; f < set->n_file; f++) {
        const Google__Protobuf__FileDescriptorProto *file = set->file[f];
        const size_t package = strlen(file->package);

        if (strncmp(full_name, file->package, package) != 0 || full_name[package] != '.')
            continue;
        for (size_t m = 0; m < file->n_message_type; m++) {
            if (g_str_equal(file->message_type[m]->name, full_name + package + 1))
                return file->message_type[m];
        }
    }
    return NULL;
}

static VpFieldBounds bounds_of(const Google__Protobuf__DescriptorProto *message, const char *full_name,
                               const ProtobufCFieldDescriptor *field)
{
    for (gsize i = 0; i < G_N_ELEMENTS(foreign); i++) {
        if (g_str_equal(foreign[i].message, full_name))
            return foreign[i].bounds;
    }
    for (size_t i = 0; message && i < message->n_field; i++) {
        if ((guint32)message->field[i]->number == field->id)
            return read_rules(message->field[i]->options);
    }
    return (VpFieldBounds){0};
}

/* Whether the field's messages are the entries of a map. */
static gboolean is_map(const Google__Protobuf__DescriptorProto *message, const ProtobufCFieldDescriptor *field)
{
    const ProtobufCMessageDescriptor *entry = field->descriptor;
    const char *name = strrchr(entry->name, '.') + 1;

    for (size_t i = 0; message && i < message->n_nested_type; i++) {
        const Google__Protobuf__DescriptorProto *nested = message->nested_type[i];

        if (nested->options && nested->options->map_entry && g_str_equal(nested->name, name))
            return TRUE;
    }
    return FALSE;
}

/* The rules of a map are those of its keys and values. */
static void add_entry(GHashTable *bounds, const ProtobufCMessageDescriptor *entry, const VpFieldBounds *map)
{
    VpFieldBounds *both = g_new0(VpFieldBounds, entry->n_fields);

    for (unsigned i = 0; i < entry->n_fields; i++) {
        both[i].max_bytes = map->max_bytes;
        both[i].form = map->form;
    }
    g_hash_table_insert(bounds, (gpointer)entry, both);
}

static VpError *check_bounded(const ProtobufCMessageDescriptor *message, const ProtobufCFieldDescriptor *field,
                              gboolean map, const VpFieldBounds *bounds)
{
    const gboolean bytes = map || field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES;
    const gboolean items = field->label == PROTOBUF_C_LABEL_REPEATED;

    if ((!bytes || bounds->max_bytes) && (!items || bounds->max_items))
        return NULL;
    return vp_error_new(VP_INTERNAL, "CONTRACT_MISMATCH",
                        "%s.%s is in a request and has no bound: add `(rules) = {max_%s: ...}`", message->name,
                        field->name, bytes && !bounds->max_bytes ? "bytes" : "items");
}

VpError *vp_bounds_add(GHashTable *bounds, const Google__Protobuf__FileDescriptorSet *set,
                       const ProtobufCMessageDescriptor *descriptor)
{
    if (g_hash_table_contains(bounds, descriptor))
        return NULL;

    const Google__Protobuf__DescriptorProto *message = find_message(set, descriptor->name);
    VpFieldBounds *own = g_new0(VpFieldBounds, descriptor->n_fields + 1);
    VpError *error = NULL;

    g_hash_table_insert(bounds, (gpointer)descriptor, own);
    for (unsigned i = 0; i < descriptor->n_fields && !error; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        const gboolean nested = field->type == PROTOBUF_C_TYPE_MESSAGE;
        const gboolean map = nested && is_map(message, field);

        own[i] = bounds_of(message, descriptor->name, field);
        error = check_bounded(descriptor, field, map, &own[i]);
        if (!error && map) {
            add_entry(bounds, field->descriptor, &own[i]);
            /* They are of the entries' fields, not of the entries. */
            own[i].max_bytes = 0;
            own[i].form = PB_STRING_FORM_UNSPECIFIED;
        } else if (!error && nested) {
            error = vp_bounds_add(bounds, set, field->descriptor);
        }
    }
    return error;
}
