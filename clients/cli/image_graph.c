/* vpctl image graph: chains as a picture, drawn by graphviz. */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pb.h"
#include "clients/cli/graph.h"
#include "clients/cli/image.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/image_service.pb-c.h"

/* The chain of one image, gathered as an answer of InspectPath would have it. */
static VpError *add_chain(VpCli *cli, VpClient *client, const char *path, PbImageFormat format, VpGraph *graph)
{
    vp_pb_auto PbInspectChainRequest *request = vp_pb_new(&pb_inspect_chain_request__descriptor);
    vp_pb_auto PbInspectedImage *image = vp_pb_new(&pb_inspected_image__descriptor);
    VpError *error = NULL;

    vp_pb_set(&request->path, path);
    vp_pb_set(&image->path, path);
    request->format = format;
    g_autoptr(VpClientStream) stream =
        vp_client_stream_new(client, &pb_image_service__descriptor, "InspectChain", request, cli->timeout_ms, &error);
    while (stream) {
        vp_pb_auto PbInspectChainResponse *item = vp_client_stream_read(stream, 0, &error);

        if (!item)
            break;
        if (item->payload_case == PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_LAYER)
            vp_pb_append(&image->n_layers, &image->layers, g_steal_pointer(&item->layer));
        else if (item->payload_case == PB_INSPECT_CHAIN_RESPONSE__PAYLOAD_FINDING)
            vp_pb_append(&image->n_findings, &image->findings, g_steal_pointer(&item->finding));
    }
    if (!error)
        vp_graph_add(graph, image);
    return error;
}

static VpError *add_folder(VpCli *cli, VpClient *client, const char *path, PbImageFormat format, VpGraph *graph)
{
    vp_pb_auto PbInspectPathRequest *request = vp_pb_new(&pb_inspect_path_request__descriptor);
    VpError *error = NULL;

    vp_pb_set(&request->path, path);
    request->format = format;
    g_autoptr(VpClientStream) stream =
        vp_client_stream_new(client, &pb_image_service__descriptor, "InspectPath", request, cli->timeout_ms, &error);
    while (stream && vp_graph_size(graph) <= VP_GRAPH_MAX_NODES) {
        vp_pb_auto PbInspectPathResponse *item = vp_client_stream_read(stream, 0, &error);

        if (!item)
            break;
        for (size_t i = 0; i < item->n_images; i++)
            vp_graph_add(graph, item->images[i]);
    }
    return error;
}

static VpError *add_domains(VpCli *cli, VpGraph *graph)
{
    vp_pb_auto PbListDomainsRequest *request = vp_pb_new(&pb_list_domains_request__descriptor);
    VpError *error = NULL;

    request->page_size = 1000;
    do {
        vp_pb_auto PbListDomainsResponse *page =
            vp_cli_call(cli, &pb_domain_service__descriptor, "ListDomains", request, &error);

        if (!page)
            return error;
        for (size_t i = 0; i < page->n_domains; i++) {
            const PbDomain *domain = page->domains[i];

            for (size_t d = 0; domain->spec && d < domain->spec->n_disks; d++)
                vp_graph_add_domain(graph, domain->spec->disks[d]->path, domain->name);
        }
        vp_pb_set(&request->page_token, page->next_page_token);
    } while (*request->page_token);
    return NULL;
}

/* Runs dot on `source`; the picture is owned by the caller. */
static VpError *draw(const char *source, char **ret_svg)
{
    g_autofree char *file = NULL;
    g_autofree char *said = NULL;
    g_autoptr(GError) why = NULL;
    int status = 0;
    const int fd = g_file_open_tmp("vpctl-XXXXXX.dot", &file, &why);

    if (fd < 0)
        return vp_error_new(VP_INTERNAL, "TEMPORARY_FILE", "%s", why->message);
    close(fd);
    char *argv[] = {(char *)"dot", (char *)"-Tsvg", file, NULL};
    const gboolean ran = g_file_set_contents(file, source, -1, &why) &&
                         g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, ret_svg, &said, &status, &why);
    g_unlink(file);
    if (!ran)
        return vp_error_new(VP_FAILED_PRECONDITION, "NO_GRAPHVIZ",
                            "graphviz draws the picture, and its program dot cannot be run (%s); install it (apt "
                            "install graphviz), or take "
                            "--dot and draw it elsewhere",
                            why->message);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        g_clear_pointer(ret_svg, g_free);
        return vp_error_new(VP_INTERNAL, "GRAPHVIZ", "dot failed: %s", said);
    }
    return NULL;
}

static VpError *write_out(const char *text, const char *file)
{
    g_autoptr(GError) why = NULL;

    if (file) {
        if (!g_file_set_contents(file, text, -1, &why))
            return vp_error_new(VP_FAILED_PRECONDITION, "FILE", "%s", why->message);
        return NULL;
    }
    if (fputs(text, stdout) == EOF || fflush(stdout) == EOF)
        return vp_error_errno(errno, "FILE", "cannot write");
    return NULL;
}

static VpError *collect(VpCli *cli, char **paths, int n_paths, PbImageFormat format, VpGraph *graph)
{
    VpError *error = NULL;
    VpClient *client = vp_cli_client(cli, &error);

    for (int i = 0; client && !error && i < n_paths; i++) {
        g_autofree char *path = vp_image_absolute(paths[i]);

        error = g_file_test(path, G_FILE_TEST_IS_DIR) ? add_folder(cli, client, path, format, graph)
                                                      : add_chain(cli, client, path, format, graph);
    }
    if (!error && vp_graph_size(graph) > VP_GRAPH_MAX_NODES)
        error = vp_error_new(VP_FAILED_PRECONDITION, "TOO_MANY_IMAGES",
                             "more than %d files make no picture; name single images or a smaller folder",
                             VP_GRAPH_MAX_NODES);
    return error ? error : add_domains(cli, graph);
}

int vp_image_graph(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *format_text = NULL;
    g_autofree char *file = NULL;
    gboolean dot = FALSE;
    const GOptionEntry entries[] = {
        {"format", 'F', 0, G_OPTION_ARG_FILENAME, &format_text,
         "The tops' format; in a folder, of those that look like it", "FORMAT"},
        {"file", 'f', 0, G_OPTION_ARG_FILENAME, &file, "Write to FILE (default: to stdout)", "FILE"},
        {"dot", 0, 0, G_OPTION_ARG_NONE, &dot, "Write graphviz's language and no picture", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    PbImageFormat format = PB_IMAGE_FORMAT_UNSPECIFIED;
    g_autofree char *svg = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    VpError *error = vp_image_take_format("--format", format_text, &format);
    if (error)
        return vp_cli_usage_error(command, error);
    if (cli->output != VP_OUTPUT_TABLE)
        return vp_cli_usage(command, "a picture has no --output %s; image list and image inspect have",
                            cli->output_name);
    if (!file && !dot && isatty(STDOUT_FILENO))
        return vp_cli_usage(command, "an SVG is nothing to read; say --file FILE or >FILE");

    g_autoptr(VpGraph) graph = vp_graph_new();
    error = collect(cli, argv + 1, argc - 1, format, graph);
    g_autofree char *source = error ? NULL : vp_graph_dot(graph);
    if (!error && !dot)
        error = draw(source, &svg);
    if (!error)
        error = write_out(dot ? source : svg, file);
    return error ? vp_cli_fail(cli, error, "draw the images") : VP_EXIT_DONE;
}
