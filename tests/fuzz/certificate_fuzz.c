/*
 * libFuzzer on whom a client's certificate names: a certificate with names of the input's making, signed by the CA here. Whatever they hold, what comes
 * out is a name that logs and policies can have, or a refusal. Another first byte than 1 to 3: the input is the certificate itself.
 */
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/auth/certificates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Authority {
    EVP_PKEY *key;
    X509 *certificate;
    VpCertificates *certificates;
} Authority;

static X509 *make(EVP_PKEY *key, long serial)
{
    X509 *certificate = X509_new();

    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    return certificate;
}

static char *pem_of(void (*put)(BIO *bio, const void *what), const void *what)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *bytes = NULL;

    put(bio, what);
    const long length = BIO_get_mem_data(bio, &bytes);
    char *text = g_strndup(bytes, (gsize)length);
    BIO_free(bio);
    return text;
}

static void put_certificate(BIO *bio, const void *certificate)
{
    PEM_write_bio_X509(bio, (X509 *)certificate);
}

static void put_key(BIO *bio, const void *key)
{
    PEM_write_bio_PrivateKey(bio, (EVP_PKEY *)key, NULL, NULL, 0, NULL, NULL);
}

static char *keep(const char *text)
{
    const int fd = memfd_create("pem", 0);

    if (fd < 0 || fchmod(fd, 0600) < 0 || write(fd, text, strlen(text)) < 0)
        abort();
    return g_strdup_printf("/proc/self/fd/%d", fd);
}

static const Authority *authority_of_process(void)
{
    static Authority made;
    static const char *const kinds[] = {"uri", "dns", "cn", NULL};
    VpError *error = NULL;

    if (made.key)
        return &made;
    made.key = EVP_EC_gen("P-256");
    made.certificate = make(made.key, 1);
    X509_NAME *name = X509_get_subject_name(made.certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"CA", -1, -1, 0);
    X509_set_issuer_name(made.certificate, name);
    X509_EXTENSION *ca = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
    X509_add_ext(made.certificate, ca, -1);
    X509_EXTENSION_free(ca);
    X509_sign(made.certificate, made.key, EVP_sha256());
    g_autofree char *certificate = pem_of(put_certificate, made.certificate);
    g_autofree char *key = pem_of(put_key, made.key);
    g_autofree char *certificate_path = keep(certificate);
    g_autofree char *key_path = keep(key);
    const VpCertificateFiles files = {.certificate = certificate_path,
                                      .key = key_path,
                                      .ca = certificate_path,
                                      .identity_kinds = kinds};
    made.certificates = vp_certificates_new(&files, 1, &error);
    if (!made.certificates)
        abort();
    return &made;
}

static void add_alternative(X509 *certificate, int type, const uint8_t *data, size_t size)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();

    ASN1_STRING_set(text, data, (int)size);
    GENERAL_NAME_set0_value(name, type, text);
    sk_GENERAL_NAME_push(names, name);
    X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0);
    GENERAL_NAMES_free(names);
}

/* The first byte is the name's kind, the second the type of its string. */
static char *issue(const Authority *authority, const uint8_t *data, size_t size)
{
    static const int strings[] = {V_ASN1_UTF8STRING, V_ASN1_BMPSTRING, V_ASN1_UNIVERSALSTRING, V_ASN1_T61STRING,
                                  V_ASN1_PRINTABLESTRING};
    X509 *certificate = make(authority->key, 2);

    X509_set_issuer_name(certificate, X509_get_subject_name(authority->certificate));
    if (data[0] == 1)
        X509_NAME_add_entry_by_NID(X509_get_subject_name(certificate), NID_commonName, strings[data[1] % 5], data + 2,
                                   (int)size - 2, -1, 0);
    else
        add_alternative(certificate, data[0] == 2 ? GEN_URI : GEN_DNS, data + 2, size - 2);
    X509_sign(certificate, authority->key, EVP_sha256());
    char *pem = pem_of(put_certificate, certificate);
    X509_free(certificate);
    return pem;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const Authority *authority = authority_of_process();
    const gboolean made = size > 2 && data[0] >= 1 && data[0] <= 3;
    g_autofree char *pem = made ? issue(authority, data, size) : g_strndup((const char *)data, size);
    VpError *error = NULL;
    VpIdentity *identity = vp_certificates_identify(authority->certificates, pem, strlen(pem), NULL, 0, &error);

    if (!identity == !error || (identity && !made))
        abort();
    if (identity && (!vp_identity_is_name(identity->name, strlen(identity->name)) || !strchr(identity->name, ':')))
        abort();
    vp_identity_unref(identity);
    vp_error_free(error);
    return 0;
}
