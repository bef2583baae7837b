/* Certificates and tokens from options and environment: see connect.h. */
#include "clients/cli/connect.h"

#include <string.h>

/* The option, else the environment; an empty variable counts as unset. */
static const char *setting(const char *option, const char *variable)
{
    const char *value = g_getenv(variable);

    return option ? option : value && *value ? value : NULL;
}

/* The token in a file, without the line's end. */
static char *read_token(const char *path, VpError **error)
{
    g_autoptr(GError) why = NULL;
    char *token = NULL;

    if (!g_file_get_contents(path, &token, NULL, &why)) {
        *error = vp_error_new(VP_INVALID_ARGUMENT, "BAD_CREDENTIALS", "%s", why->message);
        return NULL;
    }
    return g_strstrip(token);
}

VpClient *vp_cli_connect(VpCli *cli, const char *address, VpError **error)
{
    const char *token_file = setting(cli->token_file, "VIRTPLANE_TOKEN_FILE");
    /* A unix socket needs none of it; what the environment has for other daemons must not get in the way. */
    const gboolean local = *address == '/' || g_str_has_prefix(address, "unix:");
    g_autofree char *token = !local && token_file ? read_token(token_file, error) : NULL;

    if (!local && token_file && !token)
        return NULL;
    const VpClientSecurity security = {
        .ca = setting(cli->ca, "VIRTPLANE_CA"),
        .certificate = local ? NULL : setting(cli->certificate, "VIRTPLANE_CERT"),
        .key = local ? NULL : setting(cli->key, "VIRTPLANE_KEY"),
        .token = token,
        .insecure_tcp = cli->insecure_tcp || setting(NULL, "VIRTPLANE_INSECURE_TCP"),
    };
    VpClient *client = vp_client_new_secure(address, &security, error);
    if (token)
        explicit_bzero(token, strlen(token));
    return client;
}
