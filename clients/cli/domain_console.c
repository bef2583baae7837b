/*
 * vpctl domain console: the terminal, or a pipe, connected with a console. What comes is written by the main thread; a second one sends what is typed, and
 * sees to signals, so that the terminal is put right again whatever ends the session.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/cli/domain.h"
#include "clients/cli/message.h"

/* Ctrl-], as in virsh and telnet. */
#define ESCAPE '\x1d'
#define READ_BYTES 4096
#define LEAVE_MS 2000

typedef struct Session {
    VpClientStream *stream;
    gboolean terminal; /* stdin is one */
    gboolean read_only;
    struct termios before;
    sigset_t signals; /* that are blocked, and come by signal_fd */
    int signal_fd;
    int end_fd; /* the stream has ended */
    gint left;  /* the user ended it; atomic */
} Session;

/* ---- what is typed: the second thread ---- */

/* FALSE: the stream has ended. */
static gboolean send_size(Session *session)
{
    PbOpenConsoleRequest request = PB_OPEN_CONSOLE_REQUEST__INIT;
    PbConsoleSize size = PB_CONSOLE_SIZE__INIT;
    struct winsize window;

    if (session->read_only || !session->terminal || ioctl(STDIN_FILENO, TIOCGWINSZ, &window) < 0)
        return TRUE;
    size.columns = window.ws_col;
    size.rows = window.ws_row;
    request.payload_case = PB_OPEN_CONSOLE_REQUEST__PAYLOAD_SIZE;
    request.size = &size;
    return vp_client_stream_send(session->stream, &request);
}

/* The user ends it. What was typed is still to arrive, but a guest that takes nothing is not waited for. */
static gboolean leave(Session *session)
{
    struct pollfd ended = {.fd = session->end_fd, .events = POLLIN};

    g_atomic_int_set(&session->left, TRUE);
    vp_client_stream_close(session->stream);
    if (poll(&ended, 1, LEAVE_MS) <= 0)
        vp_client_stream_cancel(session->stream);
    return FALSE;
}

/* FALSE: nothing is to be sent any more. */
static gboolean on_typed(Session *session, struct pollfd *input)
{
    PbOpenConsoleRequest request = PB_OPEN_CONSOLE_REQUEST__INIT;
    guint8 bytes[READ_BYTES];
    const ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return TRUE;
    if (n <= 0) {
        /* The end of a pipe: what the guest answers is still wanted. */
        input->fd = -1;
        return TRUE;
    }
    const guint8 *escape = session->terminal ? memchr(bytes, ESCAPE, (size_t)n) : NULL;
    request.payload_case = PB_OPEN_CONSOLE_REQUEST__PAYLOAD_DATA;
    request.data = (ProtobufCBinaryData){.len = escape ? (size_t)(escape - bytes) : (size_t)n, .data = bytes};
    if (request.data.len > 0 && !session->read_only && !vp_client_stream_send(session->stream, &request))
        return FALSE;
    return escape ? leave(session) : TRUE;
}

static gboolean on_signal(Session *session)
{
    struct signalfd_siginfo info;

    if (read(session->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return TRUE;
    return info.ssi_signo == SIGWINCH ? send_size(session) : leave(session);
}

static void *send_typed(void *data)
{
    Session *session = data;
    struct pollfd fds[] = {
        {.fd = session->end_fd, .events = POLLIN},
        {.fd = session->signal_fd, .events = POLLIN},
        {.fd = session->read_only && !session->terminal ? -1 : STDIN_FILENO, .events = POLLIN},
    };
    gboolean more = send_size(session);

    while (more) {
        if (poll(fds, G_N_ELEMENTS(fds), -1) < 0)
            continue;
        if (fds[0].revents)
            break;
        if (fds[1].revents)
            more = on_signal(session);
        if (more && fds[2].revents)
            more = on_typed(session, &fds[2]);
    }
    return NULL;
}

/* ---- what comes ---- */

static gboolean write_all(const ProtobufCBinaryData *data)
{
    for (size_t at = 0; at < data->len;) {
        const ssize_t n = write(STDOUT_FILENO, data->data + at, data->len - at);

        if (n < 0 && errno != EINTR)
            return FALSE;
        at += n > 0 ? (size_t)n : 0;
    }
    return TRUE;
}

static VpError *show(Session *session)
{
    VpError *error = NULL;
    gboolean written = TRUE;

    while (written) {
        vp_pb_auto PbOpenConsoleResponse *answer = vp_client_stream_read(session->stream, 0, &error);

        if (!answer)
            return error;
        if (answer->payload_case == PB_OPEN_CONSOLE_RESPONSE__PAYLOAD_DATA)
            written = write_all(&answer->data);
    }
    vp_client_stream_cancel(session->stream);
    return vp_error_errno(errno, "OUTPUT", "cannot write what the console printed");
}

/* ---- the session ---- */

static void set_raw(Session *session)
{
    struct termios raw;

    session->terminal = tcgetattr(STDIN_FILENO, &session->before) == 0;
    if (!session->terminal)
        return;
    raw = session->before;
    cfmakeraw(&raw);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    fprintf(stderr, "connected; Ctrl-] ends it\r\n");
}

/* Before gRPC makes its threads: all of them are to have these blocked. */
static void block_signals(sigset_t *ret_signals)
{
    sigemptyset(ret_signals);
    sigaddset(ret_signals, SIGWINCH);
    sigaddset(ret_signals, SIGINT);
    sigaddset(ret_signals, SIGTERM);
    sigaddset(ret_signals, SIGHUP);
    sigaddset(ret_signals, SIGQUIT);
    pthread_sigmask(SIG_BLOCK, ret_signals, NULL);
}

static VpError *talk(Session *session)
{
    const uint64_t one = 1;
    pthread_t thread;

    session->signal_fd = signalfd(-1, &session->signals, SFD_CLOEXEC);
    session->end_fd = eventfd(0, EFD_CLOEXEC);
    set_raw(session);
    VpError *error = vp_thread_start(&thread, "typing", send_typed, session);
    if (!error) {
        error = show(session);
        if (write(session->end_fd, &one, sizeof(one)) < 0)
            vp_client_stream_cancel(session->stream);
        pthread_join(thread, NULL);
    }
    if (session->terminal) {
        tcsetattr(STDIN_FILENO, TCSANOW, &session->before);
        fputs("\r\n", stderr);
    }
    close(session->signal_fd);
    close(session->end_fd);
    return error;
}

int vp_domain_console(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *device = NULL;
    gboolean force = FALSE;
    gboolean read_only = FALSE;
    int scrollback = 0;
    const GOptionEntry entries[] = {
        {"device", 0, 0, G_OPTION_ARG_STRING, &device, "Which console (default: the first one)", "serial0"},
        {"force", 0, 0, G_OPTION_ARG_NONE, &force, "Take it over from whoever has it", NULL},
        {"read-only", 0, 0, G_OPTION_ARG_NONE, &read_only, "Only look", NULL},
        {"scrollback", 0, 0, G_OPTION_ARG_INT, &scrollback, "Show so much of what was printed before", "BYTES"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (scrollback < 0 || scrollback > 1048576)
        return vp_cli_usage(command, "--scrollback: %d is not in 0 to 1048576", scrollback);
    vp_pb_auto PbOpenConsoleRequest *request = vp_pb_new(&pb_open_console_request__descriptor);
    request->payload_case = PB_OPEN_CONSOLE_REQUEST__PAYLOAD_OPEN;
    request->open = vp_pb_new(&pb_console_open__descriptor);
    vp_message_set_who(request->open, argv[1]);
    vp_pb_set(&request->open->device, device);
    request->open->force = force;
    request->open->read_only = read_only;
    request->open->scrollback_bytes = (guint32)scrollback;

    Session session = {.read_only = read_only};
    block_signals(&session.signals);
    VpClient *client = vp_cli_client(cli, &error);
    g_autoptr(VpClientStream) stream =
        client ? vp_client_stream_open(client, &pb_domain_service__descriptor, "OpenConsole", request, 0, &error)
               : NULL;
    if (stream) {
        /* Not before the console is ours: a refusal is to be read in a terminal that is as it was. */
        vp_pb_auto PbOpenConsoleResponse *opened = vp_client_stream_read(stream, cli->timeout_ms, &error);
        session.stream = stream;
        if (opened)
            error = talk(&session);
        if (g_atomic_int_get(&session.left))
            g_clear_pointer(&error, vp_error_free);
    }
    return error ? vp_cli_fail(cli, error, "show the console of domain \"%s\"", argv[1]) : VP_EXIT_DONE;
}
