/* The blocking part of a start: chains, folder, command line, process. See domain.h. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pb.h"
#include "command_line.h"
#include "domain.h"
#include "equipment.h"
#include "image_format.h"
#include "storage/chain/chain.h"

/* What is gathered for one process. */
typedef struct Start {
    VpQemuDomain *domain;
    const PbDomain *model;
    VpQemuFound found;
    PbDomainSpec *spec; /* complete */
    VpEquipment equipment;
    GPtrArray *chains; /* of VpChain, one a disk */
    GArray *fds;       /* in the order of their numbers in the child, from VP_PROCESS_FIRST_FD on; owned elsewhere */
    int listen_fd;
    int log_fd;
    char **argv;
} Start;

static VpError *check_abort(VpQemuOp *op, const VpQemuDomain *domain)
{
    if (!g_atomic_int_get(&op->abort))
        return NULL;
    return vp_error_new(VP_CANCELLED, "CANCELLED", "domain %s: the start was cancelled", domain->name);
}

/* ---- the chains ---- */

static void keep_disk_status(VpQemuDomain *domain, const PbDisk *disk, const VpChain *chain)
{
    PbDiskStatus *status = vp_pb_new(&pb_disk_status__descriptor);

    vp_pb_set(&status->target, disk->target);
    for (guint i = 0; i < chain->files->len; i++)
        vp_pb_append(&status->n_layers, &status->layers, vp_pb_dup(g_array_index(chain->files, VpChainFile, i).layer));
    g_ptr_array_add(domain->disks, status);
    for (guint i = 0; i < chain->findings->len; i++)
        g_ptr_array_add(domain->findings, vp_pb_dup(g_ptr_array_index(chain->findings, i)));
}

/* QEMU is given descriptors and nothing else, so that a layer without one cannot be used, however safe. */
static VpError *check_open(const VpChain *chain)
{
    for (guint i = 0; i < chain->files->len; i++) {
        const VpChainFile *file = &g_array_index(chain->files, VpChainFile, i);

        if (file->fd < 0)
            return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "REMOTE_BACKING",
                                              "%s is not a file of this host; copy it to a local one",
                                              file->layer->path),
                                 "path", file->layer->path);
    }
    return NULL;
}

/* A remote layer that the administrator allows is no danger, but QEMU would have to open it by itself. */
static VpError *refuse_remote(const VpChain *chain)
{
    for (guint i = 0; i < chain->files->len; i++) {
        const PbImageLayer *layer = g_array_index(chain->files, VpChainFile, i).layer;

        if (layer->is_remote)
            return vp_error_with(
                vp_error_new(
                    VP_FAILED_PRECONDITION, "REMOTE_BACKING",
                    "the layer %s is reached over a network by %s, which this driver does not pass to QEMU; copy it to "
                    "this host and rebase its overlay onto the copy",
                    layer->path, layer->protocol),
                "path", layer->path);
    }
    return NULL;
}

static VpError *check_layers(const VpChain *chain, gboolean write)
{
    VpError *error = NULL;

    for (guint i = 0; i < chain->files->len && !error; i++)
        error = vp_qemu_check_layer(g_array_index(chain->files, VpChainFile, i).layer, write && i == 0);
    return error;
}

static VpError *prove_disk(Start *start, const PbDisk *disk)
{
    const VpChainOptions options = {
        .format = disk->format,
        .write_top = !disk->read_only,
        .policy = start->domain->driver->host->images,
    };
    VpChain *chain = NULL;
    VpError *error = vp_chain_walk(disk->path, &options, NULL, &chain);

    if (!error) {
        g_ptr_array_add(start->chains, chain);
        error = vp_chain_refusal(chain);
        if (!error)
            error = refuse_remote(chain);
        if (!error)
            error = check_open(chain);
        if (!error)
            error = check_layers(chain, options.write_top);
    }
    if (error)
        return vp_error_with(vp_error_prefix(error, "disk %s", disk->target), "disk", disk->target);
    keep_disk_status(start->domain, disk, chain);
    return NULL;
}

static VpError *prove_disks(Start *start, VpQemuOp *op)
{
    for (size_t i = 0; i < start->model->spec->n_disks; i++) {
        VpError *error = check_abort(op, start->domain);

        if (!error)
            error = prove_disk(start, start->model->spec->disks[i]);
        if (error)
            return error;
    }
    return NULL;
}

/* ---- the command line ---- */

/* Gives a descriptor its number in the child. */
static int give_fd(Start *start, int fd)
{
    g_array_append_val(start->fds, fd);
    return VP_PROCESS_FIRST_FD + (int)start->fds->len - 1;
}

static gboolean is_block_device(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISBLK(status.st_mode);
}

/* The layers of a chain as the child will know them; the caller frees. */
static VpLayerFds *give_chain(Start *start, const VpChain *chain)
{
    VpLayerFds *layers = g_new0(VpLayerFds, chain->files->len);

    for (guint i = 0; i < chain->files->len; i++) {
        const VpChainFile *file = &g_array_index(chain->files, VpChainFile, i);

        layers[i].format = file->layer->format;
        layers[i].fd = give_fd(start, file->fd);
        layers[i].block_device = is_block_device(file->fd);
        layers[i].is_window = file->layer->is_window;
        layers[i].offset = file->layer->window_offset_bytes;
        layers[i].size = file->layer->file_size_bytes;
        layers[i].data_fd = -1;
        if (file->data_fd < 0)
            continue;
        layers[i].data_fd = give_fd(start, file->data_fd);
        layers[i].data_block_device = is_block_device(file->data_fd);
    }
    return layers;
}

static VpError *make_command_line(Start *start)
{
    g_autoptr(GPtrArray) owned = g_ptr_array_new_with_free_func(g_free);
    g_autofree VpDiskFds *disks = g_new0(VpDiskFds, start->chains->len + 1);
    VpCommandLine line = {
        .binary = start->found.binary,
        .uid = start->model->uid,
        .name = start->model->name,
        .spec = start->spec,
        .architecture = start->found.architecture,
        .accelerator = start->found.accelerator,
        .cpu = start->found.cpu,
        .qmp_fd = give_fd(start, start->listen_fd),
        .disks = disks,
    };

    vp_equipment_give(&start->equipment, start->fds, &line);
    for (guint i = 0; i < start->chains->len; i++) {
        const VpChain *chain = g_ptr_array_index(start->chains, i);
        VpLayerFds *layers = give_chain(start, chain);

        g_ptr_array_add(owned, layers);
        disks[i] = (VpDiskFds){.layers = layers, .n_layers = chain->files->len};
    }
    return vp_command_line(&line, &start->argv);
}

/* ---- the process ---- */

static VpError *record_process(void *data, pid_t pid, guint64 start_ticks)
{
    const Start *start = data;
    const VpRecord record = {
        .pid = pid,
        .start_ticks = start_ticks,
        .paused = start->domain->paused,
        .accelerator = start->found.accelerator,
    };

    return vp_folder_write_record(start->domain->dir, &record);
}

static VpError *make_process(Start *start, VpQemuOp *op)
{
    VpQemuDomain *domain = start->domain;
    VpError *error = check_abort(op, domain);

    if (error)
        return error;
    const VpProcessSpec spec = {
        .argv = (const char *const *)start->argv,
        .fds = (const int *)start->fds->data,
        .n_fds = start->fds->len,
        .output_fd = start->log_fd,
        .record = record_process,
        .data = start,
    };
    error = vp_process_spawn(&spec, &domain->process);
    if (error)
        return error;
    domain->has_process = TRUE;
    domain->accelerator = start->found.accelerator;
    return NULL;
}

static VpError *make_in_folder(Start *start, VpQemuOp *op)
{
    const char *dir = start->domain->dir;
    VpError *error = vp_folder_make(dir);

    if (!error)
        error = vp_folder_open_log(dir, &start->log_fd);
    if (!error)
        error = vp_folder_listen(dir, &start->listen_fd);
    if (!error)
        error = vp_equipment_make(&start->equipment, start->spec, dir);
    if (!error)
        error = make_command_line(start);
    if (!error)
        error = make_process(start, op);
    if (error)
        vp_folder_ended(dir);
    return error;
}

static void keep_links_down(VpQemuDomain *domain, const PbDomainSpec *spec)
{
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        if (spec->interfaces[i]->type == PB_INTERFACE_TYPE_NONE)
            g_ptr_array_add(domain->links_down, g_strdup_printf("nic%zu", i));
    }
}

static void chain_free(gpointer chain)
{
    vp_chain_free(chain);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

VpError *vp_qemu_start_prepare(VpQemuDomain *domain, VpQemuOp *op)
{
    g_autoptr(GPtrArray) chains = g_ptr_array_new_with_free_func(chain_free);
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    Start start = {
        .domain = domain,
        .model = vp_task_domain(op->task),
        .chains = chains,
        .fds = fds,
        .listen_fd = -1,
        .log_fd = -1,
    };

    vp_equipment_init(&start.equipment);
    start.spec = vp_pb_dup(start.model->spec);
    vp_spec_complete_qemu(start.spec);
    keep_links_down(domain, start.model->spec);
    VpError *error = vp_qemu_probe_find(domain->driver->probe, start.model->spec->accelerator, &start.found);
    if (!error)
        error = prove_disks(&start, op);
    if (!error)
        error = vp_equipment_open(&start.equipment, start.spec, domain->driver->host->images);
    if (!error)
        error = make_in_folder(&start, op);
    /* QEMU has its own descriptors now. Ours must go: the image locks hang on them, and the end of its socket is seen by them. */
    close_fd(start.listen_fd);
    close_fd(start.log_fd);
    if (!error)
        g_ptr_array_extend_and_steal(domain->endpoints, g_steal_pointer(&start.equipment.endpoints));
    vp_equipment_clear(&start.equipment);
    vp_pb_free(start.spec);
    g_strfreev(start.argv);
    vp_qemu_found_clear(&start.found);
    return error;
}
