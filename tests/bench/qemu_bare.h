/* The floor that a start cannot get below: QEMU itself, with the command line that the daemon gave it, from its exec to its answer to `cont`. */
#pragma once

#include <glib.h>
#include <sys/types.h>

/* The command line of a process; g_strfreev. */
char **qemu_bare_command(pid_t pid);

/* Runs it with sockets and files of its own in `dir`, lets it run, and ends it; milliseconds. */
gdouble qemu_bare_start(char *const *argv, const char *dir);
