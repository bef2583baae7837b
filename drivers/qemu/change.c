/* A change of what runs, and the order of its steps: see change_parts.h. */
#include "change_parts.h"

#include "base/pb.h"
#include "drivers/spec_change.h"

/* ---- the devices ---- */

VpQemuDevices *vp_qemu_devices_new(const PbDomain *model)
{
    VpQemuDevices *devices = g_new0(VpQemuDevices, 1);

    devices->pending = g_ptr_array_new_with_free_func(vp_pb_free);
    devices->sides = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (size_t i = 0; model->status && i < model->status->n_pending_detaches; i++)
        g_ptr_array_add(devices->pending, vp_pb_dup(model->status->pending_detaches[i]));
    return devices;
}

void vp_qemu_devices_free(VpQemuDevices *devices)
{
    if (!devices)
        return;
    g_ptr_array_unref(devices->pending);
    vp_pb_free(devices->intent);
    g_free(devices->swapping);
    g_hash_table_unref(devices->sides);
    g_free(devices);
}

void vp_qemu_devices_report(VpQemuDomain *domain, PbEventType event, const char *reason, const char *detail,
                            GPtrArray *findings)
{
    const VpQemuDevices *devices = domain->devices;
    const VpObservation observation = {
        .event = event,
        .reason = reason,
        .detail = detail,
        .state_stays = TRUE,
        .devices = TRUE,
        .live_spec = domain->live,
        .disks = (PbDiskStatus *const *)domain->disks->pdata,
        .n_disks = domain->disks->len,
        .pending_detaches = (PbPendingDetach *const *)devices->pending->pdata,
        .n_pending_detaches = devices->pending->len,
        .findings = findings ? (PbFinding *const *)findings->pdata : NULL,
        .n_findings = findings ? findings->len : 0,
    };

    domain->driver->host->report(domain->driver->host->data, domain->uid, &observation);
}

PbDiskStatus *vp_qemu_devices_find_status(const VpQemuDomain *domain, const char *target)
{
    for (guint i = 0; i < domain->disks->len; i++) {
        PbDiskStatus *status = domain->disks->pdata[i];

        if (g_str_equal(status->target, target))
            return status;
    }
    return NULL;
}

void vp_qemu_devices_set_status(VpQemuDomain *domain, const char *target, PbDiskStatus *status)
{
    g_ptr_array_remove(domain->disks, vp_qemu_devices_find_status(domain, target));
    if (status)
        g_ptr_array_add(domain->disks, status);
}

/* ---- life ---- */

static VpQemuChange *change_new(VpQemuDomain *domain, VpQemuOp *op)
{
    const PbUpdateDomainRequest *request = vp_task_request(op->task);
    const PbDomain *planned = vp_task_domain(op->task);
    VpQemuChange *change = g_new0(VpQemuChange, 1);

    change->refs = 1;
    change->driver = domain->driver;
    change->domain = vp_qemu_domain_ref(domain);
    change->op = vp_qemu_op_ref(op);
    change->task = vp_task_ref(op->task);
    change->wanted = vp_pb_dup(request->domain->spec);
    vp_spec_complete_qemu(change->wanted);
    change->planned_from = planned->status && planned->status->live_spec ? planned->status->live_spec : planned->spec;
    change->stored = request->scope == PB_CHANGE_SCOPE_BOTH;
    change->force = request->force;
    change->steps = g_array_new(FALSE, FALSE, sizeof(VpStep));
    change->awaited = g_ptr_array_new_with_free_func(g_free);
    vp_prepared_init(&change->prepared, change);
    return change;
}

VpQemuChange *vp_qemu_change_ref(VpQemuChange *change)
{
    g_atomic_int_inc(&change->refs);
    return change;
}

void vp_qemu_change_unref(VpQemuChange *change)
{
    if (!g_atomic_int_dec_and_test(&change->refs))
        return;
    vp_prepared_clear(&change->prepared, change->driver->host, change->wanted);
    g_array_unref(change->steps);
    g_ptr_array_unref(change->awaited);
    json_decref(change->fdsets);
    vp_error_free(change->error);
    vp_pb_free(change->wanted);
    vp_task_unref(change->task);
    vp_qemu_op_unref(change->op);
    vp_qemu_domain_unref(change->domain);
    g_free(change);
}

gboolean vp_qemu_change_is_over(const VpQemuChange *change)
{
    return !change->op->task || change->domain->phase != VP_PHASE_UP;
}

static void change_end(VpQemuChange *change, VpError *error)
{
    VpQemuDomain *domain = change->domain;

    domain->devices->change = NULL;
    if (error)
        vp_error_with(vp_error_prefix(error, "domain %s", domain->name), "domain", domain->name);
    /* On the heels of a lost connection comes the end of the process, and tells more; else the deadline ends it. */
    const gboolean lost = error && error->code == VP_UNAVAILABLE;
    if (domain->phase == VP_PHASE_UP && !lost)
        vp_qemu_op_finish(change->op, error);
    else
        vp_error_free(error);
    vp_qemu_devices_go_on(domain);
    vp_qemu_change_unref(change);
}

/* ---- what is to be done ---- */

static void add_step(VpQemuChange *change, VpStepKind kind, size_t index)
{
    VpStep step = {.kind = kind, .index = (guint)index};

    if (kind == VP_STEP_MEDIUM)
        step.side = 1 - vp_medium_side(change->domain, change->wanted->disks[index]->target);

    g_array_append_val(change->steps, step);
}

static void plan_disk(VpQemuChange *change, size_t index)
{
    const PbDisk *disk = change->wanted->disks[index];
    const PbDisk *now = vp_spec_find_disk(change->domain->live, disk->target);

    if (!vp_spec_find_disk(change->planned_from, disk->target)) {
        if (!now)
            add_step(change, VP_STEP_ATTACH_DISK, index);
        return;
    }
    if (!now)
        return;
    if (!g_str_equal(now->path, disk->path) || now->format != disk->format)
        add_step(change, VP_STEP_MEDIUM, index);
    if ((now->throttle || disk->throttle) &&
        !(now->throttle && disk->throttle && vp_pb_equal(now->throttle, disk->throttle)))
        add_step(change, VP_STEP_THROTTLE, index);
    if (now->write_threshold_bytes != disk->write_threshold_bytes)
        add_step(change, VP_STEP_THRESHOLD, index);
}

static void plan_detaches(VpQemuChange *change)
{
    const PbDomainSpec *before = change->planned_from;

    for (size_t i = 0; i < before->n_disks; i++) {
        if (!vp_spec_find_disk(change->wanted, before->disks[i]->target))
            add_step(change, VP_STEP_DETACH_DISK, i);
    }
    for (size_t i = 0; i < before->n_interfaces; i++) {
        if (!vp_spec_find_interface(change->wanted, before->interfaces[i]->mac))
            add_step(change, VP_STEP_DETACH_INTERFACE, i);
    }
}

/* What comes is there before the guest is asked to let go of what is to go, which may take long. */
static void plan(VpQemuChange *change)
{
    const PbDomainSpec *live = change->domain->live;
    const PbDomainSpec *wanted = change->wanted;

    for (size_t i = 0; i < wanted->n_disks; i++)
        plan_disk(change, i);
    for (size_t i = 0; i < wanted->n_interfaces; i++) {
        const char *mac = wanted->interfaces[i]->mac;

        if (!vp_spec_find_interface(change->planned_from, mac) && !vp_spec_find_interface(live, mac))
            add_step(change, VP_STEP_ATTACH_INTERFACE, i);
    }
    if (vp_resize_memory_of(change->planned_from) != vp_resize_memory_of(wanted))
        add_step(change, VP_STEP_MEMORY, 0);
    if (vp_resize_vcpus_of(change->planned_from) != vp_resize_vcpus_of(wanted))
        add_step(change, VP_STEP_VCPUS, 0);
    plan_detaches(change);
}

/* ---- the steps ---- */

static void begin_step(VpQemuChange *change, const VpStep *step)
{
    switch (step->kind) {
    case VP_STEP_ATTACH_DISK:
        vp_step_attach_disk(change, step->index);
        break;
    case VP_STEP_ATTACH_INTERFACE:
        vp_step_attach_interface(change, step->index);
        break;
    case VP_STEP_DETACH_DISK:
        vp_step_detach_disk(change, change->planned_from->disks[step->index]->target);
        break;
    case VP_STEP_DETACH_INTERFACE:
        vp_step_detach_interface(change, change->planned_from->interfaces[step->index]->mac);
        break;
    case VP_STEP_MEDIUM:
        vp_step_medium(change, step->index, step->side);
        break;
    case VP_STEP_THROTTLE:
        vp_step_throttle(change, step->index);
        break;
    case VP_STEP_THRESHOLD:
        vp_step_threshold(change, step->index);
        break;
    case VP_STEP_MEMORY:
        vp_step_memory(change);
        break;
    case VP_STEP_VCPUS:
        vp_step_vcpus(change);
        break;
    }
}

void vp_qemu_change_step_done(VpQemuChange *change, VpError *error)
{
    change->script = NULL;
    if (error || vp_qemu_change_is_over(change)) {
        change_end(change, error);
    } else if (change->next < change->steps->len) {
        begin_step(change, &g_array_index(change->steps, VpStep, change->next++));
    } else if (change->awaited->len > 0) {
        change->waiting = TRUE;
    } else {
        change_end(change, g_steal_pointer(&change->error));
    }
}

/* ---- the preparation ---- */

static void on_prepared(void *data)
{
    VpQemuChange *change = data;

    change->preparing = FALSE;
    /* Else it was given up meanwhile. */
    if (change->domain->devices->change == change)
        vp_qemu_change_step_done(change, g_steal_pointer(&change->error));
    vp_qemu_change_unref(change);
}

/* On a thread of the slow pool. */
static void prepare(void *data)
{
    VpQemuChange *change = data;

    change->error = vp_prepare(change);
    vp_loop_post(change->driver->host->loop, on_prepared, change);
}

static gboolean needs_preparation(const VpQemuChange *change)
{
    for (guint i = 0; i < change->steps->len; i++) {
        if (g_array_index(change->steps, VpStep, i).kind <= VP_STEP_MEDIUM)
            return TRUE;
    }
    return FALSE;
}

/* ---- from the domain ---- */

static void begin(VpQemuDomain *domain, VpQemuOp *op)
{
    VpQemuChange *change = change_new(domain, op);

    domain->devices->change = change;
    plan(change);
    if (!needs_preparation(change)) {
        vp_qemu_change_step_done(change, NULL);
        return;
    }
    change->preparing = TRUE;
    if (!vp_pool_submit(change->driver->host->slow_pool, prepare, vp_qemu_change_ref(change))) {
        vp_qemu_change_unref(change);
        change_end(change, vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "WORKERS_BUSY",
                                                       "too many starts and changes wait for their turn; try again"),
                                          1000));
    }
}

void vp_qemu_devices_go_on(VpQemuDomain *domain)
{
    VpQemuDevices *devices = domain->devices;

    if (devices->next && !devices->change && devices->looks == 0 && domain->phase == VP_PHASE_UP)
        begin(domain, g_steal_pointer(&devices->next));
}

void vp_qemu_change_begin(VpQemuDomain *domain, VpQemuOp *op)
{
    VpQemuDevices *devices = domain->devices;

    if (!domain->qmp) {
        vp_qemu_op_finish(op, vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE",
                                           "domain %s: QEMU does not answer; it may come back, and powering off works",
                                           domain->name));
        return;
    }
    if (devices->next) {
        vp_qemu_op_finish(op, vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_BUSY",
                                           "domain %s: an earlier change is still under way; try again", domain->name));
        return;
    }
    devices->next = op;
    vp_qemu_devices_go_on(domain);
}

/* What the guest has been asked for goes on, and is told when it comes. */
static VpError *still_pending(const VpQemuChange *change, VpError *error)
{
    g_autoptr(VpError) why = error;
    g_autofree char *names = vp_detach_names(change->awaited);
    const gboolean paused = change->domain->state == PB_DOMAIN_STATE_PAUSED;

    return vp_error_with(vp_error_new(why->code, why->code == VP_DEADLINE_EXCEEDED ? "DETACH_PENDING" : why->reason,
                                      "domain %s: the guest has not let go of %s%s; that stays pending "
                                      "(status.pending_detaches), and an event tells when it has%s",
                                      change->domain->name, names,
                                      why->code == VP_DEADLINE_EXCEEDED ? " in time" : " yet",
                                      paused ? ". It is paused: resume it" : ""),
                         "pending", names);
}

void vp_qemu_change_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error)
{
    VpQemuDevices *devices = domain->devices;
    VpQemuChange *change = devices->change;

    if (devices->next == op)
        devices->next = NULL;
    if (!change || change->op != op) {
        vp_qemu_op_finish(op, error);
        return;
    }
    g_atomic_int_set(&change->abort, 1);
    if (change->awaited->len > 0)
        error = still_pending(change, error);
    vp_qemu_op_finish(op, error);
    /* A disk that hangs holds up nothing but what needs it. */
    if (change->waiting || change->preparing)
        change_end(change, NULL);
    else if (change->script)
        vp_script_give_up(change->script);
}

void vp_qemu_devices_stop(VpQemuDomain *domain)
{
    VpQemuDevices *devices = domain->devices;
    VpQemuChange *change = devices->change;

    devices->next = NULL;
    if (change)
        g_atomic_int_set(&change->abort, 1);
    if (change && (change->waiting || change->preparing))
        change_end(change, NULL);
}
