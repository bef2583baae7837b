/* The screens of a domain, as its spec tells: shared by the drivers. Pure. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* How many there are: one with a graphics adapter. */
guint vp_spec_screens(const PbDomainSpec *spec);

/* FAILED_PRECONDITION, reason NO_SCREEN, for a domain without one; OUT_OF_RANGE, reason NO_SUCH_SCREEN, if it has no screen of this number. */
VpError *vp_spec_check_screen(const PbDomainSpec *spec, const char *name, guint screen);
