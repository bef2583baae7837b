/* A domain of libvirtd that is started, halted and ended: the peer of ours. virtlogd runs beside it, as on a host. */
#pragma once

#include "tests/bench/libvirt_peer.h"

typedef struct LibvirtDomain LibvirtDomain;

/* NULL, with the reason printed, if libvirt cannot start it. `kvm` FALSE: emulated. */
LibvirtDomain *libvirt_domain_new(LibvirtPeer *peer, const char *dir, gboolean kvm);
void libvirt_domain_free(LibvirtDomain *domain);

/* virDomainCreate and virDomainDestroy, in milliseconds. */
gdouble libvirt_domain_start(LibvirtDomain *domain);
gdouble libvirt_domain_destroy(LibvirtDomain *domain);

/* virDomainSuspend or virDomainResume, whichever is next: from the call to the callback of another connection, in microseconds. */
gdouble libvirt_domain_event(LibvirtDomain *domain);
