/* The validator, on bytes made by hand: each way in which a message can be wrong, what is said of it, and what is let pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/pb.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"
#include "wire.h"

static VpContract *contract;

static int setup(void **state)
{
    VpError *error = NULL;

    (void)state;
    contract = vp_contract_new(&error);
    return contract ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    vp_contract_free(contract);
    return 0;
}

static VpError *check(const ProtobufCMessageDescriptor *descriptor, const GByteArray *bytes)
{
    return vp_validate(contract, descriptor, bytes->data, bytes->len);
}

/* What passes must be unpacked by protobuf-c. */
static void passes(const ProtobufCMessageDescriptor *descriptor, const GByteArray *bytes)
{
    g_autoptr(VpError) error = check(descriptor, bytes);

    if (error)
        fail_msg("%s", error->message);
    vp_pb_auto ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, NULL, bytes->len, bytes->data);
    assert_non_null(message);
}

/* Refused as no message at all; the words say why. */
static void is_malformed(const ProtobufCMessageDescriptor *descriptor, const GByteArray *bytes, const char *words)
{
    g_autoptr(VpError) error = check(descriptor, bytes);

    assert_non_null(error);
    assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    assert_string_equal(error->reason, "MALFORMED_REQUEST");
    assert_null(error->violations);
    if (!strstr(error->message, words))
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
}

/* Refused with a violation of this field. */
static void violates(const ProtobufCMessageDescriptor *descriptor, const GByteArray *bytes, const char *field,
                     const char *words)
{
    g_autoptr(VpError) error = check(descriptor, bytes);

    assert_non_null(error);
    assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    assert_string_equal(error->reason, "INVALID_REQUEST");
    assert_int_equal(error->violations->len, 1);
    const VpErrorPair *pair = &g_array_index(error->violations, VpErrorPair, 0);
    assert_string_equal(pair->key, field);
    if (!strstr(pair->value, words))
        fail_msg("\"%s\" does not say \"%s\"", pair->value, words);
}

/* A CreateDomainRequest around bytes of its domain's spec. */
static GByteArray *in_spec(GByteArray *bytes)
{
    wire_wrap(bytes, 4);
    wire_wrap(bytes, 1);
    return bytes;
}

#define CREATE (&pb_create_domain_request__descriptor)
#define GET (&pb_get_domain_request__descriptor)

/* ---- the wire ---- */

static void nothing_is_an_empty_message(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    passes(CREATE, bytes);
}

static void a_whole_message_passes(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    wire_text(bytes, 1, "test");
    wire_number(bytes, 2, 1024);
    wire_number(bytes, 3, 17592186044416);
    in_spec(bytes);
    wire_text(bytes, 2, "request-1");
    wire_number(bytes, 3, 1);
    passes(CREATE, bytes);
}

static void each_cut_of_a_message_is_seen(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    wire_text(bytes, 1, "web");
    wire_number(bytes, 1000, 300);
    for (guint i = 1; i < bytes->len; i++) {
        g_autoptr(VpError) error = vp_validate(contract, GET, bytes->data, i);

        /* After the first field the message is whole. */
        assert_int_equal(error == NULL, i == 5);
    }
}

static void lengths_beyond_the_end(void **state)
{
    static const guint64 lengths[] = {1, 127, 128, G_MAXINT32, G_MAXUINT32, G_MAXINT64, G_MAXUINT64};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(lengths); i++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        g_autoptr(GByteArray) unknown = g_byte_array_new();

        wire_key(bytes, 1, 2);
        wire_varint(bytes, lengths[i]);
        is_malformed(GET, bytes, lengths[i] <= G_MAXUINT32 ? "longer than its message" : "length is cut short");
        wire_key(unknown, 999, 2);
        wire_varint(unknown, lengths[i]);
        is_malformed(GET, unknown, "cut short");
    }
}

static void numbers_that_do_not_end(void **state)
{
    static const guint8 endless[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01};
    g_autoptr(GByteArray) value = g_byte_array_new();
    g_autoptr(GByteArray) length = g_byte_array_new();
    g_autoptr(GByteArray) key = g_byte_array_new();

    (void)state;
    wire_key(value, 3, 0);
    g_byte_array_append(value, endless, sizeof(endless));
    is_malformed(CREATE, value, "number is cut short");
    wire_key(length, 2, 2);
    g_byte_array_append(length, endless, sizeof(endless));
    is_malformed(CREATE, length, "length is cut short");
    g_byte_array_append(key, endless, sizeof(endless));
    is_malformed(CREATE, key, "key");
}

/* Numbers may be longer than they need to be, but protobuf-c reads no key or length of more than five bytes. */
static void numbers_that_are_longer_than_needed(void **state)
{
    static const guint8 long_key[] = {0x8a, 0x80, 0x80, 0x80, 0x80, 0x00, 0x01, 'a'};
    static const guint8 five_byte_key[] = {0x8a, 0x80, 0x80, 0x80, 0x00, 0x01, 'a'};
    static const guint8 long_length[] = {0x0a, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00, 'a'};
    static const guint8 long_unknown_length[] = {0x7a, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00, 'a'};
    static const guint8 five_byte_length[] = {0x0a, 0x81, 0x80, 0x80, 0x80, 0x00, 'a'};
    static const guint8 ten_byte_value[] = {0x18, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00};
    const GByteArray key = {(guint8 *)long_key, sizeof(long_key)};
    const GByteArray shorter_key = {(guint8 *)five_byte_key, sizeof(five_byte_key)};
    const GByteArray length = {(guint8 *)long_length, sizeof(long_length)};
    const GByteArray unknown_length = {(guint8 *)long_unknown_length, sizeof(long_unknown_length)};
    const GByteArray shorter_length = {(guint8 *)five_byte_length, sizeof(five_byte_length)};
    const GByteArray value = {(guint8 *)ten_byte_value, sizeof(ten_byte_value)};

    (void)state;
    is_malformed(GET, &key, "key");
    is_malformed(GET, &length, "length is cut short");
    is_malformed(GET, &unknown_length, "unknown field is cut short");
    passes(GET, &shorter_key);
    passes(GET, &shorter_length);
    passes(CREATE, &value);
}

static void keys_that_are_none(void **state)
{
    static const guint64 keys[] = {0, 2, 7, (G_GUINT64_CONSTANT(536870912) << 3) | 2, G_MAXUINT64};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();

        wire_varint(bytes, keys[i]);
        wire_varint(bytes, 0);
        is_malformed(GET, bytes, "key");
    }
    g_autoptr(GByteArray) last = g_byte_array_new();
    wire_number(last, 536870911, 1);
    passes(GET, last);
}

static void groups(void **state)
{
    (void)state;
    for (guint wire_type = 3; wire_type < 8; wire_type++) {
        g_autoptr(GByteArray) known = g_byte_array_new();
        g_autoptr(GByteArray) unknown = g_byte_array_new();

        if (wire_type == 5)
            continue;
        wire_key(known, 1, wire_type);
        is_malformed(GET, known, "wrong wire type");
        wire_key(unknown, 99, wire_type);
        is_malformed(GET, unknown, "groups");
    }
}

static void wrong_wire_types(void **state)
{
    static const guint8 zeros[8] = {0};

    (void)state;
    for (guint wire_type = 0; wire_type < 6; wire_type++) {
        g_autoptr(GByteArray) text = g_byte_array_new();
        g_autoptr(GByteArray) number = g_byte_array_new();

        if (wire_type == 3 || wire_type == 4)
            continue;
        wire_key(text, 2, wire_type);
        g_byte_array_append(text, zeros, wire_type == 1 ? 8 : wire_type == 5 ? 4 : 1);
        wire_key(number, 3, wire_type);
        g_byte_array_append(number, zeros, wire_type == 1 ? 8 : wire_type == 5 ? 4 : 1);
        if (wire_type == 2)
            passes(CREATE, text);
        else
            is_malformed(CREATE, text, "wrong wire type");
        if (wire_type == 0)
            passes(CREATE, number);
        else
            is_malformed(CREATE, number, "wrong wire type");
    }
}

static void unknown_fields_pass_up_to_a_number(void **state)
{
    static const guint8 eight[8] = {1, 2, 3};
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    wire_key(bytes, 500, 1);
    g_byte_array_append(bytes, eight, 8);
    wire_key(bytes, 501, 5);
    g_byte_array_append(bytes, eight, 4);
    wire_bytes(bytes, 502, "\xff\0\xff", 3);
    wire_number(bytes, 503, G_MAXUINT64);
    passes(GET, bytes);
    for (guint i = 0; i < 1020; i++)
        wire_number(bytes, 504, 1);
    passes(GET, bytes);
    wire_number(bytes, 504, 1);
    is_malformed(GET, bytes, "too many unknown fields");
}

static void unknown_fields_that_are_cut(void **state)
{
    static const guint8 seven[7] = {0};
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GByteArray) shorter = g_byte_array_new();

    (void)state;
    wire_key(bytes, 500, 1);
    g_byte_array_append(bytes, seven, 7);
    is_malformed(GET, bytes, "cut short");
    wire_key(shorter, 500, 5);
    g_byte_array_append(shorter, seven, 3);
    is_malformed(GET, shorter, "cut short");
}

/* ---- how much ---- */

static void items_up_to_the_bound(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    for (guint i = 0; i < 64; i++)
        wire_bytes(bytes, 4, "", 0);
    g_autoptr(GByteArray) one_more = g_byte_array_new();
    g_byte_array_append(one_more, bytes->data, bytes->len);
    wire_bytes(one_more, 4, "", 0);
    passes(CREATE, in_spec(bytes));
    violates(CREATE, in_spec(one_more), "domain.spec.disks[64]", "at most 64");
}

/* protobuf-c joins the lists of a message that is given twice: each half would be within its bound, the whole beyond it. */
static void a_message_given_twice_cannot_double_a_list(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    for (guint i = 0; i < 40; i++)
        wire_bytes(bytes, 4, "", 0);
    in_spec(bytes);
    const guint half = bytes->len;
    g_autofree guint8 *copy = g_memdup2(bytes->data, half);
    passes(CREATE, bytes);
    g_byte_array_append(bytes, copy, half);
    is_malformed(CREATE, bytes, "given twice");
}

/* Where the last value counts a client may repeat itself, but not a million times: each costs protobuf-c memory. */
static void a_value_given_again(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    wire_text(bytes, 1, "first");
    wire_text(bytes, 1, "second");
    passes(GET, bytes);
    vp_pb_auto PbGetDomainRequest *request = pb_get_domain_request__unpack(NULL, bytes->len, bytes->data);
    assert_string_equal(request->name, "second");
    for (guint i = 0; i < 2000; i++)
        wire_text(bytes, 1, "");
    is_malformed(GET, bytes, "too often");
}

static void packed_and_unpacked_numbers_count_together(void **state)
{
    g_autoptr(GByteArray) packed = g_byte_array_new();
    guint8 states[64];

    (void)state;
    memset(states, 1, sizeof(states));
    wire_bytes(packed, 1, states, 63);
    wire_number(packed, 1, 3);
    g_autoptr(GByteArray) unpacked_more = g_byte_array_new();
    g_autoptr(GByteArray) packed_more = g_byte_array_new();
    g_byte_array_append(unpacked_more, packed->data, packed->len);
    g_byte_array_append(packed_more, packed->data, packed->len);
    wire_number(unpacked_more, 1, 1);
    wire_bytes(packed_more, 1, states, 1);
    wire_wrap(packed, 3);
    wire_wrap(unpacked_more, 3);
    wire_wrap(packed_more, 3);
    passes(&pb_list_domains_request__descriptor, packed);
    violates(&pb_list_domains_request__descriptor, unpacked_more, "filter.states[64]", "at most 64");
    violates(&pb_list_domains_request__descriptor, packed_more, "filter.states[64]", "at most 64");
}

static void a_packed_field_that_is_cut(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    wire_bytes(bytes, 1, "\x01\x80", 2);
    wire_wrap(bytes, 3);
    is_malformed(&pb_list_domains_request__descriptor, bytes, "packed field is cut short");
}

/* ---- numbers ---- */

static void numbers_within_their_bounds(void **state)
{
    static const guint64 wrong[] = {1025, G_MAXUINT32, (G_GUINT64_CONSTANT(1) << 32) + 1, G_MAXUINT64};
    g_autoptr(GByteArray) most = g_byte_array_new();

    (void)state;
    wire_number(most, 2, 1024);
    passes(CREATE, in_spec(most));
    for (gsize i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();

        wire_number(bytes, 2, wrong[i]);
        violates(CREATE, in_spec(bytes), "domain.spec.vcpus", "between 0 and 1024");
    }
}

static void unknown_values_of_enums_pass(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    (void)state;
    wire_number(bytes, 7, 4711);
    passes(CREATE, in_spec(bytes));
}

/* ---- strings ---- */

static void text_is_utf8_without_nul(void **state)
{
    static const struct {
        const char *bytes;
        gsize size;
    } wrong[] = {
        {"a\0b", 3},
        {"\0", 1},
        {"\xff", 1},
        {"\xc3", 1},
        {"\xc0\xaf", 2},
        {"\xed\xa0\x80", 3},
        {"\xf4\x90\x80\x80", 4},
        {"ok\x80", 3},
    };

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();

        wire_bytes(bytes, 8, wrong[i].bytes, wrong[i].size);
        violates(CREATE, in_spec(bytes), "domain.spec.description", "UTF-8 without NUL");
    }
    g_autoptr(GByteArray) right = g_byte_array_new();
    wire_text(right, 8, "gr\xc3\xbc\xc3\x9f \xf0\x9f\x92\xbe\n");
    passes(CREATE, in_spec(right));
}

static void text_has_a_length(void **state)
{
    g_autofree char *longest = g_strnfill(4096, 'x');
    g_autofree char *longer = g_strnfill(4097, 'x');
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GByteArray) beyond = g_byte_array_new();

    (void)state;
    wire_text(bytes, 8, longest);
    passes(CREATE, in_spec(bytes));
    wire_text(beyond, 8, longer);
    violates(CREATE, in_spec(beyond), "domain.spec.description", "is 4097 bytes long; at most 4096");
}

/* A filter is held for as long as its stream is open. */
static void a_filter_is_small(void **state)
{
    const ProtobufCMessageDescriptor *watch = &pb_watch_events_request__descriptor;
    g_autofree char *path = g_strnfill(4000, 'x');
    g_autofree char *longer = g_strnfill(4097, 'x');
    g_autoptr(GByteArray) four = g_byte_array_new();
    g_autoptr(GByteArray) five = g_byte_array_new();
    g_autoptr(GByteArray) many = g_byte_array_new();
    g_autoptr(GByteArray) uid = g_byte_array_new();
    g_autoptr(GByteArray) label = g_byte_array_new();

    (void)state;
    for (guint i = 0; i < 4; i++)
        wire_text(four, 3, path);
    for (guint i = 0; i < 5; i++)
        wire_text(five, 3, path);
    wire_wrap(four, 2);
    wire_wrap(five, 2);
    passes(watch, four);
    violates(watch, five, "filter", "at most 16384");
    for (guint i = 0; i < 129; i++)
        wire_text(many, 3, "x");
    wire_wrap(many, 2);
    violates(watch, many, "filter.names[128]", "at most 128");
    wire_text(uid, 4, "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e5");
    wire_wrap(uid, 2);
    violates(watch, uid, "filter.uids[0]", "UUID");
    wire_text(label, 1, "tier");
    wire_bytes(label, 2, longer, 4097);
    wire_wrap(label, 6);
    wire_wrap(label, 2);
    violates(watch, label, "filter.labels[0].value", "at most 4096");
}

/* So are the fields that we do not know. */
static void unknown_fields_are_short(void **state)
{
    g_autofree char *text = g_strnfill(16 << 10, 'x');
    g_autoptr(GByteArray) passing = g_byte_array_new();
    g_autoptr(GByteArray) beyond = g_byte_array_new();

    (void)state;
    wire_bytes(passing, 1000, text, 16000);
    passes(GET, passing);
    wire_bytes(beyond, 1000, text, 10000);
    wire_bytes(beyond, 1001, text, 10000);
    is_malformed(GET, beyond, "unknown fields are too long");
}

/* Field `field` of a GetDomainRequest, or a path or a line elsewhere. */
static void has_form(PbStringForm form, const char *text, gboolean right)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    switch (form) {
    case PB_STRING_FORM_NAME:
        wire_text(bytes, 1, text);
        right ? passes(GET, bytes) : violates(GET, bytes, "name", "");
        break;
    case PB_STRING_FORM_UUID:
        wire_text(bytes, 2, text);
        right ? passes(GET, bytes) : violates(GET, bytes, "uid", "");
        break;
    case PB_STRING_FORM_ABSOLUTE_PATH:
        wire_text(bytes, 2, text);
        wire_wrap(bytes, 4);
        in_spec(bytes);
        right ? passes(CREATE, bytes) : violates(CREATE, bytes, "domain.spec.disks[0].path", "absolute path");
        break;
    default:
        wire_text(bytes, 2, text);
        right ? passes(CREATE, bytes) : violates(CREATE, bytes, "request_id", "one line");
        break;
    }
}

static void forms(void **state)
{
    g_autofree char *longest = g_strnfill(63, 'a');
    g_autofree char *longer = g_strnfill(64, 'a');
    static const char *const names[] = {"", "a", "0", "web-1.example_x", "A"};
    static const char *const no_names[] = {"-a", ".a", "_a", "a b", "a/b", "a\n", "\xc3\xa4", "a\xc3\xa4", "..", "a*"};
    static const char *const uuids[] = {"", "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55"};
    static const char *const no_uuids[] = {"0CA2F1DE-5F2E-4B6E-9A3A-7D9D1C1F0E55",
                                           "0ca2f1de5f2e4b6e9a3a7d9d1c1f0e55",
                                           "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e5",
                                           "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e555",
                                           "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e5g",
                                           "0ca2f1de+5f2e-4b6e-9a3a-7d9d1c1f0e55",
                                           "{ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e5}"};
    static const char *const paths[] = {"", "/", "/a b/\xc3\xa4", "/../x"};
    static const char *const no_paths[] = {"a", "./a", " /a", "/a\n", "/a\x1b[2J", "/a\x7f", "file:///a"};
    static const char *const lines[] = {"", "a b \xc3\xa4", "/"};
    static const char *const no_lines[] = {"a\n", "\r", "\x7f", "\x01", "a\tb"};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++)
        has_form(PB_STRING_FORM_NAME, names[i], TRUE);
    for (gsize i = 0; i < G_N_ELEMENTS(no_names); i++)
        has_form(PB_STRING_FORM_NAME, no_names[i], FALSE);
    has_form(PB_STRING_FORM_NAME, longest, TRUE);
    has_form(PB_STRING_FORM_NAME, longer, FALSE);
    for (gsize i = 0; i < G_N_ELEMENTS(uuids); i++)
        has_form(PB_STRING_FORM_UUID, uuids[i], TRUE);
    for (gsize i = 0; i < G_N_ELEMENTS(no_uuids); i++)
        has_form(PB_STRING_FORM_UUID, no_uuids[i], FALSE);
    for (gsize i = 0; i < G_N_ELEMENTS(paths); i++)
        has_form(PB_STRING_FORM_ABSOLUTE_PATH, paths[i], TRUE);
    for (gsize i = 0; i < G_N_ELEMENTS(no_paths); i++)
        has_form(PB_STRING_FORM_ABSOLUTE_PATH, no_paths[i], FALSE);
    for (gsize i = 0; i < G_N_ELEMENTS(lines); i++)
        has_form(PB_STRING_FORM_LINE, lines[i], TRUE);
    for (gsize i = 0; i < G_N_ELEMENTS(no_lines); i++)
        has_form(PB_STRING_FORM_LINE, no_lines[i], FALSE);
}

/* ---- where ---- */

static void entries_of_maps_are_checked(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GByteArray) bad = g_byte_array_new();

    (void)state;
    wire_text(bytes, 1, "tier");
    wire_text(bytes, 2, "web");
    wire_wrap(bytes, 7);
    wire_text(bad, 1, "tier");
    wire_bytes(bad, 2, "\xff", 1);
    wire_wrap(bad, 7);
    g_byte_array_append(bytes, bad->data, bad->len);
    wire_wrap(bytes, 1);
    violates(CREATE, bytes, "domain.labels[1].value", "UTF-8");
}

static void the_path_names_the_element(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GByteArray) third = g_byte_array_new();

    (void)state;
    wire_bytes(bytes, 4, "", 0);
    wire_bytes(bytes, 4, "", 0);
    wire_text(third, 1, "vda");
    wire_text(third, 2, "images/a");
    wire_wrap(third, 4);
    g_byte_array_append(bytes, third->data, third->len);
    violates(CREATE, in_spec(bytes), "domain.spec.disks[2].path", "absolute path");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_an_empty_message),
        cmocka_unit_test(a_whole_message_passes),
        cmocka_unit_test(each_cut_of_a_message_is_seen),
        cmocka_unit_test(lengths_beyond_the_end),
        cmocka_unit_test(numbers_that_do_not_end),
        cmocka_unit_test(numbers_that_are_longer_than_needed),
        cmocka_unit_test(keys_that_are_none),
        cmocka_unit_test(groups),
        cmocka_unit_test(wrong_wire_types),
        cmocka_unit_test(unknown_fields_pass_up_to_a_number),
        cmocka_unit_test(unknown_fields_that_are_cut),
        cmocka_unit_test(items_up_to_the_bound),
        cmocka_unit_test(a_message_given_twice_cannot_double_a_list),
        cmocka_unit_test(a_value_given_again),
        cmocka_unit_test(packed_and_unpacked_numbers_count_together),
        cmocka_unit_test(a_packed_field_that_is_cut),
        cmocka_unit_test(numbers_within_their_bounds),
        cmocka_unit_test(unknown_values_of_enums_pass),
        cmocka_unit_test(text_is_utf8_without_nul),
        cmocka_unit_test(text_has_a_length),
        cmocka_unit_test(a_filter_is_small),
        cmocka_unit_test(unknown_fields_are_short),
        cmocka_unit_test(forms),
        cmocka_unit_test(entries_of_maps_are_checked),
        cmocka_unit_test(the_path_names_the_element),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
