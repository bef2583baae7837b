/* Request ids: see requests.h. A stored value is "FINGERPRINT UID WALL_SECONDS"; the revision is that of the key. */
#include "server/domains/requests.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"

/* Of an identity in a key; of a longer one there is a hash. */
#define MAX_IDENTITY_BYTES 128
#define MAX_KEPT 100000
#define EXPIRE_STEP 64

typedef struct Entry {
    char *key;
    char fingerprint[65];
    char uid[37];
    gint64 wall_seconds;
    gint64 revision;
} Entry;

struct VpRequests {
    VpStore *store;
    char *prefix; /* of the keys */
    gint64 keep_seconds;
    pthread_mutex_t mutex;
    GHashTable *by_key; /* char * -> Entry, which the queue owns */
    GQueue oldest_first;
    guint expiring; /* of the oldest, so many are being deleted */
};

static void entry_free(Entry *entry)
{
    g_free(entry->key);
    g_free(entry);
}

static gint by_age(gconstpointer a, gconstpointer b, gpointer data)
{
    const Entry *x = a;
    const Entry *y = b;

    (void)data;
    return x->wall_seconds < y->wall_seconds ? -1 : x->wall_seconds > y->wall_seconds;
}

static Entry *entry_parse(const VpKeyValue *kv)
{
    gsize size;
    const char *bytes = g_bytes_get_data(kv->value, &size);
    g_autofree char *text = g_strndup(bytes, size);
    g_autofree Entry *entry = g_new0(Entry, 1);

    if (sscanf(text, "%64s %36s %" G_GINT64_FORMAT, entry->fingerprint, entry->uid, &entry->wall_seconds) != 3)
        return NULL;
    entry->key = g_strdup(kv->key);
    entry->revision = kv->mod_revision;
    return g_steal_pointer(&entry);
}

VpRequests *vp_requests_new(VpStore *store, const char *prefix, gint64 keep_seconds, VpError **error)
{
    g_autoptr(GPtrArray) stored = vp_store_list(store, prefix, NULL, 0, error);
    if (!stored)
        return NULL;

    VpRequests *requests = g_new0(VpRequests, 1);
    requests->store = store;
    requests->prefix = g_strdup(prefix);
    requests->keep_seconds = keep_seconds;
    pthread_mutex_init(&requests->mutex, NULL);
    requests->by_key = g_hash_table_new(g_str_hash, g_str_equal);
    g_queue_init(&requests->oldest_first);
    for (guint i = 0; i < stored->len; i++) {
        Entry *entry = entry_parse(stored->pdata[i]);

        if (!entry)
            continue;
        g_hash_table_insert(requests->by_key, entry->key, entry);
        g_queue_push_tail(&requests->oldest_first, entry);
    }
    g_queue_sort(&requests->oldest_first, by_age, NULL);
    return requests;
}

void vp_requests_free(VpRequests *requests)
{
    if (!requests)
        return;
    g_hash_table_unref(requests->by_key);
    g_queue_clear_full(&requests->oldest_first, (GDestroyNotify)entry_free);
    pthread_mutex_destroy(&requests->mutex);
    g_free(requests->prefix);
    g_free(requests);
}

char *vp_request_fingerprint(const void *message)
{
    g_autoptr(GBytes) packed = vp_pb_pack(message);

    return g_compute_checksum_for_bytes(G_CHECKSUM_SHA256, packed);
}

static char *request_key(const VpRequests *requests, const char *identity, const char *id)
{
    /* Where an identity with a slash ended, and whether the key is too long, would be for the client to choose. */
    g_autofree char *hash = strchr(identity, '/') || strlen(identity) > MAX_IDENTITY_BYTES
                                ? g_compute_checksum_for_string(G_CHECKSUM_SHA256, identity, -1)
                                : NULL;

    return g_strdup_printf("%s%s%s/%s", requests->prefix, hash ? "sha256:" : "", hash ? hash : identity, id);
}

gboolean vp_requests_find(VpRequests *requests, const char *identity, const char *id, const char *fingerprint,
                          char **ret_uid, gint64 *ret_revision, VpError **error)
{
    g_autofree char *key = request_key(requests, identity, id);

    if (id[0] == '\0')
        return FALSE;
    VP_LOCK(&requests->mutex);
    const Entry *entry = g_hash_table_lookup(requests->by_key, key);
    if (!entry)
        return FALSE;
    if (!g_str_equal(entry->fingerprint, fingerprint)) {
        *error =
            vp_error_new(VP_INVALID_ARGUMENT, "REQUEST_ID_REUSED",
                         "the request id %s was used for another request before; a new request needs a new id", id);
        return TRUE;
    }
    *ret_uid = g_strdup(entry->uid);
    *ret_revision = entry->revision;
    return TRUE;
}

/* They are found until the store has them no more: a retry is answered, or done anew, but never caught in between. */
static void expired(void *data, gint64 revision, const VpError *error)
{
    VpRequests *requests = data;

    (void)revision;
    VP_LOCK(&requests->mutex);
    for (; !error && requests->expiring > 0; requests->expiring--) {
        Entry *oldest = g_queue_pop_head(&requests->oldest_first);

        g_hash_table_remove(requests->by_key, oldest->key);
        entry_free(oldest);
    }
    requests->expiring = 0;
}

/* A transaction that deletes some that are too old; NULL: there are none, or some are being deleted. */
static VpTxn *expire_txn(VpRequests *requests)
{
    const gint64 limit = vp_wall_us() / G_USEC_PER_SEC - requests->keep_seconds;
    VpTxn *txn = NULL;

    VP_LOCK(&requests->mutex);
    if (requests->expiring > 0)
        return NULL;
    for (const GList *link = requests->oldest_first.head; link && requests->expiring < EXPIRE_STEP; link = link->next) {
        const Entry *entry = link->data;

        if (entry->wall_seconds > limit && requests->oldest_first.length - requests->expiring < MAX_KEPT)
            break;
        if (!txn)
            txn = vp_txn_new();
        vp_txn_delete(txn, entry->key);
        requests->expiring++;
    }
    return txn;
}

void vp_requests_add(VpRequests *requests, VpTxn *txn, const char *identity, const char *id, const char *fingerprint,
                     const char *uid)
{
    g_autofree char *key = request_key(requests, identity, id);
    VpTxn *old = expire_txn(requests);

    if (old)
        vp_store_commit(requests->store, old, expired, requests);
    if (id[0] == '\0')
        return;
    char *value = g_strdup_printf("%s %s %" G_GINT64_FORMAT, fingerprint, uid, vp_wall_us() / G_USEC_PER_SEC);
    g_autoptr(GBytes) bytes = g_bytes_new_take(value, strlen(value));
    /* Two requests with one id at the same time: one of them is done. */
    vp_txn_compare(txn, key, 0);
    vp_txn_put(txn, key, bytes);
}

void vp_requests_done(VpRequests *requests, const char *identity, const char *id, const char *fingerprint,
                      const char *uid, gint64 revision)
{
    if (id[0] == '\0')
        return;

    Entry *entry = g_new0(Entry, 1);
    entry->key = request_key(requests, identity, id);
    g_strlcpy(entry->fingerprint, fingerprint, sizeof(entry->fingerprint));
    g_strlcpy(entry->uid, uid, sizeof(entry->uid));
    entry->wall_seconds = vp_wall_us() / G_USEC_PER_SEC;
    entry->revision = revision;

    VP_LOCK(&requests->mutex);
    g_hash_table_insert(requests->by_key, entry->key, entry);
    g_queue_push_tail(&requests->oldest_first, entry);
}
