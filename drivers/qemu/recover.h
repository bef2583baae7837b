/* What a later daemon makes of a save or a restore that the end of an earlier one has cut off. docs/save.md has the table. */
#pragma once

#include "domain.h"

/* On a worker's thread, for a domain that is being taken up and has not arrived yet. `record` NULL: it has no process. Before the folder is cleaned up. */
void vp_qemu_recover(VpQemuDomain *domain, const PbDomain *model, const VpRecord *record);

/* On the loop's thread: the domain was taken up, and its guest is as domain->state says. */
void vp_qemu_recover_adopted(VpQemuDomain *domain);
/* The same: there was nothing to take up. TRUE: it was told what became of it. */
gboolean vp_qemu_recover_tell_gone(const VpQemuDomain *domain);
