/* See line.h. */
#include "server/services/line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/thread.h"
#include "server/services/console_log.h"

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

struct VpLineClient {
    gint refs;
    VpLines *lines;
    const VpLineEnd *ops;
    void *end;

    /* Set before it comes to the loop. */
    VpLineOptions options;
    VpLineTarget target;

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
};

/* A connection to a port. */
struct Line {
    VpLines *lines;
    char *key; /* NULL: not shared */
    int fd;
    uv_poll_t poll;
    uv_timer_t timer; /* of a line that is given up */
    guint handles;    /* that are open */
    gboolean given_up;
    GPtrArray *clients;  /* of VpLineClient, each with a reference */
    VpLineClient *taker; /* who may type, or NULL */
    GByteArray *in;      /* towards the guest */
};

/* ---- counts ---- */

static void count(VpLines *lines, gint change)
{
    VP_LOCK(&lines->mutex);
    lines->live += (guint)change;
    if (lines->live == 0)
        pthread_cond_broadcast(&lines->changed);
}

VpLineClient *vp_line_client_ref(VpLineClient *client)
{
    g_atomic_int_inc(&client->refs);
    return client;
}

void vp_line_client_unref(VpLineClient *client)
{
    if (!client || !g_atomic_int_dec_and_test(&client->refs))
        return;
    VpLines *lines = client->lines;

    g_clear_pointer(&client->joining, g_byte_array_unref);
    g_clear_pointer(&client->log, g_byte_array_unref);
    g_byte_array_unref(client->gathered);
    vp_line_target_clear(&client->target);
    client->ops->unref(client->end);
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
static void detach(VpLineClient *client)
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
    vp_line_client_unref(client);
}

static void push(VpLineClient *client, guint max_messages);

void vp_line_client_end(VpLineClient *client, VpError *error)
{
    push(client, G_MAXUINT);
    client->ops->finish(client->end, error);
    detach(client);
}

static void end_all(Line *line)
{
    while (line->clients->len > 0) {
        VpLineClient *client = line->clients->pdata[0];

        vp_line_client_end(client, vp_error_new(VP_UNAVAILABLE, "CONSOLE_CLOSED",
                                                "domain %s has closed its %s: it ended, or is about to",
                                                client->target.domain_name, client->target.device));
    }
}

/* ---- to the client ---- */

void vp_line_client_written(VpLineClient *client, gsize size)
{
    client->out_bytes -= size;
    client->out_messages--;
    if (client->line) {
        push(client, MAX_OUT_MESSAGES);
        update_poll(client->line);
    }
}

static gboolean is_full(const VpLineClient *client)
{
    return client->out_bytes + client->gathered->len >= MAX_OUT_BYTES + client->scrollback_bytes ||
           (client->joining && client->joining->len + READ_BYTES > MAX_OUT_BYTES);
}

/* Writes what was gathered, as far as there may be so many messages under way. */
static void push(VpLineClient *client, guint max_messages)
{
    while (client->gathered->len > 0 && client->out_messages < max_messages) {
        const guint size = MIN(client->gathered->len, READ_BYTES);

        if (client->ops->write(client->end, client->gathered->data, size)) {
            client->out_bytes += size;
            client->out_messages++;
        }
        /* An end that is broken is noticed when it is closed. */
        g_byte_array_remove_range(client->gathered, 0, size);
    }
}

static void write_data(VpLineClient *client, const guint8 *bytes, gsize size)
{
    g_byte_array_append(client->gathered, bytes, (guint)size);
    push(client, MAX_OUT_MESSAGES);
}

/* What the guest printed, for one client. */
static void deliver(VpLineClient *client, const guint8 *bytes, gsize size)
{
    if (is_full(client) && client->line->taker != client)
        vp_line_client_end(client,
                           vp_error_new(VP_RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW",
                                        "domain %s: %s prints more than you take; watch it again, with scroll-back",
                                        client->target.domain_name, client->target.device));
    else if (client->joining)
        g_byte_array_append(client->joining, bytes, (guint)size);
    else
        write_data(client, bytes, size);
}

/* ---- to the guest ---- */

static void on_drained(Line *line)
{
    VpLineClient *client = line->taker;

    if (!client || line->in->len > 0)
        return;
    if (client->half_closed) {
        vp_line_client_end(client, NULL);
    } else if (client->waits) {
        client->waits = FALSE;
        client->ops->read_next(client->end);
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
    g_autoptr(GPtrArray) clients = g_ptr_array_new_with_free_func((GDestroyNotify)vp_line_client_unref);
    for (guint i = 0; i < line->clients->len; i++)
        g_ptr_array_add(clients, vp_line_client_ref(line->clients->pdata[i]));
    for (guint i = 0; i < clients->len; i++) {
        VpLineClient *client = clients->pdata[i];

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

void vp_line_client_got(VpLineClient *client, const guint8 *bytes, gsize size)
{
    Line *line = client->line;

    if (!line)
        return;
    if (client->options.read_only) {
        vp_line_client_end(client,
                           vp_error_new(VP_FAILED_PRECONDITION, "CONSOLE_READ_ONLY",
                                        "this stream was opened to look only; open it without read_only to type"));
        return;
    }
    g_byte_array_append(line->in, bytes, (guint)size);
    if (!flush(line)) {
        end_all(line);
        return;
    }
    client->waits = line->in->len >= MAX_IN_BYTES;
    if (!client->waits)
        client->ops->read_next(client->end);
    update_poll(line);
}

void vp_line_client_half_close(VpLineClient *client)
{
    if (!client->line)
        return;
    client->half_closed = TRUE;
    if (client->line->taker != client)
        vp_line_client_end(client, NULL);
    else
        on_drained(client->line);
}

gboolean vp_line_client_is_open(const VpLineClient *client)
{
    return client->line != NULL;
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

static Line *line_new(VpLineClient *client, VpError **error)
{
    int fd = -1;

    *error = connect_to(client->target.socket_path, &fd);
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
    if (!client->options.screen) {
        line->key = g_strdup(client->target.key);
        g_hash_table_insert(client->lines->shared, line->key, line);
    }
    count(client->lines, 1);
    return line;
}

static VpError *check_taken(VpLineClient *client, Line *line)
{
    g_autofree char *caller = NULL;

    if (line->clients->len >= MAX_CLIENTS)
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", "domain %s: %s has %d clients already",
                            client->target.domain_name, client->target.device, MAX_CLIENTS);
    if (client->options.read_only || client->options.force || !line->taker)
        return NULL;
    caller = line->taker->ops->caller(line->taker->end);
    return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "CONSOLE_TAKEN",
                                      "domain %s: %s is taken by %s; take it over with force, or watch it with "
                                      "read_only",
                                      client->target.domain_name, client->target.device, caller),
                         "caller", caller);
}

static void take_over(VpLineClient *client, Line *line)
{
    VpLineClient *old = line->taker;
    g_autofree char *caller = NULL;

    /* What he typed and the guest has not taken goes with him. */
    g_byte_array_set_size(line->in, 0);
    line->taker = client;
    if (!old)
        return;
    caller = client->ops->caller(client->end);
    vp_line_client_end(old, vp_error_with(vp_error_new(VP_ABORTED, "CONSOLE_TAKEN_OVER",
                                                       "domain %s: %s was taken over by %s", client->target.domain_name,
                                                       client->target.device, caller),
                                          "caller", caller));
}

/* The log was read, or there is none to read: from here on what comes goes out. */
static void joined(VpLineClient *client)
{
    g_autoptr(GByteArray) live = g_steal_pointer(&client->joining);
    g_autoptr(GByteArray) log = g_steal_pointer(&client->log);
    Line *line = client->line;

    if (!line)
        return;
    client->scrollback_bytes = log ? log->len : 0;
    if (client->ops->opened(client->end, client->target.device, log ? log->len : 0))
        client->out_messages++;
    if (log)
        write_data(client, log->data, log->len);
    const gsize known = log && live ? vp_console_log_overlap(log, live) : 0;
    if (live && live->len > known)
        write_data(client, live->data + known, live->len - known);
    /* What comes by this may end the client; the line stays until the loop has closed its handles, which is not within this. */
    client->ops->read_next(client->end);
    update_poll(line);
}

static void on_log_read(void *data)
{
    VpLineClient *client = data;

    joined(client);
    vp_line_client_unref(client);
}

static void read_log(void *data)
{
    VpLineClient *client = data;

    client->log = vp_console_log_tail(client->target.log_path, client->options.scrollback);
    vp_loop_post(client->lines->loop, on_log_read, client);
}

static void open_on_loop(void *data)
{
    VpLineClient *client = data; /* with a reference, the line's from now on */
    Line *line = client->options.screen ? NULL : g_hash_table_lookup(client->lines->shared, client->target.key);
    VpError *error = NULL;

    if (!client->ops->gone(client->end)) {
        if (!line)
            line = line_new(client, &error);
        else
            error = check_taken(client, line);
    }
    if (error || !line || client->ops->gone(client->end)) {
        if (line && line->clients->len == 0)
            line_give_up(line);
        if (error)
            client->ops->finish(client->end, error);
        vp_line_client_unref(client);
        return;
    }
    client->line = line;
    g_ptr_array_add(line->clients, client);
    if (!client->options.read_only)
        take_over(client, line);
    vp_line_client_ref(client);
    if (client->options.scrollback > 0 && client->target.log_path) {
        client->joining = g_byte_array_new();
        if (vp_pool_submit(client->lines->pool, read_log, vp_line_client_ref(client))) {
            update_poll(line);
        } else {
            vp_line_client_unref(client);
            vp_line_client_end(client, vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY",
                                                                   "the daemon has too much to do"),
                                                      1000));
        }
    } else {
        joined(client);
    }
    vp_line_client_unref(client);
}

/* ---- which one ---- */

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

VpError *vp_line_target_find(VpDomains *domains, const char *name, const char *uid, const char *device, gboolean screen,
                             VpLineTarget *ret_target)
{
    VpError *error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(domains, name, uid, &error);

    if (!view)
        return error;
    if (!vp_domain_is_up(view->domain))
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_NOT_RUNNING", "domain %s does not run; start it first",
                            view->domain->name);
    const PbDomainEndpoint *endpoint = find_endpoint(view->domain, device, screen);
    if (!endpoint)
        return vp_error_new(VP_FAILED_PRECONDITION, screen ? "NO_SCREEN" : "NO_CONSOLE", "domain %s has no %s%s%s",
                            view->domain->name, screen ? "screen" : "console", device[0] ? " " : "", device);
    *ret_target = (VpLineTarget){
        .domain_name = g_strdup(view->domain->name),
        .device = g_strdup(endpoint->device),
        .socket_path = g_strdup(endpoint->socket_path),
        .log_path = endpoint->log_path[0] ? g_strdup(endpoint->log_path) : NULL,
        .key = g_strdup_printf("%s %s", view->domain->uid, endpoint->device),
    };
    return NULL;
}

void vp_line_target_clear(VpLineTarget *target)
{
    g_clear_pointer(&target->device, g_free);
    g_clear_pointer(&target->socket_path, g_free);
    g_clear_pointer(&target->log_path, g_free);
    g_clear_pointer(&target->key, g_free);
    g_clear_pointer(&target->domain_name, g_free);
}

/* ---- clients ---- */

VpLineClient *vp_line_client_new(VpLines *lines, const VpLineEnd *ops, void *end)
{
    VpLineClient *client = g_new0(VpLineClient, 1);

    client->refs = 1;
    client->gathered = g_byte_array_new();
    client->lines = lines;
    client->ops = ops;
    client->end = end;
    count(lines, 1);
    return client;
}

void vp_line_client_open(VpLineClient *client, const VpLineOptions *options, VpLineTarget *target)
{
    client->options = *options;
    client->target = *target;
    *target = (VpLineTarget){0};
    vp_loop_post(client->lines->loop, open_on_loop, vp_line_client_ref(client));
}

void vp_line_client_leave(VpLineClient *client)
{
    detach(client);
}

VpLoop *vp_line_client_loop(const VpLineClient *client)
{
    return client->lines->loop;
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

VpDomains *vp_lines_domains(VpLines *lines)
{
    return lines->domains;
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
