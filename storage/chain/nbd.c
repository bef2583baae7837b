/* See nbd.h. What QEMU reads out of such a name is followed; what it would take otherwise than others is not taken. */
#include "storage/chain/nbd.h"

#include <string.h>

#define DEFAULT_PORT "10809"
#define EXPORT_NAME ":exportname="

static gboolean is_port(const char *text)
{
    return text[0] && strlen(text) <= 5 && text[strspn(text, "0123456789")] == '\0' &&
           g_ascii_strtoull(text, NULL, 10) - 1 < 65535;
}

VpNbd *vp_nbd_new(const char *host, const char *port, const char *socket, const char *name)
{
    const gboolean by_host = host && host[0] && !socket && is_port(port ? port : DEFAULT_PORT);
    const gboolean by_socket = socket && socket[0] == '/' && !host && !port;

    if (!by_host && !by_socket) {
        return NULL;
    }
    VpNbd *nbd = g_new0(VpNbd, 1);
    nbd->host = g_strdup(host);
    nbd->port = by_host ? g_strdup(port ? port : DEFAULT_PORT) : NULL;
    nbd->socket = g_strdup(socket);
    nbd->name = g_strdup(name ? name : "");
    return nbd;
}

void vp_nbd_free(VpNbd *nbd)
{
    if (!nbd) {
        return;
    }
    g_free(nbd->host);
    g_free(nbd->port);
    g_free(nbd->socket);
    g_free(nbd->name);
    g_free(nbd);
}

/* The value of `socket`, if that is all that the query says; owned by the caller. */
static char *socket_of(const char *query)
{
    static const char key[] = "socket=";
    return query && g_str_has_prefix(query, key) && !strpbrk(query, "&;")
               ? g_uri_unescape_string(query + strlen(key), NULL)
               : NULL;
}

static VpNbd *parse_uri(const char *reference)
{
    g_autoptr(GUri) uri = g_uri_parse(reference, G_URI_FLAGS_ENCODED_QUERY, NULL);
    if (!uri || g_uri_get_userinfo(uri) || g_uri_get_fragment(uri)) {
        return NULL;
    }
    const char *scheme = g_uri_get_scheme(uri);
    const char *host = g_uri_get_host(uri);
    const char *query = g_uri_get_query(uri);
    const char *name = g_uri_get_path(uri) + strspn(g_uri_get_path(uri), "/");
    g_autofree char *port = g_uri_get_port(uri) >= 0 ? g_strdup_printf("%d", g_uri_get_port(uri)) : NULL;

    if (strcmp(scheme, "nbd+unix") == 0) {
        g_autofree char *socket = socket_of(query);
        return vp_nbd_new(host && host[0] ? host : NULL, port, socket, name);
    }
    if (query || (strcmp(scheme, "nbd") != 0 && strcmp(scheme, "nbd+tcp") != 0)) {
        return NULL;
    }
    return vp_nbd_new(host, port, NULL, name);
}

/* The old form: `unix:PATH` or `HOST:PORT`, where an IPv6 address is in brackets. */
static VpNbd *parse_words(const char *words)
{
    g_auto(GStrv) parts = g_strsplit(words, EXPORT_NAME, 2);
    const char *name = parts[0] ? parts[1] : NULL;

    if (!parts[0] || (name && !name[0])) {
        return NULL;
    }
    if (g_str_has_prefix(parts[0], "unix:")) {
        return vp_nbd_new(NULL, NULL, parts[0] + strlen("unix:"), name);
    }
    char *colon = strrchr(parts[0], ':');
    if (!colon || strchr(parts[0], ',')) {
        return NULL;
    }
    *colon = '\0';
    char *host = parts[0];
    if (host[0] == '[' && g_str_has_suffix(host, "]")) {
        host[strlen(host) - 1] = '\0';
        host++;
    } else if (strchr(host, ':')) {
        return NULL;
    }
    return vp_nbd_new(host, colon + 1, NULL, name);
}

VpNbd *vp_nbd_parse(const char *reference)
{
    if (strstr(reference, "://")) {
        return parse_uri(reference);
    }
    return g_str_has_prefix(reference, "nbd:") ? parse_words(reference + strlen("nbd:")) : NULL;
}
