/* Small files of settings, keys and rules: read whole, with a bound, and only if nobody else could have written or (for secrets) read them. */
#pragma once

#include "base/error.h"

typedef enum VpFileKind {
    VP_FILE_ANY,    /* public, such as certificates */
    VP_FILE_RULES,  /* written by none but root and the daemon's user */
    VP_FILE_SECRET, /* and read by none else, but for its group */
} VpFileKind;

/* The file's bytes and a NUL behind them, owned by the caller; with `ret_length` NULL a NUL among them is an error. The error's reason is `reason`: the code is
 * FAILED_PRECONDITION for a wrong owner, mode or type, else that of the system's. Blocks on the disk. */
VpError *vp_file_read(const char *path, gsize max_bytes, VpFileKind kind, const char *reason, char **ret_text,
                      gsize *ret_length);
