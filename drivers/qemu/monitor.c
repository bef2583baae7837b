/*
 * What is heard of a QEMU and asked of it without anyone's request: the last steps of a start, adoption, its events, its silence. See domain_parts.h.
 */
#include "domain_parts.h"

#include <string.h>

#include "base/thread.h"
#include "devices.h"
#include "helper_process.h"
#include "ids.h"
#include "nodes.h"
#include "recover.h"
#include "restore.h"
#include "save.h"
#include "screenshot.h"
#include "stats.h"
#include "threshold.h"

/* How often the log's size is looked at, in pings. */
#define LOG_CHECK_TICKS 12

static void set_unresponsive(VpQemuDomain *domain, const char *why)
{
    if (domain->phase != VP_PHASE_UP || !domain->responsive)
        return;
    domain->responsive = FALSE;
    vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_UNRESPONSIVE, PB_DOMAIN_STATE_UNRESPONSIVE, "NO_ANSWER", why);
}

/* ---- start ---- */

static void on_started(VpQemuDomain *domain)
{
    VpQemuOp *op = domain->first_op;

    domain->phase = VP_PHASE_UP;
    domain->first_op = NULL;
    vp_qemu_domain_set_state(domain, domain->restore ? PB_EVENT_TYPE_DOMAIN_RESTORED : PB_EVENT_TYPE_DOMAIN_STARTED,
                             domain->paused ? PB_DOMAIN_STATE_PAUSED : PB_DOMAIN_STATE_RUNNING,
                             op->task ? vp_task_reason(op->task) : "REQUESTED", NULL);
    vp_qemu_restore_done(domain);
    g_ptr_array_set_size(domain->findings, 0);
    vp_qemu_op_finish(op, NULL);
}

/* The last command of a start, and each of those before. */
static void on_start_command(VpQemuDomain *domain, VpError *error, gboolean last)
{
    if (domain->phase != VP_PHASE_STARTING || domain->start_error) {
        vp_error_free(error);
        return;
    }
    /* With the connection gone the process will be gone in a moment, and its last words say more. */
    if (error && error->code == VP_FAILED_PRECONDITION)
        vp_qemu_domain_abort_start(domain, vp_error_prefix(g_steal_pointer(&error), "domain %s", domain->name));
    else if (!error && last)
        on_started(domain);
    vp_error_free(error);
}

static void on_before_run(void *data, json_t *result, VpError *error)
{
    (void)result;
    on_start_command(data, error, /* last= */ FALSE);
}

static void on_cont(void *data, json_t *result, VpError *error)
{
    (void)result;
    if (error && error->code == VP_FAILED_PRECONDITION)
        vp_qemu_restore_refused(data);
    on_start_command(data, error, /* last= */ TRUE);
}

static void let_run(VpQemuDomain *domain)
{
    size_t i;
    json_t *command;

    json_array_foreach(domain->before_run, i, command)
        vp_qmp_execute(domain->qmp, json_string_value(json_object_get(command, "execute")),
                       json_incref(json_object_get(command, "arguments")), 0, on_before_run, domain);
    vp_qemu_restore_runs(domain);
    /* Commands are answered in order, so that all is done before the guest runs. */
    vp_qmp_execute(domain->qmp, domain->paused ? "query-status" : "cont", NULL, 0, on_cont, domain);
}

static void on_pinned(VpQemuDomain *domain, VpError *error)
{
    if (error)
        on_start_command(domain, error, /* last= */ FALSE);
    else if (domain->phase == VP_PHASE_STARTING && !domain->start_error)
        let_run(domain);
}

static void finish_start(VpQemuDomain *domain)
{
    if (domain->pinning)
        vp_qemu_domain_pin(domain, on_pinned);
    else
        let_run(domain);
}

static void on_nodes(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;

    if (!error)
        error = vp_qemu_check_nodes(result);
    if (error) {
        on_start_command(domain, error, /* last= */ FALSE);
        return;
    }
    if (domain->phase != VP_PHASE_STARTING || domain->start_error)
        return;
    json_t *thresholds = vp_threshold_commands(domain->live, result);
    json_array_extend(domain->before_run, thresholds);
    json_decref(thresholds);
    if (domain->restore)
        vp_qemu_restore_begin(domain, finish_start);
    else
        finish_start(domain);
}

/* QEMU has read the headers by now. Only if they named nothing new may the guest run. */
static void continue_start(VpQemuDomain *domain)
{
    vp_qmp_execute(domain->qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), 0, on_nodes, domain);
}

/* ---- adoption ---- */

static void finish_adoption(VpQemuDomain *domain, PbDomainState told, const char *detail)
{
    VpQemuOp *op = domain->first_op;

    domain->phase = VP_PHASE_UP;
    domain->first_op = NULL;
    vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_ADOPTED, told, "DAEMON_RESTARTED", detail);
    vp_qemu_shutdown_adopted(domain);
    vp_qemu_op_finish(op, NULL);
    vp_qemu_recover_adopted(domain);
}

/* It will be UNRESPONSIVE until its first answer. */
void vp_qemu_domain_adopt_unresponsive(VpQemuDomain *domain)
{
    domain->responsive = FALSE;
    finish_adoption(domain, PB_DOMAIN_STATE_UNRESPONSIVE, "its process runs, but does not answer on its QMP socket");
}

/* A guest that was asked to shut down still is, whatever else happens to it. */
PbDomainState vp_qemu_domain_running_state(const VpQemuDomain *domain)
{
    const gboolean asked = domain->asked && !domain->asked->reboot;

    return asked || domain->state == PB_DOMAIN_STATE_SHUTTING_DOWN ? PB_DOMAIN_STATE_SHUTTING_DOWN
                                                                   : PB_DOMAIN_STATE_RUNNING;
}

/* The guest's state by the answer to query-status. A shutdown that was asked for before still is. */
static PbDomainState state_of(const VpQemuDomain *domain, json_t *result)
{
    const gboolean running = json_is_true(json_object_get(result, "running"));

    if (!running && !vp_qemu_shutdown_is_halted(domain, result))
        return PB_DOMAIN_STATE_PAUSED;
    return vp_qemu_domain_running_state(domain);
}

/* QEMU was made, but the daemon ended before it let the guest run. The status alone does not tell: a paused guest that is reset is at
 * "prelaunch" as well. */
static gboolean is_half_started(const VpQemuDomain *domain, json_t *result)
{
    const char *status = json_string_value(json_object_get(result, "status"));

    if (domain->half_restored)
        return TRUE;
    return domain->phase != VP_PHASE_STARTING && vp_qemu_domain_was_starting(domain) && !domain->paused &&
           g_strcmp0(status, "prelaunch") == 0;
}

/* The answer to any query-status. */
static void on_status(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;

    domain->ping_pending = FALSE;
    if (!error)
        domain->silent_since_us = 0;
    if (error || domain->phase == VP_PHASE_ENDED || domain->exit_how) {
        vp_error_free(error);
        return;
    }
    if (is_half_started(domain, result)) {
        /* Nobody was told that the start had worked, and whoever asked for it is gone. A new start is the clean way on. */
        vp_qemu_domain_abort_start(domain, vp_qemu_domain_broken_off(domain));
        return;
    }
    const PbDomainState state = state_of(domain, result);
    if (domain->phase == VP_PHASE_ADOPTING) {
        domain->state = state;
        finish_adoption(domain, state, NULL);
    } else if (domain->phase == VP_PHASE_UP && !domain->responsive) {
        domain->responsive = TRUE;
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_RESPONSIVE, state, "ANSWERS_AGAIN", NULL);
    }
    if (vp_qemu_shutdown_is_halted(domain, result))
        vp_qemu_shutdown_go_on(domain);
}

static void note_silence(VpQemuDomain *domain)
{
    if (domain->silent_since_us == 0)
        domain->silent_since_us = vp_now_us();
}

static void ping(VpQemuDomain *domain)
{
    note_silence(domain);
    domain->ping_pending = TRUE;
    vp_qmp_execute(domain->qmp, "query-status", NULL, 0, on_status, domain);
}

/* ---- QMP ---- */

static void on_ready(void *data)
{
    VpQemuDomain *domain = data;

    if (domain->phase == VP_PHASE_STARTING && !domain->start_error) {
        domain->silent_since_us = 0;
        continue_start(domain);
    } else if (domain->phase != VP_PHASE_ENDED) {
        vp_qemu_domain_look_for_agent(domain);
        vp_qemu_save_on_ready(domain);
        vp_qemu_domain_look_for_thresholds(domain);
        vp_qemu_devices_look(domain, domain->phase == VP_PHASE_ADOPTING ? "WHILE_DAEMON_DOWN" : "WHILE_DISCONNECTED");
    }
}

static void on_closed(void *data, const VpError *error)
{
    VpQemuDomain *domain = data;

    vp_qmp_close(g_steal_pointer(&domain->qmp));
    vp_qemu_screenshot_disconnected(domain);
    note_silence(domain);
    /* The usual cause is the end of the process, which the pidfd tells. If it is not, the next ping connects again. */
    if (domain->phase == VP_PHASE_STARTING && error->reason && strcmp(error->reason, "QMP_PROTOCOL") == 0)
        vp_qemu_domain_abort_start(domain, vp_error_prefix(vp_error_copy(error), "domain %s", domain->name));
}

void vp_qemu_domain_stopped(VpQemuDomain *domain)
{
    const gboolean watchdog = g_strcmp0(domain->watchdog, "PAUSE") == 0;
    const char *reason = domain->save          ? "SAVING"
                         : domain->pause_asked ? "REQUESTED"
                         : domain->panicked    ? "GUEST_PANICKED"
                         : domain->io_error    ? "IO_ERROR"
                         : watchdog            ? "WATCHDOG"
                                               : "HYPERVISOR";
    g_autofree char *detail =
        domain->io_error ? g_strdup_printf("an error on %s halted the guest", domain->io_error) : NULL;

    domain->pause_asked = FALSE;
    domain->panicked = FALSE;
    if (watchdog)
        domain->watchdog = NULL;
    g_clear_pointer(&domain->io_error, g_free);
    /* QEMU halts the CPUs on its way out, too. */
    if (!domain->shutdown_reason && domain->state != PB_DOMAIN_STATE_PAUSED)
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_PAUSED, PB_DOMAIN_STATE_PAUSED, reason, detail);
}

void vp_qemu_domain_resumed(VpQemuDomain *domain)
{
    const char *reason = domain->save ? "SAVE_TAKEN_BACK" : domain->resume_asked ? "REQUESTED" : "HYPERVISOR";

    domain->resume_asked = FALSE;
    if (domain->state == PB_DOMAIN_STATE_PAUSED)
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_RESUMED, vp_qemu_domain_running_state(domain), reason,
                                 NULL);
}

/* What we ask for is told when QEMU has answered. */
static void on_powerdown_event(VpQemuDomain *domain)
{
    const gboolean watchdog = g_strcmp0(domain->watchdog, "SHUTDOWN") == 0;

    if (domain->asking || domain->asked)
        return;
    domain->watchdog = NULL;
    if (domain->state == PB_DOMAIN_STATE_RUNNING)
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_SHUTTING_DOWN, PB_DOMAIN_STATE_SHUTTING_DOWN,
                                 watchdog ? "WATCHDOG" : "HYPERVISOR", NULL);
}

/* Puts the target of a disk in the place of its names in QEMU. */
static void name_disk(const VpQemuDomain *domain, json_t *arguments)
{
    const char *node = json_string_value(json_object_get(arguments, "node-name"));
    const char *id = json_string_value(json_object_get(arguments, "id"));
    const PbDisk *disk = node ? vp_id_disk_of_node(domain->live, node) : NULL;

    if (disk)
        json_object_set_new(arguments, "node-name", json_string(disk->target));
    if (id && g_str_has_prefix(id, VP_ID_DISK))
        json_object_set_new(arguments, "id", json_string(id + strlen(VP_ID_DISK)));
}

static void on_notice(VpQemuDomain *domain, const char *name, json_t *arguments)
{
    VpNotice notice;
    guint swallowed = 0;

    if (!vp_notice_read(name, arguments, &notice))
        return;
    g_autofree char *detail = notice.detail;
    if (notice.event == PB_EVENT_TYPE_DOMAIN_WATCHDOG)
        domain->watchdog = notice.reason;
    if (!notice.once && !vp_notice_pass(&domain->notices[notice.kind], vp_now_us(), &swallowed))
        return;
    g_autofree char *more =
        swallowed ? g_strdup_printf("%s (%u more before it were not told)", detail ? detail : "", swallowed) : NULL;
    const VpObservation observation = {
        .event = notice.event,
        .reason = notice.reason,
        .detail = more ? more : detail,
        .notice = TRUE,
    };

    domain->driver->host->report(domain->driver->host->data, domain->uid, &observation);
}

static void on_event(void *data, const char *name, json_t *arguments)
{
    VpQemuDomain *domain = data;
    const char *reason = json_string_value(json_object_get(arguments, "reason"));
    const char *action = json_string_value(json_object_get(arguments, "action"));

    if (strcmp(name, "SHUTDOWN") == 0) {
        g_free(domain->shutdown_reason);
        domain->shutdown_reason = g_strdup(reason ? reason : "");
    }
    /* What happens before the start or the adoption is through is told as its outcome. */
    if (domain->phase != VP_PHASE_UP)
        return;
    if (vp_qemu_devices_on_event(domain, name, arguments))
        return;
    name_disk(domain, arguments);
    on_notice(domain, name, arguments);
    if (strcmp(name, "SHUTDOWN") == 0) {
        vp_qemu_domain_is_shutting(domain);
    } else if (strcmp(name, "STOP") == 0) {
        vp_qemu_domain_stopped(domain);
    } else if (strcmp(name, "RESUME") == 0) {
        vp_qemu_domain_resumed(domain);
    } else if (strcmp(name, "POWERDOWN") == 0) {
        on_powerdown_event(domain);
    } else if (strcmp(name, "MIGRATION") == 0) {
        vp_qemu_save_on_migration(domain, arguments);
    } else if (strcmp(name, "VSERPORT_CHANGE") == 0) {
        vp_qemu_domain_port_changed(domain, arguments);
    } else if (strcmp(name, "RESET") == 0) {
        vp_qemu_domain_was_reset(domain, json_is_true(json_object_get(arguments, "guest")));
    } else if (strcmp(name, "GUEST_PANICKED") == 0) {
        domain->panicked = g_strcmp0(action, "pause") == 0;
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_PANICKED, domain->state, "GUEST_PANICKED", NULL);
    } else if (strcmp(name, "GUEST_CRASHLOADED") == 0) {
        vp_qemu_domain_set_state(domain, PB_EVENT_TYPE_DOMAIN_PANICKED, domain->state, "CRASH_KERNEL", NULL);
    } else if (strcmp(name, "BLOCK_IO_ERROR") == 0 && g_strcmp0(action, "stop") == 0) {
        const char *device = json_string_value(json_object_get(arguments, "node-name"));

        g_free(domain->io_error);
        domain->io_error = g_strdup(device ? device : "a disk");
    }
}

static const VpQmpHandler qmp_handler = {.ready = on_ready, .event = on_event, .closed = on_closed};

void vp_qemu_domain_connect(VpQemuDomain *domain)
{
    g_autoptr(VpError) error = NULL;
    int fd;

    error = vp_folder_connect(domain->dir, &fd);
    if (!error)
        domain->qmp = vp_qmp_new(vp_loop_uv(domain->driver->host->loop), fd, &qmp_handler, domain, &error);
    if (!domain->qmp) {
        note_silence(domain);
        return;
    }
    /* Waits for the greeting; a start has commands of its own. */
    if (domain->phase != VP_PHASE_STARTING)
        ping(domain);
}

/* ---- looking after it ---- */

static void bound_log(void *data)
{
    VpQemuDomain *domain = data;

    vp_folder_bound_log(domain->dir);
    vp_qemu_domain_unref(domain);
}

/* It has been silent for too long. */
static void on_silence(VpQemuDomain *domain)
{
    const char *why = domain->qmp ? "QEMU does not answer on its QMP socket" : "QEMU has closed its QMP socket";

    if (domain->phase == VP_PHASE_ADOPTING)
        vp_qemu_domain_adopt_unresponsive(domain);
    else if (domain->phase == VP_PHASE_UP)
        set_unresponsive(domain, why);
    else
        vp_qemu_domain_abort_start(domain,
                                   vp_error_new(VP_UNAVAILABLE, "QMP_CLOSED", "domain %s: %s", domain->name, why));
}

void vp_qemu_domain_on_timer(uv_timer_t *timer)
{
    VpQemuDomain *domain = timer->data;
    const guint64 after_ms = domain->driver->unresponsive_after_ms;
    const gint64 limit_us =
        (gint64)(domain->phase == VP_PHASE_ADOPTING ? MIN(after_ms, VP_ADOPT_ANSWER_MS) : after_ms) * 1000;

    if (++domain->ticks % LOG_CHECK_TICKS == 0) {
        vp_qemu_domain_ref(domain);
        if (!vp_pool_submit(domain->driver->host->pool, bound_log, domain))
            vp_qemu_domain_unref(domain);
    }
    vp_helpers_reap(domain->helpers);
    vp_qemu_stats_tick(domain);
    if (domain->silent_since_us != 0 && vp_now_us() - domain->silent_since_us >= limit_us)
        on_silence(domain);
    if (!domain->qmp)
        vp_qemu_domain_connect(domain);
    else if (!domain->ping_pending && domain->phase != VP_PHASE_STARTING)
        ping(domain);
}
