/*
 * Restoring a domain: a start whose QEMU reads its memory from a file instead of booting. The start (start.c) proves and makes the process; what is different
 * about it is here. The file that the daemon keeps is put aside before the guest runs from it, and removed once that is in the store: so it is used once,
 * and not lost before.
 */
#pragma once

#include "domain.h"
#include "proof.h"

/* Whether the task is to restore; then sets domain->restore. Before the domain arrives. FAILED_PRECONDITION, reason NOT_SAVED, or SAVED_ELSEWHERE. */
VpError *vp_qemu_restore_new(VpQemuDomain *domain, const VpQemuOp *op);
void vp_qemu_restore_free(VpQemuRestore *restore);

/* ---- on the threads of a start ---- */

/* Opens the file: the spec that it has, and whether the CPUs stay halted, take the place of what the start had. */
VpError *vp_qemu_restore_open(VpQemuRestore *restore, const VpDriverHost *host, PbDomainSpec **spec, gboolean *paused);
/* Holds the disks against it. */
VpError *vp_qemu_restore_check(const VpQemuRestore *restore, const PbDomainSpec *spec, const VpProof *proof);

/* ---- on the loop's thread ---- */

/* The start knows what the domain runs with. */
void vp_qemu_restore_proven(VpQemuDomain *domain, const PbDomainSpec *spec, gboolean paused);
/* QEMU waits for its memory: gives it, then calls `loaded`. Failures end the start. */
void vp_qemu_restore_begin(VpQemuDomain *domain, void (*loaded)(VpQemuDomain *domain));
/* From now on the guest may have run. */
void vp_qemu_restore_runs(VpQemuDomain *domain);
/* QEMU refused: it has not. */
void vp_qemu_restore_refused(VpQemuDomain *domain);
/* Removes the file that was put aside once what was reported is in the store; else a later daemon does, which finds that it runs. */
void vp_qemu_restore_remove_used(VpQemuDomain *domain);
/* It runs, and that was reported. */
void vp_qemu_restore_done(VpQemuDomain *domain);

/* QEMU has ended before the guest ran: the error, from that of any start. */
VpError *vp_qemu_restore_error(const VpQemuDomain *domain, const VpError *error);
/* As vp_qemu_save_defers_end(): the file is being put aside, or back because the guest has not run from it. */
gboolean vp_qemu_restore_defers_end(VpQemuDomain *domain, void (*told)(void *domain));
/* What the domain is after its restore has failed. */
PbDomainState vp_qemu_restore_failed_state(const VpQemuDomain *domain);
