/*
 * A small CA in a folder, for those who have none: ca.crt, ca.key and ca.crl, and NAME.crt with NAME.key for each certificate that it has issued. Keys are
 * EC P-256, signatures ECDSA with SHA-256: what every TLS library takes.
 */
#pragma once

#include "base/error.h"

typedef struct VpCa VpCa;

/* Makes a CA in `folder` (made if it is not there). ALREADY_EXISTS if it has one. */
VpError *vp_ca_init(const char *folder, const char *name, guint days);

/* Opens the CA of `folder`. */
VpCa *vp_ca_open(const char *folder, VpError **error);
void vp_ca_free(VpCa *ca);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpCa, vp_ca_free)

typedef struct VpCaRequest {
    const char *name;         /* of the files, and the common name */
    const char *const *hosts; /* DNS names and IP addresses of a server, NULL at the end; NULL: for a client */
    const char *uri;          /* of a client, such as spiffe://example.org/ci; NULL: none */
    guint days;
} VpCaRequest;

/* Makes a key and a certificate for it: NAME.key and NAME.crt. ALREADY_EXISTS if they are there and not withdrawn. */
VpError *vp_ca_issue(VpCa *ca, const VpCaRequest *request);

/* Withdraws NAME.crt, or the certificate in a file, and signs the list anew. `name` NULL: that alone. `days`: until the list has to be signed again. */
VpError *vp_ca_revoke(VpCa *ca, const char *name, guint days);
