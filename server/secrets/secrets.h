/*
 * The secrets of this host: what is known of each in memory, changes through the store with their event, values sealed by the vault. Ephemeral ones are in
 * memory alone. Calls that change something block on the disk; reads never do.
 */
#pragma once

#include "server/secrets/vault.h"
#include "server/store/store.h"
#include "virtplane/v1/secret_service.pb-c.h"

typedef struct VpSecrets VpSecrets;

typedef struct VpSecretsOptions {
    VpStore *store;
    const char *key_file; /* as vp_vault_new() */
    const char *state_dir;
    guint max_secrets; /* 0: 100,000 */
} VpSecretsOptions;

/* Loads them. FAILED_PRECONDITION, reason SECRETS_KEY, if there are values that the key does not open. */
VpSecrets *vp_secrets_new(const VpSecretsOptions *options, VpError **error);
/* NULL is let pass. */
void vp_secrets_free(VpSecrets *secrets);

/* What asks who uses a secret before it is deleted: the words for it ("the domain web"), owned by the caller, or NULL. It is called without the secrets'
 * locks but for that of changes. Once, before any change. */
typedef char *(*VpSecretUser)(void *data, const char *name);
void vp_secrets_set_user(VpSecrets *secrets, VpSecretUser user, void *data);

/* Whose request it is. */
typedef struct VpSecretCaller {
    const char *identity;
    const char *text;
    guint most_secrets; /* that the identity may have created; 0: no limit */
} VpSecretCaller;

/* Copies owned by the caller. NOT_FOUND, reason SECRET_NOT_FOUND. */
PbSecret *vp_secrets_get(VpSecrets *secrets, const char *name, const char *uid, VpError **error);
/* Those that come after `after` (NULL: from the first) in the order of their names and match; at most `limit`. */
GPtrArray *vp_secrets_list(VpSecrets *secrets, const PbSecretFilter *filter, const char *after, guint limit,
                           gboolean *ret_more);

PbSecret *vp_secrets_create(VpSecrets *secrets, const PbCreateSecretRequest *request, const VpSecretCaller *caller,
                            VpError **error);
PbSecret *vp_secrets_set_value(VpSecrets *secrets, const PbSetSecretValueRequest *request, const VpSecretCaller *caller,
                               VpError **error);
gint64 vp_secrets_delete(VpSecrets *secrets, const PbDeleteSecretRequest *request, const VpSecretCaller *caller,
                         VpError **error);

/* The value, for those who use it; let go by vp_secret_value_free(). FAILED_PRECONDITION, reason SECRET_WITHOUT_VALUE. */
VpSecretValue *vp_secrets_value(VpSecrets *secrets, const char *name, VpError **error);
