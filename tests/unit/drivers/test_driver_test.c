/* The test driver: its verbs, and every fault that a label can set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/pb.h"
#include "base/thread.h"
#include "bench.h"
#include "drivers/test/test_driver.h"

#define E(name) PB_EVENT_TYPE_DOMAIN_##name
#define S(name) PB_DOMAIN_STATE_##name

static int setup(void **state)
{
    *state = bench_new(&vp_test_driver, NULL);
    return 0;
}

static int teardown(void **state)
{
    bench_free(*state);
    return 0;
}

static void started(Bench *bench, const PbDomain *domain)
{
    bench_ok(bench, vp_test_driver.start, domain);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(STARTED), S(RUNNING), "REQUESTED");
}

static void test_verbs(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    started(bench, domain);
    bench_ok(bench, vp_test_driver.pause, domain);
    bench_next(bench, E(PAUSED), S(PAUSED), "REQUESTED");
    bench_ok(bench, vp_test_driver.pause, domain);
    vp_error_free(bench_fails(bench, vp_test_driver.shutdown, domain, VP_FAILED_PRECONDITION, "DOMAIN_PAUSED"));
    bench_ok(bench, vp_test_driver.resume, domain);
    bench_next(bench, E(RESUMED), S(RUNNING), "REQUESTED");
    bench_ok(bench, vp_test_driver.resume, domain);
    bench_ok(bench, vp_test_driver.reset, domain);
    bench_next(bench, E(RESET), S(RUNNING), "REQUESTED");
    bench_ok(bench, vp_test_driver.reboot, domain);
    bench_next(bench, E(REBOOTING), S(RUNNING), "REQUESTED");
    bench_next(bench, E(RESET), S(RUNNING), "REBOOT_REQUESTED");
    vp_error_free(bench_fails(bench, vp_test_driver.start, domain, VP_FAILED_PRECONDITION, "DOMAIN_RUNNING"));
    bench_ok(bench, vp_test_driver.shutdown, domain);
    bench_next(bench, E(SHUTTING_DOWN), S(SHUTTING_DOWN), "REQUESTED");
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "REQUESTED");
    vp_error_free(bench_fails(bench, vp_test_driver.pause, domain, VP_FAILED_PRECONDITION, "DOMAIN_NOT_RUNNING"));
    bench_ok(bench, vp_test_driver.power_off, domain);
    bench_nothing_more(bench);

    started(bench, domain);
    bench_ok(bench, vp_test_driver.power_off, domain);
    bench_next(bench, E(POWERED_OFF), S(SHUTOFF), "REQUESTED");
    bench_nothing_more(bench);
}

static void test_start_paused(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "start-paused", "");
    bench_ok(bench, vp_test_driver.start, domain);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(STARTED), S(PAUSED), "REQUESTED");
}

static void test_fail(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "test.fault.start", "fail:RESOURCE_EXHAUSTED:no more, sorry");
    VpError *error = bench_fails(bench, vp_test_driver.start, domain, VP_RESOURCE_EXHAUSTED, "INJECTED");
    assert_non_null(strstr(error->message, "guest1: start: no more, sorry"));
    vp_error_free(error);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    const Seen *seen = bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
    assert_non_null(strstr(seen->detail, "no more, sorry"));
    bench_nothing_more(bench);
}

static void test_bad_labels(void **state)
{
    static const char *const bad[] = {"",          "delay",         "delay:",
                                      "delay:-1",  "delay:1x",      "delay:99999999999",
                                      "fail",      "fail:",         "fail:NO_CODE:x",
                                      "fail:OK:x", "fail:INTERNAL", "hang:1",
                                      "progress",  "progress:x"};
    Bench *bench = *state;

    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        vp_pb_auto PbDomain *domain = bench_domain("test", 1);

        bench_label(domain, "test.fault.pause", bad[i]);
        vp_error_free(bench_fails(bench, vp_test_driver.pause, domain, VP_INVALID_ARGUMENT, "BAD_FAULT_LABEL"));
    }
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);
    bench_label(domain, "test.crash_after", "soon");
    vp_error_free(bench_fails(bench, vp_test_driver.start, domain, VP_INVALID_ARGUMENT, "BAD_FAULT_LABEL"));
}

static void test_delay(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);
    const gint64 start_us = vp_now_us();

    bench_label(domain, "test.fault.start", "delay:50");
    started(bench, domain);
    assert_true(vp_now_us() - start_us >= 49000);
}

static void test_delay_beyond_deadline(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "test.fault.start", "delay:60000");
    g_autoptr(VpError) error = bench_end(bench_begin(bench, vp_test_driver.start, domain, 30));
    check_error(error, VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT");
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "START_FAILED");
}

static void test_hang_deadline_cancel_power_off(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "test.fault.pause", "hang");
    started(bench, domain);
    VpError *error = bench_end(bench_begin(bench, vp_test_driver.pause, domain, 30));
    check_error(error, VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT");
    vp_error_free(error);

    Running *running = bench_begin(bench, vp_test_driver.pause, domain, 60000);
    bench_cancel(running);
    error = bench_end(running);
    check_error(error, VP_CANCELLED, "CANCELLED");
    vp_error_free(error);

    running = bench_begin(bench, vp_test_driver.pause, domain, 60000);
    bench_ok(bench, vp_test_driver.power_off, domain);
    error = bench_end(running);
    check_error(error, VP_CANCELLED, "POWERED_OFF");
    vp_error_free(error);
    bench_next(bench, E(POWERED_OFF), S(SHUTOFF), "REQUESTED");
    bench_nothing_more(bench);
}

static void test_power_off_during_start(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "test.fault.start", "hang");
    Running *running = bench_begin(bench, vp_test_driver.start, domain, 60000);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_ok(bench, vp_test_driver.power_off, domain);
    g_autoptr(VpError) error = bench_end(running);
    check_error(error, VP_CANCELLED, "POWERED_OFF");
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "CANCELLED");
    bench_nothing_more(bench);
}

static void test_guest_ignores_shutdown(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "test.guest.shutdown", "ignore");
    started(bench, domain);
    bench_ok(bench, vp_test_driver.shutdown, domain);
    bench_next(bench, E(SHUTTING_DOWN), S(SHUTTING_DOWN), "REQUESTED");
    bench_ok(bench, vp_test_driver.shutdown, domain);
    bench_next(bench, E(SHUTTING_DOWN), S(SHUTTING_DOWN), "REQUESTED");
    bench_ok(bench, vp_test_driver.power_off, domain);
    bench_next(bench, E(POWERED_OFF), S(SHUTOFF), "REQUESTED");
}

static void test_guest_shuts_down_late(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "test.guest.shutdown", "delay:30");
    started(bench, domain);
    const gint64 start_us = vp_now_us();
    bench_ok(bench, vp_test_driver.shutdown, domain);
    bench_next(bench, E(SHUTTING_DOWN), S(SHUTTING_DOWN), "REQUESTED");
    bench_next(bench, E(SHUT_DOWN), S(SHUTOFF), "REQUESTED");
    assert_true(vp_now_us() - start_us >= 29000);
}

static void test_crash(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "test.crash_after", "20");
    started(bench, domain);
    bench_next(bench, E(CRASHED), S(CRASHED), "PROCESS_EXITED");
    /* It can be started again. */
    started(bench, domain);
}

static void test_restart(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_ok(bench, vp_test_driver.start, domain);
    const Seen *starting = bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    const Seen *running = bench_next(bench, E(STARTED), S(RUNNING), "REQUESTED");
    bench_reopen(bench);
    bench_nothing_more(bench);
    bench_store_status(domain, running);
    bench_ok(bench, vp_test_driver.adopt, domain);
    bench_next(bench, E(CRASHED), S(SHUTOFF), "WHILE_DAEMON_DOWN");
    bench_store_status(domain, starting);
    bench_ok(bench, vp_test_driver.adopt, domain);
    bench_next(bench, E(START_FAILED), S(SHUTOFF), "WHILE_DAEMON_DOWN");
}

static void test_close_under_way(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *domain = bench_domain("test", 1);

    bench_label(domain, "test.fault.start", "hang");
    Running *running = bench_begin(bench, vp_test_driver.start, domain, 60000);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    bench_reopen(bench);
    g_autoptr(VpError) error = bench_end(running);
    check_error(error, VP_UNAVAILABLE, "DAEMON_STOPPING");
    bench_nothing_more(bench);
}

static void test_a_hung_one_delays_no_other(void **state)
{
    Bench *bench = *state;
    vp_pb_auto PbDomain *hung = bench_domain("test", 1);
    vp_pb_auto PbDomain *other = bench_domain("test", 2);

    bench_label(hung, "test.fault.start", "hang");
    Running *running = bench_begin(bench, vp_test_driver.start, hung, 60000);
    bench_next(bench, E(STARTING), S(STARTING), "REQUESTED");
    started(bench, other);
    bench_cancel(running);
    vp_error_free(bench_end(running));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_verbs),
        T(test_start_paused),
        T(test_fail),
        T(test_bad_labels),
        T(test_delay),
        T(test_delay_beyond_deadline),
        T(test_hang_deadline_cancel_power_off),
        T(test_power_off_during_start),
        T(test_guest_ignores_shutdown),
        T(test_guest_shuts_down_late),
        T(test_crash),
        T(test_restart),
        T(test_close_under_way),
        T(test_a_hung_one_delays_no_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
