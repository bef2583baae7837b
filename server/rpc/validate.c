/* The validator: see validate.h. A walk over the wire format (https://protobuf.dev/programming-guides/encoding/). */
#include "server/rpc/validate.h"

#include <string.h>

#include "base/pb.h"

/* No request of the contract nests deeper than a handful. */
#define MAX_DEPTH 16
/* The fields that one message type may have; checked, so that the counters fit on the stack. */
#define MAX_FIELDS 128
/* What one request may make us allocate, whatever its bytes say: nested messages, and fields that we do not know. */
#define MAX_MESSAGES 65536
#define MAX_UNKNOWN_FIELDS 1024
/* And their bytes, which are kept with the message, as long as a stream is open. */
#define MAX_UNKNOWN_BYTES (16u << 10)
/* Single values that are given again, of which the last one counts: protobuf-c notes each before it drops it. */
#define MAX_AGAIN 1024
/* protobuf-c reads no longer ones: numbers take up to ten bytes, keys and lengths five. */
#define NUMBER_BYTES 10
#define HEADER_BYTES 5

typedef struct Walk {
    const VpContract *contract;
    const ProtobufCFieldDescriptor *path[MAX_DEPTH];
    guint32 index[MAX_DEPTH]; /* the element of a repeated field */
    guint depth;
    guint messages;
    guint unknown;
    gsize unknown_bytes;
    guint again;
} Walk;

typedef struct Cursor {
    const guint8 *at;
    const guint8 *end;
} Cursor;

static VpError *malformed(const ProtobufCMessageDescriptor *descriptor, const char *what)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "MALFORMED_REQUEST", "the request is no valid %s: %s", descriptor->name,
                        what);
}

static char *field_path(const Walk *walk, const ProtobufCFieldDescriptor *field, guint32 item)
{
    GString *path = g_string_new(NULL);

    for (guint i = 0; i < walk->depth; i++) {
        g_string_append(path, walk->path[i]->name);
        if (walk->path[i]->label == PROTOBUF_C_LABEL_REPEATED)
            g_string_append_printf(path, "[%u]", walk->index[i]);
        g_string_append_c(path, '.');
    }
    g_string_append(path, field->name);
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        g_string_append_printf(path, "[%u]", item);
    return g_string_free(path, FALSE);
}

static VpError *violation(const Walk *walk, const ProtobufCFieldDescriptor *field, guint32 item, char *what)
{
    g_autofree char *description = what;
    g_autofree char *path = field_path(walk, field, item);

    VpError *error = vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "%s: %s", path, description);
    return vp_error_violation(error, path, "%s", description);
}

static gboolean read_varint(Cursor *cursor, guint most_bytes, guint64 *ret)
{
    guint64 value = 0;

    for (guint shift = 0; shift < 7 * most_bytes && cursor->at < cursor->end; shift += 7) {
        const guint8 byte = *cursor->at++;

        if (shift < 64)
            value |= (guint64)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return TRUE;
        }
    }
    return FALSE;
}

static gboolean skip_bytes(Cursor *cursor, guint64 count)
{
    if (count > (guint64)(cursor->end - cursor->at))
        return FALSE;
    cursor->at += count;
    return TRUE;
}

gboolean vp_string_has_form(PbStringForm form, const char *text, gsize length)
{
    gsize i = 0;

    if (length == 0)
        return TRUE;
    switch (form) {
    case PB_STRING_FORM_NAME:
        if (length > 63 || !g_ascii_isalnum(text[0]))
            return FALSE;
        while (i < length && (g_ascii_isalnum(text[i]) || text[i] == '.' || text[i] == '_' || text[i] == '-'))
            i++;
        return i == length;
    case PB_STRING_FORM_UUID:
        if (length != 36)
            return FALSE;
        for (; i < 36; i++) {
            const gboolean dash = i == 8 || i == 13 || i == 18 || i == 23;

            if (dash ? text[i] != '-' : !g_ascii_isxdigit(text[i]) || g_ascii_isupper(text[i]))
                return FALSE;
        }
        return TRUE;
    case PB_STRING_FORM_ABSOLUTE_PATH:
        if (text[0] != '/')
            return FALSE;
        /* fall through */
    case PB_STRING_FORM_LINE:
        while (i < length && !g_ascii_iscntrl(text[i]))
            i++;
        return i == length;
    default:
        return TRUE;
    }
}

static const char *form_words(PbStringForm form)
{
    switch (form) {
    case PB_STRING_FORM_NAME:
        return "must be 1 to 63 of A-Z, a-z, 0-9, '.', '_', '-', the first a letter or a digit";
    case PB_STRING_FORM_UUID:
        return "must be a UUID in lower case, as in 0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55";
    case PB_STRING_FORM_ABSOLUTE_PATH:
        return "must be an absolute path without control characters";
    default:
        return "must be one line without control characters";
    }
}

/* Of a string, bytes or a message. */
static VpError *check_length(const Walk *walk, const ProtobufCFieldDescriptor *field, const VpFieldBounds *bounds,
                             guint32 item, gsize length)
{
    if (bounds->max_bytes == 0 || length <= bounds->max_bytes)
        return NULL;
    return violation(walk, field, item,
                     g_strdup_printf("is %" G_GSIZE_FORMAT " bytes long; at most %u are taken", length,
                                     bounds->max_bytes));
}

static VpError *check_string(const Walk *walk, const ProtobufCFieldDescriptor *field, const VpFieldBounds *bounds,
                             guint32 item, const guint8 *bytes, gsize length)
{
    const char *text = (const char *)bytes;

    if (field->type != PROTOBUF_C_TYPE_STRING)
        return NULL;
    /* With a length given, g_utf8_validate() refuses NUL as well. */
    if (!g_utf8_validate(text, (gssize)length, NULL))
        return violation(walk, field, item, g_strdup("must be UTF-8 without NUL"));
    if (!vp_string_has_form(bounds->form, text, length))
        return violation(walk, field, item, g_strdup(form_words(bounds->form)));
    return NULL;
}

static VpError *check_number(const Walk *walk, const ProtobufCFieldDescriptor *field, const VpFieldBounds *bounds,
                             guint32 item, guint64 value)
{
    if (bounds->max_value == 0 || (value >= bounds->min_value && value <= bounds->max_value))
        return NULL;
    return violation(walk, field, item,
                     g_strdup_printf("must be between %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT, bounds->min_value,
                                     bounds->max_value));
}

/* The wire type of a field's single value. */
static ProtobufCWireType wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* Counts a field's value in. */
static VpError *count_value(Walk *walk, const ProtobufCMessageDescriptor *descriptor,
                            const ProtobufCFieldDescriptor *field, const VpFieldBounds *bounds, guint32 *count)
{
    const guint32 item = (*count)++;

    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return item < bounds->max_items
                   ? NULL
                   : violation(walk, field, item, g_strdup_printf("at most %u are taken", bounds->max_items));
    if (item == 0)
        return NULL;
    /* protobuf-c merges the two and joins their lists: that would go round the bounds of these. No client's library writes it. */
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return malformed(descriptor, "a message that can be there once is given twice");
    return walk->again++ < MAX_AGAIN ? NULL : malformed(descriptor, "single values are given again too often");
}

static VpError *check_packed(Walk *walk, const ProtobufCMessageDescriptor *descriptor,
                             const ProtobufCFieldDescriptor *field, const VpFieldBounds *bounds, guint32 *count,
                             Cursor packed)
{
    const ProtobufCWireType type = wire_type_of(field->type);

    while (packed.at < packed.end) {
        guint64 value = 0;
        const gboolean read = type == PROTOBUF_C_WIRE_TYPE_VARINT
                                  ? read_varint(&packed, NUMBER_BYTES, &value)
                                  : skip_bytes(&packed, type == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8);

        if (!read)
            return malformed(descriptor, "a packed field is cut short");
        VpError *error = count_value(walk, descriptor, field, bounds, count);
        if (!error)
            error = check_number(walk, field, bounds, *count - 1, value);
        if (error)
            return error;
    }
    return NULL;
}

static VpError *check_message(Walk *walk, const ProtobufCMessageDescriptor *descriptor, Cursor cursor);

static VpError *check_nested(Walk *walk, const ProtobufCMessageDescriptor *descriptor,
                             const ProtobufCFieldDescriptor *field, guint32 item, Cursor nested)
{
    if (walk->depth + 1 >= MAX_DEPTH)
        return malformed(descriptor, "messages are nested too deeply");
    if (walk->messages++ >= MAX_MESSAGES)
        return malformed(descriptor, "too many nested messages");

    walk->path[walk->depth] = field;
    walk->index[walk->depth] = item;
    walk->depth++;
    VpError *error = check_message(walk, field->descriptor, nested);
    walk->depth--;
    return error;
}

static VpError *check_field(Walk *walk, const ProtobufCMessageDescriptor *descriptor,
                            const ProtobufCFieldDescriptor *field, const VpFieldBounds *bounds, guint32 *count,
                            guint wire_type, Cursor *cursor)
{
    const ProtobufCWireType wanted = wire_type_of(field->type);
    guint64 value = 0;

    if (wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
        const guint8 *start;

        if (!read_varint(cursor, HEADER_BYTES, &value))
            return malformed(descriptor, "a length is cut short");
        start = cursor->at;
        if (!skip_bytes(cursor, value))
            return malformed(descriptor, "a field is longer than its message");
        if (wanted != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
            if (field->label != PROTOBUF_C_LABEL_REPEATED)
                return malformed(descriptor, "a field has the wrong wire type");
            return check_packed(walk, descriptor, field, bounds, count, (Cursor){start, cursor->at});
        }
        VpError *error = count_value(walk, descriptor, field, bounds, count);
        if (!error)
            error = check_length(walk, field, bounds, *count - 1, (gsize)value);
        if (error)
            return error;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            return check_nested(walk, descriptor, field, *count - 1, (Cursor){start, cursor->at});
        return check_string(walk, field, bounds, *count - 1, start, (gsize)value);
    }

    if (wire_type != wanted)
        return malformed(descriptor, "a field has the wrong wire type");
    if (wanted == PROTOBUF_C_WIRE_TYPE_VARINT ? !read_varint(cursor, NUMBER_BYTES, &value)
                                              : !skip_bytes(cursor, wanted == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8))
        return malformed(descriptor, "a number is cut short");
    VpError *error = count_value(walk, descriptor, field, bounds, count);
    if (error)
        return error;
    return wanted == PROTOBUF_C_WIRE_TYPE_VARINT ? check_number(walk, field, bounds, *count - 1, value) : NULL;
}

static VpError *skip_unknown(Walk *walk, const ProtobufCMessageDescriptor *descriptor, guint wire_type, Cursor *cursor)
{
    const guint8 *start = cursor->at;
    guint64 value;
    gboolean skipped;

    if (walk->unknown++ >= MAX_UNKNOWN_FIELDS)
        return malformed(descriptor, "too many unknown fields");
    switch (wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        skipped = read_varint(cursor, NUMBER_BYTES, &value);
        break;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        skipped = skip_bytes(cursor, 8);
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        skipped = read_varint(cursor, HEADER_BYTES, &value) && skip_bytes(cursor, value);
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        skipped = skip_bytes(cursor, 4);
        break;
    default:
        return malformed(descriptor, "groups are not taken");
    }
    if (!skipped)
        return malformed(descriptor, "an unknown field is cut short");
    walk->unknown_bytes += (gsize)(cursor->at - start);
    return walk->unknown_bytes <= MAX_UNKNOWN_BYTES ? NULL : malformed(descriptor, "unknown fields are too long");
}

static VpError *check_message(Walk *walk, const ProtobufCMessageDescriptor *descriptor, Cursor cursor)
{
    const VpFieldBounds *bounds = vp_contract_bounds(walk->contract, descriptor);
    guint32 counts[MAX_FIELDS];

    if (!bounds || descriptor->n_fields > MAX_FIELDS)
        return vp_error_new(VP_INTERNAL, "CONTRACT_MISMATCH", "%s is in no request, or has more than %d fields",
                            descriptor->name, MAX_FIELDS);
    memset(counts, 0, descriptor->n_fields * sizeof(counts[0]));

    while (cursor.at < cursor.end) {
        guint64 key;

        if (!read_varint(&cursor, HEADER_BYTES, &key) || key >> 3 == 0 || key >> 3 > 536870911)
            return malformed(descriptor, "a field's key is no key");
        const guint wire_type = key & 7;
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(key >> 3));
        const gsize i = field ? (gsize)(field - descriptor->fields) : 0;

        VpError *error = field ? check_field(walk, descriptor, field, &bounds[i], &counts[i], wire_type, &cursor)
                               : skip_unknown(walk, descriptor, wire_type, &cursor);
        if (error)
            return error;
    }
    return NULL;
}

VpError *vp_validate(const VpContract *contract, const ProtobufCMessageDescriptor *descriptor, const guint8 *bytes,
                     gsize size)
{
    Walk walk = {.contract = contract};

    return check_message(&walk, descriptor, (Cursor){bytes, bytes + size});
}
