/*
 * What may block about a change, before its first step: chains are proven, secrets and network devices opened, and what is about to be done is written down, so
 * that a later daemon knows what QEMU was given. On a thread of the slow pool, as the disk that an image lies on may hang. See change_parts.h.
 */
#include "change_parts.h"

#include <unistd.h>

#include "base/pb.h"
#include "contained.h"
#include "equipment.h"
#include "folder.h"
#include "helper_process.h"
#include "nic.h"

void vp_prepared_init(VpPrepared *prepared, VpQemuChange *change)
{
    const PbDomainSpec *wanted = change->wanted;

    vp_proof_init(&prepared->proof, change->driver->host->images, &change->abort);
    prepared->disks = g_new0(VpDiskFds, wanted->n_disks + 1);
    prepared->chains = g_new(int, wanted->n_disks + 1);
    prepared->secret_fds = g_new(int, wanted->n_disks + 1);
    prepared->nics = g_new0(VpNicFds, wanted->n_interfaces + 1);
    prepared->fds = g_array_new(FALSE, FALSE, sizeof(int));
    prepared->helpers = g_array_new(FALSE, FALSE, sizeof(VpProcess));
    prepared->layers = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < wanted->n_disks; i++)
        prepared->chains[i] = prepared->secret_fds[i] = -1;
}

/* What QEMU has it has copies of; the programs whose connections are closed here end. */
static void end_helpers(void *data)
{
    GArray *helpers = data;

    vp_helpers_end(helpers);
    g_array_unref(helpers);
}

void vp_prepared_clear(VpPrepared *prepared, const VpDriverHost *host, const PbDomainSpec *wanted)
{
    GArray *helpers = g_steal_pointer(&prepared->helpers);

    (void)wanted;
    vp_proof_clear(&prepared->proof, host);
    vp_containment_free(prepared->containment);
    for (guint i = 0; i < prepared->fds->len; i++)
        close(g_array_index(prepared->fds, int, i));
    g_array_unref(prepared->fds);
    if (helpers->len == 0 || !vp_pool_submit(host->slow_pool, end_helpers, helpers))
        g_array_unref(helpers);
    g_ptr_array_unref(prepared->layers);
    g_free(prepared->disks);
    g_free(prepared->chains);
    g_free(prepared->secret_fds);
    g_free(prepared->nics);
}

static void keep(VpPrepared *prepared, int fd)
{
    if (fd >= 0)
        g_array_append_val(prepared->fds, fd);
}

/* A descriptor is told by the number that it has here. */
static int give(void *data, int fd)
{
    (void)data;
    return fd;
}

/* A pipe that QEMU opens by its number. */
static VpError *prepare_secret(VpQemuChange *change, const PbDisk *disk, int *fd)
{
    VpError *error = vp_secret_pipe(change->driver->host, disk->secret, fd);

    if (!error) {
        keep(&change->prepared, *fd);
        error = vp_containment_open_again(change->prepared.containment, fd);
    }
    return error ? vp_error_prefix(error, "disk %s", disk->target) : NULL;
}

static VpError *prepare_disk(VpQemuChange *change, guint index, gboolean medium)
{
    VpPrepared *prepared = &change->prepared;
    const PbDisk *disk = change->wanted->disks[index];
    VpError *error = vp_proof_disk(&prepared->proof, disk);

    if (!error && disk->secret[0] && !medium)
        error = prepare_secret(change, disk, &prepared->secret_fds[index]);
    if (error)
        return error;
    prepared->chains[index] = (int)prepared->proof.chains->len - 1;
    const VpChain *chain = g_ptr_array_index(prepared->proof.chains, prepared->chains[index]);
    error = vp_contained_check_chain(change->domain->contained, disk, index, chain);
    if (error || !chain)
        return error;
    VpLayerFds *layers = vp_proof_layers(chain, give, NULL);
    g_ptr_array_add(prepared->layers, layers);
    prepared->disks[index] = (VpDiskFds){.layers = layers, .n_layers = chain->files->len};
    return NULL;
}

static VpError *prepare_interface(VpQemuChange *change, guint index)
{
    VpPrepared *prepared = &change->prepared;
    const VpNicMaking making = {
        .accelerator = change->domain->accelerator,
        .uid = change->domain->uid,
        .dir = change->domain->dir,
        .helpers = prepared->helpers,
        .containment = prepared->containment,
    };
    VpNicFds *fds = &prepared->nics[index];
    VpError *error = vp_nic_open(&making, change->wanted->interfaces[index], index, fds);

    for (guint i = 0; i < VP_MAX_QUEUES; i++) {
        keep(prepared, fds->tap_fds[i]);
        keep(prepared, fds->vhost_fds[i]);
    }
    keep(prepared, fds->stream_fd);
    return error;
}

static VpError *prepare_step(VpQemuChange *change, const VpStep *step)
{
    if (g_atomic_int_get(&change->abort))
        return vp_error_new(VP_CANCELLED, "CANCELLED", "the change was given up");
    switch (step->kind) {
    case VP_STEP_ATTACH_DISK:
        return prepare_disk(change, step->index, /* medium= */ FALSE);
    case VP_STEP_MEDIUM:
        return prepare_disk(change, step->index, /* medium= */ TRUE);
    case VP_STEP_ATTACH_INTERFACE:
        return prepare_interface(change, step->index);
    default:
        return NULL;
    }
}

static void add_label(PbDomain *intent, const char *key, const char *value)
{
    PbDomain__LabelsEntry *label = vp_pb_new(&pb_domain__labels_entry__descriptor);

    vp_pb_set(&label->key, key);
    vp_pb_set(&label->value, value);
    vp_pb_append(&intent->n_labels, &intent->labels, label);
}

static VpError *write_down(VpQemuChange *change)
{
    vp_pb_auto PbDomain *intent = vp_pb_new(&pb_domain__descriptor);
    const GPtrArray *disks = change->prepared.proof.disks;

    intent->spec = vp_pb_dup(change->wanted);
    intent->status = vp_pb_new(&pb_domain_status__descriptor);
    /* The sides that media come to are labels by the drives' targets. */
    for (guint i = 0; i < change->steps->len; i++) {
        const VpStep *step = &g_array_index(change->steps, VpStep, i);

        if (step->kind == VP_STEP_MEDIUM)
            add_label(intent, change->wanted->disks[step->index]->target, step->side ? "1" : "0");
    }
    for (guint i = 0; i < disks->len; i++)
        vp_pb_append(&intent->status->n_disks, &intent->status->disks, vp_pb_dup(disks->pdata[i]));
    g_autoptr(GBytes) bytes = vp_pb_pack(intent);
    return vp_folder_write_intent(change->domain->dir, bytes);
}

VpError *vp_prepare(VpQemuChange *change)
{
    VpError *error = NULL;

    change->prepared.containment =
        vp_containment_of(change->driver->contain, change->domain->contained, change->domain->dir);
    for (guint i = 0; i < change->steps->len && !error; i++)
        error = prepare_step(change, &g_array_index(change->steps, VpStep, i));
    return error ? error : write_down(change);
}
