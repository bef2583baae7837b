/* What a domain needs besides QEMU: swtpm, a file of its own. Blocks for a moment. */
#pragma once

#include "contain.h"

/* Starts swtpm with its state in `dir`/tpm; it ends when the other end of `ret_fd` is closed. FAILED_PRECONDITION, reason UNSUPPORTED, if it is not
 * installed. */
VpError *vp_swtpm_start(const char *dir, const VpContainment *containment, int *ret_fd);

/* Copies what can be read from `fd` into the new file `path`, which is there whole or not at all. */
VpError *vp_copy_file(int fd, const char *path);
