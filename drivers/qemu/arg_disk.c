/* A disk's arguments: its nodes from the base to the top, and its device. See arguments.h. */
#include <string.h>

#include "arguments.h"
#include "ids.h"
#include "image_format.h"
#include "layout.h"
#include "live_commands.h"

/* ---- nodes ---- */

static gboolean reads_only(const PbDisk *disk)
{
    return disk->read_only || disk->device == PB_DISK_DEVICE_CDROM;
}

static gboolean is_direct(const PbDisk *disk)
{
    return disk->cache == PB_DISK_CACHE_NONE || disk->cache == PB_DISK_CACHE_DIRECTSYNC;
}

/* What a node has of the disk's options. What is QEMU's default is left out. */
static void set_options(json_t *node, const PbDisk *disk)
{
    json_object_set_new(node, "discard", json_string(disk->discard == PB_DISK_DISCARD_IGNORE ? "ignore" : "unmap"));
    if (is_direct(disk) || disk->cache == PB_DISK_CACHE_UNSAFE)
        json_object_set_new(node, "cache",
                            json_pack("{s:b, s:b}", "direct", is_direct(disk), "no-flush",
                                      disk->cache == PB_DISK_CACHE_UNSAFE));
}

/* The node of one descriptor. A read-only one may be swapped for a writable one later, when a commit asks for it. */
static void add_file_node(VpArguments *args, const PbDisk *disk, const char *node, int fd, gboolean block_device,
                          gboolean read_only)
{
    g_autofree char *path = vp_args_fd_set(args, fd, node);
    json_t *file = json_pack("{s:s, s:s, s:s}", "driver", block_device ? "host_device" : "file", "node-name", node,
                             "filename", path);

    json_object_set_new(file, "read-only", json_boolean(read_only));
    if (read_only)
        json_object_set_new(file, "auto-read-only", json_true());
    set_options(file, disk);
    if (disk->io == PB_DISK_IO_NATIVE || disk->io == PB_DISK_IO_IO_URING)
        json_object_set_new(file, "aio", json_string(disk->io == PB_DISK_IO_NATIVE ? "native" : "io_uring"));
    vp_args_json(args, "-blockdev", file);
}

/* A remote layer is told by its parts: QEMU takes no name apart. One on this host is a connection. It is read only. */
static void add_nbd_node(VpArguments *args, const char *node, const VpLayerFds *layer)
{
    const VpNbd *nbd = layer->nbd;
    g_autofree char *fd = g_strdup_printf("%d", layer->fd);
    json_t *server = nbd->host ? json_pack("{s:s, s:s, s:s}", "type", "inet", "host", nbd->host, "port", nbd->port)
                     : layer->fd >= 0 ? json_pack("{s:s, s:s}", "type", "fd", "str", fd)
                                      : json_pack("{s:s, s:s}", "type", "unix", "path", nbd->socket);

    vp_args_json(args, "-blockdev",
                 json_pack("{s:s, s:s, s:o, s:s, s:b}", "driver", "nbd", "node-name", node, "server", server, "export",
                           nbd->name, "read-only", 1));
}

static void set_window(json_t *node, const VpLayerFds *layer)
{
    json_object_set_new(node, "offset", json_integer((json_int_t)layer->offset));
    /* QEMU takes whole sectors alone. One of another size reaches to the end of the file, which is what it takes without. */
    if (layer->size % 512 == 0)
        json_object_set_new(node, "size", json_integer((json_int_t)layer->size));
}

/* Between the file and a format that knows of no windows: a raw node that shows the window alone. */
static void add_window_node(VpArguments *args, const PbDisk *disk, const char *node, const char *file,
                            const VpLayerFds *layer, gboolean read_only)
{
    json_t *raw = json_pack("{s:s, s:s, s:s}", "driver", "raw", "node-name", node, "file", file);

    set_window(raw, layer);
    json_object_set_new(raw, "read-only", json_boolean(read_only));
    if (read_only)
        json_object_set_new(raw, "auto-read-only", json_true());
    set_options(raw, disk);
    vp_args_json(args, "-blockdev", raw);
}

/* Of LUKS, alone or within qcow2. */
static void set_key(json_t *node, const PbDisk *disk, const VpLayerFds *layer)
{
    g_autofree char *secret = vp_id_secret(disk);

    if (layer->format == PB_IMAGE_FORMAT_LUKS)
        json_object_set_new(node, "key-secret", json_string(secret));
    else
        json_object_set_new(node, "encrypt", json_pack("{s:s, s:s}", "format", "luks", "key-secret", secret));
}

/* QEMU reads the value out of a pipe, once: it is in no file, on no command line, and nobody else can read it there afterwards. */
static void add_secret(VpArguments *args, const PbDisk *disk, int fd)
{
    g_autofree char *name = vp_id_secret(disk);

    if (args->commands) {
        g_autofree char *set = vp_args_fd_set(args, fd, name);

        vp_live_secret(args->commands, name, args->fd_sets);
        return;
    }
    g_autofree char *path = g_strdup_printf("/dev/fd/%d", fd);

    vp_args_json(args, "-object", json_pack("{s:s, s:s, s:s}", "qom-type", "secret", "id", name, "file", path));
}

static VpError *add_layer(VpArguments *args, guint disk, gsize depth)
{
    const VpDiskFds *disk_fds = &args->line->disks[disk];
    const VpLayerFds *layer = &disk_fds->layers[depth];
    const PbDisk *spec = args->line->spec->disks[disk];
    const VpQemuFormat *kind = vp_qemu_format(layer->format);
    const gboolean read_only = depth > 0 || reads_only(spec);
    const gboolean last = depth + 1 == disk_fds->n_layers;

    /* An image that can have no backing file would cut the chain, were it above another layer. */
    if (!kind || (!last && !kind->has_backing)) {
        VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED_FORMAT",
                                      "disk %s: layer %" G_GSIZE_FORMAT
                                      " is of a format that QEMU is not given; convert it to qcow2 or raw",
                                      spec->target, depth);
        return vp_error_with(error, "disk", spec->target);
    }
    g_autofree char *nodes = vp_id_disk_nodes(spec, disk_fds->side);
    g_autofree char *node = g_strdup_printf("%s-%" G_GSIZE_FORMAT, nodes, depth);
    g_autofree char *file = g_strdup_printf("%s-file", node);
    g_autofree char *data = g_strdup_printf("%s-data", node);
    g_autofree char *backing = g_strdup_printf("%s-%" G_GSIZE_FORMAT, nodes, depth + 1);
    g_autofree char *window = g_strdup_printf("%s-window", node);
    const gboolean raw = strcmp(kind->driver, "raw") == 0;

    json_t *format = json_pack("{s:s, s:s, s:s}", "driver", kind->driver, "node-name", node, "file",
                               layer->is_window && !raw ? window : file);
    if (layer->is_window && raw)
        set_window(format, layer);
    json_object_set_new(format, "read-only", json_boolean(read_only));
    set_options(format, spec);
    if (kind->has_backing)
        json_object_set_new(format, "backing", last ? json_null() : json_string(backing));
    if (layer->data_fd >= 0)
        json_object_set_new(format, "data-file", json_string(data));
    if (layer->encrypted)
        set_key(format, spec, layer);

    if (layer->nbd)
        add_nbd_node(args, file, layer);
    else
        add_file_node(args, spec, file, layer->fd, layer->block_device, read_only);
    if (layer->data_fd >= 0)
        add_file_node(args, spec, data, layer->data_fd, layer->data_block_device, read_only);
    if (layer->is_window && !raw)
        add_window_node(args, spec, window, file, layer, read_only);
    vp_args_json(args, "-blockdev", format);
    return NULL;
}

/* ---- devices ---- */

static char *iothread_name(const PbDisk *disk)
{
    return g_strdup_printf("io%u", disk->iothread);
}

static json_t *virtio_disk(VpArguments *args, const PbDisk *disk)
{
    json_t *device = json_pack("{s:s}", "driver", "virtio-blk-pci");
    g_autofree char *iothread = iothread_name(disk);

    vp_args_slot(args, device, disk->slot);
    if (disk->iothread)
        json_object_set_new(device, "iothread", json_string(iothread));
    return device;
}

static json_t *nvme_disk(VpArguments *args, const PbDisk *disk)
{
    json_t *device = json_pack("{s:s}", "driver", "nvme");

    vp_args_slot(args, device, disk->slot);
    return device;
}

static json_t *scsi_disk(VpArguments *args, const PbDisk *disk)
{
    const guint unit = disk->slot - 1;

    if (args->scsi_disks++ == 0) {
        json_t *controller = json_pack("{s:s, s:s}", "driver", "virtio-scsi-pci", "id", "scsi0");
        g_autofree char *iothread = iothread_name(disk);

        vp_args_address(args, controller, VP_SLOT_SCSI);
        if (disk->iothread)
            json_object_set_new(controller, "iothread", json_string(iothread));
        vp_args_json(args, "-device", controller);
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:i}", "driver",
                     disk->device == PB_DISK_DEVICE_CDROM ? "scsi-cd" : "scsi-hd", "bus", "scsi0.0", "channel", 0,
                     "scsi-id", (int)(unit % VP_SCSI_UNITS), "lun", (int)(unit / VP_SCSI_UNITS));
}

/* q35 has a controller of its own, with six ports; more, and other machines, get further ones. */
static json_t *sata_disk(VpArguments *args, const PbDisk *disk)
{
    const gboolean built_in = vp_layout_is_q35(vp_args_machine_type(args));
    const guint port = (disk->slot - 1) % VP_SATA_PORTS;
    const guint controller = (disk->slot - 1) / VP_SATA_PORTS;
    const gboolean own = controller > 0 || !built_in;
    const guint slot = VP_SLOT_SATA + (built_in ? controller - 1 : controller);
    g_autofree char *id = g_strdup_printf("sata%u", controller);
    g_autofree char *bus = g_strdup_printf("%s.%u", own ? id : "ide", port);

    if (own && !(args->sata_controllers & 1U << controller)) {
        json_t *device = json_pack("{s:s, s:s}", "driver", "ahci", "id", id);

        args->sata_controllers |= 1U << controller;
        vp_args_address(args, device, slot);
        vp_args_json(args, "-device", device);
    }
    return json_pack("{s:s, s:s}", "driver", disk->device == PB_DISK_DEVICE_CDROM ? "ide-cd" : "ide-hd", "bus", bus);
}

static json_t *usb_disk(VpArguments *args, const PbDisk *disk)
{
    g_autofree char *port = g_strdup_printf("%u", VP_USB_DEVICES + disk->slot);

    vp_args_need_usb(args);
    return json_pack("{s:s, s:s, s:s}", "driver", "usb-storage", "bus", "usb.0", "port", port);
}

static json_t *disk_device(VpArguments *args, const PbDisk *disk)
{
    switch (disk->bus) {
    case PB_DISK_BUS_SCSI:
        return scsi_disk(args, disk);
    case PB_DISK_BUS_SATA:
        return sata_disk(args, disk);
    case PB_DISK_BUS_NVME:
        return nvme_disk(args, disk);
    case PB_DISK_BUS_USB:
        return usb_disk(args, disk);
    default:
        return virtio_disk(args, disk);
    }
}

static gboolean any_boot_index(const PbDomainSpec *spec)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (spec->disks[i]->boot_index)
            return TRUE;
    }
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        if (spec->interfaces[i]->boot_index)
            return TRUE;
    }
    for (size_t i = 0; i < spec->n_host_devices; i++) {
        if (spec->host_devices[i]->boot_index)
            return TRUE;
    }
    return FALSE;
}

static void set_serial(VpArguments *args, json_t *device, const PbDisk *disk)
{
    /* An NVMe controller must have one. QEMU lets the guest see 20 bytes. */
    g_autofree char *made = g_strdup_printf("%.8s-%.11s", args->line->uid, disk->target);

    if (disk->serial[0])
        json_object_set_new(device, "serial", json_string(disk->serial));
    else if (disk->bus == PB_DISK_BUS_NVME)
        json_object_set_new(device, "serial", json_string(made));
}

/* Where none is named they are tried in their order; one that comes later is not tried, as its place may be taken. */
static guint boot_index_of(const VpArguments *args, guint index)
{
    const PbDomainSpec *spec = args->line->spec;

    return any_boot_index(spec) || args->commands ? spec->disks[index]->boot_index : index + 1;
}

VpError *vp_args_disk_nodes(VpArguments *args, guint index)
{
    /* A node is named by the one above it, so the base comes first. */
    for (gsize depth = args->line->disks[index].n_layers; depth-- > 0;) {
        VpError *error = add_layer(args, index, depth);

        if (error)
            return error;
    }
    return NULL;
}

VpError *vp_args_disk(VpArguments *args, guint index)
{
    const PbDisk *disk = args->line->spec->disks[index];
    const VpDiskFds *fds = &args->line->disks[index];
    const guint boot_index = boot_index_of(args, index);
    g_autofree char *id = vp_id_disk(disk);
    g_autofree char *nodes = vp_id_disk_nodes(disk, fds->side);
    g_autofree char *top = g_strconcat(nodes, "-0", NULL);

    if (disk->secret[0])
        add_secret(args, disk, args->line->secret_fds[index]);
    VpError *error = vp_args_disk_nodes(args, index);
    if (error)
        return error;
    json_t *device = disk_device(args, disk);
    json_object_set_new(device, "id", json_string(id));
    if (fds->n_layers > 0)
        json_object_set_new(device, "drive", json_string(top));
    if (boot_index)
        json_object_set_new(device, "bootindex", json_integer(boot_index));
    if (disk->cache == PB_DISK_CACHE_WRITETHROUGH || disk->cache == PB_DISK_CACHE_DIRECTSYNC)
        json_object_set_new(device, "write-cache", json_string("off"));
    set_serial(args, device, disk);
    vp_args_json(args, "-device", device);
    return NULL;
}
