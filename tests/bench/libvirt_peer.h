/* libvirt as a peer: its library is loaded at run time, so that nothing is needed to build. A libvirtd of our own runs in a temporary folder. */
#pragma once

#include <glib.h>
#include <sys/types.h>

typedef struct LibvirtPeer LibvirtPeer;

/* NULL, with the reason printed, if libvirt is not installed. Defines one domain. `dir` is a temporary folder. */
LibvirtPeer *libvirt_peer_new(const char *dir);
void libvirt_peer_free(LibvirtPeer *peer);

/* For what else is measured of it (libvirt_domain.h): a function of its library or NULL, its connection, and where others connect to; borrowed. */
void *libvirt_peer_symbol(LibvirtPeer *peer, const char *name);
void *libvirt_peer_connection(LibvirtPeer *peer);
const char *libvirt_peer_uri(const LibvirtPeer *peer);

/* Makes a storage pool of a folder. FALSE, with a line, if libvirt cannot. */
gboolean libvirt_peer_pool(LibvirtPeer *peer, const char *folder);
/* One virStoragePoolRefresh of it, in milliseconds. */
gdouble libvirt_peer_pool_refresh(LibvirtPeer *peer);

/* virDomainGetInfo calls a second, from `connections` connections with one thread each, for `duration_ms`. */
gdouble libvirt_peer_domain_info(LibvirtPeer *peer, guint connections, guint duration_ms);

/* virDomainDefineXML calls a second, each of a domain of its own, from `connections` connections with one thread each; they are undefined afterwards. */
gdouble libvirt_peer_define(LibvirtPeer *peer, guint connections, guint duration_ms);
