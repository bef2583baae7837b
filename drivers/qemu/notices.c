/* QEMU's messages about guests and devices: see notices.h. */
#include "notices.h"

#include <string.h>

static const char *text(const json_t *arguments, const char *key)
{
    const char *value = json_string_value(json_object_get(arguments, key));

    return value ? value : "";
}

/* One of the words that QEMU uses and ours for it; the last one has no word of QEMU's. */
typedef struct Word {
    const char *theirs;
    const char *ours;
} Word;

static const char *translate(const Word *words, const char *theirs)
{
    while (words->theirs && strcmp(words->theirs, theirs) != 0)
        words++;
    return words->ours;
}

static void read_io_error(const json_t *arguments, VpNotice *notice)
{
    static const Word operations[] = {{"read", "READ_FAILED"}, {"write", "WRITE_FAILED"}, {NULL, "FAILED"}};
    static const Word actions[] = {{"stop", "the guest is halted"},
                                   {"ignore", "the guest is not told"},
                                   {NULL, "the guest is told"}};
    const char *node = text(arguments, "node-name");
    const char *reason = text(arguments, "reason");
    const gboolean full = json_is_true(json_object_get(arguments, "nospace"));

    notice->event = PB_EVENT_TYPE_DISK_IO_ERROR;
    notice->reason = full ? "NO_SPACE" : translate(operations, text(arguments, "operation"));
    notice->detail = g_strdup_printf("%s of %s: %s; %s", text(arguments, "operation"), *node ? node : "a disk",
                                     *reason ? reason : "an error", translate(actions, text(arguments, "action")));
}

static void read_watchdog(const json_t *arguments, VpNotice *notice)
{
    static const Word actions[] = {
        {"reset", "RESET"}, {"shutdown", "SHUTDOWN"}, {"poweroff", "POWEROFF"},     {"pause", "PAUSE"},
        {"debug", "DEBUG"}, {"none", "NONE"},         {"inject-nmi", "INJECT_NMI"}, {NULL, "EXPIRED"},
    };

    notice->event = PB_EVENT_TYPE_DOMAIN_WATCHDOG;
    notice->reason = translate(actions, text(arguments, "action"));
}

static void read_rtc(const json_t *arguments, VpNotice *notice)
{
    const json_int_t seconds = json_integer_value(json_object_get(arguments, "offset"));

    notice->event = PB_EVENT_TYPE_RTC_CHANGED;
    notice->reason = "GUEST_REQUEST";
    notice->detail = g_strdup_printf("%+" JSON_INTEGER_FORMAT " s from the host's clock", seconds);
}

static void read_balloon(const json_t *arguments, VpNotice *notice)
{
    notice->event = PB_EVENT_TYPE_BALLOON_CHANGED;
    notice->reason = "GUEST_REQUEST";
    notice->detail = g_strdup_printf("the guest has %" JSON_INTEGER_FORMAT " bytes of memory",
                                     json_integer_value(json_object_get(arguments, "actual")));
}

static void read_threshold(const json_t *arguments, VpNotice *notice)
{
    const json_int_t mark = json_integer_value(json_object_get(arguments, "write-threshold"));
    const json_int_t beyond = json_integer_value(json_object_get(arguments, "amount-exceeded"));

    notice->event = PB_EVENT_TYPE_DISK_THRESHOLD_REACHED;
    notice->reason = "GUEST_REQUEST";
    notice->detail =
        g_strdup_printf("%s: a write went %" JSON_INTEGER_FORMAT " bytes beyond the mark of %" JSON_INTEGER_FORMAT,
                        text(arguments, "node-name"), beyond, mark);
    notice->once = TRUE;
}

static void read_tray(const json_t *arguments, VpNotice *notice)
{
    const gboolean open = json_is_true(json_object_get(arguments, "tray-open"));
    const char *id = text(arguments, "id");

    notice->event = PB_EVENT_TYPE_TRAY_CHANGED;
    notice->reason = open ? "OPENED" : "CLOSED";
    notice->detail = g_strdup(*id ? id : text(arguments, "device"));
}

static void read_memory_failure(const json_t *arguments, VpNotice *notice)
{
    static const Word recipients[] = {{"hypervisor", "HYPERVISOR"}, {"guest", "GUEST"}, {NULL, "UNKNOWN"}};

    notice->event = PB_EVENT_TYPE_MEMORY_FAILURE;
    notice->reason = translate(recipients, text(arguments, "recipient"));
    notice->detail = g_strdup_printf("what was done: %s", text(arguments, "action"));
}

gboolean vp_notice_read(const char *name, const json_t *arguments, VpNotice *ret_notice)
{
    static const struct {
        const char *name;
        void (*read)(const json_t *arguments, VpNotice *notice);
    } notices[VP_NOTICE_KINDS] = {
        {"BLOCK_IO_ERROR", read_io_error},
        {"WATCHDOG", read_watchdog},
        {"RTC_CHANGE", read_rtc},
        {"BALLOON_CHANGE", read_balloon},
        {"DEVICE_TRAY_MOVED", read_tray},
        {"MEMORY_FAILURE", read_memory_failure},
        {"BLOCK_WRITE_THRESHOLD", read_threshold},
    };

    for (guint i = 0; i < VP_NOTICE_KINDS; i++) {
        VpNotice notice = {.kind = i};

        if (strcmp(name, notices[i].name) != 0)
            continue;
        notices[i].read(arguments, &notice);
        *ret_notice = notice;
        return TRUE;
    }
    return FALSE;
}

gboolean vp_notice_pass(VpNoticeLimit *limit, gint64 now_us, guint *ret_swallowed)
{
    const gint64 full_at_us = MAX(limit->full_at_us, now_us) + G_USEC_PER_SEC;

    if (full_at_us > now_us + VP_NOTICE_BURST * G_USEC_PER_SEC) {
        limit->swallowed++;
        return FALSE;
    }
    limit->full_at_us = full_at_us;
    *ret_swallowed = limit->swallowed;
    limit->swallowed = 0;
    return TRUE;
}
