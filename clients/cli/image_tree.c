/* A backing chain as a tree: see image_tree.h. */
#include "clients/cli/image_tree.h"

#include <string.h>

#include "base/pb.h"
#include "clients/cli/text.h"

enum {
    MAX_KEPT = 10000,
    MAX_INDENT = 24, /* deeper layers stand below each other: a chain of 200 must not walk off the screen */
};

struct VpImageTree {
    GPtrArray *layers;   /* of PbImageLayer, as they came */
    GPtrArray *findings; /* of PbFinding, as they came */
    PbChainSummary *summary;
    guint dropped;
};

VpImageTree *vp_image_tree_new(void)
{
    VpImageTree *tree = g_new0(VpImageTree, 1);

    tree->layers = g_ptr_array_new_with_free_func(vp_pb_free);
    tree->findings = g_ptr_array_new_with_free_func(vp_pb_free);
    return tree;
}

void vp_image_tree_free(VpImageTree *tree)
{
    if (!tree)
        return;
    g_ptr_array_unref(tree->layers);
    g_ptr_array_unref(tree->findings);
    vp_pb_free(tree->summary);
    g_free(tree);
}

static void keep(VpImageTree *tree, GPtrArray *array, void *message)
{
    if (array->len < MAX_KEPT) {
        g_ptr_array_add(array, message);
        return;
    }
    vp_pb_free(message);
    tree->dropped++;
}

void vp_image_tree_add(VpImageTree *tree, PbInspectChainResponse *item)
{
    switch (item->payload_case) {
    case PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_LAYER:
        keep(tree, tree->layers, g_steal_pointer(&item->layer));
        break;
    case PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_FINDING:
        keep(tree, tree->findings, g_steal_pointer(&item->finding));
        break;
    case PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_SUMMARY:
        vp_pb_free(tree->summary);
        tree->summary = g_steal_pointer(&item->summary);
        break;
    default:
        break;
    }
}

const PbChainSummary *vp_image_tree_summary(const VpImageTree *tree)
{
    return tree->summary;
}

/* ---- words ---- */

static const char *source_words(PbFormatSource source)
{
    switch (source) {
    case PB_FORMAT_SOURCE_DECLARED_BY_CALLER:
        return " (declared by the caller)";
    case PB_FORMAT_SOURCE_DECLARED_BY_OVERLAY:
        return " (declared by the overlay)";
    case PB_FORMAT_SOURCE_PROBED:
        return " (probed)";
    default:
        return "";
    }
}

char *vp_image_layer_facts(const PbImageLayer *layer)
{
    g_autofree char *format = vp_text_enum(&pb_image_format__descriptor, (int)layer->format);
    g_autofree char *probed = vp_text_enum(&pb_image_format__descriptor, (int)layer->probed_format);
    g_autofree char *virtual_size = vp_text_size(layer->virtual_size_bytes);
    g_autofree char *file_size = vp_text_size(layer->file_size_bytes);
    g_autofree char *allocated = vp_text_size(layer->allocated_bytes);
    GString *out = g_string_new(*format ? format : "format not settled");

    if (layer->format && layer->version)
        g_string_append_printf(out, " v%u", layer->version);
    g_string_append(out, source_words(layer->format_source));
    if (layer->virtual_size_bytes)
        g_string_append_printf(out, ", %s", virtual_size);
    if (layer->is_remote) {
        g_string_append_printf(out, ", remote (%s), not opened", layer->protocol);
        return g_string_free(out, FALSE);
    }
    g_string_append_printf(out, ", %s %s", layer->is_window ? "window" : "file", file_size);
    if (layer->is_window)
        g_string_append_printf(out, " at byte %" G_GUINT64_FORMAT, layer->window_offset_bytes);
    /* Less than the file's length says something: holes. A little more is how file systems count. */
    if (layer->allocated_bytes && layer->allocated_bytes < layer->file_size_bytes)
        g_string_append_printf(out, " (%s on disk)", allocated);
    if (*probed && layer->probed_format != layer->format)
        g_string_append_printf(out, ", looks like %s", probed);
    if (layer->encrypted)
        g_string_append(out, ", encrypted");
    for (size_t i = 0; i < layer->n_features; i++)
        g_string_append_printf(out, ", %s", layer->features[i]);
    return g_string_free(out, FALSE);
}

/* ---- drawing ---- */

typedef struct Pen {
    const VpImageTree *tree;
    GString *out;
    gboolean color;
    gboolean unicode;
} Pen;

static const char *const BOLD = "1";
static const char *const DIM = "2";
static const char *const RED = "1;31";
static const char *const YELLOW = "33";
static const char *const GREEN = "1;32";
static const char *const CYAN = "36";

static void paint(Pen *pen, const char *code, const char *text)
{
    if (pen->color)
        g_string_append_printf(pen->out, "\033[%sm%s\033[0m", code, text);
    else
        g_string_append(pen->out, text);
}

static void indent(Pen *pen, guint depth)
{
    for (guint i = 0; i < MIN(depth, MAX_INDENT); i++)
        g_string_append(pen->out, "   ");
}

/* What a line below a node starts with: a stroke where more hangs below it. */
static void begin_line(Pen *pen, guint depth, gboolean more)
{
    indent(pen, depth);
    g_string_append(pen->out, !more ? "  " : pen->unicode ? "\u2502 " : "| ");
}

static void append_text(Pen *pen, const char *text)
{
    g_autofree char *safe = vp_text_escape(text);

    g_string_append(pen->out, safe);
}

/* The message without the path that it may start with: the tree shows that one line above. */
static const char *bare_message(const PbFinding *finding)
{
    const gsize length = strlen(finding->path);

    if (length && strncmp(finding->message, finding->path, length) == 0 &&
        strncmp(finding->message + length, ": ", 2) == 0)
        return finding->message + length + 2;
    return finding->message;
}

/* One cure may be that of several findings: it is told once, at the gravest, the first of those. */
static gboolean tells_remedy(const VpImageTree *tree, const PbFinding *finding)
{
    gboolean before = TRUE;

    if (!*finding->remedy)
        return FALSE;
    for (guint i = 0; i < tree->findings->len; i++) {
        const PbFinding *other = g_ptr_array_index(tree->findings, i);

        if (other == finding)
            before = FALSE;
        else if (g_str_equal(other->remedy, finding->remedy) &&
                 (other->severity > finding->severity || (before && other->severity == finding->severity)))
            return FALSE;
    }
    return TRUE;
}

static void draw_finding(Pen *pen, const PbFinding *finding, guint depth, gboolean more)
{
    const gboolean has_remedy = tells_remedy(pen->tree, finding);
    g_autofree char *severity = vp_text_code(&pb_severity__descriptor, (int)finding->severity);
    g_autofree char *code = vp_text_code(&pb_finding_code__descriptor, (int)finding->code);
    g_autofree char *head = g_strdup_printf("%s %s", severity, code);
    g_auto(GStrv) remedy = g_strsplit(finding->remedy, "\n", -1);

    begin_line(pen, depth, more);
    paint(pen,
          finding->severity == PB_SEVERITY_ERROR     ? RED
          : finding->severity == PB_SEVERITY_WARNING ? YELLOW
                                                     : CYAN,
          head);
    g_string_append(pen->out, ": ");
    append_text(pen, bare_message(finding));
    g_string_append_c(pen->out, '\n');
    for (char **line = remedy; has_remedy && *line; line++) {
        begin_line(pen, depth, more);
        g_string_append(pen->out, line == remedy ? "  remedy: " : "          ");
        append_text(pen, *line);
        g_string_append_c(pen->out, '\n');
    }
}

static void draw_findings(Pen *pen, guint depth, gboolean more)
{
    for (guint i = 0; i < pen->tree->findings->len; i++) {
        const PbFinding *finding = g_ptr_array_index(pen->tree->findings, i);

        if (finding->depth == depth)
            draw_finding(pen, finding, depth, more);
    }
}

static void draw_head(Pen *pen, guint depth, const char *path)
{
    if (depth > 0) {
        indent(pen, depth - 1);
        g_string_append(pen->out, pen->unicode ? "\u2514\u2500 " : "`- ");
    }
    g_autofree char *safe = vp_text_escape(path);
    paint(pen, BOLD, safe);
    g_string_append_c(pen->out, '\n');
}

/* The layer of this depth, or its data file. */
static const PbImageLayer *find_layer(const VpImageTree *tree, guint depth, gboolean data_file)
{
    for (guint i = 0; i < tree->layers->len; i++) {
        const PbImageLayer *layer = g_ptr_array_index(tree->layers, i);

        if (layer->depth == depth && !layer->is_data_file == !data_file)
            return layer;
    }
    return NULL;
}

/* What a finding says of a layer that was never opened. */
static const PbFinding *find_finding(const VpImageTree *tree, guint depth)
{
    for (guint i = 0; i < tree->findings->len; i++) {
        const PbFinding *finding = g_ptr_array_index(tree->findings, i);

        if (finding->depth == depth)
            return finding;
    }
    return NULL;
}

static void draw_data_file(Pen *pen, guint depth, gboolean more)
{
    const PbImageLayer *data = find_layer(pen->tree, depth, /* data_file= */ TRUE);

    if (!data)
        return;
    g_autofree char *facts = vp_image_layer_facts(data);
    begin_line(pen, depth, more);
    g_string_append(pen->out, "data file ");
    append_text(pen, data->path);
    g_string_append(pen->out, ": ");
    append_text(pen, facts);
    g_string_append_c(pen->out, '\n');
}

static void draw_level(Pen *pen, guint depth, gboolean more)
{
    const PbImageLayer *layer = find_layer(pen->tree, depth, /* data_file= */ FALSE);
    const PbFinding *finding = find_finding(pen->tree, depth);

    if (!layer) {
        draw_head(pen, depth, finding->path);
        begin_line(pen, depth, more);
        paint(pen, DIM, "not opened");
        g_string_append_c(pen->out, '\n');
    } else {
        g_autofree char *facts = vp_image_layer_facts(layer);

        draw_head(pen, depth, layer->path);
        begin_line(pen, depth, more);
        append_text(pen, facts);
        g_string_append_c(pen->out, '\n');
    }
    draw_data_file(pen, depth, more);
    draw_findings(pen, depth, more);
}

static void draw_verdict(Pen *pen)
{
    const PbChainSummary *summary = pen->tree->summary;

    if (pen->tree->dropped)
        g_string_append_printf(pen->out, "(%u more are not shown)\n", pen->tree->dropped);
    if (!summary) {
        paint(pen, RED, "UNKNOWN");
        g_string_append(pen->out, ": the inspection ended before its verdict\n");
        return;
    }
    paint(pen, summary->safe ? GREEN : RED, summary->safe ? "SAFE" : "NOT SAFE");
    g_string_append_printf(pen->out, " to open: %u layer%s, %u error%s, %u warning%s\n", summary->depth,
                           summary->depth == 1 ? "" : "s", summary->errors, summary->errors == 1 ? "" : "s",
                           summary->warnings, summary->warnings == 1 ? "" : "s");
}

static gint compare_depths(gconstpointer a, gconstpointer b)
{
    const guint left = *(const guint *)a;
    const guint right = *(const guint *)b;

    return left < right ? -1 : left > right;
}

char *vp_image_tree_draw(const VpImageTree *tree, gboolean color, gboolean unicode)
{
    Pen pen = {.tree = tree, .out = g_string_new(NULL), .color = color, .unicode = unicode};
    g_autoptr(GHashTable) known = g_hash_table_new(NULL, NULL);
    g_autoptr(GArray) depths = g_array_new(FALSE, FALSE, sizeof(guint));

    /* Every depth that anything was said about, in order: a layer that could not be opened has findings alone. */
    for (guint i = 0; i < tree->layers->len + tree->findings->len; i++) {
        const guint depth = i < tree->layers->len
                                ? ((const PbImageLayer *)g_ptr_array_index(tree->layers, i))->depth
                                : ((const PbFinding *)g_ptr_array_index(tree->findings, i - tree->layers->len))->depth;

        if (g_hash_table_add(known, GUINT_TO_POINTER(depth)))
            g_array_append_val(depths, depth);
    }
    g_array_sort(depths, compare_depths);
    for (guint i = 0; i < depths->len; i++)
        draw_level(&pen, g_array_index(depths, guint, i), /* more= */ i + 1 < depths->len);
    if (depths->len)
        g_string_append_c(pen.out, '\n');
    draw_verdict(&pen);
    return g_string_free(pen.out, FALSE);
}
