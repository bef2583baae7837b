/* Secrets that a person types, or that come from a file: never from the command line, which other users see. */
#pragma once

#include "base/error.h"

/* Reads all of `file`, or (NULL) of the standard input, into `bytes`, which has room for one more than `max`. On a terminal `what` is asked for, what is
 * typed is not shown, and the line's end is not part of it. The caller wipes `bytes`. */
VpError *vp_secret_input(const char *file, const char *what, guint8 *bytes, gsize max, gsize *ret_length);
