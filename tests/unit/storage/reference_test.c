/* What names of backing files mean, and how outside bytes are shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "storage/chain/reference.h"
#include "storage/chain/text.h"

typedef struct Case {
    const char *name;
    VpReferenceKind kind;
    const char *path;
    PbImageFormat format;
} Case;

static const Case cases[] = {
    {"/a/b", VP_REFERENCE_FILE, "/a/b", 0},
    {"b", VP_REFERENCE_FILE, "/dir/b", 0},
    {"../x/b", VP_REFERENCE_FILE, "/dir/../x/b", 0},
    {"./a:b", VP_REFERENCE_FILE, "/dir/./a:b", 0},
    {"sub/a:b", VP_REFERENCE_FILE, "/dir/sub/a:b", 0},
    {"a:b", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"file:/a/b", VP_REFERENCE_FILE, "/a/b", 0},
    {"file:///a/b", VP_REFERENCE_FILE, "///a/b", 0},
    {"file:b", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"nbd:localhost:10809", VP_REFERENCE_REMOTE, NULL, 0},
    {"nbd+unix:///x?socket=/s", VP_REFERENCE_REMOTE, NULL, 0},
    {"https://example.org/x.qcow2", VP_REFERENCE_REMOTE, NULL, 0},
    {"rbd:pool/image", VP_REFERENCE_REMOTE, NULL, 0},
    {"fat:rw:/etc", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"blkdebug::/a", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"host_device:/dev/sda", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/a\"}}", VP_REFERENCE_FILE, "/a",
     PB_IMAGE_FORMAT_QCOW2},
    {"json:{\"driver\":\"raw\",\"file.filename\":\"/a\",\"file.driver\":\"file\"}", VP_REFERENCE_FILE, "/a",
     PB_IMAGE_FORMAT_RAW},
    {"json:{\"file\":{\"filename\":\"/a\"}}", VP_REFERENCE_FILE, "/a", 0},
    {"json:{\"driver\":\"raw\",\"offset\":512,\"file\":{\"filename\":\"/a\"}}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"filename\":\"/a\"}}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"file\",\"filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0}, /* QEMU refuses it as well */
    {"json:{\"driver\":\"raw\",\"file\":{\"filename\":\"a\"}}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"file\":{\"filename\":\"/a\"},\"file.filename\":\"/b\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"file\":[\"/a\"]}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:[]", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:", VP_REFERENCE_UNSUPPORTED, NULL, 0},
};

static void references(void **state)
{
    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(VpReference) reference = {0};
        vp_reference_parse(cases[i].name, "/dir/overlay", &reference);
        if (reference.kind != cases[i].kind || g_strcmp0(reference.path, cases[i].path) != 0 ||
            (cases[i].kind == VP_REFERENCE_FILE && reference.format != cases[i].format) ||
            (cases[i].kind != VP_REFERENCE_FILE && !reference.why)) {
            fail_msg("%s: kind %d, path %s, format %d", cases[i].name, (int)reference.kind,
                     reference.path ? reference.path : "-", (int)reference.format);
        }
    }
    g_auto(VpReference) relative = {0};
    vp_reference_parse("data", NULL, &relative);
    assert_int_equal(relative.kind, VP_REFERENCE_UNSUPPORTED);
}

static void shown_text(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        const char *escaped;
        const char *shell;
    } texts[] = {
        {"/plain/a-1.qcow2", "/plain/a-1.qcow2", "/plain/a-1.qcow2"},
        {"/a b", "/a b", "'/a b'"},
        {"/it's", "/it's", "'/it'\\''s'"},
        {"", "", "''"},
        {"/a\nb", "/a\\x0ab", "$'/a\\x0ab'"},
        {"/\xff'\\", "/\\xff'\\", "$'/\\xff\\'\\\\'"},
        {"/\xe2\x80\xae", "/\\xe2\\x80\\xae", "$'/\\xe2\\x80\\xae'"}, /* turns the direction of writing */
        {"/h\xc3\xb6h", "/h\xc3\xb6h", "'/h\xc3\xb6h'"},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autofree char *escaped = vp_text_escape(texts[i].bytes, -1);
        g_autofree char *shell = vp_text_shell(texts[i].bytes);
        g_autofree char *field = vp_text_utf8(texts[i].bytes, -1);
        assert_string_equal(escaped, texts[i].escaped);
        assert_string_equal(shell, texts[i].shell);
        assert_true(g_utf8_validate(field, -1, NULL));
    }
}

static void every_finding_is_documented(void **state)
{
    (void)state;
    g_autofree char *text = NULL;
    assert_true(g_file_get_contents("docs/findings.md", &text, NULL, NULL));
    for (unsigned i = 0; i < pb_finding_code__descriptor.n_values; i++) {
        const ProtobufCEnumValue *value = &pb_finding_code__descriptor.values[i];
        g_autofree char *heading = g_strdup_printf("\n## %s\n", value->name + strlen("FINDING_CODE_"));
        if (value->value != 0 && !strstr(text, heading)) {
            fail_msg("docs/findings.md says nothing of %s", value->name);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(references), cmocka_unit_test(shown_text),
                                       cmocka_unit_test(every_finding_is_documented)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
