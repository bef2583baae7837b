/* TLS and tokens: see client.h. */
#include <grpc/grpc_security.h>
#include <string.h>

#include "clients/c/internal.h"

static VpError *bad(const char *format, ...) G_GNUC_PRINTF(1, 2);

static VpError *bad(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    return vp_error_new(VP_INVALID_ARGUMENT, "BAD_CREDENTIALS", "%s", what);
}

static VpError *read_file(const char *path, char **ret_text)
{
    g_autoptr(GError) why = NULL;

    if (!path || g_file_get_contents(path, ret_text, NULL, &why))
        return NULL;
    return bad("%s", why->message);
}

static VpError *check(const char *normal, const VpClientSecurity *security)
{
    if (!security->certificate != !security->key)
        return bad("a certificate and its key go together");
    if (security->insecure_tcp && (security->token || security->certificate))
        return bad("a token or certificate is not sent without TLS");
    if (g_str_has_prefix(normal, "unix:") && security->token)
        return bad("a unix socket tells who calls; a token is for HOST:PORT");
    /* gRPC ends the process for one with a line's end in it. */
    for (const char *c = security->token; c && *c; c++) {
        if (!g_ascii_isgraph(*c))
            return bad("the token has a character that no token has");
    }
    return NULL;
}

grpc_channel_credentials *vp_client_credentials(const char *normal, const VpClientSecurity *security, VpError **error)
{
    g_autofree char *ca = NULL;
    g_autofree char *certificate = NULL;
    g_autofree char *key = NULL;

    *error = check(normal, security);
    if (*error)
        return NULL;
    if (security->insecure_tcp || g_str_has_prefix(normal, "unix:"))
        return grpc_insecure_credentials_create();
    *error = read_file(security->ca, &ca);
    if (!*error)
        *error = read_file(security->certificate, &certificate);
    if (!*error)
        *error = read_file(security->key, &key);
    if (*error)
        return NULL;
    grpc_ssl_pem_key_cert_pair pair = {.private_key = key, .cert_chain = certificate};
    grpc_channel_credentials *tls = grpc_ssl_credentials_create_ex(ca, certificate ? &pair : NULL, NULL, NULL);
    if (key)
        explicit_bzero(key, strlen(key));
    if (!tls) {
        *error = bad("the certificates cannot be used");
        return NULL;
    }
    if (!security->token)
        return tls;
    grpc_call_credentials *token = grpc_access_token_credentials_create(security->token, NULL);
    grpc_channel_credentials *both = grpc_composite_channel_credentials_create(tls, token, NULL);
    grpc_channel_credentials_release(tls);
    grpc_call_credentials_release(token);
    return both;
}
