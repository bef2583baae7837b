/*
 * What the files that a domain is made of have of each other: domain.c (from its arrival to its going), verbs.c (what clients ask), monitor.c (what is heard
 * of QEMU) and ending.c. All on the loop's thread.
 */
#pragma once

#include "domain.h"

/* ---- domain.c ---- */

/* The guest's state has changed. While QEMU does not answer its last words are noted, and told once it does again. */
void vp_qemu_domain_set_state(VpQemuDomain *domain, PbEventType event, PbDomainState state, const char *reason,
                              const char *detail);

/* Closes the connection and the handles on the process, if they are open. */
void vp_qemu_domain_unwatch(VpQemuDomain *domain);

/* ---- verbs.c ---- */

void vp_qemu_domain_begin_power_off(VpQemuDomain *domain, VpQemuOp *op);

/* ---- monitor.c ---- */

/* Connects to QEMU's socket; without success the timer tries again. */
void vp_qemu_domain_connect(VpQemuDomain *domain);
/* Looks after it, each ping_interval_ms. */
void vp_qemu_domain_on_timer(uv_timer_t *timer);
/* The daemon's start waits for the first answer of a QEMU that is taken up; not for one that hangs. */
#define VP_ADOPT_ANSWER_MS 1000
/* It will be UNRESPONSIVE until its first answer. */
void vp_qemu_domain_adopt_unresponsive(VpQemuDomain *domain);
/* QEMU has said so, by an event or by its answer. */
void vp_qemu_domain_stopped(VpQemuDomain *domain);
void vp_qemu_domain_resumed(VpQemuDomain *domain);
/* RUNNING or SHUTTING_DOWN. */
PbDomainState vp_qemu_domain_running_state(const VpQemuDomain *domain);

/* ---- shutdown.c ---- */

/* Asks the guest to shut down, or to restart, as the operation says. */
void vp_qemu_shutdown_begin(VpQemuDomain *domain, VpQemuOp *op);
/* The operation ends by its deadline or its cancellation. `error` is consumed. */
void vp_qemu_shutdown_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error);
/* A reset is going to be sent that is to be one, whatever on_reboot says of the guest's own. */
void vp_qemu_reset_begin(VpQemuDomain *domain);
/* QEMU's events: RESET; SHUTDOWN, with shutdown_reason set. */
void vp_qemu_domain_was_reset(VpQemuDomain *domain, gboolean guest);
void vp_qemu_domain_is_shutting(VpQemuDomain *domain);
/* By an answer to query-status: whether it is halted in the midst of a restart; then it is to go on. */
gboolean vp_qemu_shutdown_is_halted(const VpQemuDomain *domain, json_t *status);
void vp_qemu_shutdown_go_on(VpQemuDomain *domain);
/* It was taken up: what a former daemon has asked for goes on. */
void vp_qemu_shutdown_adopted(VpQemuDomain *domain);
/* Begins to wait for the time of the fallback, if there is one. */
void vp_qemu_shutdown_arm(VpQemuDomain *domain);
/* The handles are closed. */
void vp_qemu_shutdown_free(VpQemuDomain *domain);

/* ---- pin.c ---- */

/* Binds the threads of virtual CPUs and I/O to the CPUs that the spec gives them. To be called again when there are new ones. `done` takes the error;
 * `domain` has pinning. */
void vp_qemu_domain_pin(VpQemuDomain *domain, void (*done)(VpQemuDomain *domain, VpError *error));

/* ---- domain_agent.c ---- */

/* The handles are being opened, and closed. */
void vp_qemu_domain_make_agent(VpQemuDomain *domain);
void vp_qemu_domain_free_agent(VpQemuDomain *domain);
/* Asks QEMU whether the guest has its end of the port open. */
void vp_qemu_domain_look_for_agent(VpQemuDomain *domain);
/* QEMU's VSERPORT_CHANGE. */
void vp_qemu_domain_port_changed(VpQemuDomain *domain, json_t *arguments);

/* ---- ending.c ---- */

/* The process has ended. */
void vp_qemu_domain_on_exit(uv_poll_t *poll, int status, int events);
/* Gives up a start. It is told when nothing of it is left: at once if there is no process yet. `error` is consumed. */
void vp_qemu_domain_abort_start(VpQemuDomain *domain, VpError *error);
/* There is no process any more, or never was one: it is told, and everyone who waits is. `start_error` NULL: it was up. */
void vp_qemu_domain_gone(VpQemuDomain *domain, const VpError *start_error);
/* Tells of a domain that was not there any more. */
void vp_qemu_domain_tell_gone(const VpQemuDomain *domain);
/* Whether its guest never ran, for all that is known. */
gboolean vp_qemu_domain_was_starting(const VpQemuDomain *domain);
/* The error of a start in the midst of which the daemon ended. */
VpError *vp_qemu_domain_broken_off(const VpQemuDomain *domain);

/* ---- threshold.c ---- */

/* A connection to a QEMU that runs was made: sets the marks of disks that it does not have any more. What it said of one while nobody listened it says again
 * at the next write beyond it. */
void vp_qemu_domain_look_for_thresholds(VpQemuDomain *domain);
