/*
 * Bearer tokens: JWTs that one issuer has signed for one audience, with RS256, ES256 or EdDSA and a key of a JWKS file. Keys and addresses that a token itself
 * names are never looked at. Immutable and counted; any thread.
 */
#pragma once

#include "base/error.h"
#include "server/auth/identity.h"

typedef struct VpTokens VpTokens;

typedef struct VpTokenOptions {
    const char *jwks;     /* the file; public keys alone */
    const char *issuer;   /* "iss" must be this */
    const char *audience; /* "aud" must be this, or a list with it */
    const char *groups;   /* the claim with the groups, a list; NULL: none */
} VpTokenOptions;

/* Error: reason TOKENS_INVALID. Blocks on the disk. */
VpTokens *vp_tokens_new(const VpTokenOptions *options, VpError **error);
VpTokens *vp_tokens_ref(VpTokens *tokens);
void vp_tokens_unref(VpTokens *tokens);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpTokens, vp_tokens_unref)

/* Whom an authorization header ("Bearer ...") names, at `now_wall_us`; UNAUTHENTICATED, reason TOKEN_REFUSED. The message never holds the token. */
VpIdentity *vp_tokens_identify(VpTokens *tokens, const char *authorization, gint64 now_wall_us, VpError **error);
