/* What --vnc, --vnc-tls and --spice-tls say, as messages. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* Adds a screen of this type, if it is not there. */
void vp_graphics_add(PbDomainSpec *spec, PbGraphicsType type);

/* "PORT", "ADDRESS:PORT" or "[IPV6]:PORT": a screen of this type that is served there by TLS. `option` is the option's name, for errors. */
VpError *vp_tls_screen_parse(PbDomainSpec *spec, PbGraphicsType type, const char *option, const char *text);
