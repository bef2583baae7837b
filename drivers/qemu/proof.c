/* See proof.h. */
#include "proof.h"

#include <sys/stat.h>

#include "base/pb.h"
#include "image_format.h"

static void chain_free(gpointer chain)
{
    vp_chain_free(chain);
}

static void free_chains(void *chains)
{
    g_ptr_array_unref(chains);
}

void vp_proof_init(VpProof *proof, const VpImagePolicy *policy, const gint *abort)
{
    proof->policy = policy;
    proof->abort = abort;
    proof->chains = g_ptr_array_new_with_free_func(chain_free);
    proof->disks = g_ptr_array_new_with_free_func(vp_pb_free);
    proof->findings = g_ptr_array_new_with_free_func(vp_pb_free);
}

void vp_proof_clear(VpProof *proof, const VpDriverHost *host)
{
    GPtrArray *chains = g_steal_pointer(&proof->chains);

    if (chains &&
        (chains->len == 0 || !vp_loop_is_current(host->loop) || !vp_pool_submit(host->slow_pool, free_chains, chains)))
        g_ptr_array_unref(chains);
    g_clear_pointer(&proof->disks, g_ptr_array_unref);
    g_clear_pointer(&proof->findings, g_ptr_array_unref);
}

static void keep_disk_status(VpProof *proof, const PbDisk *disk, const VpChain *chain)
{
    PbDiskStatus *status = vp_pb_new(&pb_disk_status__descriptor);

    vp_pb_set(&status->target, disk->target);
    for (guint i = 0; i < chain->files->len; i++)
        vp_pb_append(&status->n_layers, &status->layers, vp_pb_dup(g_array_index(chain->files, VpChainFile, i).layer));
    g_ptr_array_add(proof->disks, status);
    for (guint i = 0; i < chain->findings->len; i++)
        g_ptr_array_add(proof->findings, vp_pb_dup(g_ptr_array_index(chain->findings, i)));
}

/* QEMU is given descriptors and nothing else, so that a layer without one cannot be used, however safe. */
static VpError *check_open(const VpChain *chain)
{
    for (guint i = 0; i < chain->files->len; i++) {
        const VpChainFile *file = &g_array_index(chain->files, VpChainFile, i);

        if (file->fd < 0 && !file->nbd)
            return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "REMOTE_BACKING",
                                              "%s is not a file of this host; copy it to a local one",
                                              file->layer->path),
                                 "path", file->layer->path);
    }
    return NULL;
}

/* A remote layer that the administrator allows is passed on if its place is known; QEMU is not given names to take apart. */
static VpError *refuse_remote(const VpChain *chain)
{
    for (guint i = 0; i < chain->files->len; i++) {
        const VpChainFile *file = &g_array_index(chain->files, VpChainFile, i);
        const PbImageLayer *layer = file->layer;

        if (layer->is_remote && !file->nbd)
            return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "REMOTE_BACKING",
                                              "the layer %s is reached over a network by %s in a way that this driver "
                                              "does not pass to QEMU; copy "
                                              "it to this host and rebase its overlay onto the copy",
                                              layer->path, layer->protocol),
                                 "path", layer->path);
    }
    return NULL;
}

static VpError *check_layers(const VpChain *chain, gboolean write, gboolean secret)
{
    gboolean encrypted = FALSE;
    VpError *error = NULL;

    for (guint i = 0; i < chain->files->len && !error; i++) {
        const PbImageLayer *layer = g_array_index(chain->files, VpChainFile, i).layer;

        error = vp_qemu_check_layer(layer, write && i == 0, secret);
        encrypted = encrypted || layer->encrypted;
    }
    /* Whoever names a secret believes that the image is encrypted: what the guest writes must not lie there in the clear. */
    if (!error && secret && !encrypted)
        error = vp_error_new(VP_FAILED_PRECONDITION, "NOT_ENCRYPTED",
                             "it has a secret, but no layer of its image is encrypted; take the secret out if that is "
                             "what you want");
    return error;
}

static gboolean goes_on(void *data, const PbImageLayer *layer)
{
    const VpProof *proof = data;

    (void)layer;
    return !g_atomic_int_get(proof->abort);
}

VpError *vp_proof_disk(VpProof *proof, const PbDisk *disk)
{
    const VpChainOptions options = {
        .format = disk->format,
        .write_top = !disk->read_only && disk->device != PB_DISK_DEVICE_CDROM,
        .policy = proof->policy,
    };
    const VpChainSink sink = {.layer = goes_on, .data = proof};
    VpChain *chain = NULL;

    /* An empty drive: there is nothing to prove. */
    if (!disk->path[0]) {
        g_ptr_array_add(proof->chains, NULL);
        return NULL;
    }
    VpError *error = vp_chain_walk(disk->path, &options, &sink, &chain);

    if (!error) {
        g_ptr_array_add(proof->chains, chain);
        error = vp_chain_refusal(chain);
        if (!error)
            error = refuse_remote(chain);
        if (!error)
            error = check_open(chain);
        if (!error)
            error = check_layers(chain, options.write_top, disk->secret[0] != '\0');
    }
    if (error)
        return vp_error_with(vp_error_prefix(error, "disk %s", disk->target), "disk", disk->target);
    keep_disk_status(proof, disk, chain);
    return NULL;
}

static gboolean is_block_device(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISBLK(status.st_mode);
}

VpLayerFds *vp_proof_layers(const VpChain *chain, int (*give)(void *data, int fd), void *data)
{
    VpLayerFds *layers = g_new0(VpLayerFds, chain->files->len);

    for (guint i = 0; i < chain->files->len; i++) {
        const VpChainFile *file = &g_array_index(chain->files, VpChainFile, i);

        layers[i].format = file->layer->format;
        layers[i].nbd = file->nbd;
        layers[i].fd = file->nbd ? -1 : give(data, file->fd);
        layers[i].block_device = !file->nbd && is_block_device(file->fd);
        layers[i].encrypted = file->layer->encrypted;
        layers[i].is_window = file->layer->is_window;
        layers[i].offset = file->layer->window_offset_bytes;
        layers[i].size = file->layer->file_size_bytes;
        layers[i].data_fd = -1;
        if (file->data_fd < 0)
            continue;
        layers[i].data_fd = give(data, file->data_fd);
        layers[i].data_block_device = is_block_device(file->data_fd);
    }
    return layers;
}
