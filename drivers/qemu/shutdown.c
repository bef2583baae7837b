/*
 * Shutdowns and reboots that a guest is asked for, and what is done if it does not react: see domain_parts.h. A guest that is asked to restart by ACPI
 * shuts down; QEMU is told before to halt then and not to end, and is reset. So QEMU itself remembers that it was to be a restart, whichever daemon looks
 * after it then.
 */
#include "domain_parts.h"

#include <signal.h>
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "command_line.h"
#include "virtplane/v1/domain_service.pb-c.h"

/* For an agent that is to be asked before ACPI. */
#define AGENT_US (10 * G_USEC_PER_SEC)
/* Until a reset that did not get through is tried again. */
#define AGAIN_MS 1000

/* A guest is being asked. Held by the domain until that is decided, and by the command under way. */
struct VpQemuAsking {
    gint refs;
    VpQemuDomain *domain; /* a reference */
    VpQemuOp *op;         /* NULL once it is decided */
    PbShutdownMode mode;  /* that is wished for */
    const PbPendingShutdown *asked;
    PbPendingShutdown *former; /* what it was asked for before */
    char *refusal;             /* the agent's */
};

static void asking_unref(VpQemuAsking *asking)
{
    if (--asking->refs > 0)
        return;
    vp_qemu_domain_unref(asking->domain);
    vp_pb_free(asking->former);
    g_free(asking->refusal);
    g_free(asking);
}

/* ---- the fallback ---- */

static void on_fallback(void *data);

static void arm_ms(VpQemuDomain *domain, guint64 delay_ms)
{
    vp_timer_cancel(g_steal_pointer(&domain->fallback));
    domain->fallback = vp_timer_start(domain->driver->host->loop, delay_ms, on_fallback, domain);
}

void vp_qemu_shutdown_arm(VpQemuDomain *domain)
{
    const Google__Protobuf__Timestamp *time = domain->asked ? domain->asked->fallback_time : NULL;
    const gint64 left_us = vp_pb_timestamp_us(time) - vp_wall_us();

    vp_timer_cancel(g_steal_pointer(&domain->fallback));
    if (time)
        arm_ms(domain, (guint64)MAX(0, left_us) / 1000);
}

static void set_asked(VpQemuDomain *domain, PbPendingShutdown *asked)
{
    vp_pb_free(domain->asked);
    domain->asked = asked;
    vp_qemu_shutdown_arm(domain);
}

/* ---- what QEMU does when the guest stops ---- */

static gboolean is_reboot(const VpQemuDomain *domain)
{
    return domain->asked && domain->asked->reboot;
}

static void ignore_answer(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;

    (void)result;
    if (error && error->code != VP_CANCELLED && error->code != VP_UNAVAILABLE)
        vp_log(VP_LOG_WARNING, "domain %s: %s", domain->name, error->message);
    vp_error_free(error);
    vp_qemu_domain_unref(domain);
}

static json_t *actions(const VpQemuDomain *domain)
{
    return json_pack("{s:s, s:s}", "shutdown", is_reboot(domain) ? "pause" : "poweroff", "reboot",
                     is_reboot(domain) ? "reset" : vp_action_of_reboot(domain->live));
}

static void send_actions(VpQemuDomain *domain)
{
    if (domain->qmp)
        vp_qmp_execute(domain->qmp, "set-action", actions(domain), 0, ignore_answer, vp_qemu_domain_ref(domain));
}

/* ---- resets ---- */

void vp_qemu_reset_begin(VpQemuDomain *domain)
{
    /* QEMU takes those that it is asked for as it does the guest's own; was_reset() puts it right. */
    if (domain->qmp && domain->live->on_reboot == PB_LIFECYCLE_ACTION_POWER_OFF)
        vp_qmp_execute(domain->qmp, "set-action", json_pack("{s:s}", "reboot", "reset"), 0, ignore_answer,
                       vp_qemu_domain_ref(domain));
}

static void on_reset_sent(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;

    (void)result;
    /* It is still to be done: QEMU has lost the connection. */
    if (error && domain->phase == VP_PHASE_UP && domain->reset_reason) {
        domain->reset_reason = NULL;
        if (domain->watched)
            arm_ms(domain, AGAIN_MS);
    }
    vp_error_free(error);
    vp_qemu_domain_unref(domain);
}

static void on_continued(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;

    (void)result;
    if (error && error->code == VP_FAILED_PRECONDITION && domain->phase == VP_PHASE_UP)
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_PAUSED, PB_DOMAIN_STATE_PAUSED, "HYPERVISOR",
                                 error->message);
    vp_error_free(error);
    vp_qemu_domain_unref(domain);
}

/* Resets the machine, and lets it run if QEMU has halted it at its shutdown. */
static void reset(VpQemuDomain *domain, const char *reason)
{
    if (domain->reset_reason)
        return;
    if (!domain->qmp) {
        arm_ms(domain, AGAIN_MS);
        return;
    }
    domain->reset_reason = reason;
    vp_qemu_reset_begin(domain);
    vp_qmp_execute(domain->qmp, "system_reset", NULL, 0, on_reset_sent, vp_qemu_domain_ref(domain));
    if (domain->shutdown_reason)
        vp_qmp_execute(domain->qmp, "cont", NULL, 0, on_continued, vp_qemu_domain_ref(domain));
}

static void on_fallback(void *data)
{
    VpQemuDomain *domain = data;

    vp_timer_cancel(g_steal_pointer(&domain->fallback));
    if (domain->phase != VP_PHASE_UP)
        return;
    if (domain->asked && !is_reboot(domain)) {
        domain->fell_back = TRUE;
        g_autoptr(VpError) error = vp_process_kill(&domain->process, SIGKILL);
        if (error)
            vp_log(VP_LOG_ERROR, "domain %s: its guest did not shut down, and it cannot be powered off: %s",
                   domain->name, error->message);
    } else if (domain->asked || domain->shutdown_reason) {
        reset(domain, domain->shutdown_reason ? "REBOOT_REQUESTED" : "FALLBACK");
    }
}

static char *describe(const VpQemuAsking *asking)
{
    const PbPendingShutdown *asked = asking->asked;
    const gint64 after_us = vp_pb_timestamp_us(asked->fallback_time) - vp_pb_timestamp_us(asked->request_time);
    g_autofree char *fallback =
        asked->fallback_time
            ? g_strdup_printf("; it is %s %.1f s after that if it has not done it",
                              asked->reboot ? "reset" : "powered off", (double)after_us / G_USEC_PER_SEC)
            : g_strdup("");

    return g_strdup_printf("the guest was asked by %s%s%s%s",
                           asked->mode == PB_SHUTDOWN_MODE_AGENT ? "its agent" : "ACPI",
                           asking->refusal ? ", since by its agent it could not be: " : "",
                           asking->refusal ? asking->refusal : "", fallback);
}

static void tell_asked(const VpQemuAsking *asking, const char *reason)
{
    VpQemuDomain *domain = asking->domain;
    g_autofree char *detail = describe(asking);

    if (asking->asked->reboot)
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_REBOOTING,
                                 domain->state == PB_DOMAIN_STATE_SHUTTING_DOWN ? PB_DOMAIN_STATE_RUNNING
                                                                                : domain->state,
                                 reason, detail);
    else
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_SHUTTING_DOWN, PB_DOMAIN_STATE_SHUTTING_DOWN, reason,
                                 detail);
}

void vp_qemu_domain_was_reset(VpQemuDomain *domain, gboolean guest)
{
    const gboolean reboot = is_reboot(domain);
    const char *reason = reboot && guest                                      ? "REBOOT_REQUESTED"
                         : domain->reset_reason                               ? domain->reset_reason
                         : guest && g_strcmp0(domain->watchdog, "RESET") == 0 ? "WATCHDOG"
                         : guest                                              ? "GUEST_REQUEST"
                                                                              : "REQUESTED";
    /* A guest that starts anew in place of shutting down does not get away with it. */
    const gboolean keeps = guest && domain->asked && !reboot && domain->asked->fallback_time;

    /* An agent does not answer to a restart that goes well, and the restart may be there before it is known to have been asked. */
    if (reboot && guest && domain->asking && domain->asking->asked == domain->asked)
        tell_asked(domain->asking, "REQUESTED");
    domain->reset_reason = NULL;
    domain->watchdog = NULL;
    g_clear_pointer(&domain->shutdown_reason, g_free);
    if (!keeps)
        set_asked(domain, NULL);
    if (reboot || domain->live->on_reboot == PB_LIFECYCLE_ACTION_POWER_OFF)
        send_actions(domain);
    vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_RESET,
                             domain->state == PB_DOMAIN_STATE_SHUTTING_DOWN && !keeps ? PB_DOMAIN_STATE_RUNNING
                                                                                      : domain->state,
                             reason, NULL);
}

void vp_qemu_domain_is_shutting(VpQemuDomain *domain)
{
    if (!is_reboot(domain))
        return;
    if (strcmp(domain->shutdown_reason, "guest-shutdown") == 0)
        reset(domain, "REBOOT_REQUESTED");
    else /* it is halted too, but nothing to go on with */
        vp_error_free(vp_process_kill(&domain->process, SIGKILL));
}

/* ---- asking ---- */

static VpQemuAsking *asking_ref(VpQemuAsking *asking)
{
    asking->refs++;
    return asking;
}

/* It is decided: `error` (consumed) says why the guest could not be asked. One that does not answer falls back all the same; else all is as it was. */
static void decide(VpQemuAsking *asking, VpError *error)
{
    VpQemuDomain *domain = asking->domain;
    VpQemuOp *op = g_steal_pointer(&asking->op);
    const gboolean ours = domain->asked == asking->asked; /* it may have done it by now */
    const gboolean silent = error && (error->code == VP_DEADLINE_EXCEEDED || error->code == VP_UNAVAILABLE);

    domain->asking = NULL;
    if (ours && error && !(silent && domain->asked->fallback_time)) {
        const gboolean reboot = is_reboot(domain);

        set_asked(domain, g_steal_pointer(&asking->former));
        if (reboot != is_reboot(domain))
            send_actions(domain);
    } else if (ours) {
        tell_asked(asking, error ? "NO_ANSWER" : "REQUESTED");
    }
    vp_qemu_op_finish(op, error ? vp_error_prefix(error, "domain %s: %s", domain->name, vp_qemu_op_verb(op)) : NULL);
    vp_qemu_op_unref(op);
    asking_unref(asking);
}

/* Whether it is decided, and by whom: the domain ends with its operations. */
static gboolean is_decided(const VpQemuAsking *asking)
{
    return !asking->op || asking->domain->phase == VP_PHASE_ENDED;
}

/* Whether QEMU's answer leads on; an `error` (consumed) does not. */
static gboolean leads_on(VpQemuAsking *asking, VpError *error)
{
    /* On the heels of a lost connection comes the end of the process, and tells more; else the deadline ends it. */
    if (is_decided(asking) || (error && error->code == VP_UNAVAILABLE)) {
        vp_error_free(error);
        return FALSE;
    }
    if (error)
        decide(asking, error);
    return !error;
}

/* Notes how the guest is being asked. */
static void set_mode(const VpQemuAsking *asking, PbShutdownMode mode)
{
    if (asking->domain->asked == asking->asked)
        asking->domain->asked->mode = mode;
}

static void on_acpi(void *data, json_t *result, VpError *error)
{
    VpQemuAsking *asking = data;

    (void)result;
    if (leads_on(asking, error))
        decide(asking, NULL);
    asking_unref(asking);
}

static void ask_by_acpi(VpQemuAsking *asking)
{
    VpQemuDomain *domain = asking->domain;

    set_mode(asking, PB_SHUTDOWN_MODE_ACPI);
    if (domain->qmp)
        vp_qmp_execute(domain->qmp, "system_powerdown", NULL, vp_task_deadline_us(asking->op->task), on_acpi,
                       asking_ref(asking));
    else
        decide(asking, vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE",
                                    "QEMU does not answer; it may come back, and powering off works"));
}

static void on_agent(void *data, json_t *result, VpError *error)
{
    VpQemuAsking *asking = data;

    (void)result;
    if (is_decided(asking)) {
        vp_error_free(error);
    } else if (error && asking->mode == PB_SHUTDOWN_MODE_UNSPECIFIED) {
        asking->refusal = g_strdup(error->message);
        vp_error_free(error);
        ask_by_acpi(asking);
    } else if (error) {
        decide(asking, error);
    } else {
        decide(asking, NULL);
    }
    asking_unref(asking);
}

static void ask(VpQemuAsking *asking)
{
    VpQemuDomain *domain = asking->domain;
    const gint64 deadline_us = vp_task_deadline_us(asking->op->task);
    const gboolean first = asking->mode == PB_SHUTDOWN_MODE_UNSPECIFIED;

    if (asking->mode == PB_SHUTDOWN_MODE_ACPI || !vp_agent_is_ready(domain->agent)) {
        ask_by_acpi(asking);
        return;
    }
    set_mode(asking, PB_SHUTDOWN_MODE_AGENT);
    vp_qemu_agent_execute(domain, "guest-shutdown",
                          json_pack("{s:s}", "mode", asking->asked->reboot ? "reboot" : "powerdown"),
                          first ? MIN(deadline_us, vp_now_us() + AGENT_US) : deadline_us, on_agent, asking_ref(asking));
}

static void on_actions(void *data, json_t *result, VpError *error)
{
    VpQemuAsking *asking = data;

    (void)result;
    if (leads_on(asking, error))
        ask(asking);
    asking_unref(asking);
}

static PbPendingShutdown *pending_new(PbShutdownMode mode, gboolean reboot, const Google__Protobuf__Duration *after)
{
    PbPendingShutdown *pending = vp_pb_new(&pb_pending_shutdown__descriptor);
    const gint64 now_us = vp_wall_us();

    pending->mode = mode;
    pending->reboot = reboot;
    pending->request_time = vp_pb_timestamp(now_us);
    if (after)
        pending->fallback_time = vp_pb_timestamp(now_us + after->seconds * G_USEC_PER_SEC + after->nanos / 1000);
    return pending;
}

static PbPendingShutdown *read_request(const VpQemuOp *op)
{
    const void *request = vp_task_request(op->task);
    const PbShutdownDomainRequest *shutdown = request;
    const PbRebootDomainRequest *reboot = request;

    if (op->kind == VP_OP_REBOOT)
        return pending_new(reboot ? reboot->mode : PB_SHUTDOWN_MODE_UNSPECIFIED, TRUE,
                           reboot ? reboot->fallback_after : NULL);
    return pending_new(shutdown ? shutdown->mode : PB_SHUTDOWN_MODE_UNSPECIFIED, FALSE,
                       shutdown ? shutdown->fallback_after : NULL);
}

static VpError *check_guest(const VpQemuDomain *domain, PbShutdownMode mode)
{
    if (domain->state == PB_DOMAIN_STATE_PAUSED)
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_PAUSED",
                            "domain %s is paused, its guest cannot react; resume it first", domain->name);
    if (mode == PB_SHUTDOWN_MODE_AGENT && !vp_agent_is_ready(domain->agent))
        return vp_error_new(VP_FAILED_PRECONDITION, "AGENT_NOT_CONNECTED",
                            "domain %s: no agent answers in the guest%s; SHUTDOWN_MODE_ACPI asks without one",
                            domain->name, domain->live->guest_agent ? "" : " (its spec has no guest_agent)");
    return NULL;
}

void vp_qemu_shutdown_begin(VpQemuDomain *domain, VpQemuOp *op)
{
    PbPendingShutdown *asked = read_request(op);
    VpError *error = check_guest(domain, asked->mode);

    if (error) {
        vp_pb_free(asked);
        vp_qemu_op_finish(op, error);
        return;
    }
    VpQemuAsking *asking = g_new0(VpQemuAsking, 1);
    asking->refs = 1;
    asking->domain = vp_qemu_domain_ref(domain);
    asking->op = vp_qemu_op_ref(op);
    asking->mode = asked->mode;
    asking->asked = asked;
    asking->former = g_steal_pointer(&domain->asked);
    domain->asking = asking;
    const gboolean reboots = asked->reboot || (asking->former && asking->former->reboot);
    set_asked(domain, asked);
    if (reboots && domain->qmp)
        vp_qmp_execute(domain->qmp, "set-action", actions(domain), vp_task_deadline_us(op->task), on_actions,
                       asking_ref(asking));
    else
        ask(asking);
}

void vp_qemu_shutdown_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error)
{
    if (domain->asking && domain->asking->op == op)
        decide(domain->asking, error);
    else
        vp_qemu_op_finish(op, error);
}

/* ---- coming and going ---- */

void vp_qemu_shutdown_free(VpQemuDomain *domain)
{
    VpQemuAsking *asking = g_steal_pointer(&domain->asking);

    vp_timer_cancel(g_steal_pointer(&domain->fallback));
    if (!asking)
        return;
    /* The operation ends with the domain. */
    vp_qemu_op_unref(g_steal_pointer(&asking->op));
    asking_unref(asking);
}

gboolean vp_qemu_shutdown_is_halted(const VpQemuDomain *domain, json_t *status)
{
    const char *word = json_string_value(json_object_get(status, "status"));

    return g_strcmp0(word, "shutdown") == 0 || (is_reboot(domain) && g_strcmp0(word, "prelaunch") == 0);
}

void vp_qemu_shutdown_go_on(VpQemuDomain *domain)
{
    if (domain->reset_reason || domain->phase != VP_PHASE_UP)
        return;
    if (!domain->shutdown_reason)
        domain->shutdown_reason = g_strdup("guest-shutdown");
    reset(domain, "REBOOT_REQUESTED");
}

void vp_qemu_shutdown_adopted(VpQemuDomain *domain)
{
    send_actions(domain);
    vp_qemu_shutdown_arm(domain);
}
