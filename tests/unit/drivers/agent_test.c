/* The client of a guest's agent against one that this test plays, at the other end of a socket pair: well-behaved, late, lying. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/thread.h"
#include "drivers/qemu/agent.h"
#include "drivers/qemu/agent_reader.h"

#define WAIT_US (30 * G_USEC_PER_SEC)

/* Both ends on one thread, and a log of what the client called back, one word a callback. */
typedef struct Talk {
    uv_loop_t uv;
    VpAgent *agent;
    int peer_fd;
    GString *log;
} Talk;

static void on_answers(void *data)
{
    g_string_append(((Talk *)data)->log, "answers ");
}

static void on_silent(void *data)
{
    g_string_append(((Talk *)data)->log, "silent ");
}

static const VpAgentHandler handler = {.answers = on_answers, .silent = on_silent};

static void open_port(Talk *talk)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    if (talk->peer_fd >= 0)
        close(talk->peer_fd);
    talk->peer_fd = fds[1];
    assert_null(vp_agent_open(talk->agent, fds[0]));
}

static int setup(void **state)
{
    Talk *talk = g_new0(Talk, 1);

    uv_loop_init(&talk->uv);
    talk->agent = vp_agent_new(&talk->uv, &handler, talk);
    talk->peer_fd = -1;
    talk->log = g_string_new(NULL);
    *state = talk;
    return 0;
}

static int teardown(void **state)
{
    Talk *talk = *state;

    vp_agent_free(talk->agent);
    while (uv_run(&talk->uv, UV_RUN_NOWAIT))
        ;
    assert_int_equal(uv_loop_close(&talk->uv), 0);
    if (talk->peer_fd >= 0)
        close(talk->peer_fd);
    g_string_free(talk->log, TRUE);
    g_free(talk);
    return 0;
}

/* One turn of the loop, which need not have anything to do. */
static void turn(Talk *talk, gint64 deadline_us)
{
    assert_true(vp_now_us() < deadline_us);
    uv_run(&talk->uv, UV_RUN_NOWAIT);
    g_usleep(200);
}

/* Waits for the whole log to be this. */
static void expect(Talk *talk, const char *log)
{
    const gint64 deadline_us = vp_now_us() + WAIT_US;

    while (talk->log->len < strlen(log))
        turn(talk, deadline_us);
    assert_string_equal(talk->log->str, log);
    g_string_truncate(talk->log, 0);
}

/* ---- the guest's side ---- */

static void say_bytes(Talk *talk, const char *bytes, gsize length)
{
    const gint64 deadline_us = vp_now_us() + WAIT_US;

    for (gsize done = 0; done < length;) {
        const ssize_t n = send(talk->peer_fd, bytes + done, length - done, MSG_NOSIGNAL);

        if (n > 0)
            done += (gsize)n;
        turn(talk, deadline_us);
    }
}

static void say(Talk *talk, const char *text)
{
    say_bytes(talk, text, strlen(text));
}

/* Reads one line of the client's; what it executes, and the id of its arguments. */
static gint64 hear(Talk *talk, const char *command)
{
    const gint64 deadline_us = vp_now_us() + WAIT_US;
    g_autoptr(GString) line = g_string_new(NULL);

    while (line->len == 0 || line->str[line->len - 1] != '\n') {
        char c;

        if (recv(talk->peer_fd, &c, 1, 0) != 1)
            turn(talk, deadline_us);
        else if (c != '\xff')
            g_string_append_c(line, c);
    }
    json_t *message = json_loads(line->str, 0, NULL);
    assert_non_null(message);
    assert_string_equal(json_string_value(json_object_get(message, "execute")), command);
    const gint64 id = json_integer_value(json_object_get(json_object_get(message, "arguments"), "id"));
    json_decref(message);
    return id;
}

static void give_back(Talk *talk, gint64 id)
{
    g_autofree char *text = g_strdup_printf("\xff{\"return\": %" G_GINT64_FORMAT "}\n", id);

    say(talk, text);
}

static void connect_port(Talk *talk)
{
    open_port(talk);
    give_back(talk, hear(talk, "guest-sync-delimited"));
    expect(talk, "answers ");
}

/* ---- the client's side ---- */

typedef struct Request {
    Talk *talk;
    char name[32];
} Request;

static void on_done(void *data, json_t *result, VpError *error)
{
    Request *request = data;

    if (error)
        g_string_append_printf(request->talk->log, "%s=%s:%s ", request->name, vp_code_name(error->code),
                               error->reason);
    else if (!result)
        g_string_append_printf(request->talk->log, "%s=done ", request->name);
    else
        g_string_append_printf(request->talk->log, "%s=%d ", request->name, (int)json_integer_value(result));
    vp_error_free(error);
    g_free(request);
}

static void execute(Talk *talk, const char *name, gint64 timeout_ms)
{
    Request *request = g_new0(Request, 1);

    request->talk = talk;
    g_strlcpy(request->name, name, sizeof(request->name));
    vp_agent_execute(talk->agent, name, NULL, vp_now_us() + timeout_ms * 1000, on_done, request);
    assert_null(strstr(talk->log->str, name));
}

/* ---- tests ---- */

static void test_talk(void **state)
{
    Talk *talk = *state;

    connect_port(talk);
    assert_true(vp_agent_is_ready(talk->agent));
    execute(talk, "one", 10000);
    execute(talk, "two", 10000);
    hear(talk, "one");
    /* One at a time. */
    char c;
    assert_int_equal(recv(talk->peer_fd, &c, 1, 0), -1);
    say(talk, "{\"return\": 1}\n");
    hear(talk, "two");
    say(talk, "{\"ret");
    say(talk, "urn\": 2}\r\n");
    expect(talk, "one=1 two=2 ");
}

static void test_nothing_before_the_sync(void **state)
{
    Talk *talk = *state;

    open_port(talk);
    execute(talk, "one", 10000);
    const gint64 id = hear(talk, "guest-sync-delimited");
    g_autofree char *bare = g_strdup_printf("{\"return\": %" G_GINT64_FORMAT "}\n", id);
    say(talk, "{\"return\": 17}\ngarbage\n{{{{\n");
    say(talk, bare); /* without the 0xFF */
    give_back(talk, id + 1);
    say(talk, "\xff{\"return\": \"text\"}\n\xff{\"error\": {}}\n\xff\n");
    assert_string_equal(talk->log->str, "");
    assert_false(vp_agent_is_ready(talk->agent));
    say(talk, "\xff{\"return\": 3"); /* cut off by another agent */
    give_back(talk, id);
    hear(talk, "one");
    say(talk, "{\"return\": 1}\n");
    expect(talk, "answers one=1 ");
}

static void test_late_answer(void **state)
{
    Talk *talk = *state;

    connect_port(talk);
    execute(talk, "one", 20);
    hear(talk, "one");
    expect(talk, "one=DEADLINE_EXCEEDED:AGENT_TIMEOUT ");
    execute(talk, "two", 10000);
    const gint64 id = hear(talk, "guest-sync-delimited");
    say(talk, "{\"return\": 1}\n");
    give_back(talk, id);
    hear(talk, "two");
    say(talk, "{\"return\": 2}\n");
    expect(talk, "answers two=2 ");
}

static void test_waiting_has_a_deadline(void **state)
{
    Talk *talk = *state;

    connect_port(talk);
    execute(talk, "one", 10000);
    execute(talk, "two", 20);
    expect(talk, "two=DEADLINE_EXCEEDED:AGENT_TIMEOUT ");
    hear(talk, "one");
    say(talk, "{\"return\": 1}\n");
    expect(talk, "one=1 ");
}

static void test_errors(void **state)
{
    Talk *talk = *state;

    connect_port(talk);
    execute(talk, "one", 10000);
    hear(talk, "one");
    say(talk, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n");
    execute(talk, "two", 10000);
    hear(talk, "two");
    say(talk, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command two has not been found\"}}\n");
    execute(talk, "three", 10000);
    hear(talk, "three");
    say(talk, "{\"error\": {\"class\": 7}}\n");
    expect(talk, "one=FAILED_PRECONDITION:AGENT_ERROR two=UNIMPLEMENTED:AGENT_LACKS_COMMAND "
                 "three=FAILED_PRECONDITION:AGENT_ERROR ");
    execute(talk, "four", 10000);
    hear(talk, "four");
    say(talk, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Command four has been disabled: the command is "
              "not allowed\"}}\n");
    execute(talk, "five", 10000);
    hear(talk, "five");
    say(talk, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Command five has been disabled: the agent is "
              "in frozen state\"}}\n");
    expect(talk, "four=FAILED_PRECONDITION:AGENT_COMMAND_BLOCKED five=FAILED_PRECONDITION:GUEST_FROZEN ");
}

static void test_command_without_answer(void **state)
{
    Talk *talk = *state;

    connect_port(talk);
    execute(talk, "guest-shutdown", 10000);
    hear(talk, "guest-shutdown");
    give_back(talk, hear(talk, "guest-sync-delimited"));
    expect(talk, "guest-shutdown=done ");
    /* It fails: the answer to its sync is nobody else's. */
    execute(talk, "guest-shutdown", 10000);
    execute(talk, "two", 10000);
    hear(talk, "guest-shutdown");
    say(talk, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n");
    give_back(talk, hear(talk, "guest-sync-delimited"));
    hear(talk, "two");
    say(talk, "{\"return\": 2}\n");
    expect(talk, "guest-shutdown=FAILED_PRECONDITION:AGENT_ERROR answers two=2 ");
    /* The guest goes at once. */
    execute(talk, "guest-shutdown", 10000);
    hear(talk, "guest-shutdown");
    vp_agent_shut(talk->agent);
    expect(talk, "guest-shutdown=done ");
}

static void test_unreadable_answers(void **state)
{
    Talk *talk = *state;
    g_autoptr(GString) deep = g_string_new("{\"return\": ");
    g_autoptr(GString) many = g_string_new("{\"return\": [0");

    for (guint i = 0; i < VP_AGENT_MAX_DEPTH + 1; i++)
        g_string_append_c(deep, '[');
    g_string_append_c(deep, '\n');
    for (guint i = 0; i < VP_AGENT_MAX_VALUES; i++)
        g_string_append(many, ",0");
    g_string_append(many, "]}\n");
    const struct {
        const char *said;
        const char *told;
    } cases[] = {
        {"not json\n", "one=UNAVAILABLE:AGENT_GARBAGE "},
        {"[1]\n", "one=UNAVAILABLE:AGENT_GARBAGE "},
        {"{\"return\": 1\n", "one=UNAVAILABLE:AGENT_GARBAGE "},
        {deep->str, "one=RESOURCE_EXHAUSTED:AGENT_ANSWER_TOO_LARGE "},
        {many->str, "one=RESOURCE_EXHAUSTED:AGENT_ANSWER_TOO_LARGE "},
    };

    connect_port(talk);
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        execute(talk, "one", 10000);
        hear(talk, "one");
        say(talk, cases[i].said);
        expect(talk, cases[i].told);
        say(talk, "{\"return\": 4}\n");
        give_back(talk, hear(talk, "guest-sync-delimited"));
        expect(talk, "answers ");
    }
}

static void test_endless_answer(void **state)
{
    Talk *talk = *state;
    g_autofree char *block = g_malloc(1 << 20);

    memset(block, '1', 1 << 20);
    connect_port(talk);
    execute(talk, "one", 10000);
    hear(talk, "one");
    say(talk, "{\"return\": \"");
    for (guint i = 0; i < VP_AGENT_COMMON_MESSAGE >> 20; i++)
        say_bytes(talk, block, 1 << 20);
    say(talk, "\"}\n");
    expect(talk, "one=RESOURCE_EXHAUSTED:AGENT_ANSWER_TOO_LARGE ");
}

/* A program's captured output may be larger than other answers; nothing else may be afterwards. */
static void test_large_answer(void **state)
{
    Talk *talk = *state;
    g_autofree char *block = g_malloc(1 << 20);

    memset(block, ' ', 1 << 20);
    connect_port(talk);
    for (guint round = 0; round < 2; round++) {
        const gboolean captured = round == 0;

        execute(talk, captured ? "guest-exec-status" : "one", 60000);
        hear(talk, captured ? "guest-exec-status" : "one");
        say(talk, "{\"return\": ");
        for (guint i = 0; i < 4; i++)
            say_bytes(talk, block, 1 << 20);
        say(talk, "7}\n");
        expect(talk, captured ? "guest-exec-status=7 " : "one=RESOURCE_EXHAUSTED:AGENT_ANSWER_TOO_LARGE ");
    }
}

static void test_nobody_there(void **state)
{
    Talk *talk = *state;

    execute(talk, "one", 10000);
    expect(talk, "one=FAILED_PRECONDITION:AGENT_NOT_CONNECTED ");
    connect_port(talk);
    execute(talk, "two", 10000);
    execute(talk, "three", 10000);
    close(talk->peer_fd);
    talk->peer_fd = -1;
    expect(talk, "two=UNAVAILABLE:AGENT_DISCONNECTED three=UNAVAILABLE:AGENT_DISCONNECTED silent ");
    connect_port(talk);
}

static void test_bounded_queue(void **state)
{
    Talk *talk = *state;

    connect_port(talk);
    for (guint i = 0; i < 1 + VP_AGENT_MAX_PENDING; i++)
        execute(talk, "one", 10000);
    execute(talk, "more", 10000);
    expect(talk, "more=RESOURCE_EXHAUSTED:AGENT_BUSY ");
    vp_agent_shut(talk->agent);
    assert_true(g_str_has_prefix(talk->log->str, "one=UNAVAILABLE:AGENT_DISCONNECTED one="));
}

static void test_silence(void **state)
{
    Talk *talk = *state;

    open_port(talk);
    hear(talk, "guest-sync-delimited");
    expect(talk, "silent ");
    /* Asked on, and told when it answers. */
    give_back(talk, hear(talk, "guest-sync-delimited"));
    expect(talk, "answers ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_talk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_before_the_sync, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting_has_a_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_command_without_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endless_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounded_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
