/* Makes every image of tests/corpus/formats.table and holds what is found in it against its line, and against qemu-img. See there for the columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/pb.h"
#include "storage/probe/formats.h"
#include "tests/unit/storage/images.h"

#define CORPUS "tests/corpus"

enum { NAME, MADE_BY, LOOKS_LIKE, SIZE, UNDECLARED, DECLARED, ALSO, NAMES, QEMU, COLUMNS };

typedef struct Setup {
    void *folder;
    char *corpus; /* absolute: the tests change their working directory */
    GStrv lines;
} Setup;

/* The codes of that kind, in their order: "TRUNCATED PROBE_FAILED". */
static char *codes(const VpChain *chain, gboolean errors)
{
    GString *out = g_string_new(NULL);
    for (guint i = 0; i < chain->findings->len; i++) {
        const PbFinding *finding = g_ptr_array_index(chain->findings, i);
        if ((finding->severity == PB_SEVERITY_ERROR) == errors) {
            const char *name = vp_pb_enum_name(&pb_finding_code__descriptor, (int)finding->code);
            g_string_append_printf(out, "%s%s", out->len ? " " : "", name + strlen("FINDING_CODE_"));
        }
    }
    return g_string_free(out, FALSE);
}

static char *verdict(const VpChain *chain)
{
    g_autofree char *errors = codes(chain, TRUE);
    assert_int_equal(chain->summary->safe, errors[0] == '\0');
    return errors[0] ? g_steal_pointer(&errors) : g_strdup("safe");
}

static char *also_told(const VpChain *chain)
{
    g_autofree char *notes = codes(chain, FALSE);
    GString *out = g_string_new(notes);
    const PbImageLayer *layer = file_at(chain, 0)->layer;
    for (size_t i = 0; i < layer->n_features; i++) {
        g_string_append_printf(out, "%s+%s", out->len ? " " : "", layer->features[i]);
    }
    return g_string_free(out, FALSE);
}

static gboolean is_named(const VpChain *chain, const char *name)
{
    gboolean named = strcmp(file_at(chain, 0)->layer->backing_path, name) == 0;
    g_autofree char *part = g_strdup_printf("names its %s", name);
    for (guint i = 0; i < chain->findings->len; i++) {
        const PbFinding *finding = g_ptr_array_index(chain->findings, i);
        named = named || strstr(finding->message, part);
    }
    return named;
}

static int check(const char *row, const char *what, const char *expected, const char *found)
{
    if (strcmp(expected, found[0] ? found : "-") == 0) {
        return 0;
    }
    print_error("%s: %s: expected \"%s\", found \"%s\"\n", row, what, expected, found[0] ? found : "-");
    return 1;
}

static char *size_text(const PbImageLayer *layer)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT, layer->virtual_size_bytes);
}

/* What qemu-img says of the image, opened as the format that it looks like. */
static int compare_with_qemu(char **row, const PbImageLayer *layer)
{
    g_autofree char *output = NULL;
    gboolean encrypted = layer->encrypted && strcmp(row[LOOKS_LIKE], "luks") != 0;
    /* An encrypted image is opened only with its secret. */
    int status = encrypted ? try_run(&output,
                                     "qemu-img info --output=json --object secret,id=s,data=abc --image-opts "
                                     "driver=%s,file.filename=img,encrypt.key-secret=s 2>said",
                                     row[LOOKS_LIKE])
                           : try_run(&output, "qemu-img info --output=json -f %s img 2>said", row[LOOKS_LIKE]);
    if (strcmp(row[QEMU], "-") == 0) {
        return 0;
    }
    if (strcmp(row[QEMU], "same") != 0) {
        return check(row[NAME], "qemu", row[QEMU], status == 0 ? "opens" : "refuses");
    }
    if (status != 0) {
        g_autofree char *said = run("cat said");
        print_error("%s: qemu-img refuses it: %s", row[NAME], said);
        return 1;
    }
    json_t *info = json_loads(output, 0, NULL);
    if (!info) {
        fail_msg("%s: qemu-img info: %s", row[NAME], output);
    }
    const char *backing = json_string_value(json_object_get(info, "backing-filename"));
    g_autofree char *size =
        g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(info, "virtual-size")));
    g_autofree char *ours = size_text(layer);
    int bad = check(row[NAME], "size by qemu-img", size, ours);
    bad += check(row[NAME], "backing file by qemu-img", backing ? backing : "-", layer->backing_path);
    json_decref(info);
    return bad;
}

static int check_row(const char *corpus, char **row)
{
    must_run("rm -rf ./*; CORPUS='%s'; set -e; . \"$CORPUS/make.sh\"; %s", corpus, row[MADE_BY]);
    g_autoptr(VpChain) undeclared = walk("img", PB_IMAGE_FORMAT_UNSPECIFIED);
    g_autofree char *found = verdict(undeclared);
    const PbImageLayer *layer = file_at(undeclared, 0)->layer;
    int bad = check(row[NAME], "undeclared", row[UNDECLARED], found);
    if (strcmp(row[LOOKS_LIKE], "several") == 0) {
        return bad + check(row[NAME], "looks like", "-", layer->probed_format ? "one format" : "");
    }
    const char *looks = vp_format_qemu_name(layer->probed_format);
    bad += check(row[NAME], "looks like", row[LOOKS_LIKE], looks ? looks : "");

    VpChainOptions options = {
        .format = vp_format_from_qemu_name(row[LOOKS_LIKE], strlen(row[LOOKS_LIKE])),
    };
    g_autoptr(VpChain) declared = walk_with("img", &options);
    layer = file_at(declared, 0)->layer;
    g_autofree char *found_declared = verdict(declared);
    g_autofree char *also = also_told(declared);
    g_autofree char *size = size_text(layer);
    bad += strcmp(row[DECLARED], "-") == 0 ? 0 : check(row[NAME], "declared", row[DECLARED], found_declared);
    bad += check(row[NAME], "also told", row[ALSO], also);
    bad += strcmp(row[SIZE], "-") == 0 ? 0 : check(row[NAME], "size", row[SIZE], size);
    if (strcmp(row[NAMES], "-") != 0) {
        bad += check(row[NAME], "names", row[NAMES], is_named(declared, row[NAMES]) ? row[NAMES] : "not that");
        bad += check(row[NAME], "names, undeclared", "told", is_named(undeclared, row[NAMES]) ? "told" : "not told");
    } else if (layer->backing_path[0]) {
        bad += check(row[NAME], "names", "-", layer->backing_path);
    }
    return bad + compare_with_qemu(row, layer);
}

static void every_row(void **state)
{
    const Setup *setup = *state;
    int bad = 0;
    guint rows = 0;
    for (gsize i = 0; setup->lines[i]; i++) {
        const char *line = setup->lines[i];
        if (line[0] == '#' || line[0] == '\0') {
            continue;
        }
        g_auto(GStrv) row = g_strsplit(line, "|", -1);
        if (g_strv_length(row) != COLUMNS) {
            fail_msg("line %zu has %u columns", i + 1, g_strv_length(row));
        }
        for (guint c = 0; c < COLUMNS; c++) {
            g_strstrip(row[c]);
        }
        bad += check_row(setup->corpus, row);
        rows++;
    }
    print_message("%u images\n", rows);
    assert_true(rows > 100);
    assert_int_equal(bad, 0);
}

static int setup_corpus(void **state)
{
    Setup *setup = g_new0(Setup, 1);
    g_autofree char *text = NULL;
    *state = setup;
    setup->corpus = realpath(CORPUS, NULL);
    if (!setup->corpus || !g_file_get_contents(CORPUS "/formats.table", &text, NULL, NULL)) {
        return -1;
    }
    setup->lines = g_strsplit(text, "\n", -1);
    return images_setup(&setup->folder);
}

static int teardown_corpus(void **state)
{
    Setup *setup = *state;
    int status = images_teardown(&setup->folder);
    free(setup->corpus);
    g_strfreev(setup->lines);
    g_free(setup);
    return status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row)};
    return cmocka_run_group_tests(tests, setup_corpus, teardown_corpus);
}
