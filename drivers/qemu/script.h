/*
 * Commands to a domain's QEMU, one after the other; what was done is taken back if one of them fails. For what changes a domain that runs. The loop's thread.
 */
#pragma once

#include "domain.h"

typedef struct VpScript VpScript;

/* `error` (owned by the callee): a command's; all is as it was before, as far as QEMU still answers. */
typedef void (*VpScriptDone)(void *data, VpError *error);

/* Runs an array of commands (live_commands.h), consumed. `done` is called once, never before this returns: at the end, or when the connection is lost. It has
 * no deadline: whoever cannot wait calls vp_script_give_up(). */
VpScript *vp_script_run(VpQemuDomain *domain, json_t *commands, VpScriptDone done, void *data);

/* What is done so far is taken back once QEMU has answered what it was asked last; `done` is told CANCELLED then. */
void vp_script_give_up(VpScript *script);

/* Runs commands whatever becomes of each, and takes nothing back. `done` may be NULL. */
void vp_script_try(VpQemuDomain *domain, json_t *commands, VpScriptDone done, void *data);
