/*
 * Layers of images that a server has, as far as a start is concerned: which of them QEMU itself reaches over the network, and connections to those on this
 * host.
 */
#pragma once

#include "command_line.h"
#include "storage/chain/chain.h"

/* Whether QEMU itself opens something of the network: its own NAT, a server of images, and who knows what for arguments of their user's own are. `chains` is of
 * VpChain, or NULL for an empty drive. */
gboolean vp_remote_needs_network(const PbDomainSpec *spec, const GPtrArray *chains);

/* The same of one. */
gboolean vp_remote_interface_needs_network(const PbInterface *interface);

/* Connects to those servers that are behind a unix socket, which QEMU does not see: `fds` (of int, the caller's to close) gets one a layer, in order. May
 * hang. FAILED_PRECONDITION, reason REMOTE_BACKING. */
VpError *vp_remote_connect(const GPtrArray *chains, GArray *fds);

/* Puts the numbers that `give` answers for them into the layers of one of the chains, each in its turn; `next` is the place in `fds`. */
void vp_remote_give(const VpChain *chain, VpLayerFds *layers, const GArray *fds, guint *next,
                    int (*give)(void *data, int fd), void *data);
