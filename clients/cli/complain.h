/* Errors as vpctl tells them: what failed, why, and what to do, each once. */
#pragma once

#include "base/error.h"

/* The whole text, with its newline. `doing`: "start domain \"web\""; `address`: of the daemon that was asked, or NULL;
 * `timeout_ms`: the time limit of the call. */
char *vp_complain(const VpError *error, const char *doing, const char *address, gint64 timeout_ms);

/* The same for programs (--output json, yaml): one line of JSON, with all that the error holds. */
char *vp_complain_json(const VpError *error);
