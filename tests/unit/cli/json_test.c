/* The JSON mapping against Google's own library (json_golden.h), and what parsing refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pb.h"
#include "clients/json/json.h"
#include "json_golden.h"
#include "rich.pb-c.h"
#include "virtplane/v1/domain_service.pb-c.h"

static GBytes *from_hex(const char *hex)
{
    const gsize length = strlen(hex) / 2;
    guint8 *bytes = g_malloc(length ? length : 1);

    for (gsize i = 0; i < length; i++)
        bytes[i] = (guint8)(g_ascii_xdigit_value(hex[2 * i]) << 4 | g_ascii_xdigit_value(hex[2 * i + 1]));
    return g_bytes_new_take(bytes, length);
}

static void *parse_text(const ProtobufCMessageDescriptor *descriptor, const char *text, VpError **error)
{
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);

    assert_non_null(json);
    void *message = vp_json_parse(descriptor, json, error);
    json_decref(json);
    return message;
}

static void prints_like_google(void **state)
{
    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(JSON_GOLDEN); i++) {
        g_autoptr(GBytes) wire = from_hex(JSON_GOLDEN[i].wire);
        vp_pb_auto Rich__Rich *message = vp_pb_unpack(&rich__rich__descriptor, wire);
        json_t *wanted = json_loads(JSON_GOLDEN[i].json, 0, NULL);

        assert_non_null(message);
        assert_non_null(wanted);
        json_t *got = vp_json_print(message);
        if (!json_equal(got, wanted)) {
            char *text = json_dumps(got, JSON_COMPACT);
            fail_msg("case %zu: %s, not %s", i, text, JSON_GOLDEN[i].json);
        }
        json_decref(got);
        json_decref(wanted);
    }
}

static void parses_what_google_prints(void **state)
{
    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(JSON_GOLDEN); i++) {
        g_autoptr(GBytes) wire = from_hex(JSON_GOLDEN[i].wire);
        VpError *error = NULL;
        vp_pb_auto Rich__Rich *message = parse_text(&rich__rich__descriptor, JSON_GOLDEN[i].json, &error);

        if (error)
            fail_msg("case %zu: %s", i, error->message);
        /* By way of protobuf-c, which leaves out defaults in the entries of a map; Google's library writes them. */
        vp_pb_auto Rich__Rich *wanted = vp_pb_unpack(&rich__rich__descriptor, wire);
        g_autoptr(GBytes) wanted_packed = vp_pb_pack(wanted);
        g_autoptr(GBytes) packed = vp_pb_pack(message);
        if (!g_bytes_equal(packed, wanted_packed))
            fail_msg("case %zu: other bytes for %s", i, JSON_GOLDEN[i].json);
    }
}

static void takes_the_other_spellings(void **state)
{
    (void)state;
    VpError *error = NULL;
    vp_pb_auto PbDomain *domain =
        parse_text(&pb_domain__descriptor,
                   "{\"name\":\"web\",\"revision\":7,\"uid\":null,\"labels\":{\"a\":\"b\"},\"spec\":{"
                   "\"memory_bytes\":536870912,\"vcpus\":\"2\",\"disks\":[{\"path\":\"/d\",\"format\":3},"
                   "{\"read_only\":true,\"format\":\"IMAGE_FORMAT_RAW\"}]},"
                   "\"create_time\":\"2026-01-02T05:04:05+02:00\"}",
                   &error);

    assert_null(error);
    assert_int_equal(domain->revision, 7);
    assert_int_equal(domain->spec->memory_bytes, 536870912);
    assert_int_equal(domain->spec->vcpus, 2);
    assert_int_equal(domain->spec->n_disks, 2);
    assert_int_equal(domain->spec->disks[0]->format, PB_IMAGE_FORMAT_QCOW2);
    assert_true(domain->spec->disks[1]->read_only);
    assert_int_equal(domain->create_time->seconds, 1767323045);
    assert_string_equal(domain->uid, "");
    assert_string_equal(domain->labels[0]->value, "b");
}

static void refuses_with_the_path(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *says;
    } cases[] = {
        {"[]", "the document: must be a map"},
        {"{\"nam\":1}", "nam: there is no such field; Domain has name, uid"},
        {"{\"name\":1}", "name: must be a string"},
        {"{\"spec\":{\"disks\":[{},{\"format\":\"QCOW9\"}]}}",
         "spec.disks[1].format: must be one of IMAGE_FORMAT_UNSPECIFIED"},
        {"{\"spec\":{\"disks\":{}}}", "spec.disks: must be a list"},
        {"{\"spec\":{\"disks\":[null]}}", "spec.disks[0]: must be a value"},
        {"{\"spec\":{\"vcpus\":-1}}", "spec.vcpus: must be a whole number from 0"},
        {"{\"spec\":{\"vcpus\":4294967296}}", "spec.vcpus: must be"},
        {"{\"spec\":{\"vcpus\":1.5}}", "spec.vcpus: must be"},
        {"{\"spec\":{\"vcpus\":true}}", "spec.vcpus: must be"},
        {"{\"spec\":{\"memoryBytes\":\"18446744073709551616\"}}", "spec.memoryBytes: must be"},
        {"{\"spec\":{\"memoryBytes\":1,\"memory_bytes\":1}}", "must be given once"},
        {"{\"revision\":\"9223372036854775808\"}", "revision: must be"},
        {"{\"labels\":[]}", "labels: must be a map"},
        {"{\"labels\":{\"k\":1}}", "labels[\"k\"]: must be a string"},
        {"{\"createTime\":\"yesterday\"}", "createTime: must be a time"},
        {"{\"createTime\":\"2026-13-02T03:04:05Z\"}", "createTime: must be a time"},
        {"{\"createTime\":\"2026-01-02T03:04:05.Z\"}", "createTime: must be a time"},
        {"{\"createTime\":\"2026-01-02T03:04:05\"}", "createTime: must be a time"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VpError) error = NULL;

        assert_null(parse_text(&pb_domain__descriptor, cases[i].json, &error));
        assert_int_equal(error->code, VP_INVALID_ARGUMENT);
        if (!strstr(error->message, cases[i].says))
            fail_msg("%s: \"%s\", not \"%s\"", cases[i].json, error->message, cases[i].says);
    }
}

static void refuses_what_no_field_holds(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "{\"choiceText\":\"a\",\"choiceNumber\":1}",
        "{\"rawBytes\":\"a\"}",
        "{\"rawBytes\":\"a*==\"}",
        "{\"span\":\"1\"}",
        "{\"span\":\"1.s\"}",
        "{\"span\":\"315576000001s\"}",
        "{\"mask\":\"a_b\"}",
        "{\"i32\":2147483648}",
        "{\"realDouble\":\"x\"}",
        "{\"flag\":1}",
        "{\"colorByFlag\":{\"maybe\":1}}",
        "{\"leafByNumber\":{\"x\":{}}}",
        "{\"words\":[1]}",
        "{\"leaves\":[{\"text\":1}]}",
        "{\"choiceLeaf\":{\"text\":1}}",
        "{\"blobs\":[\"aa\",3]}",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VpError) error = NULL;

        if (parse_text(&rich__rich__descriptor, cases[i], &error))
            fail_msg("taken: %s", cases[i]);
        assert_non_null(error);
    }
}

static void prints_what_is_broken(void **state)
{
    (void)state;
    vp_pb_auto PbDomain *domain = vp_pb_new(&pb_domain__descriptor);

    vp_pb_set(&domain->name, "a\xff");
    domain->create_time = vp_pb_timestamp(0);
    domain->create_time->nanos = -1;
    json_t *json = vp_json_print(domain);
    assert_string_equal(json_string_value(json_object_get(json, "name")), "a\xef\xbf\xbd");
    assert_true(json_is_null(json_object_get(json, "createTime")));
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prints_like_google),          cmocka_unit_test(parses_what_google_prints),
        cmocka_unit_test(takes_the_other_spellings),   cmocka_unit_test(refuses_with_the_path),
        cmocka_unit_test(refuses_what_no_field_holds), cmocka_unit_test(prints_what_is_broken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
