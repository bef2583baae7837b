/* The client of a guest's agent: see agent.h. The protocol is JSON objects, one a line: docs/interop/qemu-ga-ref of QEMU. */
#include "agent.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent_reader.h"
#include "base/thread.h"

#define READ_BYTES 65536
/* So that a guest that floods us does not hold the loop: the rest is read in the next turn. */
#define READS_PER_TURN 4

typedef struct Pending {
    char *command;
    json_t *arguments;
    gint64 deadline_us;
    const char *refused; /* never to be sent: the reason, AGENT_NOT_CONNECTED or AGENT_BUSY */
    VpAgentDone done;
    void *data;
} Pending;

struct VpAgent {
    uv_timer_t timer; /* the earliest deadline, of a command or of the sync */
    uv_poll_t *poll;  /* NULL: not open */
    int fd;
    const VpAgentHandler *handler;
    void *data;
    guint busy; /* callbacks under way: vp_agent_free() within one frees later */
    gboolean released;
    VpAgentReader reader;
    GByteArray *output;
    GQueue pending;     /* of Pending, those that wait */
    Pending *current;   /* was sent */
    gboolean synced;    /* it answers: what comes is the answer to `current` */
    json_int_t sync_id; /* what it was asked to give back */
    gint64 sync_due_us; /* when it is asked again */
    gboolean told_silent;
};

/* Commands that are answered if they fail alone, so that a sync is sent after them: when it is answered they have been done. */
static gboolean has_no_answer(const char *command)
{
    static const char *const silent[] = {"guest-shutdown", "guest-suspend-disk", "guest-suspend-ram",
                                         "guest-suspend-hybrid", NULL};

    return g_strv_contains(silent, command);
}

/* ---- the end of a command ---- */

static void enter(VpAgent *agent)
{
    agent->busy++;
}

static void timer_closed(uv_handle_t *handle)
{
    VpAgent *agent = handle->data;

    vp_agent_reader_clear(&agent->reader);
    g_byte_array_unref(agent->output);
    g_free(agent);
}

static void leave(VpAgent *agent)
{
    if (--agent->busy == 0 && agent->released)
        uv_close((uv_handle_t *)&agent->timer, timer_closed);
}

/* Among the arguments there may have been a password. */
static void wipe(json_t *arguments)
{
    const char *key;
    json_t *value;

    json_object_foreach(arguments, key, value)
    {
        if (json_is_string(value) && json_string_length(value) > 0)
            explicit_bzero((char *)json_string_value(value), json_string_length(value));
    }
}

static void pending_end(Pending *pending, json_t *result, VpError *error)
{
    pending->done(pending->data, result, error);
    wipe(pending->arguments);
    json_decref(pending->arguments);
    g_free(pending->command);
    g_free(pending);
}

static void end_current(VpAgent *agent, json_t *result, VpError *error)
{
    Pending *current = g_steal_pointer(&agent->current);

    if (current)
        pending_end(current, result, error);
    else
        vp_error_free(error);
}

static VpError *refusal(const Pending *pending)
{
    if (strcmp(pending->refused, "AGENT_BUSY") == 0)
        return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "AGENT_BUSY",
                                           "%d commands wait for the guest's agent already", VP_AGENT_MAX_PENDING),
                              1000);
    return vp_error_new(VP_FAILED_PRECONDITION, "AGENT_NOT_CONNECTED",
                        "no agent has its port open in the guest; install and start qemu-guest-agent there");
}

static VpError *gone(const Pending *pending)
{
    return vp_error_new(VP_UNAVAILABLE, "AGENT_DISCONNECTED", "the guest's agent went away before it answered %s",
                        pending->command);
}

static VpError *timed_out(const Pending *pending)
{
    return vp_error_new(VP_DEADLINE_EXCEEDED, "AGENT_TIMEOUT", "the guest's agent did not answer %s in time",
                        pending->command);
}

/* ---- the timer ---- */

static void on_timer(uv_timer_t *timer);
static void send_sync(VpAgent *agent, gboolean first);

static void arm(VpAgent *agent)
{
    gint64 earliest_us = agent->current ? agent->current->deadline_us : G_MAXINT64;

    if (agent->released)
        return;
    if (agent->poll && !agent->synced)
        earliest_us = MIN(earliest_us, agent->sync_due_us);
    for (const GList *link = agent->pending.head; link; link = link->next) {
        const Pending *pending = link->data;

        earliest_us = MIN(earliest_us, pending->refused ? 0 : pending->deadline_us);
    }
    if (earliest_us == G_MAXINT64) {
        uv_timer_stop(&agent->timer);
        return;
    }
    const gint64 left_us = MAX(0, earliest_us - vp_now_us());
    uv_update_time(agent->timer.loop);
    uv_timer_start(&agent->timer, on_timer, (guint64)(left_us + 999) / 1000, 0);
}

/* Ends those that wait and whose time is up. */
static void end_late(VpAgent *agent, gint64 now_us)
{
    for (GList *link = agent->pending.head; link;) {
        Pending *pending = link->data;

        if (!pending->refused && pending->deadline_us > now_us) {
            link = link->next;
            continue;
        }
        g_queue_delete_link(&agent->pending, link);
        pending_end(pending, NULL, pending->refused ? refusal(pending) : timed_out(pending));
        link = agent->pending.head; /* the callee may have changed the queue */
    }
}

static void on_timer(uv_timer_t *timer)
{
    VpAgent *agent = timer->data;
    const gint64 now_us = vp_now_us();

    enter(agent);
    if (agent->current && agent->current->deadline_us <= now_us) {
        if (agent->poll && agent->synced)
            send_sync(agent, /* first= */ TRUE);
        end_current(agent, NULL, timed_out(agent->current));
    }
    end_late(agent, now_us);
    if (!agent->released && agent->poll && !agent->synced && agent->sync_due_us <= now_us) {
        const gboolean tell = !agent->told_silent;

        agent->told_silent = TRUE;
        send_sync(agent, /* first= */ FALSE);
        if (tell)
            agent->handler->silent(agent->data);
    }
    arm(agent);
    leave(agent);
}

/* ---- sending ---- */

static void on_poll(uv_poll_t *poll, int status, int events);

static void flush(VpAgent *agent)
{
    while (agent->output->len > 0) {
        const ssize_t n = send(agent->fd, agent->output->data, agent->output->len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        /* A broken connection is told by reading. */
        if (n < 0)
            break;
        /* What was said may have been a password. */
        const guint left = agent->output->len - (guint)n;
        memmove(agent->output->data, agent->output->data + n, left);
        explicit_bzero(agent->output->data + left, (gsize)n);
        g_byte_array_set_size(agent->output, left);
    }
    uv_poll_start(agent->poll, UV_READABLE | (agent->output->len > 0 ? UV_WRITABLE : 0), on_poll);
}

static void append_command(VpAgent *agent, const char *command, json_t *arguments)
{
    json_t *request = json_pack("{s:s}", "execute", command);

    if (arguments)
        json_object_set(request, "arguments", arguments);
    /* In one piece, and nowhere else: there may be a password in it. */
    const gsize flags = JSON_COMPACT | JSON_ENSURE_ASCII;
    const gsize size = json_dumpb(request, NULL, 0, flags);
    const guint at = agent->output->len;
    g_byte_array_set_size(agent->output, at + (guint)size + 1);
    json_dumpb(request, (char *)agent->output->data + at, size, flags);
    agent->output->data[at + size] = '\n';
    json_decref(request);
}

static void append_sync(VpAgent *agent)
{
    json_t *arguments = json_pack("{s:I}", "id", ++agent->sync_id);

    append_command(agent, "guest-sync-delimited", arguments);
    json_decref(arguments);
}

/* Until it has given back the number nothing else that comes is looked at. */
static void await_sync(VpAgent *agent)
{
    agent->synced = FALSE;
    agent->sync_due_us = vp_now_us() + (gint64)VP_AGENT_SYNC_MS * 1000;
    vp_agent_reader_wait(&agent->reader);
}

/* Asks it to show that it listens. `first`: it had answered, or was not asked before. */
static void send_sync(VpAgent *agent, gboolean first)
{
    static const guint8 flush_parser = 0xff;

    await_sync(agent);
    /* A guest that reads nothing gets nothing more. */
    if (agent->output->len > 0 && !first)
        return;
    g_byte_array_append(agent->output, &flush_parser, 1);
    append_sync(agent);
    flush(agent);
}

/* Sends the next command, if it can take one. */
static void send_next(VpAgent *agent)
{
    if (!agent->poll || !agent->synced || agent->current || agent->released)
        return;
    agent->current = g_queue_pop_head(&agent->pending);
    if (!agent->current)
        return;
    agent->reader.max_bytes =
        strcmp(agent->current->command, "guest-exec-status") == 0 ? VP_AGENT_MAX_MESSAGE : VP_AGENT_COMMON_MESSAGE;
    append_command(agent, agent->current->command, agent->current->arguments);
    if (has_no_answer(agent->current->command))
        append_sync(agent);
    flush(agent);
}

void vp_agent_execute(VpAgent *agent, const char *command, json_t *arguments, gint64 deadline_us, VpAgentDone done,
                      void *data)
{
    Pending *pending = g_new0(Pending, 1);

    pending->command = g_strdup(command);
    pending->arguments = arguments;
    pending->deadline_us = deadline_us;
    pending->done = done;
    pending->data = data;
    if (!agent->poll)
        pending->refused = "AGENT_NOT_CONNECTED";
    else if (agent->pending.length >= VP_AGENT_MAX_PENDING)
        pending->refused = "AGENT_BUSY";
    if (pending->refused)
        g_queue_push_head(&agent->pending, pending);
    else
        g_queue_push_tail(&agent->pending, pending);
    if (!pending->refused)
        send_next(agent);
    arm(agent);
}

/* ---- receiving ---- */

static VpError *agent_error(const Pending *pending, json_t *error)
{
    const char *class = json_string_value(json_object_get(error, "class"));
    const char *words = json_string_value(json_object_get(error, "desc"));

    /* What is written is a guest's: there is an end to it. */
    g_autofree char *text = g_strndup(words ? words : "no reason given", 1024);
    g_autofree char *shown = g_utf8_make_valid(text, -1);
    if (words && strstr(words, "has been disabled") && strstr(words, "frozen"))
        return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "GUEST_FROZEN",
                                          "the guest's file systems are frozen, and its agent does not do %s until "
                                          "they are thawed",
                                          pending->command),
                             "command", pending->command);
    if (words && strstr(words, "has been disabled"))
        return vp_error_with(
            vp_error_new(VP_FAILED_PRECONDITION, "AGENT_COMMAND_BLOCKED",
                         "the guest's administrator has switched %s off; to allow it take it out of the "
                         "agent's block-rpcs in the guest, in /etc/qemu/qemu-ga.conf or "
                         "/etc/sysconfig/qemu-ga, and restart the agent",
                         pending->command),
            "command", pending->command);
    if (class && strcmp(class, "CommandNotFound") == 0)
        return vp_error_with(vp_error_new(VP_UNIMPLEMENTED, "AGENT_LACKS_COMMAND", "the guest's agent has no %s: %s",
                                          pending->command, shown),
                             "command", pending->command);
    return vp_error_with(vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "AGENT_ERROR",
                                                    "the guest's agent refused %s: %s", pending->command, shown),
                                       "class", class && strlen(class) < 64 ? class : ""),
                         "command", pending->command);
}

static gboolean is_sync(const VpAgent *agent, json_t *message, gboolean delimited)
{
    json_t *id = json_object_get(message, "return");

    return delimited && json_is_integer(id) && json_integer_value(id) == agent->sync_id;
}

static void on_sync(VpAgent *agent)
{
    agent->synced = TRUE;
    agent->told_silent = FALSE;
    agent->handler->answers(agent->data);
}

static void on_answer(VpAgent *agent, json_t *message, gboolean delimited)
{
    json_t *error = json_object_get(message, "error");
    json_t *result = json_object_get(message, "return");
    const gboolean silent = has_no_answer(agent->current->command);

    if (silent && is_sync(agent, message, delimited)) {
        end_current(agent, NULL, NULL);
    } else if (json_is_object(error)) {
        /* Its sync is still to come. */
        if (silent)
            await_sync(agent);
        end_current(agent, NULL, agent_error(agent->current, error));
    } else if (!silent && result && !delimited) {
        end_current(agent, result, NULL);
    }
}

static void on_message(VpAgent *agent, json_t *message, gboolean delimited)
{
    if (!agent->synced && is_sync(agent, message, delimited))
        on_sync(agent);
    else if (!agent->synced)
        vp_agent_reader_wait(&agent->reader);
    else if (agent->current)
        on_answer(agent, message, delimited);
}

/* What came is no answer that can be read. */
static void on_unreadable(VpAgent *agent, VpAgentRead read)
{
    if (!agent->synced) {
        vp_agent_reader_wait(&agent->reader);
        return;
    }
    if (!agent->current)
        return;
    send_sync(agent, /* first= */ TRUE);
    end_current(agent, NULL,
                read == VP_AGENT_READ_TOO_LARGE
                    ? vp_error_new(VP_RESOURCE_EXHAUSTED, "AGENT_ANSWER_TOO_LARGE",
                                   "what the guest's agent answered to %s is too large", agent->current->command)
                    : vp_error_new(VP_UNAVAILABLE, "AGENT_GARBAGE",
                                   "what the guest's agent answered to %s is no answer", agent->current->command));
}

static void take_messages(VpAgent *agent, const guint8 *data, gsize length)
{
    while (!agent->released && agent->poll) {
        json_t *message = NULL;
        gboolean delimited = FALSE;
        const VpAgentRead read = vp_agent_reader_take(&agent->reader, &data, &length, &message, &delimited);

        if (read == VP_AGENT_READ_MORE)
            break;
        if (message)
            on_message(agent, message, delimited);
        else
            on_unreadable(agent, read);
        json_decref(message);
    }
}

/* FALSE: nothing more for now. */
static gboolean read_some(VpAgent *agent)
{
    guint8 buffer[READ_BYTES];
    const ssize_t n = recv(agent->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

    if (n > 0) {
        take_messages(agent, buffer, (gsize)n);
        return !agent->released && agent->poll;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        vp_agent_shut(agent);
        if (!agent->released)
            agent->handler->silent(agent->data);
    }
    return FALSE;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    VpAgent *agent = poll->data;
    guint reads = READS_PER_TURN;

    enter(agent);
    if (status == 0 && (events & UV_WRITABLE))
        flush(agent);
    while (reads-- > 0 && read_some(agent))
        ;
    send_next(agent);
    arm(agent);
    leave(agent);
}

/* ---- coming and going ---- */

static void poll_closed(uv_handle_t *handle)
{
    close((int)GPOINTER_TO_INT(handle->data));
    g_free(handle);
}

VpAgent *vp_agent_new(uv_loop_t *uv, const VpAgentHandler *handler, void *data)
{
    VpAgent *agent = g_new0(VpAgent, 1);

    agent->fd = -1;
    agent->handler = handler;
    agent->data = data;
    agent->output = g_byte_array_new();
    /* Numbers that a former daemon did not use: its answers may still be on their way. */
    agent->sync_id = g_random_int() & G_MAXINT32;
    vp_agent_reader_init(&agent->reader);
    uv_timer_init(uv, &agent->timer);
    agent->timer.data = agent;
    return agent;
}

VpError *vp_agent_open(VpAgent *agent, int fd)
{
    uv_poll_t *poll = g_new0(uv_poll_t, 1);
    const int r = uv_poll_init(agent->timer.loop, poll, fd);

    if (r < 0) {
        g_free(poll);
        close(fd);
        return vp_error_errno(-r, "AGENT_FAILED", "cannot watch the socket of the guest's agent");
    }
    vp_agent_shut(agent);
    poll->data = agent;
    agent->poll = poll;
    agent->fd = fd;
    agent->told_silent = FALSE;
    send_sync(agent, /* first= */ TRUE);
    arm(agent);
    return NULL;
}

void vp_agent_shut(VpAgent *agent)
{
    uv_poll_t *poll = g_steal_pointer(&agent->poll);

    if (!poll)
        return;
    enter(agent);
    poll->data = GINT_TO_POINTER(agent->fd);
    uv_close((uv_handle_t *)poll, poll_closed);
    agent->fd = -1;
    agent->synced = FALSE;
    g_byte_array_set_size(agent->output, 0);
    /* Those that a callee adds find it shut, and end from the timer. */
    GQueue waiting = agent->pending;
    g_queue_init(&agent->pending);
    if (agent->current)
        end_current(agent, NULL, has_no_answer(agent->current->command) ? NULL : gone(agent->current));
    for (Pending *pending = g_queue_pop_head(&waiting); pending; pending = g_queue_pop_head(&waiting))
        pending_end(pending, NULL, pending->refused ? refusal(pending) : gone(pending));
    arm(agent);
    leave(agent);
}

gboolean vp_agent_is_open(const VpAgent *agent)
{
    return agent->poll != NULL;
}

gboolean vp_agent_is_ready(const VpAgent *agent)
{
    return agent->synced;
}

void vp_agent_free(VpAgent *agent)
{
    if (!agent || agent->released)
        return;
    enter(agent);
    vp_agent_shut(agent);
    agent->released = TRUE;
    end_late(agent, G_MAXINT64);
    uv_timer_stop(&agent->timer);
    leave(agent);
}
