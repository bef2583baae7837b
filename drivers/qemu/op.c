/* A task in the hands of the loop: see domain.h. */
#include "base/thread.h"
#include "domain.h"

static const char *const verbs[] = {
    [VP_OP_START] = "start",
    [VP_OP_ADOPT] = "adoption",
    [VP_OP_SHUTDOWN] = "shutdown",
    [VP_OP_REBOOT] = "reboot",
    [VP_OP_POWER_OFF] = "power off",
    [VP_OP_RESET] = "reset",
    [VP_OP_PAUSE] = "pause",
    [VP_OP_RESUME] = "resume",
    [VP_OP_STATS] = "reading of the counters",
    [VP_OP_SCREENSHOT] = "taking of a picture",
    [VP_OP_SAVE] = "save",
    [VP_OP_RESTORE] = "restore",
    [VP_OP_GUEST] = "question to the guest",
    [VP_OP_CHANGE] = "change",
};

const char *vp_qemu_op_verb(const VpQemuOp *op)
{
    return verbs[op->kind];
}

VpQemuOp *vp_qemu_op_ref(VpQemuOp *op)
{
    g_atomic_int_inc(&op->refs);
    return op;
}

void vp_qemu_op_unref(VpQemuOp *op)
{
    if (!g_atomic_int_dec_and_test(&op->refs))
        return;
    VpQemuDriver *driver = op->driver;

    g_free(op);
    vp_qemu_driver_live(driver, -1);
}

static void on_deadline(void *data)
{
    VpQemuOp *op = data;

    vp_qemu_domain_end_early(op->domain, op,
                             vp_error_new(VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT",
                                          "domain %s: the %s did not end in time", op->domain->name,
                                          vp_qemu_op_verb(op)));
}

static void cancel_on_loop(void *data)
{
    VpQemuOp *op = data;

    /* One that is not attached yet is found to be cancelled when it is. Its job may have looked at the clock a moment before us: that is no change of mind. */
    if (op->task && op->domain && vp_task_expired(op->task))
        on_deadline(op);
    else if (op->task && op->domain)
        vp_qemu_domain_end_early(op->domain, op,
                                 vp_error_new(VP_CANCELLED, "CANCELLED", "domain %s: the %s was cancelled",
                                              op->domain->name, vp_qemu_op_verb(op)));
    vp_qemu_op_unref(op);
}

static void on_cancel(void *data)
{
    VpQemuOp *op = data;

    vp_loop_post(op->driver->host->loop, cancel_on_loop, vp_qemu_op_ref(op));
}

VpQemuOp *vp_qemu_op_new(VpQemuDriver *driver, VpOpKind kind, VpTask *task)
{
    VpQemuOp *op = g_new0(VpQemuOp, 1);

    op->refs = 1;
    op->driver = driver;
    op->kind = kind;
    op->task = task;
    vp_qemu_driver_live(driver, 1);
    vp_task_set_cancel_hook(task, on_cancel, op);
    return op;
}

void vp_qemu_op_attach(VpQemuOp *op, VpQemuDomain *domain)
{
    const gint64 left_us = MAX(0, vp_task_deadline_us(op->task) - vp_now_us());

    op->domain = domain;
    g_ptr_array_add(domain->ops, op);
    op->timer = vp_timer_start(op->driver->host->loop, (guint64)(left_us / 1000), on_deadline, op);
}

void vp_qemu_op_finish(VpQemuOp *op, VpError *error)
{
    VpTask *task = g_steal_pointer(&op->task);

    if (!task) {
        vp_error_free(error);
        return;
    }
    vp_timer_cancel(g_steal_pointer(&op->timer));
    if (op->domain)
        g_ptr_array_remove(op->domain->ops, op);
    op->domain = NULL;
    if (op->ended)
        op->ended(op->ended_data);
    vp_task_finish(task, error);
    vp_qemu_op_unref(op);
}
