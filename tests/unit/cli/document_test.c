/* YAML both ways, files as messages, sections of the findings' page, and errors as people read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <glib/gstdio.h>

#include "base/pb.h"
#include "clients/c/client.h"
#include "clients/cli/complain.h"
#include "clients/cli/document.h"
#include "clients/cli/explain.h"
#include "clients/cli/yaml.h"
#include "virtplane/v1/domain.pb-c.h"

static void yaml_comes_back(void **state)
{
    (void)state;
    static const char text[] =
        "{\"s\":\"plain\",\"n\":1,\"b\":true,\"nothing\":null,\"list\":[1,\"2\",{\"k\":\"v\"},[]],\"empty\":{},"
        "\"odd\":[\"true\",\"1\",\"\",\"~\",\"no\",\"2026-01-02T03:04:05Z\",\"1:30\",\"a: b\",\"# c\",\"l1\\nl2\","
        "\"\\u001b[1m\",\"\\u202ex\",\" pad \",\"- x\",\"'q'\",\"*a\",\"&b\",\"%d\",\"0x10\",\".5\",\"-\"]}";
    json_t *json = json_loads(text, 0, NULL);
    g_autofree char *yaml = vp_yaml_print(json);
    VpError *error = NULL;
    json_t *again = vp_yaml_parse(yaml, strlen(yaml), &error);

    assert_null(error);
    if (!json_equal(json, again))
        fail_msg("changed:\n%s", yaml);
    /* What moves a terminal is written as an escape. */
    assert_null(strchr(yaml, '\033'));
    assert_null(strstr(yaml, "\u202e"));
    assert_non_null(strstr(yaml, "'true'"));
    assert_non_null(strstr(yaml, "'no'"));
    assert_non_null(strstr(yaml, "'2026-01-02T03:04:05Z'"));
    json_decref(json);
    json_decref(again);
}

static void yaml_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"a: [1", "line "},
        {"a: 1\na: 2\n", "line 2: this key is there twice"},
        {"? [1]\n: 2\n", "the key of a map must be a text"},
        {"a: 1\n---\nb: 2\n", "more than one document"},
        {"a: \"x\\0y\"\n", "holds a NUL"},
        {"a: &a [*a]\n", "nested too deeply"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VpError) error = NULL;

        assert_null(vp_yaml_parse(cases[i].text, strlen(cases[i].text), &error));
        assert_non_null(error);
        if (!strstr(error->message, cases[i].says))
            fail_msg("\"%s\": %s", cases[i].text, error->message);
    }
}

/* Aliases of aliases: ten lines that would be a thousand million nodes. */
static void yaml_does_not_explode(void **state)
{
    (void)state;
    g_autoptr(GString) bomb = g_string_new("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    g_autoptr(VpError) error = NULL;

    for (int i = 1; i < 9; i++) {
        g_string_append_printf(bomb, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            g_string_append_printf(bomb, "%s*a%d", k ? "," : "", i - 1);
        g_string_append(bomb, "]\n");
    }
    assert_null(vp_yaml_parse(bomb->str, bomb->len, &error));
    assert_non_null(strstr(error->message, "too large"));
}

static void reads_files(void **state)
{
    (void)state;
    g_autofree char *folder = g_dir_make_tmp("vpctl-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "web", NULL);
    static const char *const same[] = {
        "name: web\nspec:\n  vcpus: 2\n  disks:\n  - path: /d\n",
        "domain:\n  name: web\n  spec: {vcpus: '2', disks: [{path: /d}]}\n",
        "\n {\"name\": \"web\", \"spec\": {\"vcpus\": 2, \"disks\": [{\"path\": \"/d\"}]}}",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(same); i++) {
        VpError *error = NULL;

        assert_true(g_file_set_contents(path, same[i], -1, NULL));
        vp_pb_auto PbDomain *domain = vp_document_read(path, &pb_domain__descriptor, "domain", &error);
        assert_null(error);
        assert_string_equal(domain->name, "web");
        assert_int_equal(domain->spec->vcpus, 2);
        assert_string_equal(domain->spec->disks[0]->path, "/d");
    }

    g_autoptr(VpError) broken = NULL;
    assert_true(g_file_set_contents(path, "{\"name\": }", -1, NULL));
    assert_null(vp_document_read(path, &pb_domain__descriptor, "domain", &broken));
    assert_non_null(strstr(broken->message, "line 1, column"));
    g_autoptr(VpError) empty = NULL;
    assert_true(g_file_set_contents(path, "", -1, NULL));
    assert_null(vp_document_read(path, &pb_domain__descriptor, "domain", &empty));
    assert_non_null(empty);
    g_unlink(path);
    g_autoptr(VpError) missing = NULL;
    assert_null(vp_document_read(path, &pb_domain__descriptor, "domain", &missing));
    assert_int_equal(missing->code, VP_NOT_FOUND);
    g_rmdir(folder);
}

static void finds_sections(void **state)
{
    (void)state;
    static const char page[] = "# Findings\n\nAll of them.\n\n## LOOP\n\nA loop.\n\n### Remedy\nCut it.\n\n## "
                               "`DIRTY`\nNot closed.\n# End\nx\n";
    g_autofree char *loop = vp_explain_section(page, "loop");
    g_autofree char *dirty = vp_explain_section(page, "FINDING_CODE_DIRTY");
    g_auto(GStrv) codes = vp_explain_codes(page);

    assert_string_equal(loop, "A loop.\n\n### Remedy\nCut it.");
    assert_string_equal(dirty, "Not closed.");
    assert_null(vp_explain_section(page, "LOO"));
    assert_int_equal(g_strv_length(codes), 2);
    assert_string_equal(codes[1], "DIRTY");
}

/* What can be found can be looked up. */
static void explains_every_finding(void **state)
{
    (void)state;
    for (unsigned i = 0; i < pb_finding_code__descriptor.n_values; i++) {
        const ProtobufCEnumValue *value = &pb_finding_code__descriptor.values[i];
        g_autofree char *section = vp_explain_section(vp_explain_page(), value->name);

        if (value->value != 0 && !(section && *section))
            fail_msg("docs/findings.md does not explain %s", value->name);
    }
}

static void tells_all_of_an_error(void **state)
{
    (void)state;
    g_autoptr(VpError) error = vp_error_new(VP_FAILED_PRECONDITION, "LOOP", "a \033[31mloop");

    vp_error_with(error, "remedy", "line 1\nline 2");
    vp_error_with(error, "path", "/i/x");
    vp_error_violation(error, "domain.name", "is empty");
    vp_error_retry(error, 1500);
    g_autofree char *text = vp_complain(error, "start domain \"web\"", "unix:/x", 1000);
    assert_string_equal(text, "vpctl: cannot start domain \"web\": a \\x1b[31mloop\n"
                              "  domain.name: is empty\n"
                              "  reason: LOOP\n"
                              "  path: /i/x\n"
                              "  remedy: line 1\n"
                              "    line 2\n"
                              "  try again in 1.5 s\n");

    g_autoptr(VpError) nobody = vp_error_new(VP_UNAVAILABLE, VP_CLIENT_NO_DAEMON, "no daemon answers at unix:/x");
    g_autofree char *start = vp_complain(nobody, "list domains", "unix:/x", 1000);
    assert_non_null(strstr(start, "at unix:/x\n"));
    assert_non_null(strstr(start, "virtplaned\n"));
    assert_non_null(strstr(start, "--connect"));

    g_autoptr(VpError) late = vp_error_new(VP_DEADLINE_EXCEEDED, NULL, "Deadline Exceeded");
    g_autofree char *waited = vp_complain(late, "list domains", "unix:/x", 1500);
    assert_non_null(strstr(waited, "no answer within 1.5 s\n"));
}

/* What the message says is not said again below it. */
static void tells_each_thing_once(void **state)
{
    (void)state;
    g_autoptr(VpError) refusal =
        vp_error_new(VP_FAILED_PRECONDITION, "PROBE_FAILED", "disk vda: /i/a.q: is not clear. Remedy: do this  # so");
    vp_error_with(refusal, "path", "/i/a.q");
    vp_error_with(refusal, "disk", "vda");
    vp_error_with(refusal, "domain", "web");
    vp_error_with(refusal, "overlay", "/i/a");
    vp_error_with(refusal, "remedy", "do this  # so");
    g_autofree char *text = vp_complain(refusal, "start domain \"web\"", NULL, 1000);
    assert_string_equal(text, "vpctl: cannot start domain \"web\": disk vda: /i/a.q: is not clear\n"
                              "  reason: PROBE_FAILED\n"
                              "  overlay: /i/a\n"
                              "  remedy: do this  # so\n");

    g_autoptr(VpError) invalid = vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "domain.name: must be set");
    vp_error_violation(invalid, "domain.name", "must be set");
    vp_error_violation(invalid, "domain.spec.vcpus", "must be small");
    g_autofree char *fields = vp_complain(invalid, "create domain \"\"", NULL, 1000);
    assert_string_equal(fields, "vpctl: cannot create domain \"\": domain.name: must be set\n"
                                "  domain.spec.vcpus: must be small\n"
                                "  reason: INVALID_REQUEST\n");

    g_autoptr(VpError) state_error = vp_error_new(VP_FAILED_PRECONDITION, "X", "cannot start the domain web: it runs");
    g_autofree char *once = vp_complain(state_error, "start domain \"web\"", NULL, 1000);
    assert_string_equal(once, "vpctl: cannot start the domain web: it runs\n  reason: X\n");

    g_autoptr(VpError) named = vp_error_new(VP_FAILED_PRECONDITION, "X", "/dev/null: is a device");
    g_autofree char *path = vp_complain(named, "probe /dev/null", NULL, 1000);
    assert_string_equal(path, "vpctl: cannot probe /dev/null: is a device\n  reason: X\n");
}

static void tells_programs_all(void **state)
{
    (void)state;
    g_autoptr(VpError) error = vp_error_new(VP_NOT_FOUND, "GONE", "a \033 \"b\"");
    vp_error_with(error, "name", "web");
    vp_error_violation(error, "name", "is wrong");
    vp_error_retry(error, 1500);
    g_autofree char *text = vp_complain_json(error);
    assert_string_equal(text,
                        "{\"error\":{\"code\":\"NOT_FOUND\",\"message\":\"a \\u001B \\\"b\\\"\",\"reason\":\"GONE\","
                        "\"metadata\":{\"name\":\"web\"},"
                        "\"violations\":[{\"field\":\"name\",\"description\":\"is wrong\"}],\"retryAfterMs\":1500}}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yaml_comes_back),       cmocka_unit_test(yaml_is_refused),
        cmocka_unit_test(yaml_does_not_explode), cmocka_unit_test(reads_files),
        cmocka_unit_test(finds_sections),        cmocka_unit_test(explains_every_finding),
        cmocka_unit_test(tells_each_thing_once), cmocka_unit_test(tells_programs_all),
        cmocka_unit_test(tells_all_of_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
