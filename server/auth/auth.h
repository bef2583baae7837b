/*
 * Who calls and what they may do, as the settings' files say at this moment: the policy, the certificates, the tokens' keys. Read again when they change; a
 * file that cannot be taken leaves what was there in its place.
 */
#pragma once

#include "server/auth/certificates.h"
#include "server/auth/policy.h"
#include "server/auth/tokens.h"
#include "server/rpc/rpc.h"

typedef struct VpAuth VpAuth;

typedef struct VpAuthOptions {
    const char *policy;       /* NULL: the built-in bindings alone */
    gboolean insecure_tcp;    /* plain TCP is served */
    VpCertificateFiles files; /* certificate NULL: no TLS */
    VpTokenOptions tokens;    /* jwks NULL: none are taken */
} VpAuthOptions;

/* Reads the files. `options` and what it points to outlive the result. */
VpAuth *vp_auth_new(const VpAuthOptions *options, VpError **error);
void vp_auth_free(VpAuth *auth);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpAuth, vp_auth_free)

/* Reads the files again. NULL, or the first error; the parts that were right are taken all the same. One at a time; blocks on the disk. */
VpError *vp_auth_reload(VpAuth *auth);

/* The present policy, a reference. Any thread. */
VpPolicy *vp_auth_policy(VpAuth *auth);

/* The method of the contract by its name or the end of it ("StartDomain", "DomainService/StartDomain"); NULL: none, or several. */
const VpMethod *vp_auth_find_method(VpAuth *auth, const char *name);
const GArray *vp_auth_methods(VpAuth *auth);

/* Whom what a call shows names: VP_ANONYMOUS if it shows nothing. UNAUTHENTICATED if what it shows is not right (any more). `groups` are a local caller's. Any
 * thread; never blocks. */
VpIdentity *vp_auth_identify(VpAuth *auth, const VpCredentials *credentials, const GArray *groups, VpError **error);

/* For the RPC server: NULL without certificates. Borrowed. */
const VpRpcTls *vp_auth_tls(VpAuth *auth);
