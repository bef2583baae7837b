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
    {"host_device:/dev/sda", VP_REFERENCE_FILE, "/dev/sda", 0},
    {"host_device:sda", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"host_cdrom:/dev/sr0", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"blkverify:/a:/b", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"null-co://", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"vvfat:/a", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"nvme://0000:00:01.0/1", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"iscsi://host/iqn/0", VP_REFERENCE_REMOTE, NULL, 0},
    {"gluster+tcp://host/vol/a", VP_REFERENCE_REMOTE, NULL, 0},
    {"ssh://host/a", VP_REFERENCE_REMOTE, NULL, 0},
    {"ftp://host/a", VP_REFERENCE_REMOTE, NULL, 0},
    {"nfs://host/a", VP_REFERENCE_REMOTE, NULL, 0},
    {"json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/a\"}}", VP_REFERENCE_FILE, "/a",
     PB_IMAGE_FORMAT_QCOW2},
    {"json:{\"driver\":\"raw\",\"file.filename\":\"/a\",\"file.driver\":\"file\"}", VP_REFERENCE_FILE, "/a",
     PB_IMAGE_FORMAT_RAW},
    {"json:{\"file\":{\"filename\":\"/a\"}}", VP_REFERENCE_FILE, "/a", 0},
    {"json:{\"driver\":\"file\",\"filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0}, /* QEMU refuses it as well */
    {"json:{\"driver\":\"raw\",\"file\":{\"filename\":\"a\"}}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"file\":{\"filename\":\"/a\"},\"file.filename\":\"/b\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json: {\"driver\":\"raw\",\"file.filename\":\"/a\"}", VP_REFERENCE_FILE, "/a", PB_IMAGE_FORMAT_RAW},
    /* What changes how the bytes are read but not which is left aside. */
    {"json:{\"driver\":\"raw\",\"read-only\":true,\"cache\":{\"direct\":false},\"file\":{\"aio\":\"threads\","
     "\"filename\":\"/a\"}}",
     VP_REFERENCE_FILE, "/a", PB_IMAGE_FORMAT_RAW},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"host_device\",\"filename\":\"/dev/a\"}}", VP_REFERENCE_FILE,
     "/dev/a", PB_IMAGE_FORMAT_RAW},
    /* Here a name is a path, whatever it looks like. */
    {"json:{\"driver\":\"raw\",\"file.filename\":\"file:/a\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file.filename\":\"json:{}\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    /* Another backing file than the header's, or none: a chain cut in silence. */
    {"json:{\"driver\":\"qcow2\",\"backing\":null,\"file.filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"qcow2\",\"backing.file.filename\":\"/b\",\"file.filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED,
     NULL, 0},
    {"json:{\"driver\":\"qcow2\",\"data-file.filename\":\"/b\",\"file.filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED,
     NULL, 0},
    {"json:{\"driver\":\"qcow2\",\"backing\":{},\"file.filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file\":{\"filename\":\"/a\",\"locking\":{}}}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"read-only\":\"maybe\",\"file.filename\":\"/a\"}", VP_REFERENCE_FILE, "/a",
     PB_IMAGE_FORMAT_RAW},
    /* Dotted and nested keys that contradict each other; escapes that hide a key. */
    {"json:{\"driver\":\"raw\",\"file\":{\"filename\":\"/a\"},\"file.filename\":\"/b\"}", VP_REFERENCE_UNSUPPORTED,
     NULL, 0},
    {"json:{\"driver\":\"raw\",\"file.filename\":\"/a\",\"file\":{\"\\u0066ilename\":\"/b\"}}",
     VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file.filename\":\"/a\",\"file\":\"node\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/a\",\"file.filename\":\"/b\"}}",
     VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file..filename\":\"/a\",\"file.filename\":\"/b\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"\\u0064river\":\"raw\",\"driver\":\"qcow2\",\"file.filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED, NULL,
     0},
    {"json:{\"driver\":\"raw\",\"file.filename\":\"/\\ud800\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file.filename\":\"/h\\u00f6h\"}", VP_REFERENCE_FILE, "/h\xc3\xb6h",
     PB_IMAGE_FORMAT_RAW},
    {"json:{\"driver\":\"raw\",\"file.filename\":\"/a\"} {}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file\":\"node\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\"}}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"server\":{\"type\":\"unix\",\"path\":\"/s\"}}}",
     VP_REFERENCE_REMOTE, NULL, PB_IMAGE_FORMAT_RAW},
    {"json:{\"driver\":\"qcow2\",\"file.driver\":\"rbd\",\"file.pool\":\"p\",\"file.image\":\"i\"}",
     VP_REFERENCE_REMOTE, NULL, PB_IMAGE_FORMAT_QCOW2},
    {"json:{\"driver\":\"https\",\"url\":\"https://host/a\"}", VP_REFERENCE_REMOTE, NULL, 0},
    {"json:{\"driver\":\"raw\",\"offset\":512,\"file\":{\"driver\":\"nbd\",\"path\":\"/s\"}}", VP_REFERENCE_UNSUPPORTED,
     NULL, 0},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"blkdebug\",\"image.filename\":\"/a\"}}", VP_REFERENCE_UNSUPPORTED,
     NULL, 0},
    {"json:{\"driver\":\"copy-on-read\",\"file\":{\"driver\":\"raw\",\"file.filename\":\"/a\"}}",
     VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"throttle\",\"throttle-group\":\"g\",\"file.filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED, NULL,
     0},
    {"json:{\"driver\":\"quorum\",\"children\":[{\"driver\":\"raw\"}]}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"null-co\",\"size\":512}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{\"driver\":\"raw\",\"driver\":\"qcow2\",\"file.filename\":\"/a\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
    {"json:{'driver':'raw','file.filename':'/a'}", VP_REFERENCE_UNSUPPORTED, NULL, 0}, /* QEMU's own dialect */
    {"json:{\"driver\":\"raw\",\"file.filename\":\"/a\\u0000b\"}", VP_REFERENCE_UNSUPPORTED, NULL, 0},
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
            (cases[i].kind == VP_REFERENCE_UNSUPPORTED && !reference.why) ||
            (cases[i].kind == VP_REFERENCE_REMOTE && !reference.protocol)) {
            fail_msg("%s: kind %d, path %s, format %d", cases[i].name, (int)reference.kind,
                     reference.path ? reference.path : "-", (int)reference.format);
        }
    }
    g_auto(VpReference) relative = {0};
    vp_reference_parse("data", NULL, &relative);
    assert_int_equal(relative.kind, VP_REFERENCE_UNSUPPORTED);
}

typedef struct Window {
    const char *json;
    gboolean taken;
    PbImageFormat format;
    gboolean is_window;
    guint64 offset;
    guint64 size;
} Window;

static const Window windows[] = {
    {"{\"driver\":\"raw\",\"offset\":512,\"file\":{\"filename\":\"/a\"}}", TRUE, PB_IMAGE_FORMAT_RAW, TRUE, 512, 0},
    {"{\"driver\":\"raw\",\"size\":1024,\"file.filename\":\"/a\"}", TRUE, PB_IMAGE_FORMAT_RAW, TRUE, 0, 1024},
    {"{\"driver\":\"raw\",\"offset\":\"1M\",\"size\":\"2k\",\"file.filename\":\"/a\"}", TRUE, PB_IMAGE_FORMAT_RAW, TRUE,
     1 << 20, 2048},
    {"{\"driver\":\"qcow2\",\"file\":{\"driver\":\"raw\",\"offset\":512,\"file\":{\"filename\":\"/a\"}}}", TRUE,
     PB_IMAGE_FORMAT_QCOW2, TRUE, 512, 0},
    {"{\"driver\":\"qcow2\",\"file.driver\":\"raw\",\"file.file.filename\":\"/a\"}", TRUE, PB_IMAGE_FORMAT_QCOW2, FALSE,
     0, 0},
    /* A window in a window counts from there. */
    {"{\"driver\":\"raw\",\"offset\":512,\"size\":512,\"file\":{\"driver\":\"raw\",\"offset\":4096,\"size\":1024,"
     "\"file.filename\":\"/a\"}}",
     TRUE, PB_IMAGE_FORMAT_RAW, TRUE, 4608, 512},
    {"{\"driver\":\"raw\",\"offset\":512,\"file\":{\"driver\":\"raw\",\"offset\":4096,\"size\":2048,\"file.filename\":"
     "\"/a\"}}",
     TRUE, PB_IMAGE_FORMAT_RAW, TRUE, 4608, 1536},
    {"{\"driver\":\"raw\",\"offset\":512,\"size\":1024,\"file\":{\"driver\":\"raw\",\"size\":1024,\"file.filename\":\"/"
     "a\"}}",
     FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"offset\":4096,\"file\":{\"driver\":\"raw\",\"size\":1024,\"file.filename\":\"/a\"}}", FALSE,
     0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"offset\":9223372036854775807,\"file\":{\"driver\":\"raw\",\"offset\":9223372036854775807,"
     "\"file.filename\":\"/a\"}}",
     FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"offset\":9223372036854775807,\"size\":512,\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0,
     0},
    {"{\"driver\":\"raw\",\"offset\":-1,\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"offset\":1.5,\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"size\":\"99999999999999999999\",\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"size\":\"16E\",\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"size\":\"1x\",\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"size\":0,\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"size\":100,\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"qcow2\",\"offset\":512,\"file.filename\":\"/a\"}", FALSE, 0, FALSE, 0, 0},
    {"{\"driver\":\"raw\",\"file\":{\"driver\":\"raw\",\"file\":{\"driver\":\"raw\",\"file\":{\"driver\":\"raw\","
     "\"file\":{\"driver\":"
     "\"raw\",\"file\":{\"filename\":\"/a\"}}}}}}",
     FALSE, 0, FALSE, 0, 0},
};

static void windows_of_files(void **state)
{
    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(windows); i++) {
        g_auto(VpReference) reference = {0};
        g_autofree char *name = g_strconcat("json:", windows[i].json, NULL);
        vp_reference_parse(name, "/dir/overlay", &reference);
        gboolean taken = reference.kind == VP_REFERENCE_FILE;
        if (taken != windows[i].taken ||
            (taken && (reference.format != windows[i].format || reference.is_window != windows[i].is_window ||
                       reference.offset != windows[i].offset || reference.size != windows[i].size))) {
            fail_msg("%s: taken %d, format %d, window %d, %" G_GUINT64_FORMAT " + %" G_GUINT64_FORMAT, name, taken,
                     (int)reference.format, reference.is_window, reference.offset, reference.size);
        }
    }
}

static void protocols(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *protocol;
    } names[] = {{"nbd+unix:///x?socket=/s", "nbd"},
                 {"iser://host/iqn/0", "iscsi"},
                 {"gluster+rdma://h/v/a", "gluster"},
                 {"https://host/a", "https"},
                 {"rbd:pool/image", "rbd"}};
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_auto(VpReference) reference = {0};
        vp_reference_parse(names[i].name, "/dir/overlay", &reference);
        assert_int_equal(reference.kind, VP_REFERENCE_REMOTE);
        assert_string_equal(reference.protocol, names[i].protocol);
    }
}

typedef struct Export {
    const char *name;
    const char *host; /* NULL with a NULL socket: not told */
    const char *port;
    const char *socket;
    const char *export;
} Export;

static const Export exports[] = {
    {"nbd://host", "host", "10809", NULL, ""},
    {"nbd://host:1234/a/b", "host", "1234", NULL, "a/b"},
    {"nbd+tcp://[::1]:7/x%20y", "::1", "7", NULL, "x y"},
    {"nbd+unix:///e?socket=/run/s", NULL, NULL, "/run/s", "e"},
    {"nbd+unix://?socket=/run/a%26b", NULL, NULL, "/run/a&b", ""},
    {"nbd:host:99", "host", "99", NULL, ""},
    {"nbd:[::1]:99:exportname=e:f", "::1", "99", NULL, "e:f"},
    {"nbd:unix:/run/s:exportname=e", NULL, NULL, "/run/s", "e"},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"server\":{\"type\":\"inet\",\"host\":\"h\",\"port\":1},"
     "\"export\":\"e\"}}",
     "h", "1", NULL, "e"},
    {"json:{\"driver\":\"raw\",\"file.driver\":\"nbd\",\"file.server.type\":\"unix\",\"file.server.path\":\"/s\"}",
     NULL, NULL, "/s", ""},
    /* Not in full, in two ways, or with what is not passed on. */
    {"nbd://", NULL, NULL, NULL, NULL},
    {"nbd://host:0/", NULL, NULL, NULL, NULL},
    {"nbd://host/e?x=y", NULL, NULL, NULL, NULL},
    {"nbd://user@host/e", NULL, NULL, NULL, NULL},
    {"nbds://host/e", NULL, NULL, NULL, NULL},
    {"nbd+unix:///e", NULL, NULL, NULL, NULL},
    {"nbd+unix:///e?socket=run/s", NULL, NULL, NULL, NULL},
    {"nbd+unix:///e?socket=/a&socket=/b", NULL, NULL, NULL, NULL},
    {"nbd+unix://host/e?socket=/a", NULL, NULL, NULL, NULL},
    {"nbd:host", NULL, NULL, NULL, NULL},
    {"nbd:host:99,ipv4=on", NULL, NULL, NULL, NULL},
    {"nbd:unix:s", NULL, NULL, NULL, NULL},
    {"nbd:host:99:exportname=", NULL, NULL, NULL, NULL},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"server\":{\"type\":\"inet\",\"host\":\"h\",\"port\":"
     "\"1\"},\"tls-creds\":\"t\"}}",
     NULL, NULL, NULL, NULL},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"server\":{\"type\":\"fd\",\"str\":\"3\"}}}", NULL, NULL,
     NULL, NULL},
    {"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"server\":{\"type\":\"unix\",\"host\":\"h\",\"path\":\"/"
     "s\"}}}",
     NULL, NULL, NULL, NULL},
};

static void nbd_exports(void **state)
{
    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(exports); i++) {
        const Export *expected = &exports[i];
        g_auto(VpReference) reference = {0};
        vp_reference_parse(expected->name, "/dir/overlay", &reference);
        const VpNbd *nbd = reference.nbd;
        gboolean told = expected->host || expected->socket;
        if (reference.kind != VP_REFERENCE_REMOTE || (nbd != NULL) != told ||
            (nbd && (g_strcmp0(nbd->host, expected->host) != 0 || g_strcmp0(nbd->port, expected->port) != 0 ||
                     g_strcmp0(nbd->socket, expected->socket) != 0 || strcmp(nbd->name, expected->export) != 0))) {
            fail_msg("%s: %s, %s:%s %s \"%s\"", expected->name, nbd ? "told" : "not told", nbd ? nbd->host : "",
                     nbd ? nbd->port : "", nbd ? nbd->socket : "", nbd ? nbd->name : "");
        }
    }
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(references), cmocka_unit_test(windows_of_files),
                                       cmocka_unit_test(protocols),  cmocka_unit_test(nbd_exports),
                                       cmocka_unit_test(shown_text), cmocka_unit_test(every_finding_is_documented)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
