/*
 * The gate for those who come by another way than a call: who they are, and whether they may do what a method does, is judged as of its calls; what comes of
 * it is written down in the same place.
 */
#pragma once

#include "server/services/access.h"

typedef struct VpVisit {
    const VpMethod *method;
    VpIdentity *identity; /* NULL: what was shown is refused */
    char *resource;
    gint64 start_us;
    VpAccount *account; /* where it is counted as a stream; NULL: it is not */
    guint64
        left_out; /* of visits like it, of which nothing was written down since the last one of which something was */
} VpVisit;

/* Whether who shows `credentials` may do what `request` of `method` ("DomainService/OpenScreen") asks for. Fills in `ret_visit` whatever it says. Any thread;
 * never blocks. */
VpError *vp_access_visit(VpAccessContext *context, const VpCredentials *credentials, const char *method,
                         const void *request, VpVisit *ret_visit);
/* Counts it among the streams of its identity, until it has ended or is cleared: NULL, or RESOURCE_EXHAUSTED (reason TOO_MANY_STREAMS). */
VpError *vp_access_visit_enter(const VpAccessContext *context, VpAccounts *accounts, VpVisit *visit);
void vp_visit_clear(VpVisit *visit);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpVisit, vp_visit_clear)

/* "cn:alice ipv4:192.0.2.1:40112". Owned by the caller. */
char *vp_visit_caller(const VpVisit *visit, const char *peer);

/* It was let in. */
void vp_access_visit_began(const VpAccessContext *context, const VpVisit *visit, const char *peer);
/* It is over, or was never let in (`refused`). `error` is borrowed; NULL: it ended well. */
void vp_access_visit_ended(const VpAccessContext *context, VpVisit *visit, const char *peer, gboolean refused,
                           const VpError *error);
