/*
 * The daemon's certificates: its own, the CA that clients are signed by, and the list of those withdrawn; as they were in the files at one moment.
 * Immutable, and counted. What they say of a client is asked at each of its calls, not at the handshake alone: a certificate that is withdrawn or has
 * run out ends with the next call, on connections that are open as well.
 */
#pragma once

#include "base/error.h"
#include "server/auth/identity.h"

typedef struct VpCertificates VpCertificates;

typedef struct VpCertificateFiles {
    const char *certificate; /* PEM; with the chain up to, but without, the root */
    const char *key;
    const char *ca;
    const char *crl; /* PEM; NULL: none */
    const char *const
        *identity_kinds; /* "uri", "dns", "cn": the first that a certificate has names its holder; NULL at the end */
} VpCertificateFiles;

/* Reads and checks the files: the key is the certificate's and nobody else's to read, the CA is one, the lists are signed by it. Error: reason
 * CERTIFICATES_INVALID, and which file. Blocks on the disk. `generation` tells them from others. */
VpCertificates *vp_certificates_new(const VpCertificateFiles *files, guint64 generation, VpError **error);
VpCertificates *vp_certificates_ref(VpCertificates *certificates);
void vp_certificates_unref(VpCertificates *certificates);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpCertificates, vp_certificates_unref)

guint64 vp_certificates_generation(const VpCertificates *certificates);
/* PEM texts, borrowed. */
const char *vp_certificates_ca(const VpCertificates *certificates);
const char *vp_certificates_certificate(const VpCertificates *certificates);
const char *vp_certificates_key(const VpCertificates *certificates);

/* Whom a client's certificate names, `chain` being what it sent along: verified against the CA and the lists, or UNAUTHENTICATED, reason CERTIFICATE_REFUSED.
 * Any thread; never blocks. */
VpIdentity *vp_certificates_identify(VpCertificates *certificates, const char *pem, gsize length, const char *chain,
                                     gsize chain_length, VpError **error);
