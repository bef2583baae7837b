/* The log, as read from stderr: one line a call, whatever the text holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* What the last lines wrote; stderr is a pipe for the time of a test. */
typedef struct Capture {
    int saved;
    int read_end;
} Capture;

static int capture(void **state)
{
    static Capture it;
    int ends[2];

    unsetenv("JOURNAL_STREAM");
    it.saved = dup(STDERR_FILENO);
    if (it.saved < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 || dup2(ends[1], STDERR_FILENO) < 0)
        return -1;
    close(ends[1]);
    it.read_end = ends[0];
    *state = &it;
    return 0;
}

static int release(void **state)
{
    const Capture *it = *state;

    vp_log_set_level(VP_LOG_INFO);
    dup2(it->saved, STDERR_FILENO);
    close(it->saved);
    close(it->read_end);
    return 0;
}

static void expect(void **state, const char *text)
{
    const Capture *it = *state;
    char got[4096];
    const ssize_t n = read(it->read_end, got, sizeof(got) - 1);

    got[n < 0 ? 0 : n] = '\0';
    assert_string_equal(got, text);
}

static void words_of_the_levels(void **state)
{
    vp_log(VP_LOG_ERROR, "a %d", 1);
    vp_log(VP_LOG_WARNING, "b");
    vp_log(VP_LOG_INFO, "c");
    vp_log(VP_LOG_DEBUG, "not yet");
    vp_log_set_level(VP_LOG_DEBUG);
    vp_log(VP_LOG_DEBUG, "d");
    vp_log_set_level(VP_LOG_ERROR);
    vp_log(VP_LOG_WARNING, "no more");
    expect(state, "error: a 1\nwarning: b\nc\ndebug: d\n");
}

static void outside_text_forges_no_line(void **state)
{
    vp_log(VP_LOG_INFO, "%s", "a\nerror: b\r\x1b[2J\x7f\ttab");
    expect(state, "a\\x0aerror: b\\x0d\\x1b[2J\\x7f\ttab\n");
}

static void other_characters_stay(void **state)
{
    vp_log(VP_LOG_INFO, "%s", "gr\xc3\xbc\xc3\x9f");
    expect(state, "gr\xc3\xbc\xc3\x9f\n");
}

static void journald_gets_the_level(void **state)
{
    setenv("JOURNAL_STREAM", "1:2", 1);
    vp_log(VP_LOG_WARNING, "a");
    unsetenv("JOURNAL_STREAM");
    expect(state, "<4>a\n");
}

static void a_gone_stderr_kills_nobody(void **state)
{
    (void)state;
    close(STDERR_FILENO);
    vp_log(VP_LOG_ERROR, "nobody reads this");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(words_of_the_levels, capture, release),
        cmocka_unit_test_setup_teardown(outside_text_forges_no_line, capture, release),
        cmocka_unit_test_setup_teardown(other_characters_stay, capture, release),
        cmocka_unit_test_setup_teardown(journald_gets_the_level, capture, release),
        cmocka_unit_test_setup_teardown(a_gone_stderr_kills_nobody, capture, release),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
