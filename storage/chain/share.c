/* See share.h. One lock; held for hash lookups alone. */
#include "storage/chain/share.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "storage/chain/walk.h"

/* A file that overlays name, however they declare it. */
typedef struct Base {
    char *path; /* the one of the layer */
    guint32 overlays;
    guint64 size;
} Base;

/* A layer that was told. */
typedef struct Known {
    VpShareKey key;
    VpShareTail tail;
    char path[]; /* what tail.path is */
} Known;

struct VpShare {
    pthread_mutex_t mutex;
    GHashTable *layers; /* of Known, by its key */
    GHashTable *bases;  /* of VpShareKey without format -> Base */
    guint max_layers;
    guint told;
};

static guint key_hash(gconstpointer data)
{
    const VpShareKey *key = data;
    return (guint)(key->inode * 2654435761u ^ key->device ^ key->start ^ (guint)key->format << 20);
}

static gboolean key_equal(gconstpointer a, gconstpointer b)
{
    const VpShareKey *left = a;
    const VpShareKey *right = b;
    return left->inode == right->inode && left->device == right->device && left->start == right->start &&
           left->size == right->size && left->format == right->format;
}

static void base_free(gpointer data)
{
    Base *base = data;
    g_free(base->path);
    g_free(base);
}

VpShare *vp_share_new(guint max_layers)
{
    VpShare *share = g_new0(VpShare, 1);
    pthread_mutex_init(&share->mutex, NULL);
    share->layers = g_hash_table_new_full(key_hash, key_equal, NULL, g_free);
    share->bases = g_hash_table_new_full(key_hash, key_equal, g_free, base_free);
    share->max_layers = max_layers;
    return share;
}

void vp_share_free(VpShare *share)
{
    g_hash_table_unref(share->layers);
    g_hash_table_unref(share->bases);
    pthread_mutex_destroy(&share->mutex);
    g_free(share);
}

gboolean vp_share_find(VpShare *share, const VpShareKey *key, VpShareTail *ret)
{
    VP_LOCK(&share->mutex);
    const Known *known = g_hash_table_lookup(share->layers, key);
    if (known) {
        *ret = known->tail;
    }
    return known != NULL;
}

gboolean vp_share_is_of_overlay(const PbFinding *finding)
{
    return finding->code == PB_FINDING_CODE_BACKING_LARGER || finding->code == PB_FINDING_CODE_BACKING_SMALLER ||
           finding->code == PB_FINDING_CODE_OWNER_MAY_NOT_READ;
}

static Known *known_of(const VpWalk *walk, guint index)
{
    const VpChain *chain = walk->chain;
    const VpChainFile *file = &g_array_index(chain->files, VpChainFile, index);
    const VpWalkTrace *trace = &g_array_index(walk->traces, VpWalkTrace, index);
    gsize path_size = strlen(file->layer->path) + 1;
    Known *known = g_malloc0(sizeof(Known) + path_size);
    VpShareTail *tail = &known->tail;

    known->key = trace->key;
    tail->path = memcpy(known->path, file->layer->path, path_size);
    tail->depth = chain->summary->depth - index;
    tail->looks_like = trace->looks_like;
    tail->virtual_size = file->layer->virtual_size_bytes;
    /* What another walk has told of the layers below our last one. */
    tail->errors = walk->join.tail.errors;
    tail->warnings = walk->join.tail.warnings;
    for (guint i = 0; i < chain->findings->len; i++) {
        const PbFinding *finding = g_ptr_array_index(chain->findings, i);
        tail->cut |= finding->code == PB_FINDING_CODE_DEPTH_EXCEEDED;
        if (finding->depth < index || (finding->depth == index && vp_share_is_of_overlay(finding))) {
            continue;
        }
        tail->errors += finding->severity == PB_SEVERITY_ERROR;
        tail->warnings += finding->severity == PB_SEVERITY_WARNING;
    }
    return known;
}

static void count_overlay(VpShare *share, const VpShareKey *layer, const char *path, guint64 size)
{
    VpShareKey key = *layer;
    key.format = PB_IMAGE_FORMAT_UNSPECIFIED;
    Base *base = g_hash_table_lookup(share->bases, &key);
    if (!base) {
        if (g_hash_table_size(share->bases) >= share->max_layers) {
            return;
        }
        base = g_new0(Base, 1);
        base->path = g_strdup(path);
        base->size = size;
        g_hash_table_insert(share->bases, g_memdup2(&key, sizeof(key)), base);
    }
    base->overlays++;
}

guint vp_share_commit(VpShare *share, const VpWalk *walk, const char **ret_continues_at)
{
    const VpChain *chain = walk->chain;
    guint fresh = 0;
    *ret_continues_at = NULL;

    VP_LOCK(&share->mutex);
    for (; fresh < chain->files->len; fresh++) {
        const PbImageLayer *layer = g_array_index(chain->files, VpChainFile, fresh).layer;
        const VpWalkTrace *trace = &g_array_index(walk->traces, VpWalkTrace, fresh);
        Known *known = trace->has_key ? g_hash_table_lookup(share->layers, &trace->key) : NULL;
        if (fresh > 0 && trace->has_key) {
            count_overlay(share, &trace->key, layer->path, layer->file_size_bytes);
        }
        if (known) {
            *ret_continues_at = known->tail.path;
            return fresh;
        }
        share->told++;
        if (trace->has_key && g_hash_table_size(share->layers) < share->max_layers) {
            known = known_of(walk, fresh);
            g_hash_table_insert(share->layers, &known->key, known);
        }
    }
    if (walk->join.joined) {
        if (chain->files->len > 0) {
            count_overlay(share, &walk->join.key, walk->join.tail.path, walk->join.file_size);
        }
        *ret_continues_at = walk->join.tail.path;
    }
    return fresh;
}

guint vp_share_bases(VpShare *share, gboolean (*each)(void *data, const PbSharedBase *base), void *data)
{
    GHashTableIter iter;
    gpointer value;
    guint n = 0;
    g_hash_table_iter_init(&iter, share->bases);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Base *base = value;
        PbSharedBase message = PB_SHARED_BASE__INIT;
        if (base->overlays < 2) {
            continue;
        }
        message.path = base->path;
        message.overlays = base->overlays;
        message.file_size_bytes = base->size;
        n++;
        if (!each(data, &message)) {
            break;
        }
    }
    return n;
}

guint vp_share_layers(VpShare *share)
{
    VP_LOCK(&share->mutex);
    return share->told;
}
