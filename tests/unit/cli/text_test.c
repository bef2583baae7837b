/* Sizes, durations, enum names, escaping, suggestions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "clients/cli/text.h"
#include "virtplane/v1/domain.pb-c.h"

static void assert_escaped(const char *text, const char *wanted)
{
    g_autofree char *got = vp_text_escape(text);

    assert_string_equal(got, wanted);
}

static void escapes_what_moves_a_terminal(void **state)
{
    (void)state;
    assert_escaped(NULL, "");
    assert_escaped("gr\u00fc\u00dfe \u65e5\u672c", "gr\u00fc\u00dfe \u65e5\u672c");
    assert_escaped("a\nb\tc\r", "a\\nb\\tc\\x0d");
    assert_escaped("\033[2J\a\x7f", "\\x1b[2J\\x07\\x7f");
    assert_escaped("\xc2\x9b"
                   "1m",
                   "\\x9b1m");                         /* the one-character CSI */
    assert_escaped("a\xff\xc3", "a\\xff\\xc3");        /* no UTF-8, and cut short */
    assert_escaped("exe.\u202egpj", "exe.\\u202egpj"); /* turned around */
    assert_escaped("a\u2066b\u2028\ufeff", "a\\u2066b\\u2028\\ufeff");
}

static void escapes_json(void **state)
{
    (void)state;
    g_autofree char *got = vp_text_escape_json("{\n\"a\": \"\xc2\x9b\x7f\u202e\u00fc\"}");

    assert_string_equal(got, "{\n\"a\": \"\\u009b\\u007f\\u202e\u00fc\"}");
}

static void writes_sizes(void **state)
{
    (void)state;
    static const struct {
        guint64 bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {17, "17 B"},
        {1023, "1023 B"},
        {1024, "1 KiB"},
        {200704, "196 KiB"},
        {1536, "1.5 KiB"},
        {536870912, "512 MiB"},
        {10737418240, "10 GiB"},
        {G_MAXUINT64, "16 EiB"},
        {105906176, "101 MiB"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *got = vp_text_size(cases[i].bytes);
        assert_string_equal(got, cases[i].text);
    }
}

static void reads_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        guint64 bytes;
    } good[] = {{"4096", 4096},
                {"512M", 512 << 20},
                {"512MiB", 512 << 20},
                {"2g", G_GUINT64_CONSTANT(2) << 30},
                {"1.5G", G_GUINT64_CONSTANT(3) << 29},
                {"1 KiB", 1024},
                {"0.5K", 512}};
    static const char *const bad[] =
        {"", "M", "-1", "1.5", "512MB", "12X", "1..5G", "99999999999P", "18446744073709551616", "1.G", "0x10"};
    guint64 bytes;

    for (gsize i = 0; i < G_N_ELEMENTS(good); i++) {
        assert_true(vp_text_parse_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        if (vp_text_parse_size(bad[i], &bytes))
            fail_msg("taken: \"%s\"", bad[i]);
    }
}

static void reads_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        gint64 ms;
    } good[] = {{"30", 30000},      {"30s", 30000}, {"500ms", 500},  {"2m", 120000},
                {"1h30m", 5400000}, {"1.5s", 1500}, {"1d", 86400000}};
    static const char *const bad[] = {"", "s", "-1s", "1x", "1s2", "400d", "1e99s", "nan", "1 s"};
    gint64 ms;

    for (gsize i = 0; i < G_N_ELEMENTS(good); i++) {
        assert_true(vp_text_parse_duration(good[i].text, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        if (vp_text_parse_duration(bad[i], &ms))
            fail_msg("taken: \"%s\"", bad[i]);
    }
}

static void names_enums(void **state)
{
    (void)state;
    g_autofree char *shown = vp_text_enum(&pb_domain_state__descriptor, PB_DOMAIN_STATE_SHUTTING_DOWN);
    g_autofree char *unset = vp_text_enum(&pb_domain_state__descriptor, 0);
    g_autofree char *newer = vp_text_enum(&pb_domain_state__descriptor, 99);
    g_autofree char *code = vp_text_code(&pb_image_format__descriptor, PB_IMAGE_FORMAT_QCOW2);
    static const char *const spellings[] = {"shutting-down", "SHUTTING_DOWN", "DOMAIN_STATE_SHUTTING_DOWN",
                                            "Shutting_Down"};
    int value;

    assert_string_equal(shown, "shutting-down");
    assert_string_equal(unset, "");
    assert_string_equal(newer, "99");
    assert_string_equal(code, "QCOW2");
    for (gsize i = 0; i < G_N_ELEMENTS(spellings); i++) {
        value = 0;
        assert_null(vp_text_parse_enum(&pb_domain_state__descriptor, spellings[i], &value));
        assert_int_equal(value, PB_DOMAIN_STATE_SHUTTING_DOWN);
    }
    g_autoptr(VpError) error = vp_text_parse_enum(&pb_disk_bus__descriptor, "ide", &value);
    assert_string_equal(error->message, "\"ide\" is not known here; there is virtio, scsi, sata, nvme, usb");
}

static void suggests_the_nearest(void **state)
{
    (void)state;
    static const char *const words[] = {"domain", "image", "events", "host", NULL};

    assert_string_equal(vp_text_nearest("dmain", words), "domain");
    assert_string_equal(vp_text_nearest("event", words), "events");
    assert_string_equal(vp_text_nearest("imgae", words), "image");
    assert_null(vp_text_nearest("network", words));
    assert_null(vp_text_nearest("an-argument-that-is-much-longer-than-any-command", words));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_what_moves_a_terminal),
        cmocka_unit_test(escapes_json),
        cmocka_unit_test(writes_sizes),
        cmocka_unit_test(reads_sizes),
        cmocka_unit_test(reads_durations),
        cmocka_unit_test(names_enums),
        cmocka_unit_test(suggests_the_nearest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
