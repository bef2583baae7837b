/* See console_line.h. */
#include "server/services/console_line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/services/console_log.h"
#include "virtplane/v1/domain_console.pb-c.h"

/* What waits for one client, beyond the scroll-back; then the guest waits for the one who has the console, and a watcher is let go. */
#define MAX_OUT_BYTES (256 * 1024)
/* Messages under way to one client. A port prints a few bytes at a time: what comes meanwhile is gathered, and goes in the next one. */
#define MAX_OUT_MESSAGES 4
/* What waits to be taken by the guest; then the client waits. */
#define MAX_IN_BYTES (64 * 1024)
#define READ_BYTES (32 * 1024)
/* How long a connection that is given up is waited for to be closed by its other end. */
#define LINGER_MS 1000
/* A line has so many clients at most. */
#define MAX_CLIENTS 32

typedef struct Line Line;

struct VpLines {
    VpDomains *domains;
    VpLoop *loop;
    VpPool *pool;
    GHashTable *shared; /* the loop's: "UID DEVICE" to Line */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    guint live; /* clients and lines that are not freed yet */
};

/* One stream. */
typedef struct Client {
    gint refs;
    VpLines *lines;
    VpCall *call;
    gboolean screen;

    /* Set before it comes to the loop. */
    gboolean read_only;
    gboolean force;
    guint32 scrollback;
    char *device;
    char *socket_path;
    char *log_path; /* NULL: none */
    char *key;
    char *domain_name;

    /* The loop's. */
    Line *line;
    GByteArray *joining; /* what came while its log is being read; NULL: it has been */
    GByteArray *log;     /* what was read */
    gsize out_bytes;
    guint out_messages;
    GByteArray *gathered; /* what waits for a message before it to be taken */
    gsize scrollback_bytes;
    gboolean waits; /* its next message is asked for once the guest has taken those before */
    gboolean half_closed;
} Client;

/* A connection to a port. */
struct Line {
    VpLines *lines;
    char *key; /* NULL: not shared */
    int fd;
    uv_poll_t poll;
    uv_timer_t timer; /* of a line that is given up */
    guint handles;    /* that are open */
    gboolean given_up;
    GPtrArray *clients; /* of Client, each with a reference */
    Client *taker;      /* who may type, or NULL */
    GByteArray *in;     /* towards the guest */
};

/* ---- counts ---- */

static void count(VpLines *lines, gint change)
{
    VP_LOCK(&lines->mutex);
    lines->live += (guint)change;
    if (lines->live == 0)
        pthread_cond_broadcast(&lines->changed);
}

static Client *client_ref(Client *client)
{
    g_atomic_int_inc(&client->refs);
    return client;
}

static void client_unref(Client *client)
{
    if (!g_atomic_int_dec_and_test(&client->refs))
        return;
    VpLines *lines = client->lines;

    g_clear_pointer(&client->joining, g_byte_array_unref);
    g_clear_pointer(&client->log, g_byte_array_unref);
    g_byte_array_unref(client->gathered);
    g_free(client->device);
    g_free(client->socket_path);
    g_free(client->log_path);
    g_free(client->key);
    g_free(client->domain_name);
    vp_call_unref(client->call);
    g_free(client);
    count(lines, -1);
}

/* ---- a line ---- */

static void update_poll(Line *line);

static void handle_closed(uv_handle_t *handle)
{
    Line *line = handle->data;
    VpLines *lines = line->lines;

    if (--line->handles > 0)
        return;
    close(line->fd);
    g_ptr_array_unref(line->clients);
    g_byte_array_unref(line->in);
    g_free(line->key);
    g_free(line);
    count(lines, -1);
}

static void line_close(Line *line)
{
    if (uv_is_closing((uv_handle_t *)&line->poll))
        return;
    uv_close((uv_handle_t *)&line->poll, handle_closed);
    uv_close((uv_handle_t *)&line->timer, handle_closed);
}

static void on_linger_end(uv_timer_t *timer)
{
    line_close(timer->data);
}

static void on_linger_poll(uv_poll_t *poll, int status, int events)
{
    Line *line = poll->data;
    guint8 bytes[READ_BYTES];
    const ssize_t n = recv(line->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    (void)events;
    if (status < 0 || n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        line_close(line);
}

/* Nobody is left. QEMU is to close the connection before we do: a write of its that fails is lost to the log, too. Until then what comes is taken off;
 * the log has it. */
static void line_give_up(Line *line)
{
    if (line->given_up)
        return;
    line->given_up = TRUE;
    if (line->key)
        g_hash_table_remove(line->lines->shared, line->key);
    shutdown(line->fd, SHUT_WR);
    uv_poll_start(&line->poll, UV_READABLE, on_linger_poll);
    uv_timer_start(&line->timer, on_linger_end, LINGER_MS, 0);
}

/* Takes a client off its line; the line goes with the last one. */
static void detach(Client *client)
{
    Line *line = g_steal_pointer(&client->line);

    if (!line)
        return;
    if (line->taker == client)
        line->taker = NULL;
    g_ptr_array_remove_fast(line->clients, client);
    if (line->clients->len == 0)
        line_give_up(line);
    else
        update_poll(line);
    client_unref(client);
}

static void push(Client *client, guint max_messages);

/* Ends the stream; `error` is consumed, NULL: well. */
static void end(Client *client, VpError *error)
{
    push(client, G_MAXUINT);
    if (error)
        vp_call_fail(client->call, error);
    else
        vp_call_finish(client->call);
    detach(client);
}

static void end_all(Line *line)
{
    while (line->clients->len > 0) {
        Client *client = line->clients->pdata[0];

        end(client,
            vp_error_new(VP_UNAVAILABLE, "CONSOLE_CLOSED", "domain %s has closed its %s: it ended, or is about to",
                         client->domain_name, client->device));
    }
}

/* ---- to the client ---- */

typedef struct Written {
    Client *client;
    gsize bytes;
} Written;

static void on_written_loop(void *data)
{
    g_autofree Written *written = data;
    Client *client = written->client;

    client->out_bytes -= written->bytes;
    client->out_messages--;
    if (client->line) {
        push(client, MAX_OUT_MESSAGES);
        update_poll(client->line);
    }
    client_unref(client);
}

static void on_written(VpCall *call, void *data, gboolean ok)
{
    Written *written = data;

    (void)call;
    (void)ok;
    vp_loop_post(written->client->lines->loop, on_written_loop, written);
}

static gboolean is_full(const Client *client)
{
    return client->out_bytes + client->gathered->len >= MAX_OUT_BYTES + client->scrollback_bytes ||
           (client->joining && client->joining->len + READ_BYTES > MAX_OUT_BYTES);
}

/* Writes one message; a stream that is broken is noticed when it is closed. */
static void write_message(Client *client, const void *message, gsize bytes)
{
    Written *written = g_new(Written, 1);

    *written = (Written){.client = client_ref(client), .bytes = bytes};
    client->out_bytes += bytes;
    client->out_messages++;
    if (vp_call_write(client->call, message, FALSE, on_written, written))
        return;
    client->out_bytes -= bytes;
    client->out_messages--;
    client_unref(client);
    g_free(written);
}

/* Writes what was gathered, as far as there may be so many messages under way. */
static void push(Client *client, guint max_messages)
{
    while (client->gathered->len > 0 && client->out_messages < max_messages) {
        /* Both methods' answers have the same shape, by field number and by layout. */
        PbOpenConsoleResponse response = PB_OPEN_CONSOLE_RESPONSE__INIT;
        const guint size = MIN(client->gathered->len, READ_BYTES);

        response.payload_case = PB_OPEN_CONSOLE_RESPONSE__PAYLOAD_DATA;
        response.data = (ProtobufCBinaryData){.len = size, .data = client->gathered->data};
        write_message(client, &response, size);
        g_byte_array_remove_range(client->gathered, 0, size);
    }
}

static void write_data(Client *client, const guint8 *bytes, gsize size)
{
    g_byte_array_append(client->gathered, bytes, (guint)size);
    push(client, MAX_OUT_MESSAGES);
}

static void write_opened(Client *client, guint32 scrollback)
{
    if (client->screen) {
        PbOpenScreenResponse response = PB_OPEN_SCREEN_RESPONSE__INIT;
        PbScreenOpened opened = PB_SCREEN_OPENED__INIT;

        opened.device = client->device;
        response.payload_case = PB_OPEN_SCREEN_RESPONSE__PAYLOAD_OPENED;
        response.opened = &opened;
        write_message(client, &response, 0);
        return;
    }
    PbOpenConsoleResponse response = PB_OPEN_CONSOLE_RESPONSE__INIT;
    PbConsoleOpened opened = PB_CONSOLE_OPENED__INIT;

    opened.device = client->device;
    opened.scrollback_bytes = scrollback;
    response.payload_case = PB_OPEN_CONSOLE_RESPONSE__PAYLOAD_OPENED;
    response.opened = &opened;
    write_message(client, &response, 0);
}

/* What the guest printed, for one client. */
static void deliver(Client *client, const guint8 *bytes, gsize size)
{
    if (is_full(client) && client->line->taker != client)
        end(client, vp_error_new(VP_RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW",
                                 "domain %s: %s prints more than you take; watch it again, with scroll-back",
                                 client->domain_name, client->device));
    else if (client->joining)
        g_byte_array_append(client->joining, bytes, (guint)size);
    else
        write_data(client, bytes, size);
}

/* ---- to the guest ---- */

static void read_next(Client *client);

static void on_drained(Line *line)
{
    Client *client = line->taker;

    if (!client || line->in->len > 0)
        return;
    if (client->half_closed) {
        end(client, NULL);
    } else if (client->waits) {
        client->waits = FALSE;
        read_next(client);
    }
}

/* FALSE: the connection is broken. */
static gboolean flush(Line *line)
{
    while (line->in->len > 0) {
        const ssize_t n = send(line->fd, line->in->data, line->in->len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        g_byte_array_remove_range(line->in, 0, (guint)n);
    }
    return TRUE;
}

static void read_some(Line *line)
{
    guint8 bytes[READ_BYTES];
    const ssize_t n = recv(line->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        end_all(line);
        return;
    }
    /* Of those that come to their end here the others are not to be missed, nor is the line while anyone is left. */
    g_autoptr(GPtrArray) clients = g_ptr_array_new_with_free_func((GDestroyNotify)client_unref);
    for (guint i = 0; i < line->clients->len; i++)
        g_ptr_array_add(clients, client_ref(line->clients->pdata[i]));
    for (guint i = 0; i < clients->len; i++) {
        Client *client = clients->pdata[i];

        if (client->line)
            deliver(client, bytes, (gsize)n);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    Line *line = poll->data;

    if (status < 0 || ((events & UV_WRITABLE) && !flush(line))) {
        end_all(line);
        return;
    }
    if (events & UV_READABLE)
        read_some(line);
    if (!line->given_up)
        on_drained(line);
    update_poll(line);
}

/* The guest waits for the one who has the console, for as long as the server lets a stream stall. */
static void update_poll(Line *line)
{
    int events = 0;

    if (line->given_up)
        return;
    if (!line->taker || !is_full(line->taker))
        events |= UV_READABLE;
    if (line->in->len > 0)
        events |= UV_WRITABLE;
    if (events)
        uv_poll_start(&line->poll, events, on_poll);
    else
        uv_poll_stop(&line->poll);
}

/* ---- what the client sends ---- */

typedef struct Message {
    Client *client;
    void *message; /* NULL: half-closed, or broken */
} Message;

static void on_bytes(Client *client, const ProtobufCBinaryData *data)
{
    Line *line = client->line;

    g_byte_array_append(line->in, data->data, (guint)data->len);
    if (!flush(line)) {
        end_all(line);
        return;
    }
    client->waits = line->in->len >= MAX_IN_BYTES;
    if (!client->waits)
        read_next(client);
    update_poll(line);
}

static void on_message(Client *client, const void *message)
{
    /* As the answers', the requests' `data` stands at one place in both; a screen's has no size. */
    const PbOpenConsoleRequest *request = message;

    if (!client->line)
        return;
    if (!message) {
        client->half_closed = TRUE;
        if (client->line->taker != client)
            end(client, NULL);
        else
            on_drained(client->line);
        return;
    }
    switch (request->payload_case) {
    case PB_OPEN_CONSOLE_REQUEST__PAYLOAD_DATA:
        if (client->read_only)
            end(client, vp_error_new(VP_FAILED_PRECONDITION, "CONSOLE_READ_ONLY",
                                     "this stream was opened to look only; open it without read_only to type"));
        else
            on_bytes(client, &request->data);
        break;
    case PB_OPEN_CONSOLE_REQUEST__PAYLOAD_SIZE:
        /* A UART knows no size, and QEMU 7.2 has no command to tell a virtio console. */
        read_next(client);
        break;
    default:
        end(client, vp_error_new(VP_INVALID_ARGUMENT, "NOT_DATA",
                                 "after the first message come data or sizes, and this is neither"));
    }
}

static void on_message_loop(void *data)
{
    g_autofree Message *message = data;

    on_message(message->client, message->message);
    vp_pb_free(message->message);
    client_unref(message->client);
}

static void got_message(VpCall *call, void *data, void *received)
{
    Message *message = g_new(Message, 1);

    (void)call;
    *message = (Message){.client = data, .message = received};
    vp_loop_post(message->client->lines->loop, on_message_loop, message);
}

static void read_next(Client *client)
{
    vp_call_read(client->call, got_message, client_ref(client));
}

/* ---- opening, on the loop ---- */

static VpError *connect_to(const char *path, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *folder = g_path_get_dirname(path);
    g_autofree char *name = g_path_get_basename(path);

    /* By way of the folder: the path may be longer than an address can hold. */
    const int dir_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return vp_error_errno(errno, "CONSOLE_SOCKET", "cannot open the folder %s", folder);
    /* The hypervisor may write to some of these folders: a link that leads to another's socket is not followed. */
    const int file_fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", file_fd);
    const int fd = file_fd < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int r = fd < 0 ? -1 : connect(fd, (struct sockaddr *)&address, sizeof(address));
    const int errnum = errno;
    close(dir_fd);
    if (file_fd >= 0)
        close(file_fd);
    if (r == 0) {
        *ret_fd = fd;
        return NULL;
    }
    if (fd >= 0)
        close(fd);
    return vp_error_new(VP_UNAVAILABLE, "CONSOLE_SOCKET", "cannot connect to %s: %s", path, g_strerror(errnum));
}

static Line *line_new(Client *client, VpError **error)
{
    int fd = -1;

    *error = connect_to(client->socket_path, &fd);
    if (*error)
        return NULL;
    Line *line = g_new0(Line, 1);
    line->lines = client->lines;
    line->fd = fd;
    line->clients = g_ptr_array_new();
    line->in = g_byte_array_new();
    line->poll.data = line->timer.data = line;
    line->handles = 2;
    uv_poll_init(vp_loop_uv(client->lines->loop), &line->poll, fd);
    uv_timer_init(vp_loop_uv(client->lines->loop), &line->timer);
    if (!client->screen) {
        line->key = g_strdup(client->key);
        g_hash_table_insert(client->lines->shared, line->key, line);
    }
    count(client->lines, 1);
    return line;
}

static VpError *check_taken(Client *client, Line *line)
{
    VpCaller caller;

    if (line->clients->len >= MAX_CLIENTS)
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", "domain %s: %s has %d clients already",
                            client->domain_name, client->device, MAX_CLIENTS);
    if (client->read_only || client->force || !line->taker)
        return NULL;
    vp_call_caller(line->taker->call, &caller);
    return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "CONSOLE_TAKEN",
                                      "domain %s: %s is taken by %s; take it over with force, or watch it with "
                                      "read_only",
                                      client->domain_name, client->device, caller.text),
                         "caller", caller.text);
}

static void take_over(Client *client, Line *line)
{
    Client *old = line->taker;
    VpCaller caller;

    /* What he typed and the guest has not taken goes with him. */
    g_byte_array_set_size(line->in, 0);
    line->taker = client;
    if (!old)
        return;
    vp_call_caller(client->call, &caller);
    end(old, vp_error_with(vp_error_new(VP_ABORTED, "CONSOLE_TAKEN_OVER", "domain %s: %s was taken over by %s",
                                        client->domain_name, client->device, caller.text),
                           "caller", caller.text));
}

/* The log was read, or there is none to read: from here on what comes goes out. */
static void joined(Client *client)
{
    g_autoptr(GByteArray) live = g_steal_pointer(&client->joining);
    g_autoptr(GByteArray) log = g_steal_pointer(&client->log);

    if (!client->line)
        return;
    client->scrollback_bytes = log ? log->len : 0;
    write_opened(client, log ? log->len : 0);
    if (log)
        write_data(client, log->data, log->len);
    const gsize known = log && live ? vp_console_log_overlap(log, live) : 0;
    if (live && live->len > known)
        write_data(client, live->data + known, live->len - known);
    read_next(client);
    update_poll(client->line);
}

static void on_log_read(void *data)
{
    Client *client = data;

    joined(client);
    client_unref(client);
}

static void read_log(void *data)
{
    Client *client = data;

    client->log = vp_console_log_tail(client->log_path, client->scrollback);
    vp_loop_post(client->lines->loop, on_log_read, client);
}

static void open_on_loop(void *data)
{
    Client *client = data; /* with a reference, the line's from now on */
    Line *line = client->screen ? NULL : g_hash_table_lookup(client->lines->shared, client->key);
    VpError *error = NULL;

    if (!vp_call_cancelled(client->call)) {
        if (!line)
            line = line_new(client, &error);
        else
            error = check_taken(client, line);
    }
    if (error || !line || vp_call_cancelled(client->call)) {
        if (line && line->clients->len == 0)
            line_give_up(line);
        if (error)
            vp_call_fail(client->call, error);
        client_unref(client);
        return;
    }
    client->line = line;
    g_ptr_array_add(line->clients, client);
    if (!client->read_only)
        take_over(client, line);
    client_ref(client);
    if (client->scrollback > 0 && client->log_path) {
        client->joining = g_byte_array_new();
        if (vp_pool_submit(client->lines->pool, read_log, client_ref(client))) {
            update_poll(line);
        } else {
            client_unref(client);
            end(client,
                vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY", "the daemon has too much to do"), 1000));
        }
    } else {
        joined(client);
    }
    client_unref(client);
}

/* ---- opening, on RPC threads ---- */

static const PbDomainEndpoint *find_endpoint(const PbDomain *domain, const char *device, gboolean screen)
{
    for (size_t i = 0; domain->status && i < domain->status->n_endpoints; i++) {
        const PbDomainEndpoint *endpoint = domain->status->endpoints[i];
        const gboolean fits = screen ? strcmp(endpoint->device, "vnc") == 0 || strcmp(endpoint->device, "spice") == 0
                                     : g_str_has_prefix(endpoint->device, "serial");

        if (fits && (!device[0] || strcmp(endpoint->device, device) == 0))
            return endpoint;
    }
    return NULL;
}

static gboolean runs(const PbDomain *domain)
{
    switch (domain->status ? domain->status->state : PB_DOMAIN_STATE_SHUTOFF) {
    case PB_DOMAIN_STATE_RUNNING:
    case PB_DOMAIN_STATE_PAUSED:
    case PB_DOMAIN_STATE_SHUTTING_DOWN:
    case PB_DOMAIN_STATE_UNRESPONSIVE:
        return TRUE;
    default:
        return FALSE;
    }
}

static VpError *find(Client *client, const char *name, const char *uid, const char *device)
{
    VpError *error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(client->lines->domains, name, uid, &error);

    if (!view)
        return error;
    if (!runs(view->domain))
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_NOT_RUNNING", "domain %s does not run; start it first",
                            view->domain->name);
    const PbDomainEndpoint *endpoint = find_endpoint(view->domain, device, client->screen);
    if (!endpoint)
        return vp_error_new(VP_FAILED_PRECONDITION, client->screen ? "NO_SCREEN" : "NO_CONSOLE",
                            "domain %s has no %s%s%s", view->domain->name, client->screen ? "screen" : "console",
                            device[0] ? " " : "", device);
    client->domain_name = g_strdup(view->domain->name);
    client->device = g_strdup(endpoint->device);
    client->socket_path = g_strdup(endpoint->socket_path);
    client->log_path = endpoint->log_path[0] ? g_strdup(endpoint->log_path) : NULL;
    client->key = g_strdup_printf("%s %s", view->domain->uid, endpoint->device);
    return NULL;
}

static VpError *read_open(Client *client, const void *message)
{
    if (client->screen) {
        const PbOpenScreenRequest *request = message;

        if (request->payload_case != PB_OPEN_SCREEN_REQUEST__PAYLOAD_OPEN)
            return vp_error_new(VP_INVALID_ARGUMENT, "NOT_OPENED", "the first message says which screen (open)");
        return find(client, request->open->name, request->open->uid, request->open->device);
    }
    const PbOpenConsoleRequest *request = message;
    if (request->payload_case != PB_OPEN_CONSOLE_REQUEST__PAYLOAD_OPEN)
        return vp_error_new(VP_INVALID_ARGUMENT, "NOT_OPENED", "the first message says which console (open)");
    client->read_only = request->open->read_only;
    client->force = request->open->force;
    client->scrollback = request->open->scrollback_bytes;
    return find(client, request->open->name, request->open->uid, request->open->device);
}

static void got_open(VpCall *call, void *data, void *message)
{
    Client *client = data;
    VpError *error = message ? read_open(client, message)
                             : vp_error_new(VP_INVALID_ARGUMENT, "NOT_OPENED", "the stream ended before it was opened");

    vp_pb_free(message);
    if (error) {
        vp_call_fail(call, error);
        client_unref(client);
        return;
    }
    vp_loop_post(client->lines->loop, open_on_loop, client);
}

static void closed_on_loop(void *data)
{
    Client *client = data;

    detach(client);
    client_unref(client);
}

static void on_close(VpCall *call, void *data)
{
    Client *client = data;

    /* Nothing more to say to who has gone. */
    vp_call_finish(call);
    vp_loop_post(client->lines->loop, closed_on_loop, client);
}

static void open_line(VpLines *lines, VpCall *call, gboolean screen)
{
    Client *client = g_new0(Client, 1);

    client->refs = 1;
    client->gathered = g_byte_array_new();
    client->lines = lines;
    client->call = vp_call_ref(call);
    client->screen = screen;
    count(lines, 1);
    vp_call_on_close(call, on_close, client_ref(client));
    vp_call_read(call, got_open, client);
}

void vp_lines_open_console(VpLines *lines, VpCall *call)
{
    open_line(lines, call, /* screen= */ FALSE);
}

void vp_lines_open_screen(VpLines *lines, VpCall *call)
{
    open_line(lines, call, /* screen= */ TRUE);
}

/* ---- all of them ---- */

VpLines *vp_lines_new(VpDomains *domains, VpLoop *loop, VpPool *pool)
{
    VpLines *lines = g_new0(VpLines, 1);

    lines->domains = domains;
    lines->loop = loop;
    lines->pool = pool;
    lines->shared = g_hash_table_new(g_str_hash, g_str_equal);
    pthread_mutex_init(&lines->mutex, NULL);
    vp_cond_init(&lines->changed);
    return lines;
}

void vp_lines_free(VpLines *lines)
{
    if (!lines)
        return;
    pthread_mutex_lock(&lines->mutex);
    while (lines->live > 0)
        pthread_cond_wait(&lines->changed, &lines->mutex);
    pthread_mutex_unlock(&lines->mutex);
    g_hash_table_unref(lines->shared);
    pthread_cond_destroy(&lines->changed);
    pthread_mutex_destroy(&lines->mutex);
    g_free(lines);
}
