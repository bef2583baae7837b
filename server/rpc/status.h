/* From a VpError to what travels in `grpc-status-details-bin`: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo. */
#pragma once

#include "base/error.h"

/* ErrorInfo.domain of all our reasons. */
#define VP_ERROR_DOMAIN "virtplane"

/* The packed google.rpc.Status, at most `max_bytes` long (at least 2): a long message is cut and what else does not fit is left out, the reason last
 * of the details. What is no UTF-8 is made so. Owned by the caller. */
GBytes *vp_status_details(const VpError *error, gsize max_bytes);
