/* The CA by OpenSSL: see pki_ca.h. */
#include "clients/cli/pki_ca.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

/* Of two hosts the clocks differ. */
#define BACKDATE_S (5 * 60)
#define DAY_S (24 * 60 * 60)
#define SERIAL_BITS 127

struct VpCa {
    char *folder;
    X509 *certificate;
    EVP_PKEY *key;
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BIO, BIO_free_all)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509, X509_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509_CRL, X509_CRL_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509_NAME, X509_NAME_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509_EXTENSION, X509_EXTENSION_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_PKEY, EVP_PKEY_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BIGNUM, BN_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ASN1_INTEGER, ASN1_INTEGER_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ASN1_TIME, ASN1_TIME_free)

static VpError *failed(const char *doing, const char *path)
{
    char why[256] = "";

    if (ERR_peek_last_error())
        ERR_error_string_n(ERR_peek_last_error(), why, sizeof(why));
    ERR_clear_error();
    return vp_error_new(VP_INTERNAL, NULL, "cannot %s %s%s%s", doing, path, why[0] ? ": " : "", why);
}

/* ---- files ---- */

static char *path_of(const char *folder, const char *name, const char *suffix)
{
    g_autofree char *file = g_strconcat(name, suffix, NULL);

    return g_build_filename(folder, file, NULL);
}

/* What OpenSSL has written into memory goes to the disk as a whole. */
static VpError *write_file(const char *path, BIO *bio, int mode)
{
    char *text = NULL;
    const long length = BIO_get_mem_data(bio, &text);
    g_autoptr(GError) why = NULL;

    if (!g_file_set_contents_full(path, text, length, G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE,
                                  mode, &why))
        return vp_error_new(VP_FAILED_PRECONDITION, NULL, "cannot write %s: %s", path, why->message);
    return NULL;
}

static VpError *write_key(const char *path, EVP_PKEY *key)
{
    g_autoptr(BIO) bio = BIO_new(BIO_s_secmem());

    if (!PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL))
        return failed("write", path);
    return write_file(path, bio, 0600);
}

static VpError *write_certificate(const char *path, X509 *certificate)
{
    g_autoptr(BIO) bio = BIO_new(BIO_s_mem());

    if (!PEM_write_bio_X509(bio, certificate))
        return failed("write", path);
    return write_file(path, bio, 0644);
}

static X509 *read_certificate(const char *path, VpError **error)
{
    g_autoptr(BIO) bio = BIO_new_file(path, "r");
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

    if (!certificate)
        *error = failed("read the certificate", path);
    return certificate;
}

/* ---- the parts of a certificate ---- */

static gboolean set_name(X509_NAME *name, const char *common)
{
    return X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"virtplane", -1, -1, 0) &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common, -1, -1, 0);
}

static gboolean set_serial(X509 *certificate)
{
    g_autoptr(BIGNUM) number = BN_new();

    return number && BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) &&
           BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
}

static gboolean set_times(X509 *certificate, guint days)
{
    return X509_gmtime_adj(X509_getm_notBefore(certificate), -BACKDATE_S) &&
           X509_time_adj_ex(X509_getm_notAfter(certificate), (int)days, 0, NULL);
}

/* One extension by the words of OpenSSL's configuration, which are ours and nobody else's. */
static gboolean add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    g_autoptr(X509_EXTENSION) extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    return extension && X509_add_ext(certificate, extension, -1);
}

static gboolean add_text_name(GENERAL_NAMES *names, int type, const char *text)
{
    ASN1_IA5STRING *string = ASN1_IA5STRING_new();
    GENERAL_NAME *name = GENERAL_NAME_new();

    ASN1_STRING_set(string, text, -1);
    GENERAL_NAME_set0_value(name, type, string);
    return sk_GENERAL_NAME_push(names, name) > 0;
}

static gboolean add_host(GENERAL_NAMES *names, const char *host)
{
    guint8 bytes[16];
    const int length = inet_pton(AF_INET, host, bytes) == 1 ? 4 : inet_pton(AF_INET6, host, bytes) == 1 ? 16 : 0;

    if (!length)
        return add_text_name(names, GEN_DNS, host);
    ASN1_OCTET_STRING *string = ASN1_OCTET_STRING_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_OCTET_STRING_set(string, bytes, length);
    GENERAL_NAME_set0_value(name, GEN_IPADD, string);
    return sk_GENERAL_NAME_push(names, name) > 0;
}

static gboolean add_names(X509 *certificate, const VpCaRequest *request)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    gboolean ok = TRUE;

    for (const char *const *host = request->hosts; ok && host && *host; host++)
        ok = add_host(names, *host);
    if (ok && request->uri)
        ok = add_text_name(names, GEN_URI, request->uri);
    if (ok && sk_GENERAL_NAME_num(names) > 0)
        ok = X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0) == 1;
    GENERAL_NAMES_free(names);
    return ok;
}

/* ---- the CA itself ---- */

static VpError *sign_ca(X509 *certificate, EVP_PKEY *key, const char *name, guint days)
{
    if (!X509_set_version(certificate, X509_VERSION_3) || !set_serial(certificate) || !set_times(certificate, days) ||
        !set_name(X509_get_subject_name(certificate), name) ||
        !X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) || !X509_set_pubkey(certificate, key) ||
        !add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
        !add_extension(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign") ||
        !add_extension(certificate, certificate, NID_subject_key_identifier, "hash") ||
        !X509_sign(certificate, key, EVP_sha256()))
        return failed("make the certificate of", "the CA");
    return NULL;
}

VpError *vp_ca_init(const char *folder, const char *name, guint days)
{
    g_autofree char *certificate_path = path_of(folder, "ca", ".crt");
    g_autofree char *key_path = path_of(folder, "ca", ".key");

    if (g_mkdir_with_parents(folder, 0700) < 0)
        return vp_error_errno(errno, NULL, "cannot make the folder %s", folder);
    if (g_file_test(certificate_path, G_FILE_TEST_EXISTS) || g_file_test(key_path, G_FILE_TEST_EXISTS))
        return vp_error_new(VP_ALREADY_EXISTS, NULL, "%s has a CA already; choose another folder with --dir", folder);
    g_autoptr(EVP_PKEY) key = EVP_EC_gen("P-256");
    g_autoptr(X509) certificate = X509_new();
    if (!key || !certificate)
        return failed("make a key for", "the CA");
    VpError *error = sign_ca(certificate, key, name, days);
    if (!error)
        error = write_key(key_path, key);
    return error ? error : write_certificate(certificate_path, certificate);
}

VpCa *vp_ca_open(const char *folder, VpError **error)
{
    g_autoptr(VpCa) ca = g_new0(VpCa, 1);
    g_autofree char *certificate_path = path_of(folder, "ca", ".crt");
    g_autofree char *key_path = path_of(folder, "ca", ".key");

    ca->folder = g_strdup(folder);
    if (!g_file_test(certificate_path, G_FILE_TEST_EXISTS)) {
        *error = vp_error_new(VP_NOT_FOUND, NULL, "%s has no CA; \"vpctl pki init\" makes one", folder);
        return NULL;
    }
    ca->certificate = read_certificate(certificate_path, error);
    if (!ca->certificate)
        return NULL;
    g_autoptr(BIO) bio = BIO_new_file(key_path, "r");
    ca->key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    if (!ca->key || X509_check_private_key(ca->certificate, ca->key) != 1) {
        *error = failed("use the key", key_path);
        return NULL;
    }
    return g_steal_pointer(&ca);
}

void vp_ca_free(VpCa *ca)
{
    if (!ca)
        return;
    X509_free(ca->certificate);
    EVP_PKEY_free(ca->key);
    g_free(ca->folder);
    g_free(ca);
}

/* ---- withdrawing ---- */

static X509_CRL *read_list(const VpCa *ca, VpError **error)
{
    g_autofree char *path = path_of(ca->folder, "ca", ".crl");
    g_autoptr(BIO) bio = BIO_new_file(path, "r");

    if (!bio) {
        ERR_clear_error();
        X509_CRL *list = X509_CRL_new();

        X509_CRL_set_version(list, X509_CRL_VERSION_2);
        X509_CRL_set_issuer_name(list, X509_get_subject_name(ca->certificate));
        return list;
    }
    /* One that is damaged is not begun anew: that would let in whom it kept out. */
    X509_CRL *list = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);
    if (!list)
        *error = failed("read the list", path);
    return list;
}

static gboolean is_withdrawn(X509_CRL *list, X509 *certificate)
{
    X509_REVOKED *entry = NULL;

    return X509_CRL_get0_by_serial(list, &entry, X509_get_serialNumber(certificate)) == 1;
}

static gboolean add_entry(X509_CRL *list, X509 *certificate)
{
    g_autoptr(ASN1_TIME) now = X509_gmtime_adj(NULL, 0);
    X509_REVOKED *entry = X509_REVOKED_new();

    return entry && now && X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate)) &&
           X509_REVOKED_set_revocationDate(entry, now) && X509_CRL_add0_revoked(list, entry);
}

static gboolean set_list_number(X509_CRL *list)
{
    g_autoptr(ASN1_INTEGER) number = X509_CRL_get_ext_d2i(list, NID_crl_number, NULL, NULL);
    const long last = number ? ASN1_INTEGER_get(number) : 0;

    if (!number)
        number = ASN1_INTEGER_new();
    return ASN1_INTEGER_set(number, last + 1) &&
           X509_CRL_add1_ext_i2d(list, NID_crl_number, number, 0, X509V3_ADD_REPLACE) == 1;
}

static VpError *sign_list(VpCa *ca, X509_CRL *list, guint days)
{
    g_autofree char *path = path_of(ca->folder, "ca", ".crl");
    g_autoptr(ASN1_TIME) from = X509_gmtime_adj(NULL, -BACKDATE_S);
    g_autoptr(ASN1_TIME) until = X509_gmtime_adj(NULL, (long)days * DAY_S);
    g_autoptr(BIO) bio = BIO_new(BIO_s_mem());

    if (!from || !until || !set_list_number(list) || !X509_CRL_set1_lastUpdate(list, from) ||
        !X509_CRL_set1_nextUpdate(list, until) || !X509_CRL_sort(list) || !X509_CRL_sign(list, ca->key, EVP_sha256()) ||
        !PEM_write_bio_X509_CRL(bio, list))
        return failed("sign the list", path);
    return write_file(path, bio, 0644);
}

VpError *vp_ca_revoke(VpCa *ca, const char *name, guint days)
{
    VpError *error = NULL;
    g_autoptr(X509_CRL) list = read_list(ca, &error);

    if (!list)
        return error;
    if (name) {
        g_autofree char *path = strchr(name, '/') ? g_strdup(name) : path_of(ca->folder, name, ".crt");
        g_autoptr(X509) certificate = read_certificate(path, &error);

        if (!certificate)
            return error;
        if (X509_verify(certificate, X509_get0_pubkey(ca->certificate)) != 1) {
            ERR_clear_error();
            return vp_error_new(VP_FAILED_PRECONDITION, NULL, "%s was not issued by this CA", path);
        }
        if (is_withdrawn(list, certificate))
            return vp_error_new(VP_FAILED_PRECONDITION, NULL, "%s is withdrawn already", path);
        if (!add_entry(list, certificate))
            return failed("withdraw", path);
    }
    return sign_list(ca, list, days);
}

/* ---- issuing ---- */

/* A name may be used again once what had it is withdrawn. */
static VpError *check_free(const VpCa *ca, const char *path)
{
    VpError *error = NULL;

    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        return NULL;
    g_autoptr(X509) old = read_certificate(path, &error);
    g_autoptr(X509_CRL) list = old ? read_list(ca, &error) : NULL;
    if (!list)
        return error;
    return is_withdrawn(list, old) || X509_cmp_current_time(X509_get0_notAfter(old)) < 0
               ? NULL
               : vp_error_new(VP_ALREADY_EXISTS, NULL, "%s is there and in force; revoke it, or choose another name",
                              path);
}

static VpError *sign_certificate(VpCa *ca, X509 *certificate, EVP_PKEY *key, const VpCaRequest *request)
{
    if (!X509_set_version(certificate, X509_VERSION_3) || !set_serial(certificate) ||
        !set_times(certificate, request->days) || !set_name(X509_get_subject_name(certificate), request->name) ||
        !X509_set_issuer_name(certificate, X509_get_subject_name(ca->certificate)) ||
        !X509_set_pubkey(certificate, key) ||
        !add_extension(certificate, ca->certificate, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(certificate, ca->certificate, NID_key_usage, "critical,digitalSignature") ||
        !add_extension(certificate, ca->certificate, NID_ext_key_usage, request->hosts ? "serverAuth" : "clientAuth") ||
        !add_extension(certificate, ca->certificate, NID_subject_key_identifier, "hash") ||
        !add_extension(certificate, ca->certificate, NID_authority_key_identifier, "keyid") ||
        !add_names(certificate, request) || !X509_sign(certificate, ca->key, EVP_sha256()))
        return failed("make the certificate of", request->name);
    return NULL;
}

VpError *vp_ca_issue(VpCa *ca, const VpCaRequest *request)
{
    g_autofree char *certificate_path = path_of(ca->folder, request->name, ".crt");
    g_autofree char *key_path = path_of(ca->folder, request->name, ".key");
    VpError *error = check_free(ca, certificate_path);

    if (error)
        return error;
    if (X509_cmp_current_time(X509_get0_notAfter(ca->certificate)) < 0)
        return vp_error_new(VP_FAILED_PRECONDITION, NULL, "the certificate of the CA has run out");
    g_autoptr(EVP_PKEY) key = EVP_EC_gen("P-256");
    g_autoptr(X509) certificate = X509_new();
    if (!key || !certificate)
        return failed("make a key for", request->name);
    error = sign_certificate(ca, certificate, key, request);
    if (!error)
        error = write_key(key_path, key);
    return error ? error : write_certificate(certificate_path, certificate);
}
