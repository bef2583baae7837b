/* What a domain's labels tell the test driver to do wrong. Pure: labels in, fault out. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

typedef enum VpFaultKind {
    VP_FAULT_NONE,
    VP_FAULT_DELAY,    /* do it, but `delay_ms` later */
    VP_FAULT_PROGRESS, /* the same, and tell in between how far it is */
    VP_FAULT_FAIL,     /* fail with `code` and `message` */
    VP_FAULT_HANG,     /* do nothing until cancelled or the deadline has passed */
    VP_FAULT_IGNORE,
} VpFaultKind;

typedef struct VpFault {
    VpFaultKind kind;
    guint64 delay_ms;
    VpCode code;
    const char *message; /* borrowed from the domain */
} VpFault;

/* The value of label `key`, or NULL. */
const char *vp_label(const PbDomain *domain, const char *key);

/* The fault of `test.fault.<verb>`. INVALID_ARGUMENT, reason BAD_FAULT_LABEL, if the label is not understood. */
VpError *vp_fault_of_verb(const PbDomain *domain, const char *verb, VpFault *ret_fault);

/* How the guest takes what it is asked for ("shutdown", "reboot", or to "detach" a device), from `test.guest.<what>`: NONE (at once), DELAY or IGNORE. */
VpError *vp_fault_of_guest(const PbDomain *domain, const char *what, VpFault *ret_fault);

/* When it ends by itself: `test.<what>_after`, of "crash", "panic" and "poweroff": DELAY, or NONE. */
VpError *vp_fault_of_end(const PbDomain *domain, const char *what, VpFault *ret_fault);
