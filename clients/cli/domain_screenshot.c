/* vpctl domain screenshot: a picture of a domain's screen, into a file or, as "-", to the standard output. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "clients/cli/domain.h"
#include "clients/cli/message.h"

/* What the daemon sends at most, and some more. */
#define MAX_BYTES (256u << 20)

/* Reads the stream to its end. */
static VpError *receive(VpCli *cli, VpClientStream *stream, PbScreenshotHeader **ret_header, GByteArray *file)
{
    VpError *error = NULL;

    for (;;) {
        vp_pb_auto PbTakeScreenshotResponse *answer = vp_client_stream_read(stream, cli->timeout_ms, &error);

        if (!answer)
            break;
        if (answer->payload_case == PB_TAKE_SCREENSHOT_RESPONSE__PAYLOAD_HEADER && !*ret_header)
            *ret_header = vp_pb_dup(answer->header);
        else if (answer->payload_case == PB_TAKE_SCREENSHOT_RESPONSE__PAYLOAD_DATA)
            g_byte_array_append(file, answer->data.data, (guint)answer->data.len);
        if (file->len > MAX_BYTES)
            return vp_error_new(VP_INTERNAL, "TOO_LARGE", "the daemon sends more than a picture can have");
    }
    if (!error && (!*ret_header || (*ret_header)->size_bytes != file->len))
        error = vp_error_new(VP_DATA_LOSS, "BROKEN_OFF", "the daemon's answer is not complete");
    return error;
}

static VpError *save(const GByteArray *file, const char *path)
{
    g_autoptr(GError) why = NULL;

    if (strcmp(path, "-") == 0) {
        if (fwrite(file->data, 1, file->len, stdout) != file->len || fflush(stdout) != 0)
            return vp_error_errno(errno, "OUTPUT", "cannot write the picture");
        return NULL;
    }
    if (!g_file_set_contents(path, (const char *)file->data, (gssize)file->len, &why))
        return vp_error_new(VP_UNKNOWN, "OUTPUT", "%s", why->message);
    return NULL;
}

static VpError *take(VpCli *cli, const PbTakeScreenshotRequest *request, const char *path,
                     PbScreenshotHeader **ret_header)
{
    VpError *error = NULL;
    g_autoptr(GByteArray) file = g_byte_array_new();
    VpClient *client = vp_cli_client(cli, &error);
    g_autoptr(VpClientStream) stream = client ? vp_client_stream_new(client, &pb_domain_service__descriptor,
                                                                     "TakeScreenshot", request, cli->timeout_ms, &error)
                                              : NULL;

    if (stream)
        error = receive(cli, stream, ret_header, file);
    return error ? error : save(file, path);
}

/* What is said of a picture that was saved; nothing beside one on the standard output. */
static void say(VpCli *cli, const PbScreenshotHeader *header, const char *path)
{
    if (strcmp(path, "-") == 0 || vp_cli_print(cli, header, /* stream= */ FALSE))
        return;
    if (cli->output == VP_OUTPUT_NAME)
        puts(path);
    else
        printf("%s: %u by %u pixels\n", path, header->width, header->height);
}

int vp_domain_screenshot(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *format = NULL;
    int screen = 0;
    const GOptionEntry entries[] = {
        {"format", 0, 0, G_OPTION_ARG_STRING, &format, "png or ppm (default: by the file's name, else png)", "FORMAT"},
        {"screen", 0, 0, G_OPTION_ARG_INT, &screen, "Which screen, from 0", "NUMBER"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    vp_pb_auto PbTakeScreenshotRequest *request = vp_pb_new(&pb_take_screenshot_request__descriptor);
    vp_pb_auto PbScreenshotHeader *header = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (screen < 0 || screen > 255)
        return vp_cli_usage(command, "--screen: %d is not in 0 to 255", screen);
    const char *wanted = format ? format : g_str_has_suffix(argv[2], ".ppm") ? "ppm" : "png";
    if (strcmp(wanted, "png") != 0 && strcmp(wanted, "ppm") != 0)
        return vp_cli_usage(command, "--format: \"%s\" is neither png nor ppm", wanted);
    vp_message_set_who(request, argv[1]);
    request->screen = (guint32)screen;
    request->format = strcmp(wanted, "ppm") == 0 ? PB_SCREENSHOT_FORMAT_PPM : PB_SCREENSHOT_FORMAT_PNG;
    VpError *error = take(cli, request, argv[2], &header);
    if (error)
        return vp_cli_fail(cli, error, "take a picture of domain \"%s\"", argv[1]);
    if (header)
        say(cli, header, argv[2]);
    return VP_EXIT_DONE;
}
