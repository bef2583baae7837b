/*
 * What of a spec may differ between what runs and what is wanted: shared by the drivers that can change what runs, and by the daemon, which names devices in
 * the same way. Pure.
 */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* By what names them; NULL: there is none. Borrowed. */
PbDisk *vp_spec_find_disk(const PbDomainSpec *spec, const char *target);
PbInterface *vp_spec_find_interface(const PbDomainSpec *spec, const char *mac);

/* FAILED_PRECONDITION, reason DOMAIN_RUNNING, with a violation for each field that differs and is not among `fields` (NULL at the end); the description
 * may. Disks and interfaces may come and go; of one that stays, a cd-rom drive's path and format, a disk's throttle and its write threshold may differ. */
VpError *vp_spec_check_change(const PbDomainSpec *live, const PbDomainSpec *wanted, const char *const *fields);

/* Adds a violation of domain.spec.FIELD to such an error, making it with the first. */
VpError *vp_spec_cannot_change(VpError *error, const char *what, const char *field, ...) G_GNUC_PRINTF(3, 4);

/* Take it out, if it is there. */
void vp_spec_remove_disk(PbDomainSpec *spec, const char *target);
void vp_spec_remove_interface(PbDomainSpec *spec, const char *mac);
