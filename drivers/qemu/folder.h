/*
 * A domain's folder, <state_dir>/<uid>: the record of its process, its QMP socket and its log. It survives the daemon. Blocks on the disk.
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* Whether a process was made to read its memory from a file. */
typedef enum VpRestorePhase {
    VP_RESTORE_NONE,
    VP_RESTORE_READING, /* its CPUs have never run */
    VP_RESTORE_LOADED,  /* they may have */
} VpRestorePhase;

/* What a later daemon has to know of a process. */
typedef struct VpRecord {
    pid_t pid;
    guint64 start_ticks;
    gboolean paused; /* was to be started with its CPUs halted */
    PbAccelerator accelerator;
    VpRestorePhase restore;
} VpRecord;

/* Makes the folder if need be, empty of sockets and records of an earlier run. FAILED_PRECONDITION, reason PROCESS_ALIVE, while a process that is
 * written down in it lives: there would be two of one domain. */
VpError *vp_folder_make(const char *dir);

VpError *vp_folder_write_record(const char *dir, const VpRecord *record);

/* NOT_FOUND if there is none, or none of this host's run: PROCESS_GONE. */
VpError *vp_folder_read_record(const char *dir, VpRecord *ret_record);

/* The process has read its memory: its record says VP_RESTORE_LOADED from now on, after a power cut too. */
VpError *vp_folder_note_loaded(const char *dir);

/* What a record says of that, whether its process lives or not. */
VpRestorePhase vp_folder_restore_phase(const char *dir);

/* What a later daemon has to know of a change of the devices that is about to be made; until the next one, or the process' end. NULL: there is none. */
VpError *vp_folder_write_intent(const char *dir, GBytes *bytes);
GBytes *vp_folder_read_intent(const char *dir);

/* Removes sockets, record and control groups after the process has ended; the rest stays. */
void vp_folder_ended(const char *dir);

/* Removes the folder and all that is in it. PROCESS_ALIVE as above. */
VpError *vp_folder_remove(const char *dir);

/* The pid of the process that is written down and lives, by pid and start time; 0: none. */
pid_t vp_folder_running(const char *dir);

/* The QMP socket, listening, for QEMU; and a connection to it, non-blocking. The path may be longer than a socket's address can hold. */
VpError *vp_folder_listen(const char *dir, int *ret_fd);
VpError *vp_folder_connect(const char *dir, int *ret_fd);

/* The same for another socket of the folder, that of a port of the domain; `name` ends in ".sock". */
VpError *vp_folder_listen_at(const char *dir, const char *name, int *ret_fd);
VpError *vp_folder_connect_to(const char *dir, const char *name, int *ret_fd);

/* The log, for the process' stderr; that of the run before is kept as qemu.log.1. */
VpError *vp_folder_open_log(const char *dir, int *ret_fd);
/* The same for a port's; `name` ends in ".log". */
VpError *vp_folder_open_log_at(const char *dir, const char *name, int *ret_fd);

/* Keeps every log below VP_LOG_MAX_BYTES, with its end kept in NAME.1. */
void vp_folder_bound_log(const char *dir);
#define VP_LOG_MAX_BYTES (1024 * 1024)

/* The last lines of the process' log, at most `max_lines` and 4 KiB, as valid UTF-8 without timestamps; NULL if it is empty. */
char *vp_folder_log_tail(const char *dir, guint max_lines);
