/*
 * A QEMU process: made with nothing but the descriptors that it is to have, named by pid and start time, watched and killed through a
 * pidfd. It is in a session of its own and outlives the daemon.
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "confine.h"

typedef struct VpProcess {
    pid_t pid;
    guint64 start_ticks; /* proc(5), stat, field 22: with the pid it names one process since the host's start */
    int pidfd;           /* readable once the process has ended */
} VpProcess;

typedef struct VpProcessSpec {
    const char *const *argv; /* argv[0] is the program's path */
    const int *fds; /* the child sees fds[i] as descriptor VP_PROCESS_FIRST_FD + i; it has no others but 0, 1 and 2 */
    gsize n_fds;
    int output_fd; /* the child's stdout and stderr; its stdin is /dev/null */
    /* Called between the making of the process and its exec, to write down who it is. An error ends the child. A daemon that dies before it
     * returned leaves no process behind, one that dies later leaves one that was written down. NULL: nobody has to know. */
    VpError *(*record)(void *data, pid_t pid, guint64 start_ticks);
    void *data;
    const VpConfine *confine; /* NULL: the daemon's rights, but for new ones */
} VpProcessSpec;

#define VP_PROCESS_FIRST_FD 3

/* Returns once the program runs (exec was done). Its environment has a PATH and nothing else, and it gains no rights by what it executes. Blocks for a
 * moment. NOT_FOUND or PERMISSION_DENIED, reason EXEC_FAILED, if it could not be executed; FAILED_PRECONDITION, reason CONTAINMENT, if it could not be
 * confined. */
VpError *vp_process_spawn(const VpProcessSpec *spec, VpProcess *ret_process);

/* Takes up a process of an earlier daemon. NOT_FOUND, reason PROCESS_GONE, if that process has ended, whoever has its pid now. */
VpError *vp_process_open(pid_t pid, guint64 start_ticks, VpProcess *ret_process);

/* Sends a signal. A process that has ended already is no error. */
VpError *vp_process_kill(const VpProcess *process, int signal);

/* After the pidfd became readable: reaps, and says how it ended as in "was killed by signal 9 (Killed)" or "exited with status 1"; "ended" for a
 * process that is not our child. */
char *vp_process_reap(const VpProcess *process);

/* Closes the pidfd. */
void vp_process_clear(VpProcess *process);
