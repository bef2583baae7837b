/*
 * A client of the agent inside a guest (qemu-guest-agent), on the socket of its port. Asynchronous, for the loop's thread alone, as are all its callbacks.
 * The domain (domain_agent.c) owns it, for as long as the domain has an agent's port, and opens and closes it as the guest opens and closes its end.
 *
 * The guest is hostile, and its agent forgets: commands are sent one at a time, and only once the agent has answered a guest-sync-delimited with a number that
 * was not used before; after a command whose answer did not come in time, or could not be read, it is asked so again. What comes before that is thrown away, so
 * that no late answer is taken for another's.
 */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "base/error.h"

typedef struct VpAgent VpAgent;

typedef struct VpAgentHandler {
    /* The agent answers. */
    void (*answers)(void *data);
    /* It has not for VP_AGENT_SYNC_MS, and is asked on; or QEMU has closed the socket. Not called again until it has answered. */
    void (*silent)(void *data);
} VpAgentHandler;

/* The end of a command: `result` is what "return" holds (borrowed; NULL for a command that has no answer), or `error` (owned by the callee) says why there is
 * none: FAILED_PRECONDITION AGENT_NOT_CONNECTED; DEADLINE_EXCEEDED AGENT_TIMEOUT; FAILED_PRECONDITION AGENT_ERROR, the agent's own words (metadata `class`);
 * FAILED_PRECONDITION AGENT_COMMAND_BLOCKED, the guest's administrator does not let it be used, or GUEST_FROZEN, not now; UNIMPLEMENTED AGENT_LACKS_COMMAND;
 * RESOURCE_EXHAUSTED AGENT_ANSWER_TOO_LARGE or AGENT_BUSY; UNAVAILABLE AGENT_DISCONNECTED, it went in the midst, or AGENT_GARBAGE. */
typedef void (*VpAgentDone)(void *data, json_t *result, VpError *error);

#define VP_AGENT_MAX_PENDING 32
#define VP_AGENT_SYNC_MS 5000

/* `handler` is static. */
VpAgent *vp_agent_new(uv_loop_t *uv, const VpAgentHandler *handler, void *data);

/* Takes the connected, non-blocking `fd` of the port's socket (closed on an error too), whose other end the guest has opened. */
VpError *vp_agent_open(VpAgent *agent, int fd);

/* The guest, or QEMU, has closed its end: commands end with AGENT_DISCONNECTED, but for those that have no answer and were sent: they are done. */
void vp_agent_shut(VpAgent *agent);

gboolean vp_agent_is_open(const VpAgent *agent);
/* Whether it answers. */
gboolean vp_agent_is_ready(const VpAgent *agent);

/* Sends a command; `arguments` (may be NULL) is consumed. `deadline_us` is of vp_now_us(). `done` is called once, never before this returns. */
void vp_agent_execute(VpAgent *agent, const char *command, json_t *arguments, gint64 deadline_us, VpAgentDone done,
                      void *data);

/* Ends pending commands as vp_agent_shut() and lets go; no callback comes after that. May be called from any callback. NULL is let pass. */
void vp_agent_free(VpAgent *agent);
