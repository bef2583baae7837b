/* QEMU's messages about guests and devices, as QEMU 7.2 writes them, and the bound on how many become events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "drivers/qemu/notices.h"

static void becomes(const char *name, const char *arguments, PbEventType event, const char *reason, const char *detail)
{
    json_t *json = json_loads(arguments, 0, NULL);
    VpNotice notice = {0};

    assert_non_null(json);
    assert_true(vp_notice_read(name, json, &notice));
    assert_int_equal(notice.event, event);
    assert_string_equal(notice.reason, reason);
    if (detail)
        assert_string_equal(notice.detail, detail);
    else
        assert_null(notice.detail);
    g_free(notice.detail);
    json_decref(json);
}

static void each_message(void **state)
{
    (void)state;
    becomes("BLOCK_IO_ERROR",
            "{\"device\":\"\",\"node-name\":\"disk0-0\",\"operation\":\"write\",\"action\":\"stop\",\"nospace\":true,"
            "\"reason\":\"No space left on device\"}",
            PB_EVENT_TYPE_DISK_IO_ERROR, "NO_SPACE", "write of disk0-0: No space left on device; the guest is halted");
    becomes("BLOCK_IO_ERROR",
            "{\"device\":\"\",\"node-name\":\"disk1-0\",\"operation\":\"read\",\"action\":\"report\",\"nospace\":false,"
            "\"reason\":\"Input/output error\"}",
            PB_EVENT_TYPE_DISK_IO_ERROR, "READ_FAILED", "read of disk1-0: Input/output error; the guest is told");
    becomes("WATCHDOG", "{\"action\":\"inject-nmi\"}", PB_EVENT_TYPE_DOMAIN_WATCHDOG, "INJECT_NMI", NULL);
    becomes("WATCHDOG", "{\"action\":\"dance\"}", PB_EVENT_TYPE_DOMAIN_WATCHDOG, "EXPIRED", NULL);
    becomes("RTC_CHANGE", "{\"offset\":-78,\"qom-path\":\"/machine/unattached/device[4]\"}", PB_EVENT_TYPE_RTC_CHANGED,
            "GUEST_REQUEST", "-78 s from the host's clock");
    becomes("BALLOON_CHANGE", "{\"actual\":944766976}", PB_EVENT_TYPE_BALLOON_CHANGED, "GUEST_REQUEST",
            "the guest has 944766976 bytes of memory");
    becomes("DEVICE_TRAY_MOVED", "{\"device\":\"\",\"id\":\"disk2\",\"tray-open\":true}", PB_EVENT_TYPE_TRAY_CHANGED,
            "OPENED", "disk2");
    becomes("BLOCK_WRITE_THRESHOLD", "{\"node-name\":\"vda\",\"amount-exceeded\":4096,\"write-threshold\":1048576}",
            PB_EVENT_TYPE_DISK_THRESHOLD_REACHED, "GUEST_REQUEST",
            "vda: a write went 4096 bytes beyond the mark of 1048576");
    becomes("MEMORY_FAILURE",
            "{\"recipient\":\"hypervisor\",\"action\":\"fatal\",\"flags\":{\"action-required\":false,"
            "\"recursive\":false}}",
            PB_EVENT_TYPE_MEMORY_FAILURE, "HYPERVISOR", "what was done: fatal");
}

/* What is missing or of another type is left out; other messages are none of ours. */
static void odd_messages(void **state)
{
    VpNotice notice = {0};

    (void)state;
    becomes("BLOCK_IO_ERROR", "{\"node-name\":7}", PB_EVENT_TYPE_DISK_IO_ERROR, "FAILED",
            " of a disk: an error; the guest is told");
    assert_true(vp_notice_read("RTC_CHANGE", NULL, &notice));
    g_free(notice.detail);
    assert_false(vp_notice_read("STOP", NULL, &notice));
    assert_false(vp_notice_read("", NULL, &notice));
}

static void a_flood_is_bounded(void **state)
{
    VpNoticeLimit limit = {0};
    guint swallowed = 77;
    gint64 now_us = 1000 * G_USEC_PER_SEC;

    (void)state;
    for (guint i = 0; i < VP_NOTICE_BURST; i++) {
        assert_true(vp_notice_pass(&limit, now_us, &swallowed));
        assert_int_equal(swallowed, 0);
    }
    for (guint i = 0; i < 1000; i++)
        assert_false(vp_notice_pass(&limit, now_us + i, &swallowed));
    /* Then one a second. */
    now_us += G_USEC_PER_SEC;
    assert_true(vp_notice_pass(&limit, now_us, &swallowed));
    assert_int_equal(swallowed, 1000);
    assert_false(vp_notice_pass(&limit, now_us, &swallowed));
    /* After a quiet time all of it again, and no more than that. */
    now_us += 1000 * G_USEC_PER_SEC;
    for (guint i = 0; i < VP_NOTICE_BURST; i++)
        assert_true(vp_notice_pass(&limit, now_us, &swallowed));
    assert_false(vp_notice_pass(&limit, now_us, &swallowed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_message),
        cmocka_unit_test(odd_messages),
        cmocka_unit_test(a_flood_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
