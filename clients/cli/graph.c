/* See graph.h. Files are boxes, coloured by the worst that was found about them; arrows lead from an overlay to what it names. */
#include "clients/cli/graph.h"

#include <string.h>

#include "clients/cli/image_tree.h"
#include "clients/cli/text.h"

#define MAX_FINDINGS 6 /* shown of one file */

typedef struct Finding {
    PbSeverity severity;
    char *code;
} Finding;

typedef struct Node {
    guint number;
    char *path;
    char *facts;      /* NULL: not opened */
    GArray *findings; /* of Finding */
    PbSeverity worst;
    guint overlays; /* that name it */
    gboolean is_top;
    gboolean is_remote;
    GPtrArray *domains; /* of char * */
} Node;

typedef struct Edge {
    guint from;
    guint to;
    gboolean is_data;
    PbFindingCode refused; /* why the one may not be opened by way of the other; UNSPECIFIED: it may */
} Edge;

struct VpGraph {
    GPtrArray *nodes; /* of Node */
    GHashTable *by_path;
    GArray *edges; /* of Edge */
};

static void finding_clear(gpointer data)
{
    g_free(((Finding *)data)->code);
}

static void node_free(gpointer data)
{
    Node *node = data;

    g_free(node->path);
    g_free(node->facts);
    g_array_unref(node->findings);
    g_ptr_array_unref(node->domains);
    g_free(node);
}

VpGraph *vp_graph_new(void)
{
    VpGraph *graph = g_new0(VpGraph, 1);

    graph->nodes = g_ptr_array_new_with_free_func(node_free);
    graph->by_path = g_hash_table_new(g_str_hash, g_str_equal);
    graph->edges = g_array_new(FALSE, FALSE, sizeof(Edge));
    return graph;
}

void vp_graph_free(VpGraph *graph)
{
    if (!graph)
        return;
    g_hash_table_unref(graph->by_path);
    g_ptr_array_unref(graph->nodes);
    g_array_unref(graph->edges);
    g_free(graph);
}

guint vp_graph_size(const VpGraph *graph)
{
    return graph->nodes->len;
}

/* One file has one node, by whatever way of writing its path it is named. */
static char *plain_path(const char *path)
{
    return path[0] == '/' ? g_canonicalize_filename(path, "/") : g_strdup(path);
}

static Node *find_node(const VpGraph *graph, const char *path)
{
    g_autofree char *plain = plain_path(path);

    return g_hash_table_lookup(graph->by_path, plain);
}

static Node *take_node(VpGraph *graph, const char *path)
{
    Node *node = find_node(graph, path);

    if (node)
        return node;
    node = g_new0(Node, 1);
    node->number = graph->nodes->len;
    node->path = plain_path(path);
    node->findings = g_array_new(FALSE, FALSE, sizeof(Finding));
    g_array_set_clear_func(node->findings, finding_clear);
    node->domains = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(graph->nodes, node);
    g_hash_table_insert(graph->by_path, node->path, node);
    return node;
}

static void add_edge(VpGraph *graph, const Node *from, Node *to, gboolean is_data)
{
    for (guint i = 0; i < graph->edges->len; i++) {
        const Edge *edge = &g_array_index(graph->edges, Edge, i);

        if (edge->from == from->number && edge->to == to->number)
            return;
    }
    const Edge edge = {.from = from->number, .to = to->number, .is_data = is_data};
    g_array_append_val(graph->edges, edge);
    to->overlays++;
}

static void add_finding(Node *node, const PbFinding *finding)
{
    g_autofree char *code = vp_text_code(&pb_finding_code__descriptor, (int)finding->code);

    node->worst = MAX(node->worst, finding->severity);
    for (guint i = 0; i < node->findings->len; i++) {
        if (strcmp(g_array_index(node->findings, Finding, i).code, code) == 0)
            return;
    }
    const Finding kept = {finding->severity, g_steal_pointer(&code)};
    g_array_append_val(node->findings, kept);
}

/* What is wrong with the way in which an overlay names a file, and not with the file: another overlay may name it well. */
static gboolean is_of_edge(PbFindingCode code)
{
    return code == PB_FINDING_CODE_PROBE_REFUSED_BACKING_FILE || code == PB_FINDING_CODE_PROBE_REFUSED_DATA_FILE ||
           code == PB_FINDING_CODE_PROBE_REFUSED_OTHER_FILE || code == PB_FINDING_CODE_LOOP ||
           code == PB_FINDING_CODE_OWNER_MAY_NOT_READ || code == PB_FINDING_CODE_PROBE_USED;
}

/* The overlay of a layer of this image, or NULL. */
static Node *overlay_of(VpGraph *graph, const PbInspectedImage *image, guint32 depth)
{
    for (size_t i = 0; depth > 0 && i < image->n_layers; i++) {
        if (image->layers[i]->depth == depth - 1 && !image->layers[i]->is_data_file)
            return take_node(graph, image->layers[i]->path);
    }
    return NULL;
}

static void take_finding(VpGraph *graph, const PbInspectedImage *image, const PbFinding *finding)
{
    Node *node = take_node(graph, finding->path);
    Node *overlay = overlay_of(graph, image, finding->depth);

    if (!overlay || node == overlay) {
        add_finding(node, finding);
        return;
    }
    /* What was not opened hangs below the layer that names it. */
    add_edge(graph, overlay, node, FALSE);
    if (!is_of_edge(finding->code)) {
        add_finding(node, finding);
        return;
    }
    for (guint i = 0; i < graph->edges->len && finding->severity >= PB_SEVERITY_WARNING; i++) {
        Edge *edge = &g_array_index(graph->edges, Edge, i);

        if (edge->from == overlay->number && edge->to == node->number)
            edge->refused = finding->code;
    }
}

void vp_graph_add(VpGraph *graph, const PbInspectedImage *image)
{
    Node *last = NULL;

    for (size_t i = 0; i < image->n_layers; i++) {
        const PbImageLayer *layer = image->layers[i];
        Node *node = take_node(graph, layer->path);

        if (!node->facts)
            node->facts = vp_image_layer_facts(layer);
        node->is_remote = layer->is_remote;
        if (last)
            add_edge(graph, last, node, layer->is_data_file);
        if (!layer->is_data_file)
            last = node;
    }
    if (*image->continues_at) {
        Node *known = take_node(graph, image->continues_at);

        if (last && last != known)
            add_edge(graph, last, known, FALSE);
        last = known;
    }
    for (size_t i = 0; i < image->n_findings; i++)
        take_finding(graph, image, image->findings[i]);
    take_node(graph, image->path)->is_top = TRUE;
    for (size_t i = 0; i < image->n_domains; i++)
        vp_graph_add_domain(graph, image->path, image->domains[i]);
}

void vp_graph_add_domain(VpGraph *graph, const char *path, const char *domain)
{
    Node *node = find_node(graph, path);

    for (guint i = 0; node && i < node->domains->len; i++) {
        if (strcmp(g_ptr_array_index(node->domains, i), domain) == 0)
            return;
    }
    if (node)
        g_ptr_array_add(node->domains, g_strdup(domain));
}

/* ---- graphviz's language ---- */

/* Text within an HTML-like label. Control characters come out readable first. */
static void append_text(GString *out, const char *text)
{
    g_autofree char *plain = vp_text_escape(text);
    g_autofree char *escaped = g_markup_escape_text(plain, -1);

    /* \N would be the name of the node. */
    for (const char *at = escaped; *at; at++) {
        if (*at == '\\')
            g_string_append_c(out, '\\');
        g_string_append_c(out, *at);
    }
}

static const char *severity_color(PbSeverity severity)
{
    return severity == PB_SEVERITY_ERROR ? "#b3261e" : severity == PB_SEVERITY_WARNING ? "#8a5a00" : "#3b5b8c";
}

static const char *fill_color(const Node *node)
{
    if (node->worst == PB_SEVERITY_ERROR)
        return "#fbe4e2";
    if (node->worst == PB_SEVERITY_WARNING)
        return "#fdf2d8";
    return node->is_remote ? "#ececec" : "#e6f2e8";
}

/* Facts are broken at a comma where a line gets long. */
static void append_facts(GString *out, const char *facts)
{
    g_auto(GStrv) parts = g_strsplit(facts, ", ", -1);
    gsize width = 0;

    for (char **part = parts; *part; part++) {
        const gsize length = strlen(*part);

        if (part != parts && width + length > 40) {
            g_string_append(out, "<br/>");
            width = 0;
        } else if (part != parts)
            g_string_append(out, ", ");
        append_text(out, *part);
        width += length + 2;
    }
}

static void append_node(GString *out, const Node *node)
{
    g_autofree char *name = node->is_remote ? g_strdup(node->path) : g_path_get_basename(node->path);
    g_autofree char *folder = node->is_remote ? g_strdup("") : g_path_get_dirname(node->path);

    g_string_append_printf(out, "  n%u [fillcolor=\"%s\", color=\"%s\", penwidth=%s, label=<<b>", node->number,
                           fill_color(node),
                           node->worst >= PB_SEVERITY_WARNING ? severity_color(node->worst) : "#5f6b5f",
                           node->overlays > 1 ? "2.5" : "1");
    append_text(out, name);
    g_string_append(out, "</b>");
    if (*folder) {
        g_string_append(out, "<br/><font point-size=\"8\" color=\"#666666\">");
        append_text(out, folder);
        g_string_append(out, "</font>");
    }
    g_string_append(out, "<br/><font point-size=\"9\">");
    append_facts(out, node->is_remote ? "remote, not opened" : node->facts ? node->facts : "not opened");
    if (node->overlays > 1)
        g_string_append_printf(out, "<br/><b>shared by %u</b>", node->overlays);
    g_string_append(out, "</font>");
    for (guint i = 0; i < node->findings->len && i < MAX_FINDINGS; i++) {
        const Finding *finding = &g_array_index(node->findings, Finding, i);

        g_string_append_printf(out, "<br/><font point-size=\"9\" color=\"%s\">%s</font>",
                               severity_color(finding->severity), finding->code);
    }
    g_string_append(out, ">];\n");
}

static void append_domains(GString *out, const VpGraph *graph)
{
    g_autoptr(GHashTable) numbers = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < graph->nodes->len; i++) {
        const Node *node = g_ptr_array_index(graph->nodes, i);

        for (guint d = 0; d < node->domains->len; d++) {
            const char *name = g_ptr_array_index(node->domains, d);
            guint number = GPOINTER_TO_UINT(g_hash_table_lookup(numbers, name));

            if (!number) {
                number = g_hash_table_size(numbers) + 1;
                g_hash_table_insert(numbers, (char *)name, GUINT_TO_POINTER(number));
                g_string_append_printf(out,
                                       "  d%u [shape=component, fillcolor=\"#dfe8f7\", color=\"#3b5b8c\", label=<<b>",
                                       number);
                append_text(out, name);
                g_string_append(out, "</b><br/><font point-size=\"9\">domain</font>>];\n");
            }
            g_string_append_printf(out, "  d%u -> n%u [color=\"#3b5b8c\", arrowhead=open];\n", number, node->number);
        }
    }
}

char *vp_graph_dot(const VpGraph *graph)
{
    GString *out = g_string_new(
        "digraph images {\n"
        "  graph [rankdir=TB, nodesep=0.3, ranksep=0.5, fontname=\"sans-serif\"];\n"
        "  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fontsize=11, margin=\"0.16,0.09\"];\n"
        "  edge [color=\"#666666\", arrowsize=0.7, fontname=\"sans-serif\", fontsize=8];\n");

    for (guint i = 0; i < graph->nodes->len; i++)
        append_node(out, g_ptr_array_index(graph->nodes, i));
    for (guint i = 0; i < graph->edges->len; i++) {
        const Edge *edge = &g_array_index(graph->edges, Edge, i);

        g_autofree char *code = vp_text_code(&pb_finding_code__descriptor, (int)edge->refused);

        g_string_append_printf(out, "  n%u -> n%u [%s", edge->from, edge->to,
                               edge->is_data ? "style=dashed, label=\" data file\"" : "");
        if (*code)
            g_string_append_printf(out, "color=\"#b3261e\", fontcolor=\"#b3261e\", label=\" %s\"", code);
        g_string_append(out, "];\n");
    }
    append_domains(out, graph);
    g_string_append(out, "}\n");
    return g_string_free(out, FALSE);
}
