/* vpctl guest exec, read, write: see guest.h. Bytes go as they are; the daemon's errors to stderr. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/pb.h"
#include "clients/cli/guest.h"
#include "clients/cli/message.h"
#include "clients/cli/text.h"
#include "virtplane/v1/guest_service.pb-c.h"

enum {
    CHUNK_BYTES = 256 * 1024,
    SIGNAL_BASE = 128, /* a program that a signal ended, as shells tell it */
};

static VpError *write_all(int fd, const ProtobufCBinaryData *data)
{
    for (size_t at = 0; at < data->len;) {
        const ssize_t n = write(fd, data->data + at, data->len - at);

        if (n < 0 && errno != EINTR)
            return vp_error_errno(errno, "OUTPUT", "cannot write what came");
        at += n > 0 ? (size_t)n : 0;
    }
    return NULL;
}

/* The limit of a stream; 0: none, unless one was asked for. */
static gint64 stream_ms(const VpCli *cli)
{
    return cli->timeout_given ? cli->timeout_ms : 0;
}

/* Sends all of `fd`, in messages that `fill` makes of `request`. A stream that has ended is told by reading it. */
static VpError *send_all(VpClientStream *stream, int fd, void *request, ProtobufCBinaryData *field)
{
    g_autofree guint8 *bytes = g_malloc(CHUNK_BYTES);

    for (;;) {
        const ssize_t n = read(fd, bytes, CHUNK_BYTES);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vp_error_errno(errno, "INPUT", "cannot read what is to be sent");
        if (n == 0)
            break;
        *field = (ProtobufCBinaryData){.len = (size_t)n, .data = bytes};
        if (!vp_client_stream_send(stream, request))
            break;
    }
    vp_client_stream_close(stream);
    return NULL;
}

/* ---- exec ---- */

/* Shows what comes. NULL: the program has ended, *ret_exit says how. */
static VpError *show(VpCli *cli, VpClientStream *stream, int *ret_exit)
{
    VpError *error = NULL;

    while (!error) {
        vp_pb_auto PbExecGuestResponse *answer = vp_client_stream_read(stream, 0, &error);

        if (!answer)
            return error;
        if (answer->payload_case == PB_EXEC_GUEST_RESPONSE__PAYLOAD_EXITED)
            *ret_exit =
                answer->exited->signal ? SIGNAL_BASE + answer->exited->signal : answer->exited->exit_code & 0xff;
        if (vp_cli_print(cli, answer, /* stream= */ TRUE))
            continue;
        if (answer->payload_case == PB_EXEC_GUEST_RESPONSE__PAYLOAD_OUTPUT)
            error = write_all(STDOUT_FILENO, &answer->output);
        else if (answer->payload_case == PB_EXEC_GUEST_RESPONSE__PAYLOAD_ERROR_OUTPUT)
            error = write_all(STDERR_FILENO, &answer->error_output);
    }
    return error;
}

static VpError *exec(VpCli *cli, const PbExecGuestRequest *start, gboolean input, int *ret_exit)
{
    VpError *error = NULL;
    VpClient *client = vp_cli_client(cli, &error);
    g_autoptr(VpClientStream) stream = client ? vp_client_stream_open(client, &pb_guest_service__descriptor,
                                                                      "ExecGuest", start, stream_ms(cli), &error)
                                              : NULL;
    PbExecGuestRequest request = PB_EXEC_GUEST_REQUEST__INIT;

    if (!stream)
        return error;
    request.payload_case = PB_EXEC_GUEST_REQUEST__PAYLOAD_INPUT;
    if (input)
        error = send_all(stream, STDIN_FILENO, &request, &request.input);
    else
        vp_client_stream_close(stream);
    return error ? error : show(cli, stream, ret_exit);
}

int vp_guest_exec(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *folder = NULL;
    g_autofree char *scratch = NULL;
    g_auto(GStrv) environment = NULL;
    gboolean no_input = FALSE;
    gboolean keep_running = FALSE;
    const GOptionEntry entries[] = {
        {"env", 'e', 0, G_OPTION_ARG_STRING_ARRAY, &environment,
         "A variable of its environment, instead of the agent's", "NAME=VALUE"},
        {"chdir", 0, 0, G_OPTION_ARG_STRING, &folder, "Run it in this folder of the guest", "PATH"},
        {"no-input", 'n', 0, G_OPTION_ARG_NONE, &no_input, "Give it no input (default on a terminal)", NULL},
        {"keep-running", 0, 0, G_OPTION_ARG_NONE, &keep_running, "Let it go on if vpctl is ended", NULL},
        {"scratch", 0, 0, G_OPTION_ARG_STRING, &scratch,
         "Where its input and output are kept meanwhile (default /tmp of the guest)", "PATH"},
        {0},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    /* "NAME -- PROGRAM -x": GLib leaves the dashes where options follow. */
    int at = 2;
    if (argc > at && g_str_equal(argv[at], "--"))
        at++;
    if (argc <= at)
        return vp_cli_usage(command, "which program? (vpctl guest exec NAME -- PROGRAM ARGUMENT...)");
    vp_pb_auto PbExecGuestRequest *request = vp_pb_new(&pb_exec_guest_request__descriptor);
    PbExecGuestStart *start = vp_pb_new(&pb_exec_guest_start__descriptor);
    request->payload_case = PB_EXEC_GUEST_REQUEST__PAYLOAD_START;
    request->start = start;
    vp_message_set_who(start, argv[1]);
    vp_pb_set(&start->path, argv[at]);
    for (int i = at + 1; i < argc; i++)
        vp_pb_append(&start->n_arguments, &start->arguments, g_strdup(argv[i]));
    for (char **entry = environment; entry && *entry; entry++)
        vp_pb_append(&start->n_environment, &start->environment, g_strdup(*entry));
    vp_pb_set(&start->working_directory, folder);
    vp_pb_set(&start->scratch_directory, scratch);
    start->keep_running = keep_running;
    VpError *error = exec(cli, request, !no_input && !isatty(STDIN_FILENO), &code);
    return error ? vp_cli_fail(cli, error, "run %s in the guest of domain \"%s\"", argv[at], argv[1]) : code;
}

/* ---- read ---- */

static VpError *receive(VpCli *cli, const PbReadGuestFileRequest *request, int fd)
{
    VpError *error = NULL;
    VpClient *client = vp_cli_client(cli, &error);
    g_autoptr(VpClientStream) stream = client ? vp_client_stream_new(client, &pb_guest_service__descriptor,
                                                                     "ReadGuestFile", request, stream_ms(cli), &error)
                                              : NULL;

    while (stream && !error) {
        vp_pb_auto PbReadGuestFileResponse *answer = vp_client_stream_read(stream, 0, &error);

        if (!answer)
            break;
        if (!vp_cli_print(cli, answer, /* stream= */ TRUE))
            error = write_all(fd, &answer->data);
    }
    return error;
}

static gboolean parse_number(const char *text, guint64 *ret_number)
{
    return !text || vp_text_parse_size(text, ret_number);
}

int vp_guest_read(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *to = NULL;
    g_autofree char *offset = NULL;
    g_autofree char *length = NULL;
    const GOptionEntry entries[] = {
        {"to", 0, 0, G_OPTION_ARG_FILENAME, &to, "Write it to this file here (default: the standard output)", "FILE"},
        {"offset", 0, 0, G_OPTION_ARG_STRING, &offset, "Begin after so many bytes", "SIZE"},
        {"length", 0, 0, G_OPTION_ARG_STRING, &length, "At most so many bytes", "SIZE"},
        {0},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbReadGuestFileRequest *request = vp_pb_new(&pb_read_guest_file_request__descriptor);
    vp_message_set_who(request, argv[1]);
    vp_pb_set(&request->path, argv[2]);
    if (!parse_number(offset, &request->offset) || !parse_number(length, &request->length))
        return vp_cli_usage(command, "--offset and --length are sizes, like 4096 or 1M");
    const int fd = to ? open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : STDOUT_FILENO;
    VpError *error = fd < 0 ? vp_error_errno(errno, "OUTPUT", "cannot open %s", to) : receive(cli, request, fd);
    if (to && fd >= 0 && close(fd) != 0 && !error)
        error = vp_error_errno(errno, "OUTPUT", "cannot write %s", to);
    return error ? vp_cli_fail(cli, error, "read %s in the guest of domain \"%s\"", argv[2], argv[1]) : VP_EXIT_DONE;
}

/* ---- write ---- */

static PbWriteGuestFileResponse *send_file(VpCli *cli, const PbWriteGuestFileRequest *first, int fd, VpError **error)
{
    VpClient *client = vp_cli_client(cli, error);
    g_autoptr(VpClientStream) stream = client ? vp_client_stream_open(client, &pb_guest_service__descriptor,
                                                                      "WriteGuestFile", first, stream_ms(cli), error)
                                              : NULL;
    PbWriteGuestFileRequest request = PB_WRITE_GUEST_FILE_REQUEST__INIT;

    if (!stream)
        return NULL;
    request.payload_case = PB_WRITE_GUEST_FILE_REQUEST__PAYLOAD_DATA;
    *error = send_all(stream, fd, &request, &request.data);
    return *error ? NULL : vp_client_stream_read(stream, 0, error);
}

int vp_guest_write(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *from = NULL;
    g_autofree char *offset = NULL;
    gboolean append = FALSE;
    const GOptionEntry entries[] = {
        {"from", 0, 0, G_OPTION_ARG_FILENAME, &from, "What to write (default: the standard input)", "FILE"},
        {"append", 'a', 0, G_OPTION_ARG_NONE, &append, "Add it to what is there", NULL},
        {"offset", 0, 0, G_OPTION_ARG_STRING, &offset, "Replace the bytes from here on, and leave the others", "SIZE"},
        {0},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbWriteGuestFileRequest *request = vp_pb_new(&pb_write_guest_file_request__descriptor);
    PbWriteGuestFileOpen *file = vp_pb_new(&pb_write_guest_file_open__descriptor);
    request->payload_case = PB_WRITE_GUEST_FILE_REQUEST__PAYLOAD_OPEN;
    request->open = file;
    vp_message_set_who(file, argv[1]);
    vp_pb_set(&file->path, argv[2]);
    file->mode = offset   ? PB_GUEST_FILE_MODE_OVERWRITE
                 : append ? PB_GUEST_FILE_MODE_APPEND
                          : PB_GUEST_FILE_MODE_REPLACE;
    if (append && offset)
        return vp_cli_usage(command, "--append and --offset do not go together");
    if (!parse_number(offset, &file->offset))
        return vp_cli_usage(command, "--offset is a size, like 4096 or 1M");
    const int fd = from ? open(from, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    if (fd < 0)
        error = vp_error_errno(errno, "INPUT", "cannot open %s", from);
    vp_pb_auto PbWriteGuestFileResponse *answer = error ? NULL : send_file(cli, request, fd, &error);
    if (from && fd >= 0)
        close(fd);
    if (!answer)
        return vp_cli_fail(cli, error ? error : vp_error_new(VP_INTERNAL, NULL, "the answer is empty"),
                           "write %s in the guest of domain \"%s\"", argv[2], argv[1]);
    if (vp_cli_print(cli, answer, /* stream= */ FALSE))
        return VP_EXIT_DONE;
    g_autofree char *path = vp_text_escape(argv[2]);
    if (cli->output == VP_OUTPUT_NAME)
        puts(path);
    else
        printf("domain \"%s\": %" G_GUINT64_FORMAT " bytes written to %s\n", argv[1], answer->written_bytes, path);
    return VP_EXIT_DONE;
}
