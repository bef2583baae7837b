/* Tokens by librhonabwy: see tokens.h. */
#include "server/auth/tokens.h"

#include <pthread.h>
#include <string.h>

#include "base/thread.h"
#include "server/auth/cache.h"
#include "server/auth/file.h"
#include "server/auth/jwt_library.h"

#define MAX_JWKS_BYTES (1024 * 1024)
#define MAX_TOKEN_BYTES 8192
#define MAX_GROUPS 256
#define MIN_RSA_BITS 2048
/* How far a peer's clock may be before ours. */
#define SKEW_S 30
/* Larger times are no times, and would not fit as microseconds. */
#define MAX_TIME_S 253402300799

struct VpTokens {
    gint refs;
    char *issuer;
    char *audience;
    char *groups;
    VpIdentityCache *known;
    VpJwtLibrary jwt;
    pthread_mutex_t mutex; /* the library says nothing of threads */
    jwks_t *keys;
};

/* ---- loading ---- */

static VpError *invalid(const char *path, const char *what)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "TOKENS_INVALID", "%s %s", path, what);
}

static VpError *check_keys(const VpTokens *tokens, const char *path)
{
    if (tokens->jwt.r_jwks_size(tokens->keys) == 0)
        return invalid(path, "has no keys");
    for (size_t i = 0; i < tokens->jwt.r_jwks_size(tokens->keys); i++) {
        jwk_t *key = tokens->jwt.r_jwks_get_at(tokens->keys, i);
        unsigned int bits = 0;
        const int type = tokens->jwt.r_jwk_key_type(key, &bits, R_FLAG_IGNORE_REMOTE);

        tokens->jwt.r_jwk_free(key);
        if (!(type & R_KEY_TYPE_PUBLIC) || !(type & (R_KEY_TYPE_RSA | R_KEY_TYPE_EC | R_KEY_TYPE_EDDSA)))
            return invalid(path, "has a key that is no public RSA, EC or Ed25519 key; secrets do not belong there");
        if ((type & R_KEY_TYPE_RSA) && bits < MIN_RSA_BITS)
            return invalid(path, "has an RSA key of less than 2048 bits");
    }
    return NULL;
}

VpTokens *vp_tokens_new(const VpTokenOptions *options, VpError **error)
{
    g_autoptr(VpTokens) tokens = g_new0(VpTokens, 1);
    g_autofree char *text = NULL;

    tokens->refs = 1;
    tokens->issuer = g_strdup(options->issuer);
    tokens->audience = g_strdup(options->audience);
    tokens->groups = g_strdup(options->groups);
    tokens->known = vp_identity_cache_new();
    pthread_mutex_init(&tokens->mutex, NULL);
    VpError *failure = vp_jwt_library(&tokens->jwt);
    if (!failure)
        failure = vp_file_read(options->jwks, MAX_JWKS_BYTES, VP_FILE_RULES, "TOKENS_INVALID", &text, NULL);
    if (!failure && (tokens->jwt.r_jwks_init(&tokens->keys) != RHN_OK ||
                     tokens->jwt.r_jwks_import_from_json_str(tokens->keys, text) != RHN_OK))
        failure = invalid(options->jwks, "is no JWK set, or has a damaged key");
    if (!failure)
        failure = check_keys(tokens, options->jwks);
    if (failure) {
        *error = failure;
        return NULL;
    }
    return g_steal_pointer(&tokens);
}

VpTokens *vp_tokens_ref(VpTokens *tokens)
{
    g_atomic_int_inc(&tokens->refs);
    return tokens;
}

void vp_tokens_unref(VpTokens *tokens)
{
    if (!tokens || !g_atomic_int_dec_and_test(&tokens->refs))
        return;
    if (tokens->keys)
        tokens->jwt.r_jwks_free(tokens->keys);
    vp_identity_cache_free(tokens->known);
    pthread_mutex_destroy(&tokens->mutex);
    g_free(tokens->issuer);
    g_free(tokens->audience);
    g_free(tokens->groups);
    g_free(tokens);
}

/* ---- one token ---- */

static VpError *refused(const char *why)
{
    return vp_error_new(VP_UNAUTHENTICATED, "TOKEN_REFUSED", "the token is refused: %s", why);
}

/* The type of keys that sign so; 0 for what is not taken. What a token may choose ends here: "none" and the algorithms with shared secrets, by which a
 * public key would be the secret, are not among them. */
static int key_type_for(jwa_alg algorithm)
{
    switch (algorithm) {
    case R_JWA_ALG_RS256:
        return R_KEY_TYPE_RSA;
    case R_JWA_ALG_ES256:
        return R_KEY_TYPE_EC;
    case R_JWA_ALG_EDDSA:
        return R_KEY_TYPE_EDDSA;
    default:
        return 0;
    }
}

static gboolean is_signed_by(const VpTokens *tokens, jwt_t *jwt, jwk_t *key, int type, const char *kid)
{
    const char *own = tokens->jwt.r_jwk_get_property_str(key, "kid");

    return (tokens->jwt.r_jwk_key_type(key, NULL, R_FLAG_IGNORE_REMOTE) & type) && (!kid || g_strcmp0(kid, own) == 0) &&
           tokens->jwt.r_jwt_verify_signature(jwt, key, R_FLAG_IGNORE_REMOTE) == RHN_OK;
}

static VpError *check_signature(const VpTokens *tokens, jwt_t *jwt)
{
    const int type = key_type_for(tokens->jwt.r_jwt_get_sign_alg(jwt));
    const char *kid = tokens->jwt.r_jwt_get_header_str_value(jwt, "kid");

    if (!type)
        return refused("it is not signed with RS256, ES256 or EdDSA");
    for (size_t i = 0; i < tokens->jwt.r_jwks_size(tokens->keys); i++) {
        jwk_t *key = tokens->jwt.r_jwks_get_at(tokens->keys, i);
        const gboolean signed_by = is_signed_by(tokens, jwt, key, type, kid);

        tokens->jwt.r_jwk_free(key);
        if (signed_by)
            return NULL;
    }
    return refused("no key of the daemon's has signed it");
}

static gboolean has_audience(const json_t *claim, const char *audience)
{
    if (json_is_string(claim))
        return g_str_equal(json_string_value(claim), audience);
    for (size_t i = 0; i < json_array_size(claim); i++) {
        const json_t *item = json_array_get(claim, i);

        if (json_is_string(item) && g_str_equal(json_string_value(item), audience))
            return TRUE;
    }
    return FALSE;
}

/* Seconds since 1970; -1 if the claim is none. */
static gint64 time_claim(const json_t *claims, const char *name)
{
    const json_t *claim = json_object_get(claims, name);
    const double value = json_is_number(claim) ? json_number_value(claim) : -1;

    return value >= 0 && value <= MAX_TIME_S ? (gint64)value : -1;
}

static VpError *check_claims(const VpTokens *tokens, const json_t *claims, gint64 now_wall_us)
{
    const json_t *issuer = json_object_get(claims, "iss");
    const json_t *subject = json_object_get(claims, "sub");
    const gint64 now_s = now_wall_us / G_USEC_PER_SEC;
    const gint64 end_s = time_claim(claims, "exp");

    if (!json_is_string(issuer) || !g_str_equal(json_string_value(issuer), tokens->issuer))
        return refused("it is another issuer's");
    if (!has_audience(json_object_get(claims, "aud"), tokens->audience))
        return refused("it is meant for others (its audience is not the daemon's)");
    if (end_s < 0)
        return refused("it does not say when it ends");
    if (end_s <= now_s)
        return refused("it has run out");
    if (json_object_get(claims, "nbf") && (time_claim(claims, "nbf") < 0 || time_claim(claims, "nbf") > now_s + SKEW_S))
        return refused("its time has not come");
    if (!json_is_string(subject) || !vp_identity_is_name(json_string_value(subject), json_string_length(subject)))
        return refused("it has no subject that could be a name");
    return NULL;
}

static VpError *add_groups(const VpTokens *tokens, const json_t *claims, GPtrArray *groups)
{
    const json_t *list = tokens->groups ? json_object_get(claims, tokens->groups) : NULL;

    if (json_array_size(list) > MAX_GROUPS)
        return refused("it has too many groups");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);

        if (!json_is_string(item) || !vp_identity_is_name(json_string_value(item), json_string_length(item)))
            return refused("one of its groups is no name");
        g_ptr_array_add(groups, g_strdup_printf("token-group:%s", json_string_value(item)));
    }
    return NULL;
}

static VpIdentity *identity_of(const VpTokens *tokens, const json_t *claims, VpError **error)
{
    g_autofree char *name = g_strdup_printf("token:%s", json_string_value(json_object_get(claims, "sub")));
    g_autoptr(GPtrArray) groups = g_ptr_array_new_with_free_func(g_free);

    *error = add_groups(tokens, claims, groups);
    if (*error)
        return NULL;
    g_ptr_array_add(groups, NULL);
    return vp_identity_new(PB_IDENTITY_KIND_TOKEN, name, (const char *const *)groups->pdata,
                           time_claim(claims, "exp") * G_USEC_PER_SEC);
}

static VpIdentity *check_jwt(const VpTokens *tokens, jwt_t *jwt, gint64 now_wall_us, VpError **error)
{
    VpError *failure = check_signature(tokens, jwt);
    json_t *claims = failure ? NULL : tokens->jwt.r_jwt_get_full_claims_json_t(jwt);
    if (!failure)
        failure = check_claims(tokens, claims, now_wall_us);
    VpIdentity *identity = failure ? NULL : identity_of(tokens, claims, &failure);
    json_decref(claims);
    if (failure)
        *error = failure;
    return identity;
}

static VpIdentity *check_token(VpTokens *tokens, const char *token, gint64 now_wall_us, VpError **error)
{
    VpIdentity *identity = NULL;
    jwt_t *jwt = NULL;

    VP_LOCK(&tokens->mutex);
    if (tokens->jwt.r_jwt_init(&jwt) != RHN_OK ||
        tokens->jwt.r_jwt_advanced_parse(jwt, token, R_PARSE_NONE, R_FLAG_IGNORE_REMOTE) != RHN_OK ||
        tokens->jwt.r_jwt_get_type(jwt) != R_JWT_TYPE_SIGN)
        *error = refused("it is no signed JWT");
    else
        identity = check_jwt(tokens, jwt, now_wall_us, error);
    tokens->jwt.r_jwt_free(jwt);
    return identity;
}

VpIdentity *vp_tokens_identify(VpTokens *tokens, const char *authorization, gint64 now_wall_us, VpError **error)
{
    static const char scheme[] = "bearer ";

    if (g_ascii_strncasecmp(authorization, scheme, strlen(scheme)) != 0) {
        *error = refused("the authorization header is not \"Bearer TOKEN\"");
        return NULL;
    }
    const char *token = authorization + strlen(scheme);
    const gsize length = strlen(token);
    if (length > MAX_TOKEN_BYTES) {
        *error = refused("it is too long");
        return NULL;
    }
    VpIdentity *identity = vp_identity_cache_get(tokens->known, token, length);
    if (!identity) {
        identity = check_token(tokens, token, now_wall_us, error);
        if (identity)
            vp_identity_cache_put(tokens->known, token, length, identity);
    }
    return identity;
}
