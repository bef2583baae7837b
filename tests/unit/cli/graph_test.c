/* The graph of images: one node a file, edges to what it names, hostile names escaped, and graphviz takes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/pb.h"
#include "clients/cli/graph.h"

static PbInspectedImage *image_new(const char *path)
{
    PbInspectedImage *image = vp_pb_new(&pb_inspected_image__descriptor);
    vp_pb_set(&image->path, path);
    return image;
}

static PbImageLayer *add_layer(PbInspectedImage *image, guint32 depth, const char *path)
{
    PbImageLayer *layer = vp_pb_new(&pb_image_layer__descriptor);
    vp_pb_set(&layer->path, path);
    layer->depth = depth;
    layer->format = PB_IMAGE_FORMAT_QCOW2;
    vp_pb_append(&image->n_layers, &image->layers, layer);
    return layer;
}

static void add_finding(PbInspectedImage *image, guint32 depth, const char *path, PbFindingCode code)
{
    PbFinding *finding = vp_pb_new(&pb_finding__descriptor);
    vp_pb_set(&finding->path, path);
    finding->depth = depth;
    finding->code = code;
    finding->severity = PB_SEVERITY_ERROR;
    vp_pb_append(&image->n_findings, &image->findings, finding);
}

static guint count(const char *text, const char *word)
{
    guint n = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        n++;
    return n;
}

static void one_node_a_file(void **state)
{
    (void)state;
    g_autoptr(VpGraph) graph = vp_graph_new();
    vp_pb_auto PbInspectedImage *first = image_new("/i/a");
    vp_pb_auto PbInspectedImage *second = image_new("/i/b");
    vp_pb_auto PbInspectedImage *third = image_new("/i/base");
    add_layer(first, 0, "/i/a");
    add_layer(first, 0, "/i/a.data")->is_data_file = TRUE;
    add_layer(first, 1, "/i/sub/../base");
    add_layer(second, 0, "/i/b");
    vp_pb_set(&second->continues_at, "/i/sub/../base");
    vp_pb_set(&third->continues_at, "/i/sub/../base");
    add_finding(second, 1, "/i/gone", PB_FINDING_CODE_FILE_MISSING);
    vp_graph_add(graph, first);
    vp_graph_add(graph, second);
    vp_graph_add(graph, third);
    vp_graph_add_domain(graph, "/i/b", "web");
    vp_graph_add_domain(graph, "/i/b", "web");
    vp_graph_add_domain(graph, "/i/elsewhere", "other");
    assert_int_equal(vp_graph_size(graph), 5);

    g_autofree char *dot = vp_graph_dot(graph);
    assert_int_equal(count(dot, " -> "), 5); /* a to its data and to base, b to base and to gone, the domain to b */
    assert_int_equal(count(dot, "style=dashed"), 1);
    assert_non_null(strstr(dot, "shared by 2"));
    assert_non_null(strstr(dot, "FILE_MISSING"));
    assert_non_null(strstr(dot, "not opened"));
    assert_non_null(strstr(dot, "<b>web</b>"));
    assert_null(strstr(dot, "other"));
}

/* An overlay that does not declare its base puts no blame on the base. */
static void a_refused_way(void **state)
{
    (void)state;
    g_autoptr(VpGraph) graph = vp_graph_new();
    vp_pb_auto PbInspectedImage *image = image_new("/i/a");
    add_layer(image, 0, "/i/a");
    add_layer(image, 1, "/i/base");
    add_finding(image, 1, "/i/base", PB_FINDING_CODE_PROBE_REFUSED_BACKING_FILE);
    vp_graph_add(graph, image);
    g_autofree char *dot = vp_graph_dot(graph);
    assert_non_null(strstr(dot, "n0 -> n1 [color=\"#b3261e\""));
    assert_null(strstr(dot, "#fbe4e2"));
}

static void hostile_names(void **state)
{
    (void)state;
    g_autoptr(VpGraph) graph = vp_graph_new();
    static const char *const names[] = {"/i/<b>&amp;",          "/i/\"];evil[label=\"", "/i/new\nline",
                                        "/i/>]; } digraph x {", "/i/\xe2\x80\xae",      "/i/\\N\\G"};
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        vp_pb_auto PbInspectedImage *image = image_new(names[i]);
        add_layer(image, 0, names[i]);
        vp_graph_add(graph, image);
        vp_graph_add_domain(graph, names[i], names[i] + 1);
    }
    g_autofree char *dot = vp_graph_dot(graph);
    assert_null(strstr(dot, "new\nline"));
    assert_null(strstr(dot, "\xe2\x80\xae"));
    assert_int_equal(count(dot, "digraph x"), 2); /* in two labels, as text */
    assert_null(strstr(dot, ">]; }"));

    g_autofree char *program = g_find_program_in_path("dot");
    if (!program) {
        print_message("graphviz is not installed: the picture is not drawn\n");
        return;
    }
    g_autofree char *file = NULL;
    g_autofree char *svg = NULL;
    int fd = g_file_open_tmp("graph-XXXXXX", &file, NULL);
    assert_true(fd >= 0);
    assert_true(g_file_set_contents(file, dot, -1, NULL));
    char *argv[] = {program, (char *)"-Tsvg", file, NULL};
    int status = -1;
    assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &svg, NULL, &status, NULL));
    assert_int_equal(status, 0);
    assert_int_equal(count(svg, "class=\"node\""), 12);
    assert_int_equal(count(svg, "class=\"edge\""), 6);
    assert_non_null(strstr(svg, ">\\N\\G<"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_node_a_file), cmocka_unit_test(a_refused_way),
                                       cmocka_unit_test(hostile_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
