/* From a VpError to what travels in `grpc-status-details-bin`: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo. */
#pragma once

#include "base/error.h"

/* ErrorInfo.domain of all our reasons. */
#define VP_ERROR_DOMAIN "virtplane"

/* Bounds of what travels. Together below the 8 KiB that clients take as metadata by default. */
#define VP_STATUS_MESSAGE_BYTES 1024
#define VP_STATUS_DETAILS_BYTES 4096

/* The message as it is sent, in `grpc-message` and in the details alike: made UTF-8, and cut on a character's boundary. Owned by the caller. */
char *vp_status_message(const VpError *error);

/* The packed google.rpc.Status, at most `max_bytes` long (at least 2): what does not fit is left out, the reason last of the details, and after them the
 * message. What is no UTF-8 is made so. Owned by the caller. */
GBytes *vp_status_details(const VpError *error, gsize max_bytes);
