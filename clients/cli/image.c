/* vpctl image inspect, probe, record-backing-format. */
#include "clients/cli/image.h"

#include "base/pb.h"
#include "clients/cli/image_tree.h"
#include "clients/cli/text.h"
#include "virtplane/v1/image_service.pb-c.h"

enum {
    NO_LIMIT = G_MININT,
};

char *vp_image_absolute(const char *path)
{
    g_autofree char *folder = g_get_current_dir();

    return g_canonicalize_filename(path, folder);
}

VpError *vp_image_take_format(const char *option, const char *text, PbImageFormat *ret)
{
    int value = 0;
    VpError *error = text ? vp_text_parse_enum(&pb_image_format__descriptor, text, &value) : NULL;

    if (error)
        return vp_error_prefix(error, "%s", option);
    *ret = (PbImageFormat)value;
    return NULL;
}

/* A line for what has just come. */
static void print_item(const PbInspectChainResponse *item)
{
    if (item->payload_case == PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_LAYER) {
        g_autofree char *facts = vp_image_layer_facts(item->layer);
        g_autofree char *line =
            g_strdup_printf("%s: %s%s", item->layer->path, item->layer->is_data_file ? "data file, " : "", facts);
        g_autofree char *safe_line = vp_text_escape(line);

        printf("%u  %s\n", item->layer->depth, safe_line);
    } else if (item->payload_case == PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_FINDING) {
        g_autofree char *severity = vp_text_code(&pb_severity__descriptor, (int)item->finding->severity);
        g_autofree char *finding = vp_text_code(&pb_finding_code__descriptor, (int)item->finding->code);
        g_autofree char *message = vp_text_escape(item->finding->message);

        printf("%u  %s %s: %s\n", item->finding->depth, severity, finding, message);
    } else if (item->payload_case == PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_SUMMARY) {
        printf("%s to open: %u layers\n", item->summary->safe ? "SAFE" : "NOT SAFE", item->summary->depth);
    }
    fflush(stdout);
}

/* Reads the stream to its end: prints each message as it comes (JSON, YAML), or fills the tree. */
static VpError *read_chain(VpCli *cli, const PbInspectChainRequest *request, gboolean watch, VpImageTree *tree,
                           gboolean *ret_safe)
{
    VpError *error = NULL;
    VpClient *client = vp_cli_client(cli, &error);
    g_autoptr(VpClientStream) stream = client ? vp_client_stream_new(client, &pb_image_service__descriptor,
                                                                     "InspectChain", request, cli->timeout_ms, &error)
                                              : NULL;

    if (!stream)
        return error;
    for (;;) {
        vp_pb_auto PbInspectChainResponse *item = vp_client_stream_read(stream, 0, &error);

        if (!item)
            break;
        if (!vp_cli_print(cli, item, /* stream= */ TRUE) && watch)
            print_item(item);
        vp_image_tree_add(tree, item);
    }
    const PbChainSummary *summary = vp_image_tree_summary(tree);
    if (!error && !summary)
        error = vp_error_new(VP_INTERNAL, VP_CLIENT_BAD_ANSWER, "the inspection ended without a verdict");
    *ret_safe = !error && summary && summary->safe;
    return error;
}

int vp_image_inspect(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *format = NULL;
    int max_depth = NO_LIMIT;
    gboolean watch = FALSE;
    const GOptionEntry entries[] = {
        {"format", 'F', 0, G_OPTION_ARG_FILENAME, &format, "The top's format (default: not declared)", "FORMAT"},
        {"max-depth", 0, 0, G_OPTION_ARG_INT, &max_depth, "The most layers to walk", "N"},
        {"watch", 'w', 0, G_OPTION_ARG_NONE, &watch, "Print each layer as it is found, and no tree", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    g_autofree char *path = vp_image_absolute(argv[1]);
    vp_pb_auto PbInspectChainRequest *request = vp_pb_new(&pb_inspect_chain_request__descriptor);
    VpError *error = vp_image_take_format("--format", format, &request->format);
    if (error)
        return vp_cli_usage_error(command, error);
    if (max_depth != NO_LIMIT && max_depth < 1)
        return vp_cli_usage(command, "--max-depth is a number from 1 on, not %d", max_depth);
    vp_pb_set(&request->path, path);
    request->max_depth = max_depth == NO_LIMIT ? 0 : (guint32)max_depth;

    g_autoptr(VpImageTree) tree = vp_image_tree_new();
    gboolean safe = FALSE;
    error = read_chain(cli, request, watch && cli->output == VP_OUTPUT_TABLE, tree, &safe);
    if (cli->output == VP_OUTPUT_TABLE && !watch && (!error || vp_image_tree_summary(tree))) {
        g_autofree char *drawing = vp_image_tree_draw(tree, cli->color, cli->unicode);
        fputs(drawing, stdout);
    }
    if (error)
        return vp_cli_fail(cli, error, "inspect %s", path);
    if (cli->output == VP_OUTPUT_NAME)
        puts(safe ? "safe" : "unsafe");
    return safe ? VP_EXIT_DONE : VP_EXIT_FAILED;
}

int vp_image_probe(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    g_autofree char *path = vp_image_absolute(argv[1]);
    vp_pb_auto PbProbeImageRequest *request = vp_pb_new(&pb_probe_image_request__descriptor);
    VpError *error = NULL;
    vp_pb_set(&request->path, path);

    vp_pb_auto PbProbeImageResponse *answer =
        vp_cli_call(cli, &pb_image_service__descriptor, "ProbeImage", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "probe %s", path);
    if (vp_cli_print(cli, answer, /* stream= */ FALSE) || !answer->layer)
        return VP_EXIT_DONE;
    if (cli->output == VP_OUTPUT_NAME) {
        g_autofree char *format = vp_text_enum(&pb_image_format__descriptor, (int)answer->layer->format);
        puts(*format ? format : "unknown");
        return VP_EXIT_DONE;
    }

    g_autofree char *facts = vp_image_layer_facts(answer->layer);
    g_autofree char *safe_facts = vp_text_escape(facts);
    g_autofree char *safe_path = vp_text_escape(answer->layer->path);
    g_autofree char *backing = vp_text_escape(answer->layer->backing_path);
    g_autofree char *data_file = vp_text_escape(answer->layer->data_file);
    printf("%s\n  %s\n", safe_path, safe_facts);
    if (*backing)
        printf("  names a backing file: %s\n", backing);
    if (*data_file)
        printf("  names a data file: %s\n", data_file);
    for (size_t i = 0; i < answer->n_findings; i++) {
        g_autofree char *severity = vp_text_code(&pb_severity__descriptor, (int)answer->findings[i]->severity);
        g_autofree char *finding = vp_text_code(&pb_finding_code__descriptor, (int)answer->findings[i]->code);
        g_autofree char *message = vp_text_escape(answer->findings[i]->message);
        g_autofree char *remedy = vp_text_escape(answer->findings[i]->remedy);
        printf("  %s %s: %s\n", severity, finding, message);
        if (*remedy)
            printf("    remedy: %s\n", remedy);
    }
    return VP_EXIT_DONE;
}

int vp_image_record(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *format = NULL;
    gboolean dry_run = FALSE;
    const GOptionEntry entries[] = {
        {"backing-format", 'F', 0, G_OPTION_ARG_FILENAME, &format,
         "The format to record (default: the probed one, where that is safe)", "FORMAT"},
        {"dry-run", 0, 0, G_OPTION_ARG_NONE, &dry_run, "Only say what would be done", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    g_autofree char *path = vp_image_absolute(argv[1]);
    vp_pb_auto PbRecordBackingFormatRequest *request = vp_pb_new(&pb_record_backing_format_request__descriptor);
    VpError *error = vp_image_take_format("--backing-format", format, &request->backing_format);
    if (error)
        return vp_cli_usage_error(command, error);
    vp_pb_set(&request->path, path);
    request->validate_only = dry_run;

    vp_pb_auto PbRecordBackingFormatResponse *answer =
        vp_cli_call(cli, &pb_image_service__descriptor, "RecordBackingFormat", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "record the backing format of %s", path);

    g_autofree char *recorded = vp_text_enum(&pb_image_format__descriptor, (int)answer->backing_format);
    if (cli->output == VP_OUTPUT_NAME)
        puts(recorded);
    else if (!vp_cli_print(cli, answer, /* stream= */ FALSE))
        printf("%s: backing format %s %s\n", path, recorded,
               !answer->changed ? "was recorded already"
               : dry_run        ? "would be recorded"
                                : "recorded");
    return VP_EXIT_DONE;
}
