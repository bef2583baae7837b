/* A domain from its arrival to its going: see domain.h. */
#include "domain_parts.h"

#include <signal.h>

#include "base/pb.h"
#include "command_line.h"
#include "devices.h"
#include "guest.h"
#include "restore.h"
#include "save.h"
#include "screenshot.h"
#include "start.h"
#include "stats.h"

/* ---- life ---- */

VpQemuDomain *vp_qemu_domain_new(VpQemuDriver *driver, const PbDomain *model, VpDomainPhase phase)
{
    VpQemuDomain *domain = g_new0(VpQemuDomain, 1);

    domain->refs = 1;
    domain->driver = driver;
    domain->uid = g_strdup(model->uid);
    domain->name = g_strdup(model->name);
    domain->dir = g_build_filename(driver->host->state_dir, model->uid, NULL);
    domain->phase = phase;
    domain->live =
        vp_pb_dup(phase == VP_PHASE_ADOPTING && model->status && model->status->live_spec ? model->status->live_spec
                                                                                          : model->spec);
    vp_spec_complete_qemu(domain->live);
    pb_guest_agent_status__init(&domain->agent_told);
    if (phase == VP_PHASE_ADOPTING && model->status && model->status->agent)
        vp_guest_adopt(domain, model->status->agent);
    if (phase == VP_PHASE_ADOPTING && model->status)
        domain->asked = vp_pb_dup(model->status->shutdown);
    domain->state = PB_DOMAIN_STATE_STARTING;
    domain->responsive = TRUE;
    domain->process.pidfd = -1;
    domain->pinning = model->spec ? vp_pb_dup(model->spec->pinning) : NULL;
    domain->helpers = g_array_new(FALSE, FALSE, sizeof(VpProcess));
    domain->disks = g_ptr_array_new_with_free_func(vp_pb_free);
    domain->findings = g_ptr_array_new_with_free_func(vp_pb_free);
    domain->endpoints = g_ptr_array_new_with_free_func(vp_pb_free);
    for (size_t i = 0; phase == VP_PHASE_ADOPTING && model->status && i < model->status->n_disks; i++)
        g_ptr_array_add(domain->disks, vp_pb_dup(model->status->disks[i]));
    domain->devices = vp_qemu_devices_new(model);
    domain->ops = g_ptr_array_new();
    vp_qemu_driver_live(driver, 1);
    return domain;
}

VpQemuDomain *vp_qemu_domain_ref(VpQemuDomain *domain)
{
    g_atomic_int_inc(&domain->refs);
    return domain;
}

void vp_qemu_domain_unref(VpQemuDomain *domain)
{
    if (!g_atomic_int_dec_and_test(&domain->refs))
        return;
    VpQemuDriver *driver = domain->driver;

    vp_process_clear(&domain->process);
    vp_pb_free(domain->live);
    json_decref(domain->before_run);
    vp_pb_free(domain->pinning);
    for (guint i = 0; i < domain->helpers->len; i++)
        vp_process_clear(&g_array_index(domain->helpers, VpProcess, i));
    g_array_unref(domain->helpers);
    vp_qemu_stats_free(domain->stats);
    vp_qemu_screenshot_free(domain->screenshot);
    vp_qemu_restore_free(domain->restore);
    vp_pb_free(domain->found_saved);
    vp_pb_free(domain->agent_told.thaw_time);
    vp_qemu_devices_free(domain->devices);
    g_ptr_array_unref(domain->disks);
    g_ptr_array_unref(domain->findings);
    g_ptr_array_unref(domain->endpoints);
    vp_pb_free(domain->contained);
    g_ptr_array_unref(domain->ops);
    vp_error_free(domain->look_error);
    vp_error_free(domain->start_error);
    g_free(domain->io_error);
    g_free(domain->shutdown_reason);
    vp_pb_free(domain->asked);
    g_free(domain->exit_how);
    g_free(domain->exit_log);
    g_free(domain->dir);
    g_free(domain->name);
    g_free(domain->uid);
    g_free(domain);
    vp_qemu_driver_live(driver, -1);
}

static void handle_closed(uv_handle_t *handle)
{
    vp_qemu_domain_unref(handle->data);
}

static void open_handles(VpQemuDomain *domain)
{
    uv_loop_t *uv = vp_loop_uv(domain->driver->host->loop);

    uv_poll_init(uv, &domain->exit_poll, domain->process.pidfd);
    uv_timer_init(uv, &domain->ping_timer);
    domain->exit_poll.data = vp_qemu_domain_ref(domain);
    domain->ping_timer.data = vp_qemu_domain_ref(domain);
    vp_qemu_domain_make_agent(domain);
    domain->watched = TRUE;
}

void vp_qemu_domain_unwatch(VpQemuDomain *domain)
{
    if (!domain->watched)
        return;
    domain->watched = FALSE;
    vp_qemu_shutdown_free(domain);
    vp_qemu_devices_stop(domain);
    vp_qemu_domain_free_agent(domain);
    vp_qmp_close(g_steal_pointer(&domain->qmp));
    uv_close((uv_handle_t *)&domain->exit_poll, handle_closed);
    uv_close((uv_handle_t *)&domain->ping_timer, handle_closed);
}

/* ---- reports ---- */

void vp_qemu_domain_report(VpQemuDomain *domain, PbEventType event, PbDomainState state, const char *reason,
                           const char *detail)
{
    const gboolean alive = domain->has_process && domain->phase != VP_PHASE_ENDED;
    const gboolean restored = event == PB_EVENT_TYPE_DOMAIN_RESTORED;
    const gboolean started = restored || event == PB_EVENT_TYPE_DOMAIN_STARTED;
    const VpObservation observation = {
        .event = event,
        .state = state,
        .reason = reason,
        .detail = detail,
        .pid = alive ? domain->process.pid : 0,
        .pid_start_ticks = alive ? domain->process.start_ticks : 0,
        .accelerator = alive ? domain->accelerator : PB_ACCELERATOR_UNSPECIFIED,
        .shutdown = alive ? domain->asked : NULL,
        .tainted = started && domain->tainted,
        .containment = started || event == PB_EVENT_TYPE_DOMAIN_ADOPTED ? domain->contained : NULL,
        .disks = started ? (PbDiskStatus *const *)domain->disks->pdata : NULL,
        .n_disks = started ? domain->disks->len : 0,
        .findings = started ? (PbFinding *const *)domain->findings->pdata : NULL,
        .n_findings = started ? domain->findings->len : 0,
        .endpoints = started ? (PbDomainEndpoint *const *)domain->endpoints->pdata : NULL,
        .n_endpoints = started ? domain->endpoints->len : 0,
        /* It runs with the spec that it was saved with. */
        .devices = restored,
        .live_spec = restored ? domain->live : NULL,
    };

    domain->driver->host->report(domain->driver->host->data, domain->uid, &observation);
}

/* The guest's state has changed. While QEMU does not answer its last words are noted, and told once it does again. */
void vp_qemu_domain_set_state(VpQemuDomain *domain, PbEventType event, PbDomainState state, const char *reason,
                              const char *detail)
{
    domain->state = state;
    if (domain->responsive)
        vp_qemu_domain_report(domain, event, state, reason, detail);
}

/* ---- arrival ---- */

static void watch(VpQemuDomain *domain)
{
    const guint64 interval_ms = domain->driver->ping_interval_ms;

    open_handles(domain);
    uv_poll_start(&domain->exit_poll, UV_READABLE, vp_qemu_domain_on_exit);
    vp_qemu_domain_connect(domain);
    uv_timer_start(&domain->ping_timer, vp_qemu_domain_on_timer, MIN(interval_ms, VP_ADOPT_ANSWER_MS + 100),
                   interval_ms);
}

void vp_qemu_domain_made(VpQemuDomain *domain, VpError *error)
{
    g_autoptr(VpError) why = error;

    /* It was let go meanwhile: the process, which is written down, is for the next daemon. */
    if (domain->phase == VP_PHASE_ENDED)
        return;
    if (!domain->has_process) {
        g_autoptr(VpError) given_up = g_steal_pointer(&domain->start_error);

        vp_qemu_domain_gone(domain, given_up ? given_up : why);
        return;
    }
    watch(domain);
    if (domain->start_error)
        vp_error_free(vp_process_kill(&domain->process, SIGKILL));
}

/* There was no process to take up, or it cannot be looked at. */
static void arrive_in_vain(VpQemuDomain *domain)
{
    const VpError *why = domain->look_error->code == VP_NOT_FOUND ? NULL : domain->look_error;

    vp_qemu_domain_ref(domain);
    domain->phase = VP_PHASE_ENDED;
    vp_qemu_driver_remove(domain->driver, domain);
    if (!why && domain->state != PB_DOMAIN_STATE_SHUTOFF && domain->state != PB_DOMAIN_STATE_CRASHED &&
        domain->state != PB_DOMAIN_STATE_SAVED)
        vp_qemu_domain_tell_gone(domain);
    while (domain->ops->len > 0)
        vp_qemu_op_finish(g_ptr_array_index(domain->ops, 0), vp_error_copy(why));
    vp_qemu_domain_unref(domain);
}

/* A process to take up, or to end. */
static void arrive_with_process(VpQemuDomain *domain, VpQemuOp *op, gboolean cancelled)
{
    if (op->kind == VP_OP_POWER_OFF) {
        domain->phase = VP_PHASE_UP;
        domain->first_op = NULL;
    }
    watch(domain);
    if (domain->killed || op->kind == VP_OP_POWER_OFF)
        vp_qemu_domain_begin_power_off(domain, op);
    else if (cancelled)
        vp_qemu_domain_end_early(domain, op, NULL);
}

static gboolean is_start(const VpQemuOp *op)
{
    return op->kind == VP_OP_START || op->kind == VP_OP_RESTORE;
}

void vp_qemu_domain_arrive(void *data)
{
    VpQemuDomain *domain = data;
    VpQemuOp *op = domain->first_op;
    const gboolean cancelled = domain->killed || vp_task_cancelled(op->task);

    domain->arrived = TRUE;
    vp_qemu_op_attach(op, domain);
    if (domain->look_error) {
        arrive_in_vain(domain);
    } else if (is_start(op) && cancelled) {
        g_autoptr(VpError) error =
            vp_error_new(VP_CANCELLED, "CANCELLED", "domain %s: the start was cancelled", domain->name);

        vp_qemu_domain_gone(domain, error);
    } else if (is_start(op)) {
        vp_qemu_start_begin(domain, op->task);
    } else {
        arrive_with_process(domain, op, cancelled);
    }
}

void vp_qemu_domain_let_go(VpQemuDomain *domain)
{
    vp_qemu_domain_ref(domain);
    domain->phase = VP_PHASE_ENDED;
    if (domain->start)
        vp_qemu_start_give_up(domain);
    while (domain->ops->len > 0)
        vp_qemu_op_finish(g_ptr_array_index(domain->ops, 0),
                          vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING",
                                       "domain %s: the daemon stops; the domain runs on", domain->name));
    vp_qemu_save_gone(domain);
    vp_qemu_domain_unwatch(domain);
    vp_qemu_driver_remove(domain->driver, domain);
    vp_qemu_domain_unref(domain);
}
