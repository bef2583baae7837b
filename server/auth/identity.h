/*
 * Who calls, as the policy knows it: a name with the kind before it ("uid:1000", "uri:spiffe://example.org/ci", "token:alice"), so that a name of one kind
 * never passes for one of another, and groups likewise. Immutable and counted; any thread.
 */
#pragma once

#include <glib.h>

#include "virtplane/v1/auth_service.pb-c.h"

#define VP_ANONYMOUS "anonymous"
/* Names that are longer are refused, never cut. */
#define VP_IDENTITY_MAX_BYTES 512

typedef struct VpIdentity {
    gint refs;
    PbIdentityKind kind;
    char *name;
    char **groups;          /* NULL at the end */
    gint64 expires_wall_us; /* of the certificate or token; G_MAXINT64: never */
} VpIdentity;

/* `name` "KIND:VALUE" or VP_ANONYMOUS; `groups` may be NULL. Copies. */
VpIdentity *vp_identity_new(PbIdentityKind kind, const char *name, const char *const *groups, gint64 expires_wall_us);
VpIdentity *vp_identity_ref(VpIdentity *identity);
/* NULL is let pass. */
void vp_identity_unref(VpIdentity *identity);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpIdentity, vp_identity_unref)

/* Whether `length` bytes can be a name that logs, policies and people can have: 1 to VP_IDENTITY_MAX_BYTES bytes of UTF-8 without control characters. */
gboolean vp_identity_is_name(const char *bytes, gsize length);
