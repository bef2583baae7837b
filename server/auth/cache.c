/* The cache of identities: see cache.h. Keys are hashes, so that no token is kept. */
#include "server/auth/cache.h"

#include <pthread.h>

#include "base/thread.h"

#define MAX_ENTRIES 4096

struct VpIdentityCache {
    pthread_mutex_t mutex;
    GHashTable *entries; /* SHA-256 in hexadecimal -> VpIdentity */
};

VpIdentityCache *vp_identity_cache_new(void)
{
    VpIdentityCache *cache = g_new0(VpIdentityCache, 1);

    pthread_mutex_init(&cache->mutex, NULL);
    cache->entries = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)vp_identity_unref);
    return cache;
}

VpIdentity *vp_identity_cache_get(VpIdentityCache *cache, const char *proof, gsize length)
{
    g_autofree char *key = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)proof, length);

    VP_LOCK(&cache->mutex);
    VpIdentity *found = g_hash_table_lookup(cache->entries, key);
    return found ? vp_identity_ref(found) : NULL;
}

void vp_identity_cache_put(VpIdentityCache *cache, const char *proof, gsize length, VpIdentity *identity)
{
    char *key = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)proof, length);

    VP_LOCK(&cache->mutex);
    if (g_hash_table_size(cache->entries) >= MAX_ENTRIES)
        g_hash_table_remove_all(cache->entries);
    g_hash_table_insert(cache->entries, key, vp_identity_ref(identity));
}

void vp_identity_cache_free(VpIdentityCache *cache)
{
    if (!cache)
        return;
    g_hash_table_unref(cache->entries);
    pthread_mutex_destroy(&cache->mutex);
    g_free(cache);
}
