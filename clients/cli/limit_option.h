/* What --limit, --pin, --share and --host-device say: what a domain has of its host. Part of vpctl domain create. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* "cpu=1.5", "memory=2GiB", ...; and "vcpu0=2-3", "iothread1=0", "emulator=0-1". INVALID_ARGUMENT with the words that there are. */
VpError *vp_limit_parse(PbDomainSpec *spec, const char *text);
VpError *vp_pin_parse(PbDomainSpec *spec, const char *text);
/* "TAG=PATH"; a path is relative to `folder`. */
VpError *vp_share_parse(PbDomainSpec *spec, const char *text, const char *folder);
void vp_host_device_add(PbDomainSpec *spec, const char *address);
