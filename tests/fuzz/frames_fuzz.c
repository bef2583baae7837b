/*
 * libFuzzer on what a connection brings: the whole RPC runtime in this process, a client's bytes on a unix socket. The input is a list of HTTP/2 frames in
 * short: a byte for the kind and flags, one for the stream, a length, and the payload; the preface and the lengths are made right, so that mutations
 * get beyond the first check. A first byte of 0xff sends the rest as it is. From time to time an honest call must be answered.
 */
#include <glib/gstdio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/c/client.h"
#include "server/rpc/rpc.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* The search for leaks stops all threads after an input, in the middle of what they do, and does not survive it. The tests look for leaks. */
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

#define MOST_BYTES (64u << 10)
#define ANSWER_MS 20000
/* The daemon is asked from time to time; asking takes longer than most inputs. */
#define ASK_EVERY 16

typedef struct Bench {
    struct sockaddr_un address;
    VpRpcServer *server;
    VpClient *client;
    guint runs;
} Bench;

static void answer(VpCall *call, const void *message, void *context)
{
    const PbGetDomainRequest *request = message;
    PbDomain domain = PB_DOMAIN__INIT;
    PbGetDomainResponse response = PB_GET_DOMAIN_RESPONSE__INIT;

    (void)context;
    domain.name = request->name;
    response.domain = &domain;
    vp_call_reply(call, &response);
}

static void list_none(VpCall *call, const void *message, void *context)
{
    const PbListDomainsResponse response = PB_LIST_DOMAINS_RESPONSE__INIT;

    (void)message;
    (void)context;
    vp_call_reply(call, &response);
}

static void stream_some(VpCall *call, const void *message, void *context)
{
    PbBookmark bookmark = PB_BOOKMARK__INIT;
    PbWatchEventsResponse response = PB_WATCH_EVENTS_RESPONSE__INIT;

    (void)message;
    (void)context;
    response.payload_case = PB_WATCH_EVENTS_RESPONSE__PAYLOAD_BOOKMARK;
    response.bookmark = &bookmark;
    for (gint64 i = 1; i <= 3; i++) {
        bookmark.revision = i;
        vp_call_write(call, &response, i < 3, NULL, NULL);
    }
    vp_call_finish(call);
}

static Bench *bench_of_process(void);

static void remove_folder(void)
{
    char *socket_path = bench_of_process()->address.sun_path;
    g_autofree char *dir = g_path_get_dirname(socket_path);

    g_unlink(socket_path);
    g_rmdir(dir);
}

static void start(Bench *bench)
{
    static const VpMethodHandler handlers[] = {
        {"virtplane.v1.DomainService/GetDomain", answer, VP_RPC_INLINE},
        {"virtplane.v1.DomainService/ListDomains", list_none, VP_RPC_WORKER},
        {"virtplane.v1.EventService/WatchEvents", stream_some, VP_RPC_INLINE},
        {0},
    };
    static const VpHandlerTable tables[] = {{handlers, NULL}, {0}};
    g_autofree char *dir = g_dir_make_tmp("vp-fuzz-XXXXXX", NULL);
    g_autofree char *listen = g_strdup_printf("unix:%s/socket", dir);
    const char *const addresses[] = {listen, NULL};
    VpError *error = NULL;
    VpRpcOptions options = {.listen = addresses, .threads = 1, .tables = tables};

    bench->address.sun_family = AF_UNIX;
    g_strlcpy(bench->address.sun_path, listen + strlen("unix:"), sizeof(bench->address.sun_path));
    options.loop = vp_loop_new("loop", &error);
    options.pool = vp_pool_new("worker", 1, 1000, &error);
    vp_client_library_init();
    bench->server = vp_rpc_server_new(&options, &error);
    bench->client = bench->server ? vp_client_new(listen, &error) : NULL;
    if (!bench->client)
        abort();
    atexit(remove_folder);
}

static Bench *bench_of_process(void)
{
    static Bench bench;

    if (!bench.server)
        start(&bench);
    return &bench;
}

static void append_frame(GByteArray *out, guint8 kind, guint8 flags, guint8 stream, const guint8 *payload, guint length)
{
    const guint8 header[9] =
        {(guint8)(length >> 16), (guint8)(length >> 8), (guint8)length, kind, flags, 0, 0, 0, stream};

    g_byte_array_append(out, header, sizeof(header));
    g_byte_array_append(out, payload, length);
}

/* From the input to what goes on the wire. */
static GByteArray *frames_of(const guint8 *data, size_t size)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    GByteArray *out = g_byte_array_new();

    if (size > 0 && data[0] == 0xff) {
        g_byte_array_append(out, data + 1, (guint)size - 1);
        return out;
    }
    g_byte_array_append(out, (const guint8 *)preface, sizeof(preface) - 1);
    append_frame(out, 4, 0, 0, NULL, 0);
    while (size >= 4) {
        const guint length = MIN((guint)(data[2] << 8 | data[3]), (guint)size - 4);

        append_frame(out, data[0] & 0x0f, (guint8)(data[0] >> 4 | (data[0] & 0x20)), data[1], data + 4, length);
        data += 4 + length;
        size -= 4 + length;
    }
    return out;
}

/* Sends it and reads what comes, until the server has nothing more to say or closes. */
static void converse(Bench *bench, const GByteArray *bytes)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    char sink[4096];
    guint sent = 0;

    if (fd < 0 || connect(fd, (const struct sockaddr *)&bench->address, sizeof(bench->address)) < 0)
        abort();
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = (short)(POLLIN | (sent < bytes->len ? POLLOUT : 0))};

        if (poll(&wait, 1, sent < bytes->len ? 1000 : 2) <= 0)
            break;
        if ((wait.revents & POLLIN) && recv(fd, sink, sizeof(sink), 0) == 0)
            break;
        if (wait.revents & (POLLERR | POLLHUP))
            break;
        const ssize_t n = wait.revents & POLLOUT ? send(fd, bytes->data + sent, bytes->len - sent, MSG_NOSIGNAL) : 0;
        if (n < 0)
            break;
        sent += (guint)n;
    }
    close(fd);
}

static void ask(Bench *bench)
{
    PbGetDomainRequest request = PB_GET_DOMAIN_REQUEST__INIT;
    g_autoptr(VpError) error = NULL;

    request.name = (char *)"web";
    vp_pb_auto PbGetDomainResponse *response =
        vp_client_call(bench->client, &pb_domain_service__descriptor, "GetDomain", &request, ANSWER_MS, &error);
    if (!response || strcmp(response->domain->name, "web") != 0) {
        g_printerr("an honest call is not answered: %s\n", error ? error->message : "with something else");
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Bench *bench = bench_of_process();
    if (size > MOST_BYTES)
        return 0;
    g_autoptr(GByteArray) bytes = frames_of(data, size);

    converse(bench, bytes);
    if (++bench->runs % ASK_EVERY == 0)
        ask(bench);
    return 0;
}
