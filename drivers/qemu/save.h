/*
 * Saving a domain: its CPUs are halted, QEMU writes its memory into a file that was opened here, and is ended once that is whole and on the disk. Until then
 * the domain can go on, and does if anything fails. On the loop's thread, but for what touches the disk.
 */
#pragma once

#include "domain.h"
#include "save_folder.h"

/* Begins the operation on a domain that is up. */
void vp_qemu_save_begin(VpQemuDomain *domain, VpQemuOp *op);
/* Its deadline has passed, or it was cancelled: the domain goes on. `error` is consumed. */
void vp_qemu_save_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error);

/* FAILED_PRECONDITION, reason CANNOT_BE_SAVED, with violations for what of a spec cannot be put into a file. Pure. */
VpError *vp_save_check(const PbDomainSpec *live);

/* ---- for the other files of a domain ---- */

/* QEMU's MIGRATION event. */
void vp_qemu_save_on_migration(VpQemuDomain *domain, json_t *arguments);
/* There is a connection to QEMU again: goes on with taking back what could not be. */
void vp_qemu_save_on_ready(VpQemuDomain *domain);
/* The process has ended. TRUE: it is not known yet whether the save is done; `told(domain)` is called once it is. */
gboolean vp_qemu_save_defers_end(VpQemuDomain *domain, void (*told)(void *domain));
/* The domain is saved: tells so, in place of its end. FALSE: it is not. */
gboolean vp_qemu_save_tell(VpQemuDomain *domain);
/* Whether the save is done, and only QEMU's end is waited for. */
gboolean vp_qemu_save_is_done(const VpQemuDomain *domain);
/* The domain has ended, or is let go. */
void vp_qemu_save_gone(VpQemuDomain *domain);

/* A save that an earlier daemon had begun; `note` is consumed. With `saved` (consumed) it is done, and QEMU is ended; else the domain goes on. For a domain
 * that is being taken up, before it arrives. */
void vp_qemu_save_adopt(VpQemuDomain *domain, VpSaveNote *note, PbSavedState *saved);
