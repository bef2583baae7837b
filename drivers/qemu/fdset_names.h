/* QEMU knows its images as /dev/fdset/N; people know them by their paths. Pure; called by domain.c on what QEMU said last. */
#pragma once

#include <glib.h>

#include "virtplane/v1/domain.pb-c.h"

/* `text` with each /dev/fdset/N replaced by the path of the image that was passed as set N, those of these disks from `first` on. `disks` are n_disks disks as
 * they were opened, in the order in which QEMU was given them; what is not known stays. Owned by the caller; NULL for NULL. */
char *vp_qemu_name_fdsets(const char *text, PbDiskStatus *const *disks, size_t n_disks, guint64 first);
