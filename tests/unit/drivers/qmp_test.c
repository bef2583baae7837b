/* The QMP client against a peer that this test plays, at the other end of a socket pair: well-behaved, rude, silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/loop.h"
#include "base/thread.h"
#include "drivers/qemu/qmp.h"

#define GREETING                                                                                                       \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, \"capabilities\": "              \
    "[\"oob\"]}}\r\n"
#define WAIT_US (30 * G_USEC_PER_SEC)

/* Both ends, and a log of what the client called back, one word a callback. */
typedef struct Talk {
    VpLoop *loop;
    VpQmp *qmp;
    int client_fd;
    int peer_fd;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    GString *log;
    gboolean close_in_event;
    gboolean close_in_closed;
    gboolean gone; /* the client was closed on the loop */
} Talk;

static void note(Talk *talk, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void note(Talk *talk, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    VP_LOCK(&talk->mutex);
    g_string_append_vprintf(talk->log, format, args);
    g_string_append_c(talk->log, ' ');
    pthread_cond_broadcast(&talk->changed);
    va_end(args);
}

static void on_ready(void *data)
{
    note(data, "ready");
}

static void on_event(void *data, const char *name, json_t *arguments)
{
    Talk *talk = data;
    const char *reason = json_string_value(json_object_get(arguments, "reason"));

    if (talk->close_in_event)
        vp_qmp_close(g_steal_pointer(&talk->qmp));
    note(talk, "event:%s:%s", name, reason ? reason : "-");
}

static void on_closed(void *data, const VpError *error)
{
    Talk *talk = data;

    if (talk->close_in_closed)
        vp_qmp_close(g_steal_pointer(&talk->qmp));
    note(talk, "closed:%s", error->reason);
}

static const VpQmpHandler handler = {.ready = on_ready, .event = on_event, .closed = on_closed};

static void open_on_loop(void *data)
{
    Talk *talk = data;
    VpError *error = NULL;

    talk->qmp = vp_qmp_new(vp_loop_uv(talk->loop), talk->client_fd, &handler, talk, &error);
    if (error)
        note(talk, "error:%s", error->reason);
    vp_error_free(error);
}

static void close_on_loop(void *data)
{
    Talk *talk = data;

    vp_qmp_close(g_steal_pointer(&talk->qmp));
    VP_LOCK(&talk->mutex);
    talk->gone = TRUE;
    pthread_cond_broadcast(&talk->changed);
}

static int setup(void **state)
{
    Talk *talk = g_new0(Talk, 1);
    VpError *error = NULL;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    talk->client_fd = fds[0];
    talk->peer_fd = fds[1];
    const struct timeval limit = {.tv_sec = 30};
    setsockopt(talk->peer_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    pthread_mutex_init(&talk->mutex, NULL);
    vp_cond_init(&talk->changed);
    talk->log = g_string_new(NULL);
    talk->loop = vp_loop_new("qmp-test", &error);
    assert_null(error);
    vp_loop_post(talk->loop, open_on_loop, talk);
    *state = talk;
    return 0;
}

static int teardown(void **state)
{
    Talk *talk = *state;

    vp_loop_post(talk->loop, close_on_loop, talk);
    vp_loop_free(talk->loop);
    if (talk->peer_fd >= 0)
        close(talk->peer_fd);
    g_string_free(talk->log, TRUE);
    pthread_cond_destroy(&talk->changed);
    pthread_mutex_destroy(&talk->mutex);
    g_free(talk);
    return 0;
}

/* ---- the client's side ---- */

typedef struct Request {
    Talk *talk;
    char name[32];
    gint64 deadline_us;
    guint count;
} Request;

static void on_done(void *data, json_t *result, VpError *error)
{
    Request *request = data;
    g_autofree char *text = error ? g_strdup(error->reason) : NULL;

    if (!error)
        text = g_strdup_printf("%d", (int)json_integer_value(json_object_get(result, "n")));
    note(request->talk, "%s=%s", request->name, text);
    vp_error_free(error);
    g_free(request);
}

static void execute_on_loop(void *data)
{
    g_autofree Request *request = data;

    for (guint i = 0; i < request->count; i++) {
        if (!request->talk->qmp) {
            note(request->talk, "no-client");
            return;
        }
        vp_qmp_execute(request->talk->qmp, request->name, json_pack("{s:s}", "text", "a \"quoted\" \xc3\xa4"),
                       request->deadline_us, on_done, g_memdup2(request, sizeof(*request)));
    }
}

static void execute_many(Talk *talk, const char *name, gint64 timeout_ms, guint count)
{
    Request *request = g_new0(Request, 1);

    request->talk = talk;
    request->count = count;
    request->deadline_us = timeout_ms ? vp_now_us() + timeout_ms * 1000 : 0;
    g_strlcpy(request->name, name, sizeof(request->name));
    vp_loop_post(talk->loop, execute_on_loop, request);
}

static void execute(Talk *talk, const char *name, gint64 timeout_ms)
{
    execute_many(talk, name, timeout_ms, 1);
}

/* Waits for the whole log to be this. */
static void expect(Talk *talk, const char *log)
{
    const gint64 deadline_us = vp_now_us() + WAIT_US;

    VP_LOCK(&talk->mutex);
    while (talk->log->len < strlen(log)) {
        if (!vp_cond_wait_until(&talk->changed, &talk->mutex, deadline_us))
            fail_msg("'%s' came, not '%s'", talk->log->str, log);
    }
    assert_string_equal(talk->log->str, log);
    g_string_truncate(talk->log, 0);
}

/* ---- the peer's side ---- */

static void say(Talk *talk, const char *text)
{
    for (gsize done = 0; text[done];) {
        const ssize_t n = send(talk->peer_fd, text + done, strlen(text + done), MSG_NOSIGNAL);

        if (n < 0)
            return; /* the client has had enough */
        done += (gsize)n;
    }
}

/* Reads one line of the client's and returns its id. */
static gint64 hear(Talk *talk, const char *command)
{
    GString *line = g_string_new(NULL);
    char c = 0;

    while (c != '\n') {
        assert_int_equal(recv(talk->peer_fd, &c, 1, 0), 1);
        g_string_append_c(line, c);
    }
    json_t *message = json_loads(line->str, 0, NULL);
    assert_non_null(message);
    assert_string_equal(json_string_value(json_object_get(message, "execute")), command);
    const gint64 id = json_integer_value(json_object_get(message, "id"));
    json_decref(message);
    g_string_free(line, TRUE);
    return id;
}

static void answer(Talk *talk, gint64 id, int n)
{
    g_autofree char *text = g_strdup_printf("{\"return\": {\"n\": %d}, \"id\": %" G_GINT64_FORMAT "}\r\n", n, id);

    say(talk, text);
}

static void negotiate(Talk *talk)
{
    say(talk, GREETING);
    answer(talk, hear(talk, "qmp_capabilities"), 0);
    expect(talk, "ready ");
}

/* ---- tests ---- */

static void test_talk(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    execute(talk, "one", 0);
    answer(talk, hear(talk, "one"), 1);
    expect(talk, "one=1 ");
}

/* What QEMU tells of a guest's memory has 2^64-1 in it for "not known". */
static void test_numbers_of_64_bits(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    execute(talk, "one", 0);
    execute(talk, "two", 0);
    const gint64 one = hear(talk, "one");
    const gint64 two = hear(talk, "two");
    g_autofree char *huge =
        g_strdup_printf("{\"return\": {\"n\": 18446744073709551615}, \"id\": %" G_GINT64_FORMAT "}\r\n", two);
    say(talk, huge);
    answer(talk, one, 1);
    /* It is a real to the one who asked, and no end of the connection. */
    expect(talk, "two=0 one=1 ");
}

static void hold_and_send(void *data)
{
    Talk *talk = data;
    Request request = {.talk = talk};
    char seen[1024];

    vp_qmp_hold(talk->qmp);
    g_strlcpy(request.name, "first", sizeof(request.name));
    vp_qmp_execute(talk->qmp, "first", NULL, 0, on_done, g_memdup2(&request, sizeof(request)));
    g_strlcpy(request.name, "second", sizeof(request.name));
    vp_qmp_execute(talk->qmp, "second", NULL, 0, on_done, g_memdup2(&request, sizeof(request)));
    const ssize_t before = recv(talk->peer_fd, seen, sizeof(seen), MSG_DONTWAIT | MSG_PEEK);
    vp_qmp_send(talk->qmp);
    const ssize_t after = recv(talk->peer_fd, seen, sizeof(seen), MSG_DONTWAIT | MSG_PEEK);
    note(talk, "%s", before < 0 && after > 0 && memmem(seen, (size_t)after, "second", 6) ? "together" : "apart");
}

static void test_commands_that_are_gathered(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    vp_loop_post(talk->loop, hold_and_send, talk);
    expect(talk, "together ");
    const gint64 first = hear(talk, "first");
    answer(talk, hear(talk, "second"), 2);
    answer(talk, first, 1);
    expect(talk, "second=2 first=1 ");
}

/* Three commands in one go: two with the read end of a pipe that holds a letter, one between them without. */
static void execute_with_fds(void *data)
{
    Talk *talk = data;
    Request request = {.talk = talk};

    vp_qmp_hold(talk->qmp);
    for (guint i = 0; i < 3; i++) {
        int ends[2] = {-1, -1};

        if (i != 1) {
            assert_int_equal(pipe(ends), 0);
            assert_int_equal(write(ends[1], i == 0 ? "a" : "c", 1), 1);
            close(ends[1]);
        }
        g_strlcpy(request.name, "fd", sizeof(request.name));
        vp_qmp_execute_with_fd(talk->qmp, "fd", NULL, ends[0], 0, on_done, g_memdup2(&request, sizeof(request)));
        if (ends[0] >= 0)
            close(ends[0]);
    }
    vp_qmp_send(talk->qmp);
}

/* As hear(), of a command that has this letter's pipe with it; 0: none. */
static gint64 hear_fd(Talk *talk, char letter)
{
    char c = 0;
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec byte = {&c, 1};
    struct msghdr message = {.msg_iov = &byte,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    int fd = -1;

    /* QEMU reads a byte at a time, too: the first has the descriptor. */
    assert_int_equal(recvmsg(talk->peer_fd, &message, 0), 1);
    assert_int_equal(c, '{');
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    assert_int_equal(header != NULL, letter != 0);
    if (header) {
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
        assert_int_equal(read(fd, &c, 1), 1);
        assert_int_equal(c, letter);
        close(fd);
    }
    GString *line = g_string_new("{");
    while (c != '\n') {
        assert_int_equal(recv(talk->peer_fd, &c, 1, 0), 1);
        g_string_append_c(line, c);
    }
    json_t *command = json_loads(line->str, 0, NULL);
    const gint64 id = json_integer_value(json_object_get(command, "id"));
    json_decref(command);
    g_string_free(line, TRUE);
    return id;
}

static void test_descriptors_go_with_their_commands(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    vp_loop_post(talk->loop, execute_with_fds, talk);
    answer(talk, hear_fd(talk, 'a'), 1);
    answer(talk, hear_fd(talk, 0), 2);
    answer(talk, hear_fd(talk, 'c'), 3);
    expect(talk, "fd=1 fd=2 fd=3 ");
}

static void test_command_before_greeting(void **state)
{
    Talk *talk = *state;

    execute(talk, "early", 0);
    say(talk, GREETING);
    const gint64 id = hear(talk, "qmp_capabilities");
    answer(talk, id, 0);
    answer(talk, hear(talk, "early"), 7);
    expect(talk, "ready early=7 ");
}

static void test_events_between_replies_out_of_order(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    execute(talk, "one", 0);
    execute(talk, "two", 0);
    const gint64 one = hear(talk, "one");
    const gint64 two = hear(talk, "two");
    say(talk, "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n");
    answer(talk, two, 2);
    say(talk, "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\n");
    answer(talk, one, 1);
    expect(talk, "event:STOP:- two=2 event:SHUTDOWN:guest-shutdown one=1 ");
}

static void test_half_lines(void **state)
{
    Talk *talk = *state;

    for (const char *c = GREETING; *c; c++) {
        const char text[2] = {*c, '\0'};

        say(talk, text);
    }
    answer(talk, hear(talk, "qmp_capabilities"), 0);
    expect(talk, "ready ");
    say(talk, "{\"event\": \"A\"}\n\r\n\n{\"event\": \"B\"}\n{\"ev");
    expect(talk, "event:A:- event:B:- ");
    say(talk, "ent\": \"C\"}\n");
    expect(talk, "event:C:- ");
}

static void test_error_reply(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    execute(talk, "bad", 0);
    g_autofree char *text =
        g_strdup_printf("{\"id\": %" G_GINT64_FORMAT ", \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n",
                        hear(talk, "bad"));
    say(talk, text);
    expect(talk, "bad=QMP_ERROR ");
}

static void test_deadline_and_late_answer(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    execute(talk, "slow", 30);
    execute(talk, "patient", 0);
    const gint64 slow = hear(talk, "slow");
    const gint64 patient = hear(talk, "patient");
    expect(talk, "slow=HYPERVISOR_TIMEOUT ");
    answer(talk, slow, 1);
    answer(talk, patient, 2);
    expect(talk, "patient=2 ");
}

static void test_silent_peer(void **state)
{
    Talk *talk = *state;

    execute(talk, "unsent", 30);
    expect(talk, "unsent=HYPERVISOR_TIMEOUT ");
    /* It was never sent. */
    say(talk, GREETING);
    answer(talk, hear(talk, "qmp_capabilities"), 0);
    expect(talk, "ready ");
    execute(talk, "next", 0);
    hear(talk, "next");
}

static void test_peer_closes(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    execute(talk, "one", 0);
    execute(talk, "two", 60000);
    hear(talk, "one");
    hear(talk, "two");
    say(talk, "{\"event\": \"LAST\"}\n{\"half");
    close(talk->peer_fd);
    talk->peer_fd = -1;
    expect(talk, "event:LAST:- one=QMP_CLOSED two=QMP_CLOSED closed:QMP_CLOSED ");
    /* What comes after that ends as well. */
    execute(talk, "late", 0);
    expect(talk, "late=QMP_CLOSED ");
}

static void test_garbage(void **state)
{
    static const char *const garbage[] = {
        "hello\n",
        "[]\n",
        "17\n",
        "{}\n",
        "{\"return\": {}}\n",
        "{\"return\": {}, \"id\": \"x\"}\n",
        "{\"event\": 5}\n",
        "\xff\xfe\n",
        "{\"a\": \"\\u0000\"\n",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(garbage); i++) {
        void *own;

        setup(&own);
        negotiate(own);
        execute(own, "one", 0);
        hear(own, "one");
        say(own, garbage[i]);
        expect(own, "one=QMP_PROTOCOL closed:QMP_PROTOCOL ");
        teardown(&own);
    }
    negotiate(*state);
}

/* Nesting without end is refused by the parser. */
static void test_deep(void **state)
{
    Talk *talk = *state;
    g_autofree char *deep = g_strnfill(100000, '[');

    negotiate(talk);
    say(talk, "{\"event\": \"X\", \"data\": ");
    say(talk, deep);
    say(talk, "\n");
    expect(talk, "closed:QMP_PROTOCOL ");
}

static void test_huge_line(void **state)
{
    Talk *talk = *state;
    g_autofree char *megabyte = g_strnfill(1024 * 1024, ' ');

    negotiate(talk);
    /* Long, but within bounds. */
    say(talk, megabyte);
    say(talk, "{\"event\": \"X\"}\n");
    expect(talk, "event:X:- ");
    /* The client lets go in the midst of it, and so ends our sending. */
    talk->close_in_closed = TRUE;
    for (guint i = 0; i < 17; i++)
        say(talk, megabyte);
    expect(talk, "closed:QMP_PROTOCOL ");
}

static void test_too_many_commands(void **state)
{
    Talk *talk = *state;

    execute_many(talk, "c", 0, VP_QMP_MAX_PENDING);
    execute(talk, "more", 0);
    expect(talk, "more=QMP_QUEUE_FULL ");
    say(talk, GREETING);
    answer(talk, hear(talk, "qmp_capabilities"), 0);
    for (guint i = 0; i < VP_QMP_MAX_PENDING; i++)
        hear(talk, "c");
    expect(talk, "ready ");
}

static void test_capabilities_refused(void **state)
{
    Talk *talk = *state;

    say(talk, GREETING);
    g_autofree char *text =
        g_strdup_printf("{\"id\": %" G_GINT64_FORMAT ", \"error\": {}}\n", hear(talk, "qmp_capabilities"));
    say(talk, text);
    expect(talk, "closed:QMP_ERROR ");
}

static void test_close_within_callbacks(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    execute(talk, "one", 0);
    hear(talk, "one");
    talk->close_in_event = TRUE;
    say(talk, "{\"event\": \"A\"}\n{\"event\": \"B\"}\n");
    expect(talk, "one=QMP_CLOSED event:A:- ");
}

static void test_close_when_told_that_it_closed(void **state)
{
    Talk *talk = *state;

    negotiate(talk);
    talk->close_in_closed = TRUE;
    say(talk, "garbage\n");
    expect(talk, "closed:QMP_PROTOCOL ");
}

/* The peer reads nothing: what we have to say waits, and comes whole once it does. */
static void test_peer_reads_late(void **state)
{
    Talk *talk = *state;
    int small = 1;

    setsockopt(talk->client_fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    negotiate(talk);
    execute_many(talk, "c", 0, VP_QMP_MAX_PENDING);
    for (guint i = 0; i < VP_QMP_MAX_PENDING; i++)
        answer(talk, hear(talk, "c"), 1);
    GString *log = g_string_new(NULL);
    for (guint i = 0; i < VP_QMP_MAX_PENDING; i++)
        g_string_append(log, "c=1 ");
    expect(talk, log->str);
    g_string_free(log, TRUE);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_talk),
        T(test_numbers_of_64_bits),
        T(test_commands_that_are_gathered),
        T(test_descriptors_go_with_their_commands),
        T(test_command_before_greeting),
        T(test_events_between_replies_out_of_order),
        T(test_half_lines),
        T(test_error_reply),
        T(test_deadline_and_late_answer),
        T(test_silent_peer),
        T(test_peer_closes),
        T(test_garbage),
        T(test_deep),
        T(test_huge_line),
        T(test_too_many_commands),
        T(test_capabilities_refused),
        T(test_close_within_callbacks),
        T(test_close_when_told_that_it_closed),
        T(test_peer_reads_late),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
