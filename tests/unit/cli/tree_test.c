/* Backing chains as trees: golden drawings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pb.h"
#include "clients/cli/image_tree.h"

static PbImageLayer *add_layer(VpImageTree *tree, guint depth, const char *path, PbImageFormat format,
                               PbFormatSource source)
{
    vp_pb_auto PbInspectChainResponse *item = vp_pb_new(&pb_inspect_chain_response__descriptor);
    PbImageLayer *layer = vp_pb_new(&pb_image_layer__descriptor);

    layer->depth = depth;
    vp_pb_set(&layer->path, path);
    layer->format = layer->probed_format = format;
    layer->format_source = source;
    layer->virtual_size_bytes = G_GUINT64_CONSTANT(10) << 30;
    layer->file_size_bytes = 200704;
    item->payload_case = PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_LAYER;
    item->layer = layer;
    vp_image_tree_add(tree, item);
    /* The tree owns it from now on; the caller may fill it further. */
    assert_null(item->layer);
    return layer;
}

static void add_finding(VpImageTree *tree, guint depth, const char *path, PbFindingCode code, PbSeverity severity,
                        const char *message, const char *remedy)
{
    vp_pb_auto PbInspectChainResponse *item = vp_pb_new(&pb_inspect_chain_response__descriptor);
    PbFinding *finding = vp_pb_new(&pb_finding__descriptor);

    finding->depth = depth;
    finding->code = code;
    finding->severity = severity;
    vp_pb_set(&finding->path, path);
    vp_pb_set(&finding->message, message);
    vp_pb_set(&finding->remedy, remedy);
    item->payload_case = PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_FINDING;
    item->finding = finding;
    vp_image_tree_add(tree, item);
}

static void add_summary(VpImageTree *tree, gboolean safe, guint depth, guint errors, guint warnings)
{
    vp_pb_auto PbInspectChainResponse *item = vp_pb_new(&pb_inspect_chain_response__descriptor);
    PbChainSummary *summary = vp_pb_new(&pb_chain_summary__descriptor);

    summary->safe = safe;
    summary->depth = depth;
    summary->errors = errors;
    summary->warnings = warnings;
    item->payload_case = PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_SUMMARY;
    item->summary = summary;
    vp_image_tree_add(tree, item);
}

static void assert_drawn(const VpImageTree *tree, gboolean color, gboolean unicode, const char *wanted)
{
    g_autofree char *got = vp_image_tree_draw(tree, color, unicode);

    assert_string_equal(got, wanted);
}

static void draws_a_safe_chain(void **state)
{
    (void)state;
    g_autoptr(VpImageTree) tree = vp_image_tree_new();
    PbImageLayer *top = add_layer(tree, 0, "/i/top.qcow2", PB_IMAGE_FORMAT_QCOW2, PB_FORMAT_SOURCE_DECLARED_BY_CALLER);

    top->version = 3;
    top->allocated_bytes = 4096;
    vp_pb_append(&top->n_features, &top->features, g_strdup("lazy-refcounts"));
    add_layer(tree, 1, "/i/base.img", PB_IMAGE_FORMAT_RAW, PB_FORMAT_SOURCE_DECLARED_BY_OVERLAY);
    add_summary(tree, TRUE, 2, 0, 0);
    assert_drawn(tree, FALSE, TRUE,
                 "/i/top.qcow2\n"
                 "\u2502 qcow2 v3 (declared by the caller), 10 GiB, file 196 KiB (4 KiB on disk), lazy-refcounts\n"
                 "\u2514\u2500 /i/base.img\n"
                 "     raw (declared by the overlay), 10 GiB, file 196 KiB\n"
                 "\n"
                 "SAFE to open: 2 layers, 0 errors, 0 warnings\n");
    assert_drawn(tree, FALSE, FALSE,
                 "/i/top.qcow2\n"
                 "| qcow2 v3 (declared by the caller), 10 GiB, file 196 KiB (4 KiB on disk), lazy-refcounts\n"
                 "`- /i/base.img\n"
                 "     raw (declared by the overlay), 10 GiB, file 196 KiB\n"
                 "\n"
                 "SAFE to open: 2 layers, 0 errors, 0 warnings\n");
}

/* Findings come mixed, and about layers that were never opened; each stands under its layer. */
static void draws_findings_under_their_layer(void **state)
{
    (void)state;
    g_autoptr(VpImageTree) tree = vp_image_tree_new();

    add_finding(tree, 2, "/i/gone.raw", PB_FINDING_CODE_FILE_MISSING, PB_SEVERITY_ERROR,
                "/i/gone.raw: there is no such file", "");
    add_layer(tree, 0, "/i/top.qcow2", PB_IMAGE_FORMAT_QCOW2, PB_FORMAT_SOURCE_PROBED);
    PbImageLayer *base =
        add_layer(tree, 1, "/i/ba\033[2Jse", PB_IMAGE_FORMAT_UNSPECIFIED, PB_FORMAT_SOURCE_UNSPECIFIED);
    base->probed_format = PB_IMAGE_FORMAT_QCOW2;
    base->encrypted = TRUE;
    base->virtual_size_bytes = 0;
    add_finding(tree, 0, "/i/top.qcow2", PB_FINDING_CODE_FORMAT_NOT_DECLARED, PB_SEVERITY_WARNING, "no format",
                "do this\nand that");
    add_summary(tree, FALSE, 2, 1, 1);
    assert_drawn(tree, FALSE, TRUE,
                 "/i/top.qcow2\n"
                 "\u2502 qcow2 (probed), 10 GiB, file 196 KiB\n"
                 "\u2502 WARNING FORMAT_NOT_DECLARED: no format\n"
                 "\u2502   remedy: do this\n"
                 "\u2502           and that\n"
                 "\u2514\u2500 /i/ba\\x1b[2Jse\n"
                 "   \u2502 format not settled, file 196 KiB, looks like qcow2, encrypted\n"
                 "   \u2514\u2500 /i/gone.raw\n"
                 "        not opened\n"
                 "        ERROR FILE_MISSING: there is no such file\n"
                 "\n"
                 "NOT SAFE to open: 2 layers, 1 error, 1 warning\n");
}

/* The same cure for several findings stands at the gravest, the first of those. */
static void tells_a_remedy_once(void **state)
{
    (void)state;
    g_autoptr(VpImageTree) tree = vp_image_tree_new();

    add_layer(tree, 0, "/i/top.qcow2", PB_IMAGE_FORMAT_QCOW2, PB_FORMAT_SOURCE_PROBED);
    add_finding(tree, 0, "/i/top.qcow2", PB_FINDING_CODE_FORMAT_NOT_DECLARED, PB_SEVERITY_WARNING, "no format", "cure");
    add_finding(tree, 0, "/i/top.qcow2", PB_FINDING_CODE_LOOP, PB_SEVERITY_ERROR, "one", "cure");
    add_finding(tree, 0, "/i/top.qcow2", PB_FINDING_CODE_LOOP, PB_SEVERITY_ERROR, "two", "cure");
    add_finding(tree, 0, "/i/top.qcow2", PB_FINDING_CODE_DIRTY, PB_SEVERITY_INFO, "three", "another");
    g_autofree char *drawing = vp_image_tree_draw(tree, /* color= */ FALSE, /* unicode= */ FALSE);
    assert_non_null(strstr(drawing, "  ERROR LOOP: one\n    remedy: cure\n  ERROR LOOP: two\n  INFO DIRTY: three\n"
                                    "    remedy: another\n"));
    assert_null(strstr(strstr(drawing, "cure") + 1, "cure"));
}

static void draws_data_files(void **state)
{
    (void)state;
    g_autoptr(VpImageTree) tree = vp_image_tree_new();

    add_layer(tree, 0, "/i/top.qcow2", PB_IMAGE_FORMAT_QCOW2, PB_FORMAT_SOURCE_DECLARED_BY_CALLER);
    PbImageLayer *data = add_layer(tree, 0, "/i/top.data", PB_IMAGE_FORMAT_RAW, PB_FORMAT_SOURCE_DECLARED_BY_OVERLAY);
    data->is_data_file = TRUE;
    add_summary(tree, TRUE, 1, 0, 0);
    assert_drawn(tree, FALSE, TRUE,
                 "/i/top.qcow2\n"
                 "  qcow2 (declared by the caller), 10 GiB, file 196 KiB\n"
                 "  data file /i/top.data: raw (declared by the overlay), 10 GiB, file 196 KiB\n"
                 "\n"
                 "SAFE to open: 1 layer, 0 errors, 0 warnings\n");
}

static void colours_the_verdict(void **state)
{
    (void)state;
    g_autoptr(VpImageTree) tree = vp_image_tree_new();

    add_finding(tree, 0, "/i/x", PB_FINDING_CODE_LOOP, PB_SEVERITY_ERROR, "a loop", "");
    add_summary(tree, FALSE, 0, 1, 0);
    assert_drawn(tree, TRUE, TRUE,
                 "\033[1m/i/x\033[0m\n"
                 "  \033[2mnot opened\033[0m\n"
                 "  \033[1;31mERROR LOOP\033[0m: a loop\n"
                 "\n"
                 "\033[1;31mNOT SAFE\033[0m to open: 0 layers, 1 error, 0 warnings\n");
}

/* A chain of the greatest depth stays on the screen, and one without end is not kept. */
static void bounds_what_it_draws(void **state)
{
    (void)state;
    g_autoptr(VpImageTree) tree = vp_image_tree_new();

    for (guint depth = 0; depth < 200; depth++)
        add_layer(tree, depth, "/i/x", PB_IMAGE_FORMAT_RAW, PB_FORMAT_SOURCE_PROBED);
    for (guint i = 0; i < 10005; i++)
        add_finding(tree, 0, "/i/x", PB_FINDING_CODE_DIRTY, PB_SEVERITY_INFO, "m", "");
    assert_null(vp_image_tree_summary(tree));

    g_autofree char *drawing = vp_image_tree_draw(tree, FALSE, TRUE);
    g_auto(GStrv) lines = g_strsplit(drawing, "\n", -1);
    for (char **line = lines; *line; line++)
        assert_true(g_utf8_strlen(*line, -1) < 120);
    assert_non_null(strstr(drawing, "(5 more are not shown)\nUNKNOWN: "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_a_safe_chain),   cmocka_unit_test(draws_findings_under_their_layer),
        cmocka_unit_test(draws_data_files),     cmocka_unit_test(colours_the_verdict),
        cmocka_unit_test(bounds_what_it_draws), cmocka_unit_test(tells_a_remedy_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
