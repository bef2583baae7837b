/* The system calls that what serves a guest is refused, before QEMU's own -sandbox refuses it more. */
#pragma once

#include <linux/filter.h>

#include "base/error.h"

/* Made once; owned by the caller, vp_confine_filter_free(). Refused calls answer EPERM: programs ask what there is, and go on without. INTERNAL if the
 * library cannot make it. */
VpError *vp_confine_filter_new(struct sock_fprog **ret_filter);
void vp_confine_filter_free(struct sock_fprog *filter);
