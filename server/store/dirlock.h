/* One process has a state directory: a lock file in it, locked as long as the process lives, with its pid for the message of the next. */
#pragma once

#include "base/error.h"

/* Locks DIR/lock. Returns its descriptor (close it to unlock), or -1: FAILED_PRECONDITION, reason STORE_LOCKED, or the file system's error. */
int vp_dirlock_take(const char *dir, VpError **error);
