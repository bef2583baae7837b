/* How a domain comes to its end, and what is told of it: see domain_parts.h. */
#include "domain_parts.h"

#include <signal.h>
#include <string.h>

#include "fdset_names.h"
#include "helper_process.h"
#include "recover.h"
#include "restore.h"
#include "save.h"
#include "start.h"

#define LOG_TAIL_LINES 5

/* A start that came to nothing. */
static void tell_start_failed(VpQemuDomain *domain, const VpError *error)
{
    const char *reason = domain->phase != VP_PHASE_STARTING ? "WHILE_DAEMON_DOWN"
                         : error->code == VP_CANCELLED      ? "CANCELLED"
                                                            : "START_FAILED";

    domain->phase = VP_PHASE_ENDED;
    vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_START_FAILED, vp_qemu_restore_failed_state(domain), reason,
                          error->message);
}

static VpError *exit_error(const VpQemuDomain *domain)
{
    /* The words of its library of ciphers, which have been the same from the first. */
    if (domain->exit_log && strstr(domain->exit_log, "Invalid password, cannot unlock any keyslot"))
        return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "SECRET_WRONG",
                                          "domain %s: the passphrase in a disk's secret does not open its image: %s",
                                          domain->name, domain->exit_log),
                             "stderr", domain->exit_log);
    VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "QEMU_EXITED", "domain %s: QEMU %s: %s", domain->name,
                                  domain->exit_how, domain->exit_log ? domain->exit_log : "it said nothing");

    vp_error_with(error, "exit", domain->exit_how);
    return vp_error_with(error, "stderr", domain->exit_log ? domain->exit_log : "");
}

static VpError *exit_error_of_start(const VpQemuDomain *domain)
{
    g_autoptr(VpError) error = exit_error(domain);

    return domain->restore ? vp_qemu_restore_error(domain, error) : g_steal_pointer(&error);
}

/* What is told of an end, for each reason that QEMU has for one. */
typedef struct End {
    PbEventType event;
    PbDomainState state;
    const char *reason;
    gboolean words; /* its last words are told */
} End;

#define SHUT_DOWN(why) ((End){PB_EVENT_TYPE_DOMAIN_SHUT_DOWN, PB_DOMAIN_STATE_SHUTOFF, (why), FALSE})
#define POWERED_OFF(why, words) ((End){PB_EVENT_TYPE_DOMAIN_POWERED_OFF, PB_DOMAIN_STATE_SHUTOFF, (why), (words)})
#define CRASHED(why, words) ((End){PB_EVENT_TYPE_DOMAIN_CRASHED, PB_DOMAIN_STATE_CRASHED, (why), (words)})

static End how_it_ended(const VpQemuDomain *domain)
{
    const char *why = domain->shutdown_reason ? domain->shutdown_reason : "";
    const gboolean asked = domain->asked && !domain->asked->reboot;

    /* In the midst of a restart as well. */
    if (domain->killed && domain->asked && domain->asked->reboot)
        return POWERED_OFF("REQUESTED", FALSE);
    if (strcmp(why, "guest-shutdown") == 0)
        return SHUT_DOWN(asked ? "REQUESTED" : "GUEST_REQUEST");
    /* With on_reboot POWER_OFF. */
    if (strcmp(why, "guest-reset") == 0)
        return SHUT_DOWN(asked ? "REQUESTED" : g_strcmp0(domain->watchdog, "RESET") == 0 ? "WATCHDOG" : "GUEST_REBOOT");
    if (domain->killed)
        return POWERED_OFF("REQUESTED", FALSE);
    if (domain->fell_back)
        return POWERED_OFF("FALLBACK", FALSE);
    if (strcmp(why, "guest-panic") == 0)
        return CRASHED("GUEST_PANICKED", FALSE);
    if (strcmp(why, "host-signal") == 0)
        return POWERED_OFF("HOST_SIGNAL", TRUE);
    if (g_str_has_prefix(why, "host-") && strcmp(why, "host-error") != 0)
        return POWERED_OFF("HYPERVISOR", TRUE);
    if (g_strcmp0(domain->watchdog, "POWEROFF") == 0)
        return POWERED_OFF("WATCHDOG", FALSE);
    return CRASHED("PROCESS_EXITED", TRUE);
}

static void tell_ended(VpQemuDomain *domain)
{
    const End end = how_it_ended(domain);
    g_autofree char *detail = g_strdup_printf("QEMU %s%s%s", domain->exit_how, domain->exit_log ? ": " : "",
                                              domain->exit_log ? domain->exit_log : "");

    domain->phase = VP_PHASE_ENDED;
    if (vp_qemu_save_tell(domain))
        return;
    vp_qemu_domain_report(domain, end.event, end.state, end.reason, end.words ? detail : NULL);
}

static VpError *op_end_error(const VpQemuDomain *domain, const VpQemuOp *op, const VpError *start_error)
{
    switch (op->kind) {
    case VP_OP_POWER_OFF:
    case VP_OP_ADOPT:
    case VP_OP_SHUTDOWN: /* what it was for */
        return NULL;
    case VP_OP_START:
    case VP_OP_RESTORE:
        return vp_error_copy(start_error);
    case VP_OP_SAVE:
        if (vp_qemu_save_is_done(domain))
            return NULL;
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_ENDED", "domain %s ended before it was saved",
                            domain->name);
    default:
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_ENDED", "domain %s ended before the %s was done",
                            domain->name, vp_qemu_op_verb(op));
    }
}

/* There is no process any more, or never was one: it is told, and everyone who waits is. Whoever hears of it may start the domain again at
 * once, so that it is out of the table first. `start_error` NULL: it was up. */
void vp_qemu_domain_gone(VpQemuDomain *domain, const VpError *start_error)
{
    vp_qemu_domain_ref(domain);
    vp_qemu_driver_remove(domain->driver, domain);
    if (start_error)
        tell_start_failed(domain, start_error);
    else
        tell_ended(domain);
    vp_qemu_domain_unwatch(domain);
    while (domain->ops->len > 0) {
        VpQemuOp *op = g_ptr_array_index(domain->ops, 0);

        vp_qemu_op_finish(op, op_end_error(domain, op, start_error));
    }
    vp_qemu_save_gone(domain);
    vp_qemu_domain_unref(domain);
}

/* How a domain ended that is not there any more is not known: nobody listened. */
void vp_qemu_domain_tell_gone(const VpQemuDomain *domain)
{
    if (vp_qemu_recover_tell_gone(domain))
        return;
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
gboolean vp_qemu_domain_was_starting(const VpQemuDomain *domain)
{
    return domain->state == PB_DOMAIN_STATE_STARTING || domain->state == PB_DOMAIN_STATE_SHUTOFF ||
           domain->state == PB_DOMAIN_STATE_CRASHED || domain->state == PB_DOMAIN_STATE_SAVED;
}

VpError *vp_qemu_domain_broken_off(const VpQemuDomain *domain)
{
    return vp_error_new(VP_ABORTED, "WHILE_DAEMON_DOWN",
                        "domain %s: the daemon ended in the midst of the start; start it again", domain->name);
}

/* Back from the disk with the last lines. */
static void on_exit_told(void *data)
{
    VpQemuDomain *domain = data;
    const VpDomainPhase phase = domain->phase;

    if (phase != VP_PHASE_ENDED &&
        (vp_qemu_save_defers_end(domain, on_exit_told) || vp_qemu_restore_defers_end(domain, on_exit_told)))
        return;
    /* Nothing to tell if it was let go meanwhile. */
    if (phase != VP_PHASE_ENDED) {
        g_autoptr(VpError) error = g_steal_pointer(&domain->start_error);

        if (phase == VP_PHASE_STARTING && !error) {
            g_autofree char *said = g_steal_pointer(&domain->exit_log);

            domain->exit_log =
                vp_qemu_name_fdsets(said, (PbDiskStatus *const *)domain->disks->pdata, domain->disks->len, 1);
            error = exit_error_of_start(domain);
        }
        /* A start that the end of the daemon broke off, and that has fallen apart by itself since. */
        if (!error && (domain->half_restored || (vp_qemu_domain_was_starting(domain) && !domain->killed)))
            error = vp_qemu_domain_broken_off(domain);
        vp_qemu_domain_gone(domain, error);
    }
    vp_qemu_domain_unref(domain);
}

/* On a pool's thread. */
static void read_last_words(void *data)
{
    VpQemuDomain *domain = data;

    domain->exit_log = vp_folder_log_tail(domain->dir, LOG_TAIL_LINES);
    vp_helpers_end(domain->helpers);
    vp_folder_ended(domain->dir);
    vp_loop_post(domain->driver->host->loop, on_exit_told, domain);
}

void vp_qemu_domain_on_exit(uv_poll_t *poll, int status, int events)
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

/* Gives up a start. It is told when nothing of it is left: at once if there is no process yet. */
void vp_qemu_domain_abort_start(VpQemuDomain *domain, VpError *error)
{
    if (domain->start_error)
        vp_error_free(error);
    else
        domain->start_error = error;
    if (domain->has_process) {
        vp_error_free(vp_process_kill(&domain->process, SIGKILL));
    } else if (domain->start && vp_qemu_start_give_up(domain)) {
        g_autoptr(VpError) given_up = g_steal_pointer(&domain->start_error);

        vp_qemu_domain_gone(domain, given_up);
    }
}
