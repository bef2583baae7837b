/* The settings of who may come in, and how: see config.h. */
#include <grp.h>
#include <string.h>
#include <unistd.h>

#include "server/config.h"

#define DEFAULT_AUDIT_BYTES (64 * 1024 * 1024)
#define DEFAULT_AUDIT_KEEP 10
#define MAX_LOOKUP_BYTES (1024 * 1024)

static VpError *check_keys(const VpConfig *config, const char *path)
{
    static const struct {
        const char *group;
        const char *keys[8];
    } known[] = {
        {"auth", {"policy"}},
        {"tls", {"certificate", "key", "ca", "crl", "identity"}},
        {"tokens", {"jwks", "issuer", "audience", "groups"}},
        {"audit", {"enabled", "to", "file", "max_bytes", "keep"}},
        {"secrets", {"key_file"}},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(known); i++) {
        g_auto(GStrv) keys = g_key_file_get_keys(config->file, known[i].group, NULL, NULL);

        for (char **key = keys; key && *key; key++) {
            if (!g_strv_contains(known[i].keys, *key))
                return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG", "%s: [%s] has no setting \"%s\"", path,
                                    known[i].group, *key);
        }
    }
    return NULL;
}

static char *text(const VpConfig *config, const char *group, const char *key)
{
    g_autofree char *value = g_key_file_get_string(config->file, group, key, NULL);

    return value && value[0] ? g_steal_pointer(&value) : NULL;
}

static VpError *read_path(const VpConfig *config, const char *group, const char *key, char **setting)
{
    *setting = text(config, group, key);
    /* A path in a file would start wherever the daemon is started from. */
    return *setting && (*setting)[0] != '/' ? vp_config_wrong(group, key, "is no absolute path") : NULL;
}

/* ---- the socket ---- */

static VpError *read_group(const VpConfig *config, gint64 *setting)
{
    g_autofree char *name = text(config, "daemon", "socket_group");
    g_autofree char *buffer = g_malloc(MAX_LOOKUP_BYTES);
    struct group entry;
    struct group *found = NULL;
    guint64 number;

    if (!name)
        return NULL;
    if (g_ascii_string_to_unsigned(name, 10, 0, G_MAXUINT32 - 1, &number, NULL)) {
        *setting = (gint64)number;
        return NULL;
    }
    getgrnam_r(name, &entry, buffer, MAX_LOOKUP_BYTES, &found);
    if (!found)
        return vp_config_wrong("daemon", "socket_group", "there is no such group on this host");
    *setting = entry.gr_gid;
    return NULL;
}

static VpError *read_socket(VpConfig *config, VpSecurityConfig *security)
{
    g_autofree char *mode = text(config, "daemon", "socket_mode");
    guint64 number;

    security->socket_mode = 0600;
    if (mode) {
        if (!g_ascii_string_to_unsigned(mode, 8, 0, 0777, &number, NULL) || (number & 0600) != 0600)
            return vp_config_wrong("daemon", "socket_mode", "is an octal number as 0660, with 0600 in it");
        security->socket_mode = (guint)number;
    }
    return read_group(config, &security->socket_group);
}

/* ---- certificates and tokens ---- */

static VpError *read_identity_kinds(const VpConfig *config, VpSecurityConfig *security)
{
    static const char *const known[] = {"uri", "dns", "cn", NULL};
    static const char *const all[] = {"uri", "dns", "cn", NULL};

    security->identity_kinds = g_key_file_get_string_list(config->file, "tls", "identity", NULL, NULL);
    if (!security->identity_kinds)
        security->identity_kinds = g_strdupv((char **)all);
    if (!security->identity_kinds[0])
        return vp_config_wrong("tls", "identity", "names no kind");
    for (char **kind = security->identity_kinds; *kind; kind++) {
        if (!g_strv_contains(known, *kind))
            return vp_config_wrong("tls", "identity", "is a list of uri, dns and cn");
    }
    return NULL;
}

static VpError *read_tls(const VpConfig *config, VpSecurityConfig *security)
{
    VpError *error = read_path(config, "tls", "certificate", &security->certificate);

    if (!error)
        error = read_path(config, "tls", "key", &security->key);
    if (!error)
        error = read_path(config, "tls", "ca", &security->ca);
    if (!error)
        error = read_path(config, "tls", "crl", &security->crl);
    if (!error)
        error = read_identity_kinds(config, security);
    if (error)
        return error;
    const gboolean any = security->certificate || security->key || security->ca || security->crl;
    if (any && !(security->certificate && security->key && security->ca))
        return vp_config_wrong("tls", "certificate, key, ca", "all three are needed");
    return NULL;
}

static VpError *read_tokens(const VpConfig *config, VpSecurityConfig *security)
{
    VpError *error = read_path(config, "tokens", "jwks", &security->jwks);

    if (error)
        return error;
    security->issuer = text(config, "tokens", "issuer");
    security->audience = text(config, "tokens", "audience");
    security->groups = text(config, "tokens", "groups");
    const gboolean any = security->jwks || security->issuer || security->audience || security->groups;
    if (any && !(security->jwks && security->issuer && security->audience))
        return vp_config_wrong("tokens", "jwks, issuer, audience", "all three are needed");
    if (any && !security->certificate)
        return vp_config_wrong("tokens", "jwks", "tokens are taken over TLS alone; set [tls] up");
    return NULL;
}

static VpError *read_audit_places(const VpConfig *config, gboolean *ret_file, gboolean *ret_journal)
{
    g_auto(GStrv) places = g_key_file_get_string_list(config->file, "audit", "to", NULL, NULL);

    for (char **place = places; place && *place; place++) {
        if (g_str_equal(*place, "file"))
            *ret_file = TRUE;
        else if (g_str_equal(*place, "journal"))
            *ret_journal = TRUE;
        else
            return vp_config_wrong("audit", "to", "is file, journal or both");
    }
    *ret_file = *ret_file || !places || !places[0];
    return NULL;
}

static VpError *read_audit(const VpConfig *config, VpSecurityConfig *security)
{
    guint64 keep = DEFAULT_AUDIT_KEEP;
    gboolean enabled = TRUE;
    gboolean file = FALSE;
    VpError *error = read_path(config, "audit", "file", &security->audit_file);

    if (!error)
        error = vp_config_read_boolean(config, "audit", "enabled", &enabled);
    if (!error)
        error = read_audit_places(config, &file, &security->audit_journal);
    security->audit_journal = security->audit_journal && enabled;
    if (!enabled || !file)
        g_clear_pointer(&security->audit_file, g_free);
    else if (!security->audit_file)
        security->audit_file = g_build_filename(config->state_dir, "audit.jsonl", NULL);
    security->audit_max_bytes = DEFAULT_AUDIT_BYTES;
    if (!error)
        error = vp_config_read_number(config, "audit", "max_bytes", G_MAXINT64, &security->audit_max_bytes);
    if (!error)
        error = vp_config_read_number(config, "audit", "keep", 1000, &keep);
    security->audit_keep = (guint)keep;
    return error;
}

static gsize count_sockets(const int *sockets)
{
    gsize n = 0;

    while (sockets && sockets[n] >= 0)
        n++;
    return n;
}

VpError *vp_config_read_security(VpConfig *config, const VpConfigArguments *arguments, const char *path)
{
    VpSecurityConfig *security = &config->security;
    const gsize sockets = count_sockets(arguments->sockets);
    gboolean insecure = FALSE;
    VpError *error = check_keys(config, path);

    if (!error)
        error = read_socket(config, security);
    if (!error)
        error = read_path(config, "auth", "policy", &security->policy);
    if (!error)
        error = read_tls(config, security);
    if (!error)
        error = read_tokens(config, security);
    if (!error)
        error = read_audit(config, security);
    if (!error)
        error = read_path(config, "secrets", "key_file", &security->secrets_key);
    if (!error)
        error = vp_config_read_boolean(config, "daemon", "insecure_tcp", &insecure);
    if (error)
        return error;
    config->sockets = g_new0(int, sockets + 1);
    if (sockets)
        memcpy(config->sockets, arguments->sockets, sockets * sizeof(int));
    config->sockets[sockets] = -1;
    security->auth = (VpAuthOptions){
        .policy = security->policy,
        .insecure_tcp = insecure || arguments->insecure_tcp,
        .files = {.certificate = security->certificate,
                  .key = security->key,
                  .ca = security->ca,
                  .crl = security->crl,
                  .identity_kinds = (const char *const *)security->identity_kinds},
        .tokens = {.jwks = security->jwks,
                   .issuer = security->issuer,
                   .audience = security->audience,
                   .groups = security->groups},
    };
    return NULL;
}

void vp_config_clear_security(VpSecurityConfig *security)
{
    char *const texts[] = {
        security->policy, security->certificate, security->key,         security->ca,
        security->crl,    security->jwks,        security->issuer,      security->audience,
        security->groups, security->audit_file,  security->secrets_key,
    };

    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++)
        g_free(texts[i]);
    g_strfreev(security->identity_kinds);
}
