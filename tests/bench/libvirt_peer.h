/* libvirt as a peer: its library is loaded at run time, so that nothing is needed to build. A libvirtd of our own runs in a temporary folder. */
#pragma once

#include <glib.h>
#include <sys/types.h>

typedef struct LibvirtPeer LibvirtPeer;

/* NULL, with the reason printed, if libvirt is not installed. Defines one domain. `dir` is a temporary folder. */
LibvirtPeer *libvirt_peer_new(const char *dir);
void libvirt_peer_free(LibvirtPeer *peer);

/* virDomainGetInfo calls a second, from `connections` connections with one thread each, for `duration_ms`. */
gdouble libvirt_peer_domain_info(LibvirtPeer *peer, guint connections, guint duration_ms);
