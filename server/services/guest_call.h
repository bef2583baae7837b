/*
 * Calls to the agent in a domain's guest: a question to the domain's driver (server/domains, VP_QUESTION_GUEST), given up when the client goes. One that
 * streams passes messages on as the reader takes them, and reads the client's as the driver asks for them.
 */
#pragma once

#include "server/services/services.h"

/* Of a method that answers once: `message` is its request; `timeout_ms` is what counts if that sets none. */
void vp_guest_call(VpServices *services, VpCall *call, const void *message, guint64 timeout_ms);

/* Of one that streams. `message` NULL: the client streams, and its first message says what is wanted in its field `opening`. */
void vp_guest_stream(VpServices *services, VpCall *call, const void *message, const char *opening, guint64 timeout_ms);
