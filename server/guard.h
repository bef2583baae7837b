/*
 * The daemon's guard: who may come in and what is written down of it, put together from the settings, and kept up with the files. Owned by the daemon, opened
 * before the server and closed after it.
 */
#pragma once

#include "server/config.h"
#include "server/screens/screens.h"
#include "server/services/services.h"

typedef struct VpGuard VpGuard;

/* Reads the files and opens the audit log. `config` and what `services` has outlive it. */
VpGuard *vp_guard_new(const VpConfig *config, VpServices *services, VpError **error);

/* Fills in what the server needs of it. */
void vp_guard_options(VpGuard *guard, VpRpcOptions *options);

/* From now on the files are read again when they change, and the streams of `server` and the connections of `screens` are asked about again. */
VpError *vp_guard_start(VpGuard *guard, VpRpcServer *server, VpScreens *screens);

/* Reads the files again, soon. Any thread. */
void vp_guard_reload(VpGuard *guard);

/* No more of that; afterwards the server may be freed. NULL is let pass. */
void vp_guard_stop(VpGuard *guard);
/* Writes what there is to be written to the audit log, and no more: where the process has to end and nothing may be freed. */
void vp_guard_abandon(VpGuard *guard);
/* NULL is let pass. */
void vp_guard_free(VpGuard *guard);
