/* What --limit and --pin say. Part of vpctl domain create. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* "cpu=1.5", "memory=2GiB", ...; and "vcpu0=2-3", "iothread1=0", "emulator=0-1". INVALID_ARGUMENT with the words that there are. */
VpError *vp_limit_parse(PbDomainSpec *spec, const char *text);
VpError *vp_pin_parse(PbDomainSpec *spec, const char *text);
