/*
 * How a domain that runs is changed over QMP: lists of commands, which are made by the same functions as the command line of a start (arguments.h). Pure.
 *
 * A command is an object with "execute" and "arguments". It may have more: "fd", a descriptor of ours that goes with it; "undo", the command that takes it back
 * where that does not follow from the command itself; "check", as in "nodes": its answer must pass vp_qemu_check_nodes(); "file-of-fd": the argument "file" is
 * that of the descriptor that QEMU was given last. All results are owned by the caller.
 */
#pragma once

#include "command_line.h"

/* The disk or interface at this place of the line's spec comes. Its descriptors have the numbers that they have here; its sets of descriptors are numbered
 * behind `fd_sets`. FAILED_PRECONDITION as vp_command_line(). */
VpError *vp_live_attach_disk(const VpCommandLine *line, guint index, guint fd_sets, json_t **ret_commands);
json_t *vp_live_attach_interface(const VpCommandLine *line, guint index);

/* The nodes of a medium for the drive at this place, on the side that the line says. */
VpError *vp_live_add_medium(const VpCommandLine *line, guint index, guint fd_sets, json_t **ret_commands);
/* From the medium on one side to that on another; -1: none. `force`: whether the guest has locked the tray or not. */
json_t *vp_live_swap_medium(const PbDisk *drive, int old_side, int new_side, gboolean force);

/* From the limits of `before` to those of `after`. */
json_t *vp_live_throttle(const PbDisk *before, const PbDisk *after);

/* More memory, number `index`, and a virtual CPU by an entry of query-hotpluggable-cpus. */
json_t *vp_live_add_dimm(const PbDomainSpec *spec, guint index, guint64 bytes);
json_t *vp_live_add_cpu(json_t *entry);

/* What is behind memory that has gone, by the device's name. */
json_t *vp_live_remove_dimm_memory(const char *dimm);

/* Removes the nodes whose names begin with `nodes` and a dash, the top first, and their sets of descriptors: from the answers to query-named-block-nodes and
 * query-fdsets. */
json_t *vp_live_remove_nodes(json_t *named_nodes, json_t *fdsets, const char *nodes);
/* The highest number of a set. */
guint vp_live_last_fd_set(json_t *fdsets);

/* The command that takes another back; NULL: there is nothing to take back. */
json_t *vp_live_undo(json_t *command);

/* ---- for the makers of arguments ---- */

/* The object of a passphrase, which QEMU reads out of the descriptor that was given last, in a set that goes afterwards. */
void vp_live_secret(json_t *commands, const char *id, guint fd_set);
