/* What a console printed before, as its log has it. Used by line.c, on a pool's thread. */
#pragma once

#include <glib.h>

/* The last `size` bytes of a log, going on in PATH.1 where it was rotated. Never NULL; empty if there is none. */
GByteArray *vp_console_log_tail(const char *path, gsize size);

/* How many of the first bytes of `live` are the end of `log` already: the log was read while they came. */
gsize vp_console_log_overlap(const GByteArray *log, const GByteArray *live);
