/* The files as they are now, and who calls by them: see auth.h. */
#include "server/auth/auth.h"

#include <string.h>
#include <sys/types.h>

#include "base/thread.h"

struct VpAuth {
    const VpAuthOptions *options;
    VpContract *contract;
    VpRpcTls tls;
    guint64 generation; /* of the certificates read last; by the one who reloads */

    pthread_mutex_t mutex; /* guards what follows */
    VpPolicy *policy;
    VpCertificates *certificates;
    VpTokens *tokens;
};

/* ---- the present ones ---- */

VpPolicy *vp_auth_policy(VpAuth *auth)
{
    VP_LOCK(&auth->mutex);
    return vp_policy_ref(auth->policy);
}

static VpCertificates *hold_certificates(VpAuth *auth)
{
    VP_LOCK(&auth->mutex);
    return auth->certificates ? vp_certificates_ref(auth->certificates) : NULL;
}

static VpTokens *hold_tokens(VpAuth *auth)
{
    VP_LOCK(&auth->mutex);
    return auth->tokens ? vp_tokens_ref(auth->tokens) : NULL;
}

static gboolean fetch(void *data, guint64 *generation,
                      void (*use)(void *use_data, const VpRpcCertificates *certificates), void *use_data)
{
    g_autoptr(VpCertificates) certificates = hold_certificates(data);

    if (!certificates || vp_certificates_generation(certificates) == *generation)
        return FALSE;
    const VpRpcCertificates texts = {
        .ca = vp_certificates_ca(certificates),
        .certificate = vp_certificates_certificate(certificates),
        .key = vp_certificates_key(certificates),
    };
    use(use_data, &texts);
    *generation = vp_certificates_generation(certificates);
    return TRUE;
}

/* ---- reading ---- */

static VpError *reload_policy(VpAuth *auth)
{
    const VpPolicyOptions options = {
        .path = auth->options->policy,
        .methods = vp_contract_methods(auth->contract),
        .anonymous_is_root = auth->options->insecure_tcp && !auth->options->policy,
    };
    VpError *error = NULL;
    VpPolicy *policy = vp_policy_new(&options, &error);

    if (!policy)
        return error;
    pthread_mutex_lock(&auth->mutex);
    g_autoptr(VpPolicy) old = auth->policy;
    auth->policy = policy;
    pthread_mutex_unlock(&auth->mutex);
    return NULL;
}

static VpError *reload_certificates(VpAuth *auth)
{
    VpError *error = NULL;

    if (!auth->options->files.certificate)
        return NULL;
    VpCertificates *certificates = vp_certificates_new(&auth->options->files, auth->generation + 1, &error);
    if (!certificates)
        return error;
    auth->generation++;
    pthread_mutex_lock(&auth->mutex);
    g_autoptr(VpCertificates) old = auth->certificates;
    auth->certificates = certificates;
    pthread_mutex_unlock(&auth->mutex);
    return NULL;
}

static VpError *reload_tokens(VpAuth *auth)
{
    VpError *error = NULL;

    if (!auth->options->tokens.jwks)
        return NULL;
    VpTokens *tokens = vp_tokens_new(&auth->options->tokens, &error);
    if (!tokens)
        return error;
    pthread_mutex_lock(&auth->mutex);
    g_autoptr(VpTokens) old = auth->tokens;
    auth->tokens = tokens;
    pthread_mutex_unlock(&auth->mutex);
    return NULL;
}

VpError *vp_auth_reload(VpAuth *auth)
{
    VpError *(*const parts[])(VpAuth *) = {reload_policy, reload_certificates, reload_tokens};
    VpError *first = NULL;

    for (gsize i = 0; i < G_N_ELEMENTS(parts); i++) {
        VpError *error = parts[i](auth);

        if (first)
            vp_error_free(error);
        else
            first = error;
    }
    return first;
}

VpAuth *vp_auth_new(const VpAuthOptions *options, VpError **error)
{
    g_autoptr(VpAuth) auth = g_new0(VpAuth, 1);
    VpError *failure = NULL;

    auth->options = options;
    pthread_mutex_init(&auth->mutex, NULL);
    auth->contract = vp_contract_new(&failure);
    if (!failure)
        failure = vp_auth_reload(auth);
    if (failure) {
        *error = failure;
        return NULL;
    }
    auth->tls = (VpRpcTls){.fetch = fetch, .data = auth, .certificate_optional = options->tokens.jwks != NULL};
    return g_steal_pointer(&auth);
}

void vp_auth_free(VpAuth *auth)
{
    if (!auth)
        return;
    vp_policy_unref(auth->policy);
    vp_certificates_unref(auth->certificates);
    vp_tokens_unref(auth->tokens);
    vp_contract_free(auth->contract);
    pthread_mutex_destroy(&auth->mutex);
    g_free(auth);
}

const VpRpcTls *vp_auth_tls(VpAuth *auth)
{
    return auth->options->files.certificate ? &auth->tls : NULL;
}

const GArray *vp_auth_methods(VpAuth *auth)
{
    return vp_contract_methods(auth->contract);
}

const VpMethod *vp_auth_find_method(VpAuth *auth, const char *name)
{
    const GArray *methods = vp_contract_methods(auth->contract);
    const VpMethod *found = NULL;

    for (guint i = 0; i < methods->len; i++) {
        const VpMethod *method = &g_array_index(methods, VpMethod, i);
        const gsize length = strlen(method->method);
        const gsize end = strlen(name);

        if (end == 0 || end > length || !g_str_equal(method->method + length - end, name) ||
            (end < length && method->method[length - end - 1] != '/' && method->method[length - end - 1] != '.'))
            continue;
        if (found)
            return NULL;
        found = method;
    }
    return found;
}

/* ---- who calls ---- */

static VpIdentity *local_identity(const VpCredentials *credentials, const GArray *groups)
{
    char name[24];
    char numbers[24];
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

    g_snprintf(name, sizeof(name), "uid:%u", credentials->uid);
    g_snprintf(numbers, sizeof(numbers), "gid:%u", credentials->gid);
    g_ptr_array_add(names, g_strdup(numbers));
    for (guint i = 0; groups && i < groups->len; i++)
        g_ptr_array_add(names, g_strdup_printf("gid:%u", g_array_index(groups, gid_t, i)));
    g_ptr_array_add(names, NULL);
    return vp_identity_new(PB_IDENTITY_KIND_LOCAL, name, (const char *const *)names->pdata, G_MAXINT64);
}

static VpIdentity *check_time(VpIdentity *identity, gint64 now_wall_us, VpError **error)
{
    if (!identity || now_wall_us < identity->expires_wall_us)
        return identity;
    *error = vp_error_new(VP_UNAUTHENTICATED,
                          identity->kind == PB_IDENTITY_KIND_TOKEN ? "TOKEN_REFUSED" : "CERTIFICATE_REFUSED",
                          "the %s of %s has run out",
                          identity->kind == PB_IDENTITY_KIND_TOKEN ? "token" : "certificate", identity->name);
    vp_identity_unref(identity);
    return NULL;
}

static VpIdentity *token_identity(VpAuth *auth, const VpCredentials *credentials, VpError **error)
{
    g_autoptr(VpTokens) tokens = hold_tokens(auth);
    const gint64 now_wall_us = vp_wall_us();

    /* Whoever listens on the way has the token now; the client should hear of it. */
    if (!credentials->tls) {
        *error = vp_error_new(VP_UNAUTHENTICATED, "TOKEN_REFUSED", "a token must not be sent over plain TCP; use TLS");
        return NULL;
    }
    if (!tokens) {
        *error = vp_error_new(VP_UNAUTHENTICATED, "TOKEN_REFUSED", "this daemon takes no tokens; show a certificate");
        return NULL;
    }
    return check_time(vp_tokens_identify(tokens, credentials->authorization, now_wall_us, error), now_wall_us, error);
}

VpIdentity *vp_auth_identify(VpAuth *auth, const VpCredentials *credentials, const GArray *groups, VpError **error)
{
    /* On the unix socket the kernel's word counts, and no header changes it. */
    if (credentials->local)
        return local_identity(credentials, groups);
    if (credentials->authorization)
        return token_identity(auth, credentials, error);
    if (!credentials->certificate)
        return vp_identity_new(PB_IDENTITY_KIND_UNSPECIFIED, VP_ANONYMOUS, NULL, G_MAXINT64);
    g_autoptr(VpCertificates) certificates = hold_certificates(auth);
    return check_time(vp_certificates_identify(certificates, credentials->certificate, credentials->certificate_length,
                                               credentials->chain, credentials->chain_length, error),
                      vp_wall_us(), error);
}
