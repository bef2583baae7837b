/*
 * The vault: seals secrets' values for the store with AES-256-GCM, and opens them again. Each value has a nonce of its own, and is bound to its secret: one
 * cannot be put in the place of another. What is opened lies in memory that is not written to swap, and is wiped when it is let go.
 */
#pragma once

#include "base/error.h"

typedef struct VpVault VpVault;

/* A value in the clear. */
typedef struct VpSecretValue {
    guint8 *bytes;
    gsize length;
} VpSecretValue;

/* With the key of `key_file` (32 bytes, or 64 hexadecimal digits), or (NULL) of the systemd credential "virtplane-secrets-key", or of the file
 * secrets.key in `state_dir`, which is made if it is not there. Error: reason SECRETS_KEY. Blocks on the disk. */
VpVault *vp_vault_new(const char *key_file, const char *state_dir, VpError **error);
/* NULL is let pass. */
void vp_vault_free(VpVault *vault);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpVault, vp_vault_free)

/* Seals `length` bytes for the secret `uid`; owned by the caller. */
GBytes *vp_vault_seal(const VpVault *vault, const char *uid, const void *bytes, gsize length, VpError **error);

/* Opens what was sealed for `uid`; let go by vp_secret_value_free(). DATA_LOSS, reason SECRET_UNREADABLE: sealed with another key, for another secret, or
 * damaged. */
VpSecretValue *vp_vault_open(const VpVault *vault, const char *uid, GBytes *sealed, VpError **error);

/* A fingerprint that tells nothing of what it is of to those who have not the key. Hexadecimal, owned by the caller. */
char *vp_vault_fingerprint(const VpVault *vault, GBytes *bytes);

/* Wipes and frees. NULL is let pass. */
void vp_secret_value_free(VpSecretValue *value);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpSecretValue, vp_secret_value_free)
