/* What a client asks of a domain that is there: see domain.h. */
#include "domain_parts.h"

#include <signal.h>

#include "devices.h"
#include "guest.h"
#include "save.h"
#include "screenshot.h"
#include "stats.h"

/* The answer to a command of an operation; holds a reference to it. */
static void on_command(void *data, json_t *result, VpError *error)
{
    VpQemuOp *op = data;
    VpQemuDomain *domain = op->domain;

    (void)result;
    if (op->task && domain && domain->phase != VP_PHASE_ENDED) {
        /* Mostly the event has told it already. */
        if (!error && op->kind == VP_OP_PAUSE)
            vp_qemu_domain_stopped(domain);
        if (!error && op->kind == VP_OP_RESUME)
            vp_qemu_domain_resumed(domain);
        /* On the heels of a lost connection comes the end of the process, and tells more; else the deadline ends it. */
        if (!error || error->code != VP_UNAVAILABLE)
            vp_qemu_op_finish(op, error ? vp_error_prefix(g_steal_pointer(&error), "domain %s: %s", domain->name,
                                                          vp_qemu_op_verb(op))
                                        : NULL);
    }
    vp_error_free(error);
    vp_qemu_op_unref(op);
}

static void send_command(VpQemuDomain *domain, VpQemuOp *op, const char *command)
{
    if (!domain->qmp) {
        vp_qemu_op_finish(op, vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE",
                                           "domain %s: QEMU does not answer; it may come back, and powering off works",
                                           domain->name));
        return;
    }
    vp_qmp_execute(domain->qmp, command, NULL, vp_task_deadline_us(op->task), on_command, vp_qemu_op_ref(op));
}

void vp_qemu_domain_begin_power_off(VpQemuDomain *domain, VpQemuOp *op)
{
    domain->killed = TRUE;
    /* Else it is seen when it arrives. */
    if (!domain->arrived)
        return;
    if (domain->phase == VP_PHASE_STARTING) {
        vp_qemu_domain_abort_start(domain, vp_error_new(VP_CANCELLED, "POWERED_OFF",
                                                        "domain %s was powered off while it started", domain->name));
        return;
    }
    VpError *error = vp_process_kill(&domain->process, SIGKILL);
    if (error)
        vp_qemu_op_finish(op, vp_error_prefix(error, "domain %s", domain->name));
}

static void begin_pause(VpQemuDomain *domain, VpQemuOp *op)
{
    if (domain->responsive && domain->state == PB_DOMAIN_STATE_PAUSED) {
        vp_qemu_op_finish(op, NULL);
        return;
    }
    domain->pause_asked = TRUE;
    send_command(domain, op, "stop");
}

static void begin_resume(VpQemuDomain *domain, VpQemuOp *op)
{
    if (domain->responsive && domain->state != PB_DOMAIN_STATE_PAUSED) {
        vp_qemu_op_finish(op, NULL);
        return;
    }
    domain->resume_asked = TRUE;
    send_command(domain, op, "cont");
}

void vp_qemu_domain_begin(VpQemuDomain *domain, VpQemuOp *op)
{
    vp_qemu_op_attach(op, domain);
    if (op->kind == VP_OP_POWER_OFF) {
        vp_qemu_domain_begin_power_off(domain, op);
        return;
    }
    if (domain->phase != VP_PHASE_UP) {
        vp_qemu_op_finish(op, vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_BUSY",
                                           "domain %s is being started or ended; try again", domain->name));
        return;
    }
    if (domain->save && op->kind != VP_OP_STATS && op->kind != VP_OP_SCREENSHOT && op->kind != VP_OP_SAVE) {
        vp_qemu_op_finish(op, vp_error_retry(vp_error_new(VP_UNAVAILABLE, "SAVE_UNDER_WAY",
                                                          "domain %s: an earlier save is still being taken back; try "
                                                          "again",
                                                          domain->name),
                                             1000));
        return;
    }
    switch (op->kind) {
    case VP_OP_PAUSE:
        begin_pause(domain, op);
        break;
    case VP_OP_RESUME:
        begin_resume(domain, op);
        break;
    case VP_OP_SHUTDOWN:
    case VP_OP_REBOOT:
        vp_qemu_shutdown_begin(domain, op);
        break;
    case VP_OP_STATS:
        vp_qemu_stats_begin(domain, op);
        break;
    case VP_OP_SCREENSHOT:
        vp_qemu_screenshot_begin(domain, op);
        break;
    case VP_OP_SAVE:
        vp_qemu_save_begin(domain, op);
        break;
    case VP_OP_GUEST:
        vp_guest_begin(domain, op);
        break;
    case VP_OP_CHANGE:
        vp_qemu_change_begin(domain, op);
        break;
    default:
        vp_qemu_reset_begin(domain);
        send_command(domain, op, "system_reset");
        break;
    }
}

void vp_qemu_domain_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error)
{
    switch (op->kind) {
    case VP_OP_START:
    case VP_OP_RESTORE:
        /* It is through when the process is gone. */
        vp_qemu_domain_abort_start(domain, error);
        break;
    case VP_OP_ADOPT:
        vp_error_free(error);
        if (domain->phase == VP_PHASE_ADOPTING)
            vp_qemu_domain_adopt_unresponsive(domain);
        break;
    case VP_OP_STATS:
        vp_qemu_stats_end_early(domain, op, error);
        break;
    case VP_OP_SHUTDOWN:
    case VP_OP_REBOOT:
        vp_qemu_shutdown_end_early(domain, op, error);
        break;
    case VP_OP_SAVE:
        vp_qemu_save_end_early(domain, op, error);
        break;
    case VP_OP_CHANGE:
        vp_qemu_change_end_early(domain, op, error);
        break;
    default:
        vp_qemu_op_finish(op, error);
        break;
    }
}
