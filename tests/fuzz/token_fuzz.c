/*
 * libFuzzer on bearer tokens: no input is one that the key has signed, and each is refused with a reason. With a first byte of 1 the rest is the claims
 * of a token that is signed here with a key of ours, so that what is behind the signature is reached.
 */
#include <rhonabwy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/thread.h"
#include "server/auth/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* GnuTLS keeps what it has read of the system's configuration. */
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static const char private_key[] =
    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
    "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\","
    "\"d\":\"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE\",\"kid\":\"k\"}";
static const char public_keys[] =
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
    "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\",\"kid\":\"k\"}]}";

static VpTokens *tokens_of_process(void)
{
    static VpTokens *made;
    VpError *error = NULL;

    if (made)
        return made;
    const int fd = memfd_create("jwks", MFD_CLOEXEC);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    if (fd < 0 || fchmod(fd, 0600) < 0 || write(fd, public_keys, strlen(public_keys)) < 0)
        abort();
    const VpTokenOptions options = {.jwks = path, .issuer = "i", .audience = "a", .groups = "groups"};
    made = vp_tokens_new(&options, &error);
    if (!made)
        abort();
    close(fd);
    return made;
}

static char *sign(const char *claims)
{
    jwt_t *jwt = NULL;
    jwk_t *key = NULL;
    char *token = NULL;

    if (r_jwt_init(&jwt) == RHN_OK && r_jwk_init(&key) == RHN_OK &&
        r_jwk_import_from_json_str(key, private_key) == RHN_OK &&
        r_jwt_set_full_claims_json_str(jwt, claims) == RHN_OK && r_jwt_set_sign_alg(jwt, R_JWA_ALG_ES256) == RHN_OK)
        token = r_jwt_serialize_signed(jwt, key, 0);
    char *copy = g_strdup(token);
    r_free(token);
    r_jwk_free(key);
    r_jwt_free(jwt);
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    VpTokens *tokens = tokens_of_process();
    const gboolean is_signed = size > 0 && data[0] == 1;
    g_autofree char *text = size > 1 ? g_strndup((const char *)data + 1, size - 1) : g_strdup("");
    g_autofree char *token = is_signed ? sign(text) : NULL;
    g_autofree char *header = g_strconcat("Bearer ", token ? token : text, NULL);
    VpError *error = NULL;
    VpIdentity *identity = vp_tokens_identify(tokens, header, G_GINT64_CONSTANT(1000) * G_USEC_PER_SEC, &error);

    if (!identity == !error || (identity && (!token || !g_str_has_prefix(identity->name, "token:"))))
        abort();
    if (identity && !vp_identity_is_name(identity->name, strlen(identity->name)))
        abort();
    vp_identity_unref(identity);
    vp_error_free(error);
    return 0;
}
