/*
 * Screens by TCP (DomainSpec.tls_screens): the daemon listens for a domain that runs, ends TLS with its own certificates, asks the policy whether the client
 * may call OpenScreen on the domain, and relays to the screen's unix socket as OpenScreen does (server/services/line.h). The hypervisor has no part in it, and
 * no network for it.
 *
 * All of it happens on a thread of its own, vp-screens: hands that are shaken there hold up no domain. How much there may be is bounded in internal.h.
 */
#pragma once

#include "server/domains/domains.h"
#include "server/services/access.h"

typedef struct VpScreens VpScreens;

/* `tls`: the daemon has certificates. */
VpScreens *vp_screens_new(gboolean tls, VpError **error);

/* For VpDomainsOptions.screens; borrowed. */
const VpScreenHost *vp_screens_host(VpScreens *screens);

typedef struct VpScreensOptions {
    VpDomains *domains;
    VpAccessContext *access;
    VpPool *pool;
    /* What the policy says of those who show no certificate counts: it was written down, and does not come from serving the loopback without TLS. */
    gboolean anonymous;
} VpScreensOptions;

/* What `options` points to outlives vp_screens_stop(). */
void vp_screens_start(VpScreens *screens, const VpScreensOptions *options);
/* From now on connections are taken, and counted in `accounts`; before, they wait. `accounts` outlives vp_screens_stop(). */
void vp_screens_serve(VpScreens *screens, VpAccounts *accounts);

/* Asks about each connection that is open again. Any thread. */
void vp_screens_recheck(VpScreens *screens);

/* Closes all listeners and connections, and waits for that; what the host is told afterwards is let go. NULL is let pass. */
void vp_screens_stop(VpScreens *screens);
/* After the domains. NULL is let pass. */
void vp_screens_free(VpScreens *screens);
