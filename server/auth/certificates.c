/* Certificates by OpenSSL: see certificates.h. */
#include "server/auth/certificates.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/auth/cache.h"
#include "server/auth/file.h"

#define MAX_FILE_BYTES (4 * 1024 * 1024)
/* A client's chain: more than any CA has, less than makes work. */
#define MAX_CHAIN 8

struct VpCertificates {
    gint refs;
    guint64 generation;
    char *ca;
    char *certificate;
    char *key;
    char **kinds;
    X509_STORE *store;
    VpIdentityCache *known;
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BIO, BIO_free_all)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509, X509_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509_CRL, X509_CRL_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509_STORE_CTX, X509_STORE_CTX_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_PKEY, EVP_PKEY_free)

static VpError *invalid(const char *path, const char *what)
{
    char why[256] = "";

    if (ERR_peek_last_error())
        ERR_error_string_n(ERR_peek_last_error(), why, sizeof(why));
    ERR_clear_error();
    return vp_error_new(VP_INVALID_ARGUMENT, "CERTIFICATES_INVALID", "%s %s%s%s%s", path, what, why[0] ? " (" : "", why,
                        why[0] ? ")" : "");
}

/* ---- loading ---- */

static BIO *memory(const char *text, gsize length)
{
    return BIO_new_mem_buf(text, (int)length);
}

/* Whether the end of the text, rather than damage, ended a reading of one part after the other. */
static gboolean at_end(void)
{
    const unsigned long last = ERR_peek_last_error();
    const gboolean end = ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE;

    if (end)
        ERR_clear_error();
    return end;
}

static VpError *add_ca(VpCertificates *certificates, const char *path)
{
    g_autoptr(BIO) bio = memory(certificates->ca, strlen(certificates->ca));
    guint n = 0;

    for (;; n++) {
        g_autoptr(X509) ca = PEM_read_bio_X509(bio, NULL, NULL, NULL);

        if (!ca)
            break;
        if (X509_check_ca(ca) < 1)
            return invalid(path, "has a certificate that is no CA");
        if (!X509_STORE_add_cert(certificates->store, ca))
            return invalid(path, "has a certificate that cannot be used");
    }
    return n > 0 && at_end() ? NULL : invalid(path, "has no certificate of a CA, or a damaged one");
}

/* The certificate of the CA that has signed the list, among those of the store. */
static gboolean is_signed_by_ca(const VpCertificates *certificates, X509_CRL *crl)
{
    g_autoptr(BIO) bio = memory(certificates->ca, strlen(certificates->ca));

    for (;;) {
        g_autoptr(X509) ca = PEM_read_bio_X509(bio, NULL, NULL, NULL);

        if (!ca) {
            ERR_clear_error();
            return FALSE;
        }
        if (X509_NAME_cmp(X509_get_subject_name(ca), X509_CRL_get_issuer(crl)) == 0 &&
            X509_CRL_verify(crl, X509_get0_pubkey(ca)) == 1)
            return TRUE;
    }
}

static VpError *add_crl(VpCertificates *certificates, const char *path)
{
    g_autofree char *text = NULL;

    if (!path)
        return NULL;
    VpError *error = vp_file_read(path, MAX_FILE_BYTES, VP_FILE_ANY, "CERTIFICATES_INVALID", &text, NULL);
    if (error)
        return error;
    g_autoptr(BIO) bio = memory(text, strlen(text));
    guint n = 0;
    for (;; n++) {
        g_autoptr(X509_CRL) crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);

        if (!crl)
            break;
        if (!is_signed_by_ca(certificates, crl))
            return invalid(path, "has a list that the CA has not signed");
        if (!X509_STORE_add_crl(certificates->store, crl))
            return invalid(path, "has a list that cannot be used");
    }
    if (n == 0 || !at_end())
        return invalid(path, "has no list of withdrawn certificates, or a damaged one");
    X509_STORE_set_flags(certificates->store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return NULL;
}

static VpError *check_pair(const VpCertificates *certificates, const VpCertificateFiles *files)
{
    g_autoptr(BIO) certificate_bio = memory(certificates->certificate, strlen(certificates->certificate));
    g_autoptr(BIO) key_bio = memory(certificates->key, strlen(certificates->key));
    g_autoptr(X509) certificate = PEM_read_bio_X509(certificate_bio, NULL, NULL, NULL);

    if (!certificate)
        return invalid(files->certificate, "has no certificate");
    /* A key with a passphrase would be asked for on a terminal that is not there. */
    g_autoptr(EVP_PKEY) key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, (void *)"");
    if (!key)
        return invalid(files->key, "has no key, or one with a passphrase");
    if (X509_check_private_key(certificate, key) != 1)
        return invalid(files->key, "is not the key of the certificate");
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
        return invalid(files->certificate, "has run out");
    return NULL;
}

static VpError *load(VpCertificates *certificates, const VpCertificateFiles *files)
{
    static const char reason[] = "CERTIFICATES_INVALID";
    VpError *error = vp_file_read(files->ca, MAX_FILE_BYTES, VP_FILE_ANY, reason, &certificates->ca, NULL);

    if (!error)
        error = vp_file_read(files->certificate, MAX_FILE_BYTES, VP_FILE_ANY, reason, &certificates->certificate, NULL);
    if (!error)
        error = vp_file_read(files->key, MAX_FILE_BYTES, VP_FILE_SECRET, reason, &certificates->key, NULL);
    if (!error)
        error = add_ca(certificates, files->ca);
    if (!error)
        error = add_crl(certificates, files->crl);
    return error ? error : check_pair(certificates, files);
}

VpCertificates *vp_certificates_new(const VpCertificateFiles *files, guint64 generation, VpError **error)
{
    g_autoptr(VpCertificates) certificates = g_new0(VpCertificates, 1);

    certificates->refs = 1;
    certificates->generation = generation;
    certificates->kinds = g_strdupv((char **)files->identity_kinds);
    certificates->store = X509_STORE_new();
    certificates->known = vp_identity_cache_new();
    VpError *failure = load(certificates, files);
    if (failure) {
        *error = failure;
        return NULL;
    }
    return g_steal_pointer(&certificates);
}

VpCertificates *vp_certificates_ref(VpCertificates *certificates)
{
    g_atomic_int_inc(&certificates->refs);
    return certificates;
}

void vp_certificates_unref(VpCertificates *certificates)
{
    if (!certificates || !g_atomic_int_dec_and_test(&certificates->refs))
        return;
    if (certificates->key)
        explicit_bzero(certificates->key, strlen(certificates->key));
    g_free(certificates->key);
    g_free(certificates->certificate);
    g_free(certificates->ca);
    g_strfreev(certificates->kinds);
    X509_STORE_free(certificates->store);
    vp_identity_cache_free(certificates->known);
    g_free(certificates);
}

guint64 vp_certificates_generation(const VpCertificates *certificates)
{
    return certificates->generation;
}

const char *vp_certificates_ca(const VpCertificates *certificates)
{
    return certificates->ca;
}

const char *vp_certificates_certificate(const VpCertificates *certificates)
{
    return certificates->certificate;
}

const char *vp_certificates_key(const VpCertificates *certificates)
{
    return certificates->key;
}

/* ---- whom a certificate names ---- */

static VpError *refused(const char *why)
{
    return vp_error_new(VP_UNAUTHENTICATED, "CERTIFICATE_REFUSED", "the client's certificate is refused: %s", why);
}

/* "KIND:TEXT"; NULL if the text cannot be a name. */
static char *name_of(const char *kind, const ASN1_STRING *text)
{
    unsigned char *utf8 = NULL;
    const int length = ASN1_STRING_to_UTF8(&utf8, text);
    char *name = NULL;

    if (length > 0 && vp_identity_is_name((const char *)utf8, (gsize)length))
        name = g_strdup_printf("%s:%.*s", kind, length, (const char *)utf8);
    OPENSSL_free(utf8);
    return name;
}

/* The first alternative name of a type. `ret_any` tells whether there is one, whatever it holds. */
static char *alternative_name(const X509 *certificate, int type, const char *kind, gboolean *ret_any)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    char *found = NULL;

    *ret_any = FALSE;
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !*ret_any; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type != type)
            continue;
        *ret_any = TRUE;
        found = name_of(kind, type == GEN_URI ? name->d.uniformResourceIdentifier : name->d.dNSName);
    }
    GENERAL_NAMES_free(names);
    return found;
}

static char *common_name(const X509 *certificate, gboolean *ret_any)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

    *ret_any = at >= 0;
    return at >= 0 ? name_of("cn", X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))) : NULL;
}

static char *holder(const VpCertificates *certificates, const X509 *certificate, VpError **error)
{
    for (char **kind = certificates->kinds; *kind; kind++) {
        gboolean any = FALSE;
        char *name = g_str_equal(*kind, "uri")   ? alternative_name(certificate, GEN_URI, *kind, &any)
                     : g_str_equal(*kind, "dns") ? alternative_name(certificate, GEN_DNS, *kind, &any)
                                                 : common_name(certificate, &any);

        /* One that cannot be read does not let the next kind count: it would be for the client to choose. */
        if (any && !name)
            *error = refused("its name is too long, or no text");
        if (any)
            return name;
    }
    *error = refused("it has no name of the kinds that [tls] identity asks for");
    return NULL;
}

static gint64 end_of(const X509 *certificate)
{
    struct tm tm;

    if (!ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm))
        return 0;
    const time_t end = timegm(&tm);
    return end < 0 ? 0 : (gint64)end * G_USEC_PER_SEC;
}

static STACK_OF(X509) * read_chain(const char *chain, gsize length)
{
    STACK_OF(X509) *others = sk_X509_new_null();

    if (!chain)
        return others;
    g_autoptr(BIO) bio = memory(chain, length);
    while (sk_X509_num(others) < MAX_CHAIN) {
        X509 *other = PEM_read_bio_X509(bio, NULL, NULL, NULL);

        if (!other)
            break;
        sk_X509_push(others, other);
    }
    ERR_clear_error();
    return others;
}

static VpError *verify(const VpCertificates *certificates, X509 *certificate, STACK_OF(X509) * others)
{
    g_autoptr(X509_STORE_CTX) context = X509_STORE_CTX_new();
    VpError *error = NULL;

    if (!context || !X509_STORE_CTX_init(context, certificates->store, certificate, others))
        error = refused("it cannot be checked");
    else if (!X509_STORE_CTX_set_purpose(context, X509_PURPOSE_SSL_CLIENT) || X509_verify_cert(context) != 1)
        error = refused(X509_verify_cert_error_string(X509_STORE_CTX_get_error(context)));
    ERR_clear_error();
    return error;
}

VpIdentity *vp_certificates_identify(VpCertificates *certificates, const char *pem, gsize length, const char *chain,
                                     gsize chain_length, VpError **error)
{
    VpIdentity *known = vp_identity_cache_get(certificates->known, pem, length);

    if (known)
        return known;
    g_autoptr(BIO) bio = memory(pem, length);
    g_autoptr(X509) certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (!certificate) {
        ERR_clear_error();
        *error = refused("it cannot be read");
        return NULL;
    }
    STACK_OF(X509) *others = read_chain(chain, chain_length);
    VpError *failure = verify(certificates, certificate, others);
    sk_X509_pop_free(others, X509_free);
    if (failure) {
        *error = failure;
        return NULL;
    }
    g_autofree char *name = holder(certificates, certificate, error);
    if (!name)
        return NULL;
    VpIdentity *identity = vp_identity_new(PB_IDENTITY_KIND_CERTIFICATE, name, NULL, end_of(certificate));
    vp_identity_cache_put(certificates->known, pem, length, identity);
    return identity;
}
