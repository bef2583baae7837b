/* From a VpError to what travels in `grpc-status-details-bin`: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo. */
#pragma once

#include "base/error.h"

/* ErrorInfo.domain of all our reasons. */
#define VP_ERROR_DOMAIN "virtplane"

/* The packed google.rpc.Status, at most `max_bytes` long: details that do not fit are left out, the message last. Owned by the caller. */
GBytes *vp_status_details(const VpError *error, gsize max_bytes);
