/* See shutdown.h. */
#include "shutdown.h"

#include "base/pb.h"
#include "base/thread.h"
#include "faults.h"

static void on_guest(void *data)
{
    VpTestShutdown *shutdown = data;

    vp_timer_cancel(g_steal_pointer(&shutdown->guest));
    shutdown->done(shutdown->data, /* fell_back= */ FALSE);
}

static void on_fallback(void *data)
{
    VpTestShutdown *shutdown = data;

    vp_timer_cancel(g_steal_pointer(&shutdown->fallback));
    shutdown->done(shutdown->data, /* fell_back= */ TRUE);
}

void vp_test_shutdown_clear(VpTestShutdown *shutdown)
{
    vp_timer_cancel(g_steal_pointer(&shutdown->guest));
    vp_timer_cancel(g_steal_pointer(&shutdown->fallback));
    g_clear_pointer(&shutdown->asked, vp_pb_free);
}

VpError *vp_test_shutdown_ask(VpTestShutdown *shutdown, const PbDomain *domain, gboolean reboot, const void *request)
{
    const PbShutdownDomainRequest *as_shutdown = request;
    const PbRebootDomainRequest *as_reboot = request;
    const PbShutdownMode mode = !request ? PB_SHUTDOWN_MODE_UNSPECIFIED : reboot ? as_reboot->mode : as_shutdown->mode;
    const Google__Protobuf__Duration *after = !request ? NULL
                                              : reboot ? as_reboot->fallback_after
                                                       : as_shutdown->fallback_after;
    const gboolean agent = vp_label(domain, "test.guest.agent") != NULL;
    const gint64 now_us = vp_wall_us();
    VpFault guest;
    VpError *error = vp_fault_of_guest(domain, reboot ? "reboot" : "shutdown", &guest);

    if (!error && mode == PB_SHUTDOWN_MODE_AGENT && !agent)
        error =
            vp_error_new(VP_FAILED_PRECONDITION, "AGENT_NOT_CONNECTED",
                         "domain %s: no agent answers in the guest: it has no label test.guest.agent", domain->name);
    if (error)
        return error;
    vp_test_shutdown_clear(shutdown);
    shutdown->asked = vp_pb_new(&pb_pending_shutdown__descriptor);
    shutdown->asked->mode = mode ? mode : agent ? PB_SHUTDOWN_MODE_AGENT : PB_SHUTDOWN_MODE_ACPI;
    shutdown->asked->reboot = reboot;
    shutdown->asked->request_time = vp_pb_timestamp(now_us);
    shutdown->at_once = reboot && guest.kind == VP_FAULT_NONE;
    if (guest.kind != VP_FAULT_IGNORE && !shutdown->at_once)
        shutdown->guest = vp_timer_start(shutdown->host->loop, guest.delay_ms, on_guest, shutdown);
    if (after) {
        const gint64 after_us = after->seconds * G_USEC_PER_SEC + after->nanos / 1000;

        shutdown->asked->fallback_time = vp_pb_timestamp(now_us + after_us);
        shutdown->fallback = vp_timer_start(shutdown->host->loop, (guint64)after_us / 1000, on_fallback, shutdown);
    }
    return NULL;
}
