/* Owners of objects: see owners.h. */
#include "server/store/owners.h"

#include <string.h>

#include "base/thread.h"

/* Something has to be deleted first, by a person. */
#define RETRY_MS 60000

struct VpOwners {
    VpOwnersOptions options;
    pthread_mutex_t mutex;  /* guards what follows */
    GHashTable *identities; /* uid -> identity */
    GHashTable *counts;     /* identity -> how many, those that are being made among them */
};

static void count(VpOwners *owners, const char *identity, gint by)
{
    const gint now = GPOINTER_TO_INT(g_hash_table_lookup(owners->counts, identity)) + by;

    if (now > 0)
        g_hash_table_insert(owners->counts, g_strdup(identity), GINT_TO_POINTER(now));
    else
        g_hash_table_remove(owners->counts, identity);
}

VpOwners *vp_owners_new(const VpOwnersOptions *options, VpError **error)
{
    g_autoptr(GPtrArray) rows = vp_store_list(options->store, options->prefix, NULL, 0, error);

    if (!rows)
        return NULL;
    VpOwners *owners = g_new0(VpOwners, 1);
    owners->options = *options;
    owners->identities = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    owners->counts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    pthread_mutex_init(&owners->mutex, NULL);
    for (guint i = 0; i < rows->len; i++) {
        const VpKeyValue *row = rows->pdata[i];
        gsize size;
        const char *bytes = g_bytes_get_data(row->value, &size);
        char *identity = g_strndup(bytes, size);

        count(owners, identity, 1);
        g_hash_table_insert(owners->identities, g_strdup(row->key + strlen(options->prefix)), identity);
    }
    return owners;
}

void vp_owners_free(VpOwners *owners)
{
    if (!owners)
        return;
    g_hash_table_unref(owners->identities);
    g_hash_table_unref(owners->counts);
    pthread_mutex_destroy(&owners->mutex);
    g_free(owners);
}

VpError *vp_owners_take(VpOwners *owners, const char *identity, guint most, guint present)
{
    const VpOwnersOptions *options = &owners->options;

    if (options->most && present >= options->most)
        return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, options->reason,
                                           "there are %u %s, which is the limit; delete some that are not needed",
                                           present, options->what),
                              RETRY_MS);
    VP_LOCK(&owners->mutex);
    const guint has = GPOINTER_TO_UINT(g_hash_table_lookup(owners->counts, identity));
    if (most && has >= most)
        return vp_error_retry(vp_error_with(vp_error_new(VP_RESOURCE_EXHAUSTED, options->reason,
                                                         "%s has created %u %s that are still there, which is the "
                                                         "limit; delete some that are not needed",
                                                         identity, has, options->what),
                                            "identity", identity),
                              RETRY_MS);
    count(owners, identity, 1);
    return NULL;
}

void vp_owners_give_back(VpOwners *owners, const char *identity)
{
    VP_LOCK(&owners->mutex);
    count(owners, identity, -1);
}

static char *key_of(const VpOwners *owners, const char *uid)
{
    return g_strconcat(owners->options.prefix, uid, NULL);
}

void vp_owners_add(VpTxn *txn, const VpOwners *owners, const char *uid, const char *identity)
{
    g_autofree char *key = key_of(owners, uid);
    g_autoptr(GBytes) value = g_bytes_new(identity, strlen(identity));

    vp_txn_put(txn, key, value);
}

void vp_owners_added(VpOwners *owners, const char *uid, const char *identity)
{
    VP_LOCK(&owners->mutex);
    g_hash_table_insert(owners->identities, g_strdup(uid), g_strdup(identity));
}

void vp_owners_remove(VpTxn *txn, VpOwners *owners, const char *uid)
{
    g_autofree char *key = key_of(owners, uid);

    vp_txn_delete(txn, key);
}

void vp_owners_removed(VpOwners *owners, const char *uid)
{
    VP_LOCK(&owners->mutex);
    const char *identity = g_hash_table_lookup(owners->identities, uid);

    if (!identity)
        return;
    count(owners, identity, -1);
    g_hash_table_remove(owners->identities, uid);
}
