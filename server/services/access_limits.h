/* What an identity may use: see access_limits.c. For the gate alone. */
#pragma once

#include "server/services/access.h"

/* Any thread; never blocks. */
void vp_access_limits(const VpAccessContext *context, const VpIdentity *identity, VpLimits *ret_limits);
