/* What happens to a domain: see domain.h. All on the loop's thread. */
#include "domain.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "fdset_names.h"
#include "nodes.h"
#include "start.h"

/* How often the log's size is looked at, in pings. */
#define LOG_CHECK_TICKS 12
#define LOG_TAIL_LINES 5

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
    domain->state = PB_DOMAIN_STATE_STARTING;
    domain->responsive = TRUE;
    domain->process.pidfd = -1;
    domain->links_down = g_ptr_array_new_with_free_func(g_free);
    domain->disks = g_ptr_array_new_with_free_func(vp_pb_free);
    domain->findings = g_ptr_array_new_with_free_func(vp_pb_free);
    domain->endpoints = g_ptr_array_new_with_free_func(vp_pb_free);
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
    g_ptr_array_unref(domain->links_down);
    g_ptr_array_unref(domain->disks);
    g_ptr_array_unref(domain->findings);
    g_ptr_array_unref(domain->endpoints);
    g_ptr_array_unref(domain->ops);
    vp_error_free(domain->look_error);
    vp_error_free(domain->start_error);
    g_free(domain->io_error);
    g_free(domain->shutdown_reason);
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
    domain->watched = TRUE;
}

static void close_handles(VpQemuDomain *domain)
{
    if (!domain->watched)
        return;
    domain->watched = FALSE;
    vp_qmp_close(g_steal_pointer(&domain->qmp));
    uv_close((uv_handle_t *)&domain->exit_poll, handle_closed);
    uv_close((uv_handle_t *)&domain->ping_timer, handle_closed);
}

/* ---- reports ---- */

void vp_qemu_domain_report(VpQemuDomain *domain, PbEventType event, PbDomainState state, const char *reason,
                           const char *detail)
{
    const gboolean alive = domain->has_process && domain->phase != VP_PHASE_ENDED;
    const gboolean started = event == PB_EVENT_TYPE_DOMAIN_STARTED;
    const VpObservation observation = {
        .event = event,
        .state = state,
        .reason = reason,
        .detail = detail,
        .pid = alive ? domain->process.pid : 0,
        .pid_start_ticks = alive ? domain->process.start_ticks : 0,
        .accelerator = alive ? domain->accelerator : PB_ACCELERATOR_UNSPECIFIED,
        .disks = started ? (PbDiskStatus *const *)domain->disks->pdata : NULL,
        .n_disks = started ? domain->disks->len : 0,
        .findings = started ? (PbFinding *const *)domain->findings->pdata : NULL,
        .n_findings = started ? domain->findings->len : 0,
        .endpoints = started ? (PbDomainEndpoint *const *)domain->endpoints->pdata : NULL,
        .n_endpoints = started ? domain->endpoints->len : 0,
    };

    domain->driver->host->report(domain->driver->host->data, domain->uid, &observation);
}

/* The guest's state has changed. While QEMU does not answer its last words are noted, and told once it does again. */
static void set_state(VpQemuDomain *domain, PbEventType event, PbDomainState state, const char *reason,
                      const char *detail)
{
    domain->state = state;
    if (domain->responsive)
        vp_qemu_domain_report(domain, event, state, reason, detail);
}

static void set_unresponsive(VpQemuDomain *domain, const char *why)
{
    if (domain->phase != VP_PHASE_UP || !domain->responsive)
        return;
    domain->responsive = FALSE;
    vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_UNRESPONSIVE, PB_DOMAIN_STATE_UNRESPONSIVE, "NO_ANSWER", why);
}

/* ---- the end of the process ---- */

/* A start that came to nothing. */
static void tell_start_failed(VpQemuDomain *domain, const VpError *error)
{
    const char *reason = domain->phase != VP_PHASE_STARTING ? "WHILE_DAEMON_DOWN"
                         : error->code == VP_CANCELLED      ? "CANCELLED"
                                                            : "START_FAILED";

    domain->phase = VP_PHASE_ENDED;
    vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_START_FAILED, PB_DOMAIN_STATE_SHUTOFF, reason, error->message);
}

static VpError *exit_error(const VpQemuDomain *domain)
{
    VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "QEMU_EXITED", "domain %s: QEMU %s: %s", domain->name,
                                  domain->exit_how, domain->exit_log ? domain->exit_log : "it said nothing");

    vp_error_with(error, "exit", domain->exit_how);
    return vp_error_with(error, "stderr", domain->exit_log ? domain->exit_log : "");
}

static void tell_ended(VpQemuDomain *domain)
{
    const char *why = domain->shutdown_reason ? domain->shutdown_reason : "";
    g_autofree char *detail = g_strdup_printf("QEMU %s%s%s", domain->exit_how, domain->exit_log ? ": " : "",
                                              domain->exit_log ? domain->exit_log : "");

    domain->phase = VP_PHASE_ENDED;
    if (strcmp(why, "guest-shutdown") == 0)
        vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_SHUT_DOWN, PB_DOMAIN_STATE_SHUTOFF, "GUEST_REQUEST", NULL);
    else if (domain->killed)
        vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_POWERED_OFF, PB_DOMAIN_STATE_SHUTOFF, "REQUESTED", NULL);
    else if (strcmp(why, "guest-panic") == 0)
        vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_CRASHED, PB_DOMAIN_STATE_CRASHED, "GUEST_PANICKED", NULL);
    else if (g_str_has_prefix(why, "host-") && strcmp(why, "host-error") != 0)
        vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_POWERED_OFF, PB_DOMAIN_STATE_SHUTOFF, "REQUESTED", detail);
    else
        vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_CRASHED, PB_DOMAIN_STATE_CRASHED, "PROCESS_EXITED", detail);
}

static VpError *op_end_error(const VpQemuDomain *domain, const VpQemuOp *op, const VpError *start_error)
{
    switch (op->kind) {
    case VP_OP_POWER_OFF:
    case VP_OP_ADOPT:
        return NULL;
    case VP_OP_START:
        return vp_error_copy(start_error);
    default:
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_ENDED", "domain %s ended before the %s was done",
                            domain->name, vp_qemu_op_verb(op));
    }
}

/* There is no process any more, or never was one: it is told, and everyone who waits is. Whoever hears of it may start the domain again at
 * once, so that it is out of the table first. `start_error` NULL: it was up. */
static void domain_gone(VpQemuDomain *domain, const VpError *start_error)
{
    vp_qemu_domain_ref(domain);
    vp_qemu_driver_remove(domain->driver, domain);
    if (start_error)
        tell_start_failed(domain, start_error);
    else
        tell_ended(domain);
    close_handles(domain);
    while (domain->ops->len > 0) {
        VpQemuOp *op = g_ptr_array_index(domain->ops, 0);

        vp_qemu_op_finish(op, op_end_error(domain, op, start_error));
    }
    vp_qemu_domain_unref(domain);
}

/* How a domain ended that is not there any more is not known: nobody listened. */
static void tell_gone(const VpQemuDomain *domain)
{
    const gboolean started = domain->state != PB_DOMAIN_STATE_STARTING;
    g_autofree char *detail =
        g_strdup_printf("its process ended while no daemon ran%s%s", domain->exit_log ? "; its last words: " : "",
                        domain->exit_log ? domain->exit_log : "");
    const VpObservation observation = {
        .event = started ? PB_EVENT_TYPE_DOMAIN_SHUT_DOWN : PB_EVENT_TYPE_DOMAIN_START_FAILED,
        .state = PB_DOMAIN_STATE_SHUTOFF,
        .reason = "WHILE_DAEMON_DOWN",
        .detail = detail,
        .unless_off = TRUE,
    };

    domain->driver->host->report(domain->driver->host->data, domain->uid, &observation);
}

/* The guest never ran, for all that is known; a store that was put back to an earlier state may even say that the domain is shut off. */
static gboolean was_starting(const VpQemuDomain *domain)
{
    return domain->state == PB_DOMAIN_STATE_STARTING || domain->state == PB_DOMAIN_STATE_SHUTOFF ||
           domain->state == PB_DOMAIN_STATE_CRASHED;
}

static VpError *broken_off(const VpQemuDomain *domain)
{
    return vp_error_new(VP_ABORTED, "WHILE_DAEMON_DOWN",
                        "domain %s: the daemon ended in the midst of the start; start it again", domain->name);
}

/* Back from the disk with the last lines. */
static void on_exit_told(void *data)
{
    VpQemuDomain *domain = data;
    const VpDomainPhase phase = domain->phase;

    /* Nothing to tell if it was let go meanwhile. */
    if (phase != VP_PHASE_ENDED) {
        g_autoptr(VpError) error = g_steal_pointer(&domain->start_error);

        if (phase == VP_PHASE_STARTING && !error) {
            g_autofree char *said = g_steal_pointer(&domain->exit_log);

            domain->exit_log =
                vp_qemu_name_fdsets(said, (PbDiskStatus *const *)domain->disks->pdata, domain->disks->len);
            error = exit_error(domain);
        }
        /* A start that the end of the daemon broke off, and that has fallen apart by itself since. */
        if (!error && was_starting(domain) && !domain->killed)
            error = broken_off(domain);
        domain_gone(domain, error);
    }
    vp_qemu_domain_unref(domain);
}

/* On a pool's thread. */
static void read_last_words(void *data)
{
    VpQemuDomain *domain = data;

    domain->exit_log = vp_folder_log_tail(domain->dir, LOG_TAIL_LINES);
    vp_folder_ended(domain->dir);
    vp_loop_post(domain->driver->host->loop, on_exit_told, domain);
}

static void on_process_end(uv_poll_t *poll, int status, int events)
{
    VpQemuDomain *domain = poll->data;

    (void)status;
    (void)events;
    uv_poll_stop(poll);
    uv_timer_stop(&domain->ping_timer);
    domain->exit_how = vp_process_reap(&domain->process);
    /* Its last events say why it ended. */
    if (domain->qmp)
        vp_qmp_drain(domain->qmp);
    vp_qemu_domain_ref(domain);
    if (!vp_pool_submit(domain->driver->host->pool, read_last_words, domain)) {
        /* Better without its last words than late. */
        vp_loop_post(domain->driver->host->loop, on_exit_told, domain);
    }
}

/* ---- start ---- */

/* Gives up a start. It is told when nothing of it is left: at once if there is no process yet. */
static void abort_start(VpQemuDomain *domain, VpError *error)
{
    if (domain->start_error)
        vp_error_free(error);
    else
        domain->start_error = error;
    if (domain->has_process) {
        vp_error_free(vp_process_kill(&domain->process, SIGKILL));
    } else if (domain->start && vp_qemu_start_give_up(domain)) {
        g_autoptr(VpError) given_up = g_steal_pointer(&domain->start_error);

        domain_gone(domain, given_up);
    }
}

static void on_started(VpQemuDomain *domain)
{
    VpQemuOp *op = domain->first_op;

    domain->phase = VP_PHASE_UP;
    domain->first_op = NULL;
    set_state(domain, PB_EVENT_TYPE_DOMAIN_STARTED, domain->paused ? PB_DOMAIN_STATE_PAUSED : PB_DOMAIN_STATE_RUNNING,
              "REQUESTED", NULL);
    g_ptr_array_set_size(domain->disks, 0);
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
        abort_start(domain, vp_error_prefix(g_steal_pointer(&error), "domain %s", domain->name));
    else if (!error && last)
        on_started(domain);
    vp_error_free(error);
}

static void on_link_down(void *data, json_t *result, VpError *error)
{
    (void)result;
    on_start_command(data, error, /* last= */ FALSE);
}

static void on_cont(void *data, json_t *result, VpError *error)
{
    (void)result;
    on_start_command(data, error, /* last= */ TRUE);
}

static void let_run(VpQemuDomain *domain)
{
    for (guint i = 0; i < domain->links_down->len; i++) {
        const char *id = g_ptr_array_index(domain->links_down, i);

        vp_qmp_execute(domain->qmp, "set_link", json_pack("{s:s, s:b}", "name", id, "up", 0), 0, on_link_down, domain);
    }
    /* Commands are answered in order, so that the links are down before the guest runs. */
    vp_qmp_execute(domain->qmp, domain->paused ? "query-status" : "cont", NULL, 0, on_cont, domain);
}

static void on_nodes(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;

    if (!error)
        error = vp_qemu_check_nodes(result);
    if (error)
        on_start_command(domain, error, /* last= */ FALSE);
    else if (domain->phase == VP_PHASE_STARTING && !domain->start_error)
        let_run(domain);
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
    vp_qemu_op_finish(op, NULL);
}

/* It will be UNRESPONSIVE until its first answer. */
static void adopt_unresponsive(VpQemuDomain *domain)
{
    domain->responsive = FALSE;
    finish_adoption(domain, PB_DOMAIN_STATE_UNRESPONSIVE, "its process runs, but does not answer on its QMP socket");
}

/* The guest's state by the answer to query-status. A shutdown that was asked for before still is. */
static PbDomainState state_of(const VpQemuDomain *domain, json_t *result)
{
    const gboolean running = json_is_true(json_object_get(result, "running"));

    if (!running)
        return PB_DOMAIN_STATE_PAUSED;
    return domain->state == PB_DOMAIN_STATE_SHUTTING_DOWN ? PB_DOMAIN_STATE_SHUTTING_DOWN : PB_DOMAIN_STATE_RUNNING;
}

/* QEMU was made, but the daemon ended before it let the guest run. The status alone does not tell: a paused guest that is reset is at
 * "prelaunch" as well. */
static gboolean is_half_started(const VpQemuDomain *domain, json_t *result)
{
    const char *status = json_string_value(json_object_get(result, "status"));

    return domain->phase != VP_PHASE_STARTING && was_starting(domain) && !domain->paused &&
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
        abort_start(domain, broken_off(domain));
        return;
    }
    const PbDomainState state = state_of(domain, result);
    if (domain->phase == VP_PHASE_ADOPTING) {
        domain->state = state;
        finish_adoption(domain, state, NULL);
    } else if (domain->phase == VP_PHASE_UP && !domain->responsive) {
        domain->responsive = TRUE;
        set_state(domain, PB_EVENT_TYPE_DOMAIN_RESPONSIVE, state, "ANSWERS_AGAIN", NULL);
    }
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
    }
}

static void on_closed(void *data, const VpError *error)
{
    VpQemuDomain *domain = data;

    vp_qmp_close(g_steal_pointer(&domain->qmp));
    note_silence(domain);
    /* The usual cause is the end of the process, which the pidfd tells. If it is not, the next ping connects again. */
    if (domain->phase == VP_PHASE_STARTING && error->reason && strcmp(error->reason, "QMP_PROTOCOL") == 0)
        abort_start(domain, vp_error_prefix(vp_error_copy(error), "domain %s", domain->name));
}

static void on_stop_event(VpQemuDomain *domain)
{
    const char *reason = domain->pause_asked ? "REQUESTED" : domain->io_error ? "IO_ERROR" : "HYPERVISOR";
    g_autofree char *detail =
        domain->io_error ? g_strdup_printf("an error on %s halted the guest", domain->io_error) : NULL;

    domain->pause_asked = FALSE;
    g_clear_pointer(&domain->io_error, g_free);
    /* QEMU halts the CPUs on its way out, too. */
    if (!domain->shutdown_reason && domain->state != PB_DOMAIN_STATE_PAUSED)
        set_state(domain, PB_EVENT_TYPE_DOMAIN_PAUSED, PB_DOMAIN_STATE_PAUSED, reason, detail);
}

static void on_resume_event(VpQemuDomain *domain)
{
    const char *reason = domain->resume_asked ? "REQUESTED" : "HYPERVISOR";

    domain->resume_asked = FALSE;
    if (domain->state == PB_DOMAIN_STATE_PAUSED)
        set_state(domain, PB_EVENT_TYPE_DOMAIN_RESUMED, PB_DOMAIN_STATE_RUNNING, reason, NULL);
}

static void on_powerdown_event(VpQemuDomain *domain)
{
    if (domain->state == PB_DOMAIN_STATE_RUNNING)
        set_state(domain, PB_EVENT_TYPE_DOMAIN_SHUTTING_DOWN, PB_DOMAIN_STATE_SHUTTING_DOWN, "REQUESTED", NULL);
}

static void on_reset_event(VpQemuDomain *domain, json_t *arguments)
{
    const gboolean guest = json_is_true(json_object_get(arguments, "guest"));

    /* A guest that was to shut down has started anew. */
    set_state(domain, PB_EVENT_TYPE_DOMAIN_RESET,
              domain->state == PB_DOMAIN_STATE_SHUTTING_DOWN ? PB_DOMAIN_STATE_RUNNING : domain->state,
              guest ? "GUEST_REQUEST" : "REQUESTED", NULL);
}

static void on_notice(VpQemuDomain *domain, const char *name, json_t *arguments)
{
    VpNotice notice;
    guint swallowed = 0;

    if (!vp_notice_read(name, arguments, &notice))
        return;
    g_autofree char *detail = notice.detail;
    if (!vp_notice_pass(&domain->notices[notice.kind], vp_now_us(), &swallowed))
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
    on_notice(domain, name, arguments);
    if (strcmp(name, "STOP") == 0) {
        on_stop_event(domain);
    } else if (strcmp(name, "RESUME") == 0) {
        on_resume_event(domain);
    } else if (strcmp(name, "POWERDOWN") == 0) {
        on_powerdown_event(domain);
    } else if (strcmp(name, "RESET") == 0) {
        on_reset_event(domain, arguments);
    } else if (strcmp(name, "GUEST_PANICKED") == 0) {
        set_state(domain, PB_EVENT_TYPE_DOMAIN_PANICKED, domain->state, "GUEST_PANICKED", NULL);
    } else if (strcmp(name, "BLOCK_IO_ERROR") == 0 && g_strcmp0(action, "stop") == 0) {
        const char *device = json_string_value(json_object_get(arguments, "node-name"));

        g_free(domain->io_error);
        domain->io_error = g_strdup(device ? device : "a disk");
    }
}

static const VpQmpHandler qmp_handler = {.ready = on_ready, .event = on_event, .closed = on_closed};

static void connect_qmp(VpQemuDomain *domain)
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
        adopt_unresponsive(domain);
    else if (domain->phase == VP_PHASE_UP)
        set_unresponsive(domain, why);
    else
        abort_start(domain, vp_error_new(VP_UNAVAILABLE, "QMP_CLOSED", "domain %s: %s", domain->name, why));
}

static void on_ping_timer(uv_timer_t *timer)
{
    VpQemuDomain *domain = timer->data;
    const gint64 limit_us = (gint64)domain->driver->unresponsive_after_ms * 1000;

    if (++domain->ticks % LOG_CHECK_TICKS == 0) {
        vp_qemu_domain_ref(domain);
        if (!vp_pool_submit(domain->driver->host->pool, bound_log, domain))
            vp_qemu_domain_unref(domain);
    }
    if (domain->silent_since_us != 0 && vp_now_us() - domain->silent_since_us >= limit_us)
        on_silence(domain);
    if (!domain->qmp)
        connect_qmp(domain);
    else if (!domain->ping_pending && domain->phase != VP_PHASE_STARTING)
        ping(domain);
}

/* ---- operations ---- */

/* The answer to a command of an operation; holds a reference to it. */
static void on_command(void *data, json_t *result, VpError *error)
{
    VpQemuOp *op = data;
    VpQemuDomain *domain = op->domain;

    (void)result;
    if (op->task && domain && domain->phase != VP_PHASE_ENDED) {
        /* Mostly the event has told it already. */
        if (!error && op->kind == VP_OP_PAUSE)
            on_stop_event(domain);
        if (!error && op->kind == VP_OP_RESUME)
            on_resume_event(domain);
        if (!error && op->kind == VP_OP_SHUTDOWN)
            on_powerdown_event(domain);
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

static void begin_power_off(VpQemuDomain *domain, VpQemuOp *op)
{
    domain->killed = TRUE;
    /* Else it is seen when it arrives. */
    if (!domain->arrived)
        return;
    if (domain->phase == VP_PHASE_STARTING) {
        abort_start(domain, vp_error_new(VP_CANCELLED, "POWERED_OFF", "domain %s was powered off while it started",
                                         domain->name));
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

static void begin_shutdown(VpQemuDomain *domain, VpQemuOp *op)
{
    if (domain->state == PB_DOMAIN_STATE_PAUSED) {
        vp_qemu_op_finish(op,
                          vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_PAUSED",
                                       "domain %s is paused, its guest cannot react; resume it first", domain->name));
        return;
    }
    send_command(domain, op, "system_powerdown");
}

void vp_qemu_domain_begin(VpQemuDomain *domain, VpQemuOp *op)
{
    vp_qemu_op_attach(op, domain);
    if (op->kind == VP_OP_POWER_OFF) {
        begin_power_off(domain, op);
        return;
    }
    if (domain->phase != VP_PHASE_UP) {
        vp_qemu_op_finish(op, vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_BUSY",
                                           "domain %s is being started or ended; try again", domain->name));
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
        begin_shutdown(domain, op);
        break;
    default:
        send_command(domain, op, "system_reset");
        break;
    }
}

void vp_qemu_domain_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error)
{
    switch (op->kind) {
    case VP_OP_START:
        /* It is through when the process is gone. */
        abort_start(domain, error);
        break;
    case VP_OP_ADOPT:
        vp_error_free(error);
        if (domain->phase == VP_PHASE_ADOPTING)
            adopt_unresponsive(domain);
        break;
    default:
        vp_qemu_op_finish(op, error);
        break;
    }
}

/* ---- arrival ---- */

static void watch(VpQemuDomain *domain)
{
    open_handles(domain);
    uv_poll_start(&domain->exit_poll, UV_READABLE, on_process_end);
    uv_timer_start(&domain->ping_timer, on_ping_timer, domain->driver->ping_interval_ms,
                   domain->driver->ping_interval_ms);
    connect_qmp(domain);
}

void vp_qemu_domain_made(VpQemuDomain *domain, VpError *error)
{
    g_autoptr(VpError) why = error;

    /* It was let go meanwhile: the process, which is written down, is for the next daemon. */
    if (domain->phase == VP_PHASE_ENDED)
        return;
    if (!domain->has_process) {
        g_autoptr(VpError) given_up = g_steal_pointer(&domain->start_error);

        domain_gone(domain, given_up ? given_up : why);
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
    if (!why && domain->state != PB_DOMAIN_STATE_SHUTOFF && domain->state != PB_DOMAIN_STATE_CRASHED)
        tell_gone(domain);
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
        begin_power_off(domain, op);
    else if (cancelled)
        vp_qemu_domain_end_early(domain, op, NULL);
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
    } else if (op->kind == VP_OP_START && cancelled) {
        g_autoptr(VpError) error =
            vp_error_new(VP_CANCELLED, "CANCELLED", "domain %s: the start was cancelled", domain->name);

        domain_gone(domain, error);
    } else if (op->kind == VP_OP_START) {
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
    close_handles(domain);
    vp_qemu_driver_remove(domain->driver, domain);
    vp_qemu_domain_unref(domain);
}
