/* ShutdownDomain and RebootDomain beyond what all verbs have: the check of what they ask for, and the answer that waits for the domain's end. */
#pragma once

#include "server/services/services.h"
#include "virtplane/v1/domain_service.pb-c.h"

/* INVALID_ARGUMENT with violations. */
VpError *vp_shutdown_check(PbShutdownMode mode, const Google__Protobuf__Duration *fallback_after);

/* ShutdownDomain with `wait`: runs `verb` and answers the call when the domain is off, or with why not. */
void vp_shutdown_and_wait(const VpServices *services, VpCall *call, const VpVerbRequest *verb,
                          const VpDomainCaller *caller);
