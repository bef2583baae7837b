/* The daemon as a whole: everything it is made of, opened in order and closed in the opposite one. */
#pragma once

#include "server/config.h"

typedef struct VpDaemon VpDaemon;

/* Opens the store, takes up running domains, and answers on all addresses. `config` outlives it. */
VpDaemon *vp_daemon_new(const VpConfig *config, VpError **error);

/* The addresses as bound, NULL at the end; borrowed. */
const char *const *vp_daemon_addresses(VpDaemon *daemon);

/* Reads policy, certificates and keys again, soon. */
void vp_daemon_reload(VpDaemon *daemon);

/* Drains and closes. Running domains go on. NULL is let pass. */
void vp_daemon_free(VpDaemon *daemon);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpDaemon, vp_daemon_free)
