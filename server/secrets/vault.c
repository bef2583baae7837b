/* The vault by OpenSSL: see vault.h. A sealed value is "VPS1", a nonce of 12 bytes, the tag of 16, and the ciphertext. */
#include "server/secrets/vault.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>
#include <sys/mman.h>

#include "server/auth/file.h"

#define KEY_BYTES 32
#define NONCE_BYTES 12
#define TAG_BYTES 16
#define MAX_VALUE_BYTES (64 * 1024)

static const char MAGIC[] = {'V', 'P', 'S', '1'};
#define HEADER_BYTES (sizeof(MAGIC) + NONCE_BYTES + TAG_BYTES)

/* Pages of their own for what must not be seen: not in a core dump, and, where the daemon's limit allows it, not in swap. */
static void *pages_new(gsize size)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED)
        g_error("no memory for %zu bytes", size);
    (void)madvise(pages, size, MADV_DONTDUMP);
    (void)mlock(pages, size);
    return pages;
}

static void pages_free(void *pages, gsize size)
{
    explicit_bzero(pages, size);
    munmap(pages, size);
}

struct VpVault {
    guint8 key[KEY_BYTES];
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_CIPHER_CTX, EVP_CIPHER_CTX_free)

/* ---- the key ---- */

static VpError *no_key(const char *path, const char *what)
{
    return vp_error_new(VP_FAILED_PRECONDITION, "SECRETS_KEY", "the key of the secrets, %s, %s", path, what);
}

static gboolean parse_hex(const char *text, gsize length, guint8 key[KEY_BYTES])
{
    for (gsize i = 0; i < KEY_BYTES; i++) {
        const int high = g_ascii_xdigit_value(text[2 * i]);
        const int low = g_ascii_xdigit_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return FALSE;
        key[i] = (guint8)(high << 4 | low);
    }
    return length == 2 * KEY_BYTES || (length == 2 * KEY_BYTES + 1 && text[2 * KEY_BYTES] == '\n');
}

static VpError *read_key(VpVault *vault, const char *path)
{
    char *text = NULL;
    gsize length = 0;

    VpError *error = vp_file_read(path, 4096, VP_FILE_SECRET, "SECRETS_KEY", &text, &length);
    if (error)
        return error;
    if (length == KEY_BYTES)
        memcpy(vault->key, text, KEY_BYTES);
    else if (length < 2 * KEY_BYTES || !parse_hex(text, length, vault->key))
        error = no_key(path, "has neither 32 bytes nor 64 hexadecimal digits");
    explicit_bzero(text, length);
    g_free(text);
    return error;
}

static VpError *make_key(VpVault *vault, const char *path)
{
    g_autoptr(GError) why = NULL;

    if (RAND_priv_bytes(vault->key, KEY_BYTES) != 1)
        return no_key(path, "cannot be made: there is no randomness");
    if (!g_file_set_contents_full(path, (const char *)vault->key, KEY_BYTES,
                                  G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE, 0600, &why))
        return no_key(path, why->message);
    return NULL;
}

static VpError *find_key(VpVault *vault, const char *key_file, const char *state_dir)
{
    const char *credentials = g_getenv("CREDENTIALS_DIRECTORY");
    g_autofree char *credential = credentials ? g_build_filename(credentials, "virtplane-secrets-key", NULL) : NULL;
    g_autofree char *own = g_build_filename(state_dir, "secrets.key", NULL);

    if (key_file)
        return read_key(vault, key_file);
    if (credential && g_file_test(credential, G_FILE_TEST_EXISTS))
        return read_key(vault, credential);
    return g_file_test(own, G_FILE_TEST_EXISTS) ? read_key(vault, own) : make_key(vault, own);
}

VpVault *vp_vault_new(const char *key_file, const char *state_dir, VpError **error)
{
    g_autoptr(VpVault) vault = pages_new(sizeof(VpVault));

    VpError *failure = find_key(vault, key_file, state_dir);
    if (failure) {
        *error = failure;
        return NULL;
    }
    return g_steal_pointer(&vault);
}

void vp_vault_free(VpVault *vault)
{
    if (!vault)
        return;
    pages_free(vault, sizeof(*vault));
}

/* ---- values ---- */

static VpError *broken(const char *what)
{
    return vp_error_new(VP_INTERNAL, "SECRET_UNREADABLE", "a secret's value cannot be %s", what);
}

GBytes *vp_vault_seal(const VpVault *vault, const char *uid, const void *bytes, gsize length, VpError **error)
{
    g_autoptr(EVP_CIPHER_CTX) context = EVP_CIPHER_CTX_new();
    g_autofree guint8 *sealed = g_malloc(HEADER_BYTES + length);
    guint8 *nonce = sealed + sizeof(MAGIC);
    int n = 0;

    memcpy(sealed, MAGIC, sizeof(MAGIC));
    if (!context || length > MAX_VALUE_BYTES || RAND_bytes(nonce, NONCE_BYTES) != 1 ||
        EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, vault->key, nonce) != 1 ||
        EVP_EncryptUpdate(context, NULL, &n, (const guint8 *)uid, (int)strlen(uid)) != 1 ||
        EVP_EncryptUpdate(context, sealed + HEADER_BYTES, &n, bytes, (int)length) != 1 ||
        EVP_EncryptFinal_ex(context, sealed + HEADER_BYTES + n, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, nonce + NONCE_BYTES) != 1) {
        *error = broken("sealed");
        return NULL;
    }
    return g_bytes_new_take(g_steal_pointer(&sealed), HEADER_BYTES + length);
}

static VpSecretValue *value_new(gsize length)
{
    VpSecretValue *value = g_new0(VpSecretValue, 1);

    value->bytes = pages_new(length + 1);
    value->length = length;
    return value;
}

VpSecretValue *vp_vault_open(const VpVault *vault, const char *uid, GBytes *sealed, VpError **error)
{
    g_autoptr(EVP_CIPHER_CTX) context = EVP_CIPHER_CTX_new();
    gsize size;
    const guint8 *bytes = g_bytes_get_data(sealed, &size);
    int n = 0;
    int rest = 0;

    if (!context || size < HEADER_BYTES || size > HEADER_BYTES + MAX_VALUE_BYTES ||
        memcmp(bytes, MAGIC, sizeof(MAGIC)) != 0) {
        *error = vp_error_new(VP_DATA_LOSS, "SECRET_UNREADABLE", "a secret's stored value is damaged");
        return NULL;
    }
    const guint8 *nonce = bytes + sizeof(MAGIC);
    const gsize length = size - HEADER_BYTES;
    g_autoptr(VpSecretValue) value = value_new(length);
    if (EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, vault->key, nonce) != 1 ||
        EVP_DecryptUpdate(context, NULL, &n, (const guint8 *)uid, (int)strlen(uid)) != 1 ||
        EVP_DecryptUpdate(context, value->bytes, &n, bytes + HEADER_BYTES, (int)length) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, (void *)(nonce + NONCE_BYTES)) != 1 ||
        EVP_DecryptFinal_ex(context, value->bytes + n, &rest) != 1) {
        *error = vp_error_new(VP_DATA_LOSS, "SECRET_UNREADABLE",
                              "the stored value of the secret %s was sealed with another key, or is damaged", uid);
        return NULL;
    }
    return g_steal_pointer(&value);
}

char *vp_vault_fingerprint(const VpVault *vault, GBytes *bytes)
{
    gsize size;
    const guchar *data = g_bytes_get_data(bytes, &size);

    return g_compute_hmac_for_data(G_CHECKSUM_SHA256, vault->key, KEY_BYTES, data, size);
}

void vp_secret_value_free(VpSecretValue *value)
{
    if (!value)
        return;
    pages_free(value->bytes, value->length + 1);
    g_free(value);
}
