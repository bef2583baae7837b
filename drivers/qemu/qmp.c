/* The QMP client: see qmp.h. QMP is JSON objects, one a line: docs/interop/qmp-spec.txt of QEMU. */
#include "qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/thread.h"

#define READ_BYTES 65536
/* So that a peer that floods us does not hold the loop: the rest is read in the next turn. */
#define READS_PER_TURN 16

typedef struct Pending {
    guint64 id;
    gint64 deadline_us; /* 0: none */
    char *line;         /* not sent yet; NULL: sent */
    int fd;             /* goes with the line; -1: none */
    gboolean refused;   /* never to be sent: too much is under way */
    VpQmpDone done;
    void *data;
} Pending;

/* A descriptor that goes out with the byte of `output` that is `at` bytes from its begin. */
typedef struct Passed {
    gsize at;
    int fd;
} Passed;

struct VpQmp {
    uv_poll_t poll;
    uv_timer_t timer; /* the earliest deadline of a pending command, or at once for a failure to tell */
    guint handles;    /* open ones: it is freed with the last */
    int fd;
    const VpQmpHandler *handler;
    void *data;
    guint busy;        /* callbacks that are under way: vp_qmp_close() within one frees later */
    gboolean released; /* the owner has let go */
    gboolean held;     /* commands are being gathered */
    gboolean ready;
    gboolean greeted;
    VpError *failure; /* the connection is gone */
    gboolean told;    /* `closed` was called */
    guint64 next_id;
    GQueue pending; /* of Pending, in the order of their ids */
    GByteArray *input;
    gsize scanned; /* bytes of `input` known to hold no end of line */
    GByteArray *output;
    GArray *passed; /* of Passed, in the order of their places */
};

static void arm(VpQmp *qmp);
static void fail(VpQmp *qmp, VpError *error);

/* ---- the end ---- */

static void drop_passed(VpQmp *qmp)
{
    for (guint i = 0; i < qmp->passed->len; i++)
        close(g_array_index(qmp->passed, Passed, i).fd);
    g_array_set_size(qmp->passed, 0);
}

static void handle_closed(uv_handle_t *handle)
{
    VpQmp *qmp = handle->data;

    if (--qmp->handles > 0)
        return;
    close(qmp->fd);
    drop_passed(qmp);
    g_array_unref(qmp->passed);
    vp_error_free(qmp->failure);
    g_byte_array_unref(qmp->input);
    g_byte_array_unref(qmp->output);
    g_free(qmp);
}

static void close_handles(VpQmp *qmp)
{
    uv_close((uv_handle_t *)&qmp->poll, handle_closed);
    uv_close((uv_handle_t *)&qmp->timer, handle_closed);
}

static void enter(VpQmp *qmp)
{
    qmp->busy++;
}

static void leave(VpQmp *qmp)
{
    if (--qmp->busy == 0 && qmp->released)
        close_handles(qmp);
}

static void pending_end(VpQmp *qmp, Pending *pending, json_t *result, VpError *error)
{
    enter(qmp);
    pending->done(pending->data, result, error);
    if (pending->fd >= 0)
        close(pending->fd);
    g_free(pending->line);
    g_free(pending);
    leave(qmp);
}

/* Ends all pending commands with a copy of `error`. */
static void end_all(VpQmp *qmp, const VpError *error)
{
    Pending *pending;

    while ((pending = g_queue_pop_head(&qmp->pending)))
        pending_end(qmp, pending, NULL, vp_error_copy(error));
}

/* The connection is of no use any more. What is told is told from the timer, so that no one is called back from within a call of his own. */
static void fail(VpQmp *qmp, VpError *error)
{
    if (qmp->failure || qmp->released) {
        vp_error_free(error);
        return;
    }
    qmp->failure = error;
    uv_poll_stop(&qmp->poll);
    arm(qmp);
}

static void tell_failure(VpQmp *qmp)
{
    enter(qmp);
    end_all(qmp, qmp->failure);
    if (!qmp->released && !qmp->told) {
        qmp->told = TRUE;
        qmp->handler->closed(qmp->data, qmp->failure);
    }
    leave(qmp);
}

void vp_qmp_close(VpQmp *qmp)
{
    if (!qmp || qmp->released)
        return;
    g_autoptr(VpError) error = vp_error_new(VP_CANCELLED, "QMP_CLOSED", "the connection to QEMU was closed");

    enter(qmp);
    qmp->released = TRUE;
    uv_poll_stop(&qmp->poll);
    uv_timer_stop(&qmp->timer);
    end_all(qmp, error);
    leave(qmp);
}

/* ---- deadlines ---- */

static void on_timer(uv_timer_t *timer)
{
    VpQmp *qmp = timer->data;

    enter(qmp);
    if (qmp->failure)
        tell_failure(qmp);
    const gint64 now_us = vp_now_us();
    for (GList *link = qmp->pending.head; link;) {
        Pending *pending = link->data;

        if (pending->deadline_us == 0 || pending->deadline_us > now_us) {
            link = link->next;
            continue;
        }
        g_queue_delete_link(&qmp->pending, link);
        pending_end(qmp, pending, NULL,
                    pending->refused
                        ? vp_error_new(VP_RESOURCE_EXHAUSTED, "QMP_QUEUE_FULL",
                                       "too many commands wait for QEMU's answer")
                        : vp_error_new(VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT", "QEMU did not answer in time"));
        link = qmp->pending.head; /* the callee may have changed the queue */
    }
    if (!qmp->released)
        arm(qmp);
    leave(qmp);
}

static void arm(VpQmp *qmp)
{
    gint64 earliest_us = qmp->failure && (!qmp->told || qmp->pending.length > 0) ? 1 : 0;

    for (const GList *link = qmp->pending.head; link; link = link->next) {
        const Pending *pending = link->data;

        if (pending->deadline_us != 0 && (earliest_us == 0 || pending->deadline_us < earliest_us))
            earliest_us = pending->deadline_us;
    }
    if (earliest_us == 0) {
        uv_timer_stop(&qmp->timer);
        return;
    }
    const gint64 left_us = MAX(0, earliest_us - vp_now_us());
    uv_update_time(qmp->timer.loop);
    uv_timer_start(&qmp->timer, on_timer, (guint64)(left_us + 999) / 1000, 0);
}

/* ---- sending ---- */

static void on_poll(uv_poll_t *poll, int status, int events);

/* Sends up to the next byte that a descriptor goes with, or that byte's part with it. */
static ssize_t send_some(VpQmp *qmp)
{
    const Passed *passed = qmp->passed->len > 0 ? &g_array_index(qmp->passed, Passed, 0) : NULL;
    const Passed *next = qmp->passed->len > 1 ? passed + 1 : NULL;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};

    if (!passed || passed->at > 0)
        return send(qmp->fd, qmp->output->data, passed ? passed->at : qmp->output->len, MSG_NOSIGNAL | MSG_DONTWAIT);
    struct iovec bytes = {.iov_base = qmp->output->data, .iov_len = next ? next->at : qmp->output->len};
    struct msghdr message = {.msg_iov = &bytes,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    control.header =
        (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &passed->fd, sizeof(int));
    const ssize_t n = sendmsg(qmp->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
        close(passed->fd);
        g_array_remove_index(qmp->passed, 0);
    }
    return n;
}

static void flush(VpQmp *qmp)
{
    while (qmp->output->len > 0) {
        const ssize_t n = send_some(qmp);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            /* What the peer said before it went is still to be read: the end of the input tells the failure. */
            g_byte_array_set_size(qmp->output, 0);
            drop_passed(qmp);
            break;
        }
        if (n < 0)
            break;
        g_byte_array_remove_range(qmp->output, 0, (guint)n);
        for (guint i = 0; i < qmp->passed->len; i++)
            g_array_index(qmp->passed, Passed, i).at -= (gsize)n;
    }
    uv_poll_start(&qmp->poll, UV_READABLE | (qmp->output->len > 0 ? UV_WRITABLE : 0), on_poll);
}

static void append_line(VpQmp *qmp, const char *line, int fd)
{
    const Passed passed = {.at = qmp->output->len, .fd = fd};

    if (fd >= 0)
        g_array_append_val(qmp->passed, passed);
    g_byte_array_append(qmp->output, (const guint8 *)line, (guint)strlen(line));
}

static int take_fd(Pending *pending)
{
    const int fd = pending->fd;

    pending->fd = -1;
    return fd;
}

/* Sends what waited for the negotiation. */
static void send_waiting(VpQmp *qmp)
{
    for (GList *link = qmp->pending.head; link; link = link->next) {
        Pending *pending = link->data;
        g_autofree char *line = g_steal_pointer(&pending->line);

        if (line)
            append_line(qmp, line, take_fd(pending));
    }
    flush(qmp);
}

void vp_qmp_execute(VpQmp *qmp, const char *command, json_t *arguments, gint64 deadline_us, VpQmpDone done, void *data)
{
    vp_qmp_execute_with_fd(qmp, command, arguments, -1, deadline_us, done, data);
}

void vp_qmp_execute_with_fd(VpQmp *qmp, const char *command, json_t *arguments, int fd, gint64 deadline_us,
                            VpQmpDone done, void *data)
{
    Pending *pending = g_new0(Pending, 1);
    json_t *request = json_pack("{s:s, s:I}", "execute", command, "id", (json_int_t)qmp->next_id);

    if (arguments)
        json_object_set_new(request, "arguments", arguments);
    char *text = json_dumps(request, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(request);

    const gboolean full = qmp->pending.length >= VP_QMP_MAX_PENDING || qmp->output->len > VP_QMP_MAX_OUTPUT;
    pending->id = qmp->next_id++;
    pending->deadline_us = deadline_us;
    pending->fd = fd < 0 || full ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    pending->line = full ? NULL : g_strconcat(text, "\n", NULL);
    pending->done = done;
    pending->data = data;
    free(text);
    if (full) {
        pending->refused = TRUE;
        pending->deadline_us = 1; /* long past: it ends from the timer */
    }
    g_queue_push_tail(&qmp->pending, pending);
    if (qmp->ready && !qmp->failure && pending->line) {
        g_autofree char *line = g_steal_pointer(&pending->line);

        append_line(qmp, line, take_fd(pending));
        if (!qmp->held)
            flush(qmp);
    }
    arm(qmp);
}

void vp_qmp_hold(VpQmp *qmp)
{
    qmp->held = TRUE;
}

void vp_qmp_send(VpQmp *qmp)
{
    qmp->held = FALSE;
    if (qmp->ready && !qmp->failure)
        flush(qmp);
}

/* ---- receiving ---- */

static VpError *protocol_error(const char *what)
{
    return vp_error_new(VP_UNAVAILABLE, "QMP_PROTOCOL", "what answers on the QMP socket is not QEMU: %s", what);
}

static VpError *peer_error(json_t *error)
{
    const char *class = json_string_value(json_object_get(error, "class"));
    const char *text = json_string_value(json_object_get(error, "desc"));

    return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "QMP_ERROR", "QEMU refused: %s",
                                      text ? text : "no reason given"),
                         "class", class ? class : "");
}

static void on_negotiated(void *data, json_t *result, VpError *error)
{
    VpQmp *qmp = data;

    (void)result;
    if (error) {
        if (!qmp->released && error->reason && strcmp(error->reason, "QMP_ERROR") == 0)
            fail(qmp, vp_error_copy(error));
        vp_error_free(error);
        return;
    }
    qmp->ready = TRUE;
    send_waiting(qmp);
    qmp->handler->ready(qmp->data);
}

static void on_greeting(VpQmp *qmp)
{
    Pending *pending = g_new0(Pending, 1);

    qmp->greeted = TRUE;
    pending->id = qmp->next_id++;
    pending->fd = -1;
    pending->done = on_negotiated;
    pending->data = qmp;
    g_queue_push_tail(&qmp->pending, pending);
    g_autofree char *line =
        g_strdup_printf("{\"execute\":\"qmp_capabilities\",\"id\":%" G_GUINT64_FORMAT "}\n", pending->id);
    append_line(qmp, line, -1);
    flush(qmp);
}

static void on_reply(VpQmp *qmp, json_t *message)
{
    json_t *id = json_object_get(message, "id");
    json_t *error = json_object_get(message, "error");
    json_t *result = json_object_get(message, "return");

    if (!json_is_number(id)) {
        /* QEMU answers so only to what it could not parse; we sent no such thing. */
        fail(qmp, protocol_error("an answer without an id"));
        return;
    }
    for (GList *link = qmp->pending.head; link; link = link->next) {
        Pending *pending = link->data;

        if ((double)pending->id != json_number_value(id) || pending->line)
            continue;
        g_queue_delete_link(&qmp->pending, link);
        pending_end(qmp, pending, result, error ? peer_error(error) : NULL);
        return;
    }
    /* An answer to a command whose deadline has passed: nobody waits for it. */
}

static void on_message(VpQmp *qmp, json_t *message)
{
    const char *event = json_string_value(json_object_get(message, "event"));

    if (json_object_get(message, "QMP") && !qmp->greeted)
        on_greeting(qmp);
    else if (event)
        qmp->handler->event(qmp->data, event, json_object_get(message, "data"));
    else if (json_object_get(message, "return") || json_object_get(message, "error"))
        on_reply(qmp, message);
    else
        fail(qmp, protocol_error("a message that is no greeting, event or answer"));
}

static void on_line(VpQmp *qmp, const char *line, gsize length)
{
    json_error_t why;

    if (length == 0 || (length == 1 && line[0] == '\r'))
        return;
    json_t *message = json_loadb(line, length, 0, &why);
    /* QEMU's numbers may be of 64 bits without a sign, which Jansson's are not. */
    if (!message && json_error_code(&why) == json_error_numeric_overflow)
        message = json_loadb(line, length, JSON_DECODE_INT_AS_REAL, &why);
    if (!json_is_object(message)) {
        fail(qmp, protocol_error(message ? "a line that is no JSON object" : why.text));
        json_decref(message);
        return;
    }
    on_message(qmp, message);
    json_decref(message);
}

/* Takes the whole lines out of the input. */
static void take_lines(VpQmp *qmp)
{
    gsize start = 0;

    while (!qmp->released && !qmp->failure) {
        const guint8 *end = memchr(qmp->input->data + qmp->scanned, '\n', qmp->input->len - qmp->scanned);

        if (!end)
            break;
        const gsize at = (gsize)(end - qmp->input->data);
        qmp->scanned = at + 1;
        on_line(qmp, (const char *)qmp->input->data + start, at - start);
        start = at + 1;
    }
    g_byte_array_remove_range(qmp->input, 0, (guint)start);
    qmp->scanned = qmp->input->len;
    if (qmp->input->len > VP_QMP_MAX_LINE && !qmp->failure)
        fail(qmp, protocol_error("a line without an end"));
}

/* FALSE: nothing more for now. */
static gboolean read_some(VpQmp *qmp)
{
    guint8 buffer[READ_BYTES];
    const ssize_t n = recv(qmp->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

    if (n > 0) {
        g_byte_array_append(qmp->input, buffer, (guint)n);
        take_lines(qmp);
        return !qmp->released && !qmp->failure;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return FALSE;
    fail(qmp, vp_error_new(VP_UNAVAILABLE, "QMP_CLOSED", "QEMU closed its QMP socket%s%s", n < 0 ? ": " : "",
                           n < 0 ? g_strerror(errno) : ""));
    return FALSE;
}

static void read_turn(VpQmp *qmp, guint reads)
{
    enter(qmp);
    while (reads-- > 0 && read_some(qmp))
        ;
    leave(qmp);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    VpQmp *qmp = poll->data;

    if (status == 0 && (events & UV_WRITABLE))
        flush(qmp);
    read_turn(qmp, READS_PER_TURN);
}

void vp_qmp_drain(VpQmp *qmp)
{
    if (!qmp->released && !qmp->failure)
        read_turn(qmp, G_MAXUINT);
}

VpQmp *vp_qmp_new(uv_loop_t *uv, int fd, const VpQmpHandler *handler, void *data, VpError **error)
{
    VpQmp *qmp = g_new0(VpQmp, 1);
    const int r = uv_poll_init(uv, &qmp->poll, fd);

    if (r < 0) {
        *error = vp_error_errno(-r, "QMP_FAILED", "cannot watch the QMP socket");
        g_free(qmp);
        close(fd);
        return NULL;
    }
    uv_timer_init(uv, &qmp->timer);
    qmp->poll.data = qmp;
    qmp->timer.data = qmp;
    qmp->handles = 2;
    qmp->fd = fd;
    qmp->handler = handler;
    qmp->data = data;
    qmp->next_id = 1;
    g_queue_init(&qmp->pending);
    qmp->input = g_byte_array_new();
    qmp->output = g_byte_array_new();
    qmp->passed = g_array_new(FALSE, FALSE, sizeof(Passed));
    uv_poll_start(&qmp->poll, UV_READABLE, on_poll);
    return qmp;
}
