/* The server's end of TLS by OpenSSL, with certificates that may change: see internal.h. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

#include "base/log.h"
#include "server/screens/internal.h"

struct VpScreenTls {
    const VpRpcTls *source;
    guint64 generation;
    SSL_CTX *context; /* NULL: there never were any that can be used */
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BIO, BIO_free_all)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509, X509_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_PKEY, EVP_PKEY_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SSL_CTX, SSL_CTX_free)

static BIO *memory(const char *text)
{
    return BIO_new_mem_buf(text, (int)strlen(text));
}

/* The daemon's own, and the chain up to the root behind it. */
static gboolean use_certificate(SSL_CTX *context, const char *text)
{
    g_autoptr(BIO) bio = memory(text);
    g_autoptr(X509) own = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    if (!own || SSL_CTX_use_certificate(context, own) != 1)
        return FALSE;
    for (;;) {
        g_autoptr(X509) link = PEM_read_bio_X509(bio, NULL, NULL, NULL);

        if (!link)
            break;
        if (SSL_CTX_add1_chain_cert(context, link) != 1)
            return FALSE;
    }
    ERR_clear_error();
    return TRUE;
}

static gboolean use_key(SSL_CTX *context, const char *text)
{
    g_autoptr(BIO) bio = memory(text);
    g_autoptr(EVP_PKEY) key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"");

    return key && SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
}

/* Who signs clients; those that were withdrawn are refused when it is asked who they are. */
static gboolean use_ca(SSL_CTX *context, const char *text)
{
    g_autoptr(BIO) bio = memory(text);
    guint n = 0;

    for (;; n++) {
        g_autoptr(X509) ca = PEM_read_bio_X509(bio, NULL, NULL, NULL);

        if (!ca)
            break;
        if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca) != 1 || SSL_CTX_add_client_CA(context, ca) != 1)
            return FALSE;
    }
    ERR_clear_error();
    return n > 0;
}

/* NULL: they cannot be used. Owned by the caller. */
static SSL_CTX *make_context(const VpRpcCertificates *certificates)
{
    g_autoptr(SSL_CTX) context = SSL_CTX_new(TLS_server_method());

    if (!context || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1)
        return NULL;
    /* Who comes again shows the certificate again: no session is kept. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_mode(context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    if (!use_certificate(context, certificates->certificate) || !use_key(context, certificates->key) ||
        !use_ca(context, certificates->ca))
        return NULL;
    return g_steal_pointer(&context);
}

/* Those of before serve until there are others that can. */
static void use(void *data, const VpRpcCertificates *certificates)
{
    VpScreenTls *tls = data;
    SSL_CTX *context = make_context(certificates);

    if (context) {
        SSL_CTX_free(tls->context);
        tls->context = context;
    } else {
        const char *why = ERR_reason_error_string(ERR_peek_error());

        vp_log(VP_LOG_ERROR, "screens by TCP: the daemon's certificates cannot be used (%s); %s",
               why ? why : "one of them is missing",
               tls->context ? "those of before go on being used" : "nobody can connect until there are others");
    }
    ERR_clear_error();
}

VpScreenTls *vp_screen_tls_new(const VpRpcTls *source)
{
    VpScreenTls *tls = g_new0(VpScreenTls, 1);

    tls->source = source;
    return tls;
}

void vp_screen_tls_free(VpScreenTls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    g_free(tls);
}

SSL *vp_screen_tls_accept(VpScreenTls *tls, int fd, gboolean need_certificate)
{
    if (tls->source)
        tls->source->fetch(tls->source->data, &tls->generation, use, tls);
    SSL *ssl = tls->context ? SSL_new(tls->context) : NULL;

    if (ssl && SSL_set_fd(ssl, fd) != 1)
        g_clear_pointer(&ssl, SSL_free);
    if (ssl) {
        SSL_set_accept_state(ssl);
        SSL_set_verify(ssl, SSL_VERIFY_PEER | (need_certificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    }
    return ssl;
}

static char *text_of(BIO *bio)
{
    char *bytes = NULL;
    const long length = BIO_get_mem_data(bio, &bytes);

    return length > 0 ? g_strndup(bytes, (gsize)length) : NULL;
}

gboolean vp_screen_tls_shown(SSL *ssl, char **ret_certificate, char **ret_chain)
{
    g_autoptr(X509) certificate = SSL_get1_peer_certificate(ssl);
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    g_autoptr(BIO) own = BIO_new(BIO_s_mem());
    g_autoptr(BIO) others = BIO_new(BIO_s_mem());

    if (!certificate || PEM_write_bio_X509(own, certificate) != 1)
        return FALSE;
    for (int i = 0; i < sk_X509_num(chain); i++)
        PEM_write_bio_X509(others, sk_X509_value(chain, i));
    *ret_certificate = text_of(own);
    *ret_chain = text_of(others);
    return *ret_certificate != NULL;
}
