/* An error as a person reads it. */
#pragma once

#include "base/error.h"

/* "vpctl: cannot DOING: MESSAGE" and lines below it: reason, details, violations, remedy, what to do where no daemon
 * answers. `timeout_ms` is the limit that the call had. */
char *vp_complain(const VpError *error, const char *doing, gint64 timeout_ms);
