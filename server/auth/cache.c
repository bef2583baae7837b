/* The cache of identities: see cache.h. Keys are hashes, so that no token is kept. */
#include "server/auth/cache.h"

#include <pthread.h>

#include "base/thread.h"

#define MAX_ENTRIES 4096
/* What a proof was judged by gets old as well: a list of withdrawn certificates, a CA. */
#define KEEP_US (60 * G_USEC_PER_SEC)

typedef struct Entry {
    VpIdentity *identity;
    gint64 until_us;
} Entry;

struct VpIdentityCache {
    pthread_mutex_t mutex;
    GHashTable *entries; /* SHA-256 in hexadecimal -> Entry */
};

static void entry_free(gpointer data)
{
    Entry *entry = data;

    vp_identity_unref(entry->identity);
    g_free(entry);
}

VpIdentityCache *vp_identity_cache_new(void)
{
    VpIdentityCache *cache = g_new0(VpIdentityCache, 1);

    pthread_mutex_init(&cache->mutex, NULL);
    cache->entries = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, entry_free);
    return cache;
}

VpIdentity *vp_identity_cache_get(VpIdentityCache *cache, const char *proof, gsize length)
{
    g_autofree char *key = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)proof, length);

    VP_LOCK(&cache->mutex);
    const Entry *found = g_hash_table_lookup(cache->entries, key);
    return found && vp_now_us() < found->until_us ? vp_identity_ref(found->identity) : NULL;
}

void vp_identity_cache_put(VpIdentityCache *cache, const char *proof, gsize length, VpIdentity *identity)
{
    Entry *entry = g_new(Entry, 1);
    char *key = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)proof, length);

    *entry = (Entry){.identity = vp_identity_ref(identity), .until_us = vp_now_us() + KEEP_US};
    VP_LOCK(&cache->mutex);
    if (g_hash_table_size(cache->entries) >= MAX_ENTRIES)
        g_hash_table_remove_all(cache->entries);
    g_hash_table_insert(cache->entries, key, entry);
}

void vp_identity_cache_free(VpIdentityCache *cache)
{
    if (!cache)
        return;
    g_hash_table_unref(cache->entries);
    pthread_mutex_destroy(&cache->mutex);
    g_free(cache);
}
