/*
 * A property: what the validator lets pass protobuf-c unpacks, and what that gives is within the bounds. On valid messages, changed at random; the seed is
 * fixed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/pb.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "wire.h"

#define ROUNDS 100000

static guint64 random_state = 0x9e3779b97f4a7c15;

static guint32 next_random(guint32 limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (guint32)(random_state >> 32) % limit;
}

/* A message of any type with all of its fields set, as deep as it goes. */
static void fill(GByteArray *bytes, const ProtobufCMessageDescriptor *descriptor)
{
    static const guint8 eight[8] = {1};

    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        g_autoptr(GByteArray) inner = g_byte_array_new();

        switch (field->type) {
        case PROTOBUF_C_TYPE_MESSAGE:
            fill(inner, field->descriptor);
            wire_bytes(bytes, field->id, inner->data, inner->len);
            break;
        case PROTOBUF_C_TYPE_STRING:
        case PROTOBUF_C_TYPE_BYTES:
            wire_text(bytes, field->id, "a");
            break;
        case PROTOBUF_C_TYPE_DOUBLE:
        case PROTOBUF_C_TYPE_FIXED64:
        case PROTOBUF_C_TYPE_SFIXED64:
            wire_key(bytes, field->id, 1);
            g_byte_array_append(bytes, eight, 8);
            break;
        case PROTOBUF_C_TYPE_FLOAT:
        case PROTOBUF_C_TYPE_FIXED32:
        case PROTOBUF_C_TYPE_SFIXED32:
            wire_key(bytes, field->id, 5);
            g_byte_array_append(bytes, eight, 4);
            break;
        default:
            wire_number(bytes, field->id, 1);
            break;
        }
        if (field->label == PROTOBUF_C_LABEL_REPEATED && field->type == PROTOBUF_C_TYPE_ENUM)
            wire_bytes(bytes, field->id, "\1\2\xff\x01", 4);
    }
}

/* The number that ends at `at`, written with more bytes than it needs. */
static void lengthen(GByteArray *bytes, guint32 at)
{
    static const guint8 more[10] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
    g_autofree guint8 *rest = g_memdup2(bytes->data + at + 1, bytes->len - at - 1);
    const guint rest_length = bytes->len - at - 1;
    const guint8 end = 0;

    bytes->data[at] |= 0x80;
    g_byte_array_set_size(bytes, at + 1);
    g_byte_array_append(bytes, more, next_random(10));
    g_byte_array_append(bytes, &end, 1);
    if (rest_length)
        g_byte_array_append(bytes, rest, rest_length);
}

static void mutate(GByteArray *bytes)
{
    const guint32 at = bytes->len ? next_random(bytes->len) : 0;
    const guint32 length = 1 + next_random(64);

    if (bytes->len == 0)
        return;
    switch (next_random(6)) {
    case 0:
        bytes->data[at] ^= (guint8)(1u << next_random(8));
        break;
    case 1:
        bytes->data[at] = (guint8)next_random(256);
        break;
    case 2:
        g_byte_array_remove_range(bytes, at, MIN(length, bytes->len - at));
        break;
    case 3: {
        /* A piece again, somewhere else. */
        g_autofree guint8 *piece = g_memdup2(bytes->data + at, MIN(length, bytes->len - at));
        g_byte_array_append(bytes, piece, MIN(length, bytes->len - at));
        break;
    }
    case 4:
        lengthen(bytes, at);
        break;
    default:
        g_byte_array_set_size(bytes, at);
        break;
    }
}

static void expect_texts_whole(const ProtobufCMessage *message);

static void expect_value_whole(const ProtobufCFieldDescriptor *field, const void *value)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE && *(void *const *)value)
        expect_texts_whole(*(ProtobufCMessage *const *)value);
    else if (field->type == PROTOBUF_C_TYPE_STRING && *(char *const *)value)
        assert_true(g_utf8_validate(*(char *const *)value, -1, NULL));
}

/* Every string of it is UTF-8, and no list is longer than its bound. */
static void expect_texts_whole(const ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const char *member = (const char *)message + field->offset;

        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            const size_t n = *(const size_t *)((const char *)message + field->quantifier_offset);

            assert_true(n <= 1024);
            for (size_t k = 0;
                 k < n && (field->type == PROTOBUF_C_TYPE_MESSAGE || field->type == PROTOBUF_C_TYPE_STRING); k++)
                expect_value_whole(field, *(void *const *const *)member + k);
            continue;
        }
        if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
            *(const guint32 *)((const char *)message + field->quantifier_offset) != field->id)
            continue;
        expect_value_whole(field, member);
    }
}

static void what_passes_is_unpacked(void **state)
{
    VpError *error = NULL;
    g_autoptr(VpContract) contract = vp_contract_new(&error);
    const GArray *methods = vp_contract_methods(contract);
    guint passed = 0;

    (void)state;
    assert_null(error);
    for (guint round = 0; round < ROUNDS; round++) {
        const VpMethod *method = &g_array_index(methods, VpMethod, round % methods->len);
        g_autoptr(GByteArray) bytes = g_byte_array_new();

        fill(bytes, method->input);
        for (guint i = next_random(4); i > 0; i--)
            mutate(bytes);
        g_autoptr(VpError) refused = vp_validate(contract, method->input, bytes->data, bytes->len);
        if (refused)
            continue;
        passed++;
        vp_pb_auto ProtobufCMessage *message = protobuf_c_message_unpack(method->input, NULL, bytes->len, bytes->data);
        if (!message) {
            g_autofree char *text = g_base64_encode(bytes->data, bytes->len);
            fail_msg("round %u, %s: passed, but cannot be unpacked: %s", round, method->method, text);
        }
        expect_texts_whole(message);
    }
    /* The test tests nothing if everything is refused, or nothing. */
    assert_in_range(passed, ROUNDS / 20, ROUNDS - ROUNDS / 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_passes_is_unpacked)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
