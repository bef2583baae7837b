/* Programs that are run for a domain beside QEMU. Blocks for a moment. */
#pragma once

#include "process.h"

/* Runs a program to its end, confined (NULL: it is not), with nothing but `fd` (-1: nothing) as descriptor
 * VP_PROCESS_FIRST_FD; FAILED_PRECONDITION, reason `reason`, with what it said
 * if it does not end well within `timeout_ms`. */
VpError *vp_helper_run(const char *const *argv, int fd, const VpConfine *confine, int timeout_ms, const char *reason);

/* Starts one that stays until what it serves is closed, with `fds` from VP_PROCESS_FIRST_FD on. */
VpError *vp_helper_start(const char *const *argv, const int *fds, gsize n_fds, int output_fd, VpProcess *ret_process);

/* Whether it has ended within `timeout_ms`. */
gboolean vp_helper_wait(const VpProcess *process, int timeout_ms);

/* Waits until each (VpProcess) has ended, which what they serve has made them do; kills those that do not. Empties the array. */
void vp_helpers_end(GArray *helpers);
/* Takes those out that have ended by themselves, as what they served has gone. Does not wait. */
void vp_helpers_reap(GArray *helpers);

/* The end of a log, for an error. Owned by the caller. */
char *vp_helper_last_words(const char *log);

/* The path of a program in the PATH, or where system administrators have theirs; NULL: it is not installed. Owned by the caller. */
char *vp_helper_find(const char *name);
