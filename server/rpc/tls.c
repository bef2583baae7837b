/* TLS for the core: credentials that look for newer certificates at each new connection. Connections that are open go on with the old ones. */
#include <grpc/grpc_security.h>

#include "server/rpc/internal.h"

typedef struct Fetcher {
    const VpRpcTls *tls;
    guint64 generation; /* of the last that the core took; the core calls one at a time */
} Fetcher;

static void use(void *data, const VpRpcCertificates *certificates)
{
    grpc_ssl_server_certificate_config **config = data;
    grpc_ssl_pem_key_cert_pair pair = {.private_key = certificates->key, .cert_chain = certificates->certificate};

    *config = grpc_ssl_server_certificate_config_create(certificates->ca, &pair, 1);
}

static grpc_ssl_certificate_config_reload_status fetch(void *data, grpc_ssl_server_certificate_config **config)
{
    Fetcher *fetcher = data;

    return fetcher->tls->fetch(fetcher->tls->data, &fetcher->generation, use, config)
               ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW
               : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
}

grpc_server_credentials *vp_tls_credentials_new(const VpRpcTls *tls, void **ret_fetcher)
{
    Fetcher *fetcher = g_new0(Fetcher, 1);

    fetcher->tls = tls;
    *ret_fetcher = fetcher;
    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            tls->certificate_optional ? GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY
                                      : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
            fetch, fetcher));
}
