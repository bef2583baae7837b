/* Identities: see identity.h. */
#include "server/auth/identity.h"

#include <string.h>

VpIdentity *vp_identity_new(PbIdentityKind kind, const char *name, const char *const *groups, gint64 expires_wall_us)
{
    static const char *const none[] = {NULL};
    VpIdentity *identity = g_new0(VpIdentity, 1);

    identity->refs = 1;
    identity->kind = kind;
    identity->name = g_strdup(name);
    identity->groups = g_strdupv((char **)(groups ? groups : none));
    identity->expires_wall_us = expires_wall_us;
    return identity;
}

VpIdentity *vp_identity_ref(VpIdentity *identity)
{
    g_atomic_int_inc(&identity->refs);
    return identity;
}

void vp_identity_unref(VpIdentity *identity)
{
    if (!identity || !g_atomic_int_dec_and_test(&identity->refs))
        return;
    g_free(identity->name);
    g_strfreev(identity->groups);
    g_free(identity);
}

gboolean vp_identity_is_name(const char *bytes, gsize length)
{
    if (length == 0 || length > VP_IDENTITY_MAX_BYTES || !g_utf8_validate_len(bytes, length, NULL))
        return FALSE;
    for (const char *at = bytes; at < bytes + length; at = g_utf8_next_char(at)) {
        if (g_unichar_iscntrl(g_utf8_get_char(at)))
            return FALSE;
    }
    return TRUE;
}
