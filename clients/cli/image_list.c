/* vpctl image list: what InspectPath says of a folder. */
#include <string.h>

#include "base/pb.h"
#include "clients/cli/image.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "virtplane/v1/image_service.pb-c.h"

enum {
    MAX_STEPS = 256, /* more layers than a chain has */
};

/* A layer that was told: what a row shows of it. Another image may be the one that told. */
typedef struct Known {
    PbImageFormat format;
    guint64 size;
    PbFindingCode error; /* the first error about it or a layer below that its image told; 0: none */
    char *next;          /* where that image's chain goes on; NULL: it was told in full */
} Known;

static void known_free(void *data)
{
    Known *known = data;

    g_free(known->next);
    g_free(known);
}

typedef struct List {
    VpCli *cli;
    GPtrArray *images; /* of PbInspectedImage, those to show */
    GHashTable *known; /* path -> Known */
    GString *bases;    /* the lines about shared bases */
    gboolean unsafe_alone;
    PbPathSummary *summary;
} List;

static PbFindingCode first_error(const PbInspectedImage *image, guint32 from_depth)
{
    for (size_t i = 0; i < image->n_findings; i++) {
        const PbFinding *finding = image->findings[i];

        if (finding->severity == PB_SEVERITY_ERROR && finding->depth >= from_depth)
            return finding->code;
    }
    return PB_FINDING_CODE_UNSPECIFIED;
}

/* What makes the chain unsafe may have been told with another image that has the same layers. */
static PbFindingCode error_elsewhere(GHashTable *known, const char *path)
{
    for (guint steps = 0; path && *path && steps < MAX_STEPS; steps++) {
        g_autofree char *plain = g_canonicalize_filename(path, "/");
        const Known *layer = g_hash_table_lookup(known, plain);

        if (!layer || layer->error)
            return layer ? layer->error : PB_FINDING_CODE_UNSPECIFIED;
        path = layer->next;
    }
    return PB_FINDING_CODE_UNSPECIFIED;
}

/* The first error's code, or the first warning's. */
static char *worst_code(const List *list, const PbInspectedImage *image)
{
    PbFindingCode code = first_error(image, 0);

    if (!code && image->summary && !image->summary->safe)
        code = error_elsewhere(list->known, image->continues_at);
    for (size_t i = 0; i < image->n_findings && !code; i++) {
        if (image->findings[i]->severity == PB_SEVERITY_WARNING)
            code = image->findings[i]->code;
    }
    return vp_text_code(&pb_finding_code__descriptor, (int)code);
}

static void take_image(List *list, PbInspectedImage *image)
{
    for (size_t i = 0; i < image->n_layers; i++) {
        const PbImageLayer *layer = image->layers[i];
        g_autofree char *path = g_canonicalize_filename(layer->path, "/");
        const Known *before = g_hash_table_lookup(list->known, path);
        Known *known = g_new(Known, 1);

        /* The same file is another layer where it is declared otherwise: the one that has an error explains more. */
        *known = (Known){.format = layer->format ? layer->format : layer->probed_format,
                         .size = layer->virtual_size_bytes,
                         .error = first_error(image, layer->depth),
                         .next = *image->continues_at ? g_strdup(image->continues_at) : NULL};
        if (!before || !before->error)
            g_hash_table_insert(list->known, g_steal_pointer(&path), known);
        else
            known_free(known);
    }
    if (list->unsafe_alone && image->summary && image->summary->safe)
        vp_pb_free(image);
    else
        g_ptr_array_add(list->images, image);
}

static void show_image(const List *list, VpTable *table, const PbInspectedImage *image)
{
    const Known *top = g_hash_table_lookup(list->known, image->path);
    const PbChainSummary *summary = image->summary;

    g_autofree char *format = vp_text_enum(&pb_image_format__descriptor, top ? (int)top->format : 0);
    g_autofree char *size = top ? vp_text_size(top->size) : g_strdup("");
    g_autofree char *layers = g_strdup_printf("%u", summary ? summary->depth : 0);
    g_autofree char *code = worst_code(list, image);
    g_autofree char *domains = g_strdup("");

    for (size_t i = 0; i < image->n_domains; i++) {
        g_autofree char *before = domains;
        domains = g_strdup_printf("%s%s%s", before, *before ? " " : "", image->domains[i]);
    }
    vp_table_add(table, image->path, format, size, layers, summary && summary->safe ? "yes" : "no", code, domains);
}

static void add_message(List *list, PbInspectPathResponse *message)
{
    for (size_t i = 0; i < message->n_images; i++)
        take_image(list, g_steal_pointer(&message->images[i]));
    for (size_t i = 0; i < message->n_shared_bases; i++) {
        g_autofree char *plain = g_canonicalize_filename(message->shared_bases[i]->path, "/");
        g_autofree char *path = vp_text_escape(plain);

        g_string_append_printf(list->bases, "%s is shared by %u overlays\n", path, message->shared_bases[i]->overlays);
    }
    if (message->summary)
        list->summary = g_steal_pointer(&message->summary);
}

static VpError *read_folder(List *list, const PbInspectPathRequest *request)
{
    VpError *error = NULL;
    VpClient *client = vp_cli_client(list->cli, &error);
    g_autoptr(VpClientStream) stream = client
                                           ? vp_client_stream_new(client, &pb_image_service__descriptor, "InspectPath",
                                                                  request, list->cli->timeout_ms, &error)
                                           : NULL;

    while (stream) {
        vp_pb_auto PbInspectPathResponse *message = vp_client_stream_read(stream, 0, &error);

        if (!message)
            break;
        if (vp_cli_print(list->cli, message, /* stream= */ TRUE))
            list->summary = message->summary ? g_steal_pointer(&message->summary) : list->summary;
        else
            add_message(list, message);
    }
    if (!error && !list->summary)
        error = vp_error_new(VP_INTERNAL, VP_CLIENT_BAD_ANSWER, "the inspection ended without a summary");
    return error;
}

static VpTable *new_table(VpCli *cli)
{
    static const char *const columns[] = {"IMAGE", "FORMAT", ">SIZE", ">LAYERS", "SAFE", "FINDING", "DOMAINS", NULL};

    return vp_table_new(cli, columns);
}

static gint compare_paths(gconstpointer a, gconstpointer b)
{
    const PbInspectedImage *left = *(const PbInspectedImage *const *)a;
    const PbInspectedImage *right = *(const PbInspectedImage *const *)b;

    return strcmp(left->path, right->path);
}

static void print_names(const List *list)
{
    for (guint i = 0; i < list->images->len; i++) {
        g_autofree char *path = vp_text_escape(((PbInspectedImage *)g_ptr_array_index(list->images, i))->path);

        puts(path);
    }
}

static void print_table(const List *list)
{
    VpTable *table = new_table(list->cli);

    for (guint i = 0; i < list->images->len; i++)
        show_image(list, table, g_ptr_array_index(list->images, i));
    vp_table_print(table);
    fputs(list->bases->str, stdout);
    if (list->summary)
        printf("%u images, %u safe to open, %u not\n", list->summary->images, list->summary->safe,
               list->summary->unsafe);
}

int vp_image_list(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *format = NULL;
    gboolean flat = FALSE;
    gboolean unsafe_alone = FALSE;
    const GOptionEntry entries[] = {
        {"format", 'F', 0, G_OPTION_ARG_FILENAME, &format, "Declare the format of the images that look like it",
         "FORMAT"},
        {"flat", 0, 0, G_OPTION_ARG_NONE, &flat, "Do not go into subfolders", NULL},
        {"unsafe", 0, 0, G_OPTION_ARG_NONE, &unsafe_alone, "Show only those that are not safe to open", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    g_autofree char *path = vp_image_absolute(argv[1]);
    vp_pb_auto PbInspectPathRequest *request = vp_pb_new(&pb_inspect_path_request__descriptor);
    VpError *error = vp_image_take_format("--format", format, &request->format);
    if (error)
        return vp_cli_usage_error(command, error);
    vp_pb_set(&request->path, path);
    request->flat = flat;

    g_autoptr(GString) bases = g_string_new(NULL);
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func(vp_pb_free);
    g_autoptr(GHashTable) known = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, known_free);
    List list = {.cli = cli, .bases = bases, .images = images, .known = known, .unsafe_alone = unsafe_alone};
    error = read_folder(&list, request);
    g_ptr_array_sort(images, compare_paths);
    if (cli->output == VP_OUTPUT_TABLE)
        print_table(&list);
    else if (cli->output == VP_OUTPUT_NAME)
        print_names(&list);
    vp_pb_free(list.summary);
    return error ? vp_cli_fail(cli, error, "list the images in %s", path) : VP_EXIT_DONE;
}
