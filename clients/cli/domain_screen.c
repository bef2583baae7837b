/*
 * vpctl domain screen: a viewer on this host, connected with a domain's screen wherever that is. What connects to a socket of ours is relayed over a stream of
 * its own (OpenScreen), until the user or the viewer that was started ends it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/cli/domain.h"
#include "clients/cli/message.h"

#define READ_BYTES 32768
/* SPICE has a connection for each of its channels. */
#define MAX_CONNECTIONS 32

typedef struct Session {
    VpClient *client;
    const PbOpenScreenRequest *request;
    const char *name; /* of the domain, for what is said */
    char *folder;     /* of the socket, made for it; NULL: none */
    char *address;    /* "PATH" or "127.0.0.1:PORT" */
    int listen_fd;
    int signal_fd;
    sigset_t signals;
    GPid viewer; /* 0: none */
    int viewer_fd;
    GPtrArray *relays; /* of Relay: all that there are or were */
} Session;

/* One connection of the viewer's. */
typedef struct Relay {
    const Session *session;
    int fd;
    gint ended; /* atomic: its thread is at its end */
    pthread_t thread;
    VpClientStream *stream;
} Relay;

/* ---- one connection ---- */

static void *send_viewers(void *data)
{
    Relay *relay = data;
    PbOpenScreenRequest request = PB_OPEN_SCREEN_REQUEST__INIT;
    guint8 bytes[READ_BYTES];

    request.payload_case = PB_OPEN_SCREEN_REQUEST__PAYLOAD_DATA;
    for (;;) {
        const ssize_t n = recv(relay->fd, bytes, sizeof(bytes), 0);

        if (n < 0 && errno == EINTR)
            continue;
        request.data = (ProtobufCBinaryData){.len = n > 0 ? (size_t)n : 0, .data = bytes};
        if (n <= 0 || !vp_client_stream_send(relay->stream, &request))
            break;
    }
    vp_client_stream_close(relay->stream);
    return NULL;
}

static gboolean send_all(int fd, const ProtobufCBinaryData *data)
{
    for (size_t at = 0; at < data->len;) {
        const ssize_t n = send(fd, data->data + at, data->len - at, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR)
            return FALSE;
        at += n > 0 ? (size_t)n : 0;
    }
    return TRUE;
}

static VpError *send_screens(Relay *relay)
{
    VpError *error = NULL;
    gboolean taken = TRUE;

    while (taken) {
        vp_pb_auto PbOpenScreenResponse *answer = vp_client_stream_read(relay->stream, 0, &error);

        if (!answer)
            return error;
        if (answer->payload_case == PB_OPEN_SCREEN_RESPONSE__PAYLOAD_DATA)
            taken = send_all(relay->fd, &answer->data);
    }
    /* The viewer has gone. */
    vp_client_stream_cancel(relay->stream);
    return NULL;
}

static void *run_relay(void *data)
{
    Relay *relay = data;
    pthread_t sender;
    VpError *error = vp_thread_start(&sender, "viewer", send_viewers, relay);

    if (!error) {
        error = send_screens(relay);
        shutdown(relay->fd, SHUT_RDWR);
        pthread_join(sender, NULL);
    }
    shutdown(relay->fd, SHUT_RDWR);
    if (error && error->code != VP_CANCELLED)
        fprintf(stderr, "vpctl: the screen of domain \"%s\": %s\n", relay->session->name, error->message);
    vp_error_free(error);
    g_atomic_int_set(&relay->ended, TRUE);
    return NULL;
}

static void relay_free(gpointer data)
{
    Relay *relay = data;

    vp_client_stream_cancel(relay->stream);
    shutdown(relay->fd, SHUT_RDWR);
    pthread_join(relay->thread, NULL);
    vp_client_stream_free(relay->stream);
    close(relay->fd);
    g_free(relay);
}

static void take_connection(Session *session)
{
    VpError *error = NULL;
    const int fd = accept4(session->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    /* Those that have ended make room. */
    for (guint i = session->relays->len; i-- > 0;) {
        if (g_atomic_int_get(&((Relay *)session->relays->pdata[i])->ended))
            g_ptr_array_remove_index_fast(session->relays, i);
    }
    if (fd < 0 || session->relays->len >= MAX_CONNECTIONS) {
        if (fd >= 0)
            close(fd);
        return;
    }
    Relay *relay = g_new0(Relay, 1);
    relay->session = session;
    relay->fd = fd;
    relay->stream = vp_client_stream_open(session->client, &pb_domain_service__descriptor, "OpenScreen",
                                          session->request, 0, &error);
    if (relay->stream)
        error = vp_thread_start(&relay->thread, "relay", run_relay, relay);
    if (!error) {
        g_ptr_array_add(session->relays, relay);
        return;
    }
    fprintf(stderr, "vpctl: the screen of domain \"%s\": %s\n", session->name, error->message);
    vp_error_free(error);
    vp_client_stream_free(relay->stream);
    close(fd);
    g_free(relay);
}

/* ---- where viewers connect ---- */

/* Only this user can open it. */
static VpError *listen_on_socket(Session *session)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autoptr(GError) why = NULL;

    session->folder = g_dir_make_tmp("vpctl-screen-XXXXXX", &why);
    if (!session->folder)
        return vp_error_new(VP_UNKNOWN, "LISTEN", "cannot make a folder for the socket: %s", why->message);
    session->address = g_build_filename(session->folder, "screen.sock", NULL);
    if (g_strlcpy(address.sun_path, session->address, sizeof(address.sun_path)) >= sizeof(address.sun_path))
        return vp_error_new(VP_INVALID_ARGUMENT, "LISTEN", "the path %s is too long for a socket; set TMPDIR",
                            session->address);
    session->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (session->listen_fd < 0 || bind(session->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(session->listen_fd, MAX_CONNECTIONS) < 0)
        return vp_error_errno(errno, "LISTEN", "cannot listen on %s", session->address);
    return NULL;
}

static VpError *listen_on_port(Session *session, guint16 port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    const int one = 1;

    session->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (session->listen_fd < 0 || setsockopt(session->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(session->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(session->listen_fd, MAX_CONNECTIONS) < 0 ||
        getsockname(session->listen_fd, (struct sockaddr *)&address, &length) < 0)
        return vp_error_errno(errno, "LISTEN", "cannot listen on port %u of the loopback", port);
    session->address = g_strdup_printf("127.0.0.1:%u", ntohs(address.sin_port));
    return NULL;
}

/* ---- the viewer ---- */

static void unblock_signals(gpointer data)
{
    pthread_sigmask(SIG_UNBLOCK, data, NULL);
}

/* `words` with "{}" replaced by the address, or the address behind them. */
static VpError *start_viewer(Session *session, const char *words)
{
    g_auto(GStrv) argv = NULL;
    g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) why = NULL;
    gboolean placed = FALSE;

    if (!g_shell_parse_argv(words, NULL, &argv, &why))
        return vp_error_new(VP_INVALID_ARGUMENT, "EXEC", "--exec: %s", why->message);
    for (guint i = 0; argv[i]; i++) {
        g_auto(GStrv) parts = g_strsplit(argv[i], "{}", -1);

        placed = placed || g_strv_length(parts) > 1;
        g_ptr_array_add(made, g_strjoinv(session->address, parts));
    }
    if (!placed)
        g_ptr_array_add(made, g_strdup(session->address));
    g_ptr_array_add(made, NULL);
    if (!g_spawn_async(NULL, (char **)made->pdata, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                       unblock_signals, &session->signals, &session->viewer, &why))
        return vp_error_new(VP_UNKNOWN, "EXEC", "cannot start the viewer: %s", why->message);
    session->viewer_fd = pidfd_open(session->viewer, 0);
    return session->viewer_fd < 0 ? vp_error_errno(errno, "EXEC", "cannot watch the viewer") : NULL;
}

/* ---- the session ---- */

/* Until the user ends it, or the viewer has gone. */
static void serve(Session *session)
{
    struct pollfd fds[] = {
        {.fd = session->listen_fd, .events = POLLIN},
        {.fd = session->signal_fd, .events = POLLIN},
        {.fd = session->viewer_fd, .events = POLLIN},
    };

    while (!fds[1].revents && !fds[2].revents) {
        if (poll(fds, G_N_ELEMENTS(fds), -1) > 0 && fds[0].revents)
            take_connection(session);
    }
}

static void say_address(VpCli *cli, const Session *session)
{
    if (!vp_cli_print_value(cli, json_pack("{s:s}", "address", session->address), /* stream= */ FALSE))
        puts(session->address);
    fflush(stdout);
}

static VpError *run(VpCli *cli, Session *session, const char *exec, gboolean by_port, guint16 port)
{
    VpError *error = by_port ? listen_on_port(session, port) : listen_on_socket(session);

    if (!error && exec)
        error = start_viewer(session, exec);
    if (error)
        return error;
    if (!exec)
        say_address(cli, session);
    serve(session);
    return NULL;
}

static void clear(Session *session)
{
    g_ptr_array_unref(session->relays);
    if (session->viewer > 0) {
        kill(session->viewer, SIGTERM);
        while (waitpid(session->viewer, NULL, 0) < 0 && errno == EINTR)
            ;
        close(session->viewer_fd);
    }
    if (session->listen_fd >= 0)
        close(session->listen_fd);
    if (session->folder) {
        unlink(session->address);
        rmdir(session->folder);
    }
    close(session->signal_fd);
    g_free(session->folder);
    g_free(session->address);
}

/* That there is a screen is to be said before a viewer is started. */
static VpError *check_screen(VpCli *cli, const char *who, const char *device)
{
    VpError *error = NULL;
    vp_pb_auto PbGetDomainResponse *answer = vp_domain_fetch(cli, who, &error);
    if (!answer)
        return error;
    const PbDomainStatus *status = answer->domain->status;
    for (size_t i = 0; status && i < status->n_endpoints; i++) {
        const char *found = status->endpoints[i]->device;

        if (device ? g_str_equal(found, device) : g_str_equal(found, "vnc") || g_str_equal(found, "spice"))
            return NULL;
    }
    return vp_error_new(VP_FAILED_PRECONDITION, "NO_SCREEN",
                        "it does not run, or has no %s; give it graphics, and start it", device ? device : "screen");
}

int vp_domain_screen(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *device = NULL;
    g_autofree char *exec = NULL;
    int port = -1;
    const GOptionEntry entries[] = {
        {"device", 0, 0, G_OPTION_ARG_STRING, &device, "vnc or spice (default: the first one)", "DEVICE"},
        {"exec", 0, 0, G_OPTION_ARG_STRING, &exec, "Start this viewer; {} in it is the address", "COMMAND"},
        {"port", 0, 0, G_OPTION_ARG_INT, &port,
         "Listen on this port of the loopback, which every user of this host can connect to; 0: any (default: a socket "
         "of one's own)",
         "PORT"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    vp_pb_auto PbOpenScreenRequest *request = vp_pb_new(&pb_open_screen_request__descriptor);
    Session session = {.request = request, .listen_fd = -1, .viewer_fd = -1};
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (port < -1 || port > 65535)
        return vp_cli_usage(command, "--port: %d is not in 0 to 65535", port);
    request->payload_case = PB_OPEN_SCREEN_REQUEST__PAYLOAD_OPEN;
    request->open = vp_pb_new(&pb_screen_open__descriptor);
    vp_message_set_who(request->open, argv[1]);
    vp_pb_set(&request->open->device, device);

    /* Before gRPC makes its threads: all of them are to have these blocked. */
    sigemptyset(&session.signals);
    sigaddset(&session.signals, SIGINT);
    sigaddset(&session.signals, SIGTERM);
    sigaddset(&session.signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &session.signals, NULL);
    session.signal_fd = signalfd(-1, &session.signals, SFD_CLOEXEC);
    session.relays = g_ptr_array_new_with_free_func(relay_free);
    session.name = argv[1];
    VpError *error = check_screen(cli, argv[1], device);
    if (!error)
        session.client = vp_cli_client(cli, &error);
    if (!error)
        error = run(cli, &session, exec, port >= 0, (guint16)port);
    clear(&session);
    return error ? vp_cli_fail(cli, error, "show the screen of domain \"%s\"", argv[1]) : VP_EXIT_DONE;
}
