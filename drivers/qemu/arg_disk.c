/* A disk's arguments: its nodes from the base to the top, and its device. See arguments.h. */
#include <string.h>

#include "arguments.h"
#include "image_format.h"

#define SATA_PORTS 6
#define SCSI_LUNS 64

/* ---- nodes ---- */

/* The node of one descriptor. A read-only one may be swapped for a writable one later, when a commit asks for it. */
static void add_file_node(VpArguments *args, const char *node, int fd, gboolean block_device, gboolean read_only)
{
    g_autofree char *path = vp_args_fd_set(args, fd, node);
    json_t *file = json_pack("{s:s, s:s, s:s}", "driver", block_device ? "host_device" : "file", "node-name", node,
                             "filename", path);

    json_object_set_new(file, "read-only", json_boolean(read_only));
    if (read_only)
        json_object_set_new(file, "auto-read-only", json_true());
    json_object_set_new(file, "discard", json_string("unmap"));
    vp_args_json(args, "-blockdev", file);
}

/* A remote layer is told by its parts: QEMU takes no name apart. It is read only. */
static void add_nbd_node(VpArguments *args, const char *node, const VpNbd *nbd)
{
    json_t *server = nbd->host ? json_pack("{s:s, s:s, s:s}", "type", "inet", "host", nbd->host, "port", nbd->port)
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
static void add_window_node(VpArguments *args, const char *node, const char *file, const VpLayerFds *layer,
                            gboolean read_only)
{
    json_t *raw = json_pack("{s:s, s:s, s:s}", "driver", "raw", "node-name", node, "file", file);

    set_window(raw, layer);
    json_object_set_new(raw, "read-only", json_boolean(read_only));
    if (read_only)
        json_object_set_new(raw, "auto-read-only", json_true());
    json_object_set_new(raw, "discard", json_string("unmap"));
    vp_args_json(args, "-blockdev", raw);
}

static VpError *add_layer(VpArguments *args, guint disk, gsize depth)
{
    const VpDiskFds *disk_fds = &args->line->disks[disk];
    const VpLayerFds *layer = &disk_fds->layers[depth];
    const PbDisk *spec = args->line->spec->disks[disk];
    const VpQemuFormat *kind = vp_qemu_format(layer->format);
    const gboolean read_only = depth > 0 || spec->read_only;
    const gboolean last = depth + 1 == disk_fds->n_layers;

    /* An image that can have no backing file would cut the chain, were it above another layer. */
    if (!kind || (!last && !kind->has_backing)) {
        VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED_FORMAT",
                                      "disk %s: layer %" G_GSIZE_FORMAT
                                      " is of a format that QEMU is not given; convert it to qcow2 or raw",
                                      spec->target, depth);
        return vp_error_with(error, "disk", spec->target);
    }
    g_autofree char *node = g_strdup_printf("disk%u-%" G_GSIZE_FORMAT, disk, depth);
    g_autofree char *file = g_strdup_printf("%s-file", node);
    g_autofree char *data = g_strdup_printf("%s-data", node);
    g_autofree char *backing = g_strdup_printf("disk%u-%" G_GSIZE_FORMAT, disk, depth + 1);
    g_autofree char *window = g_strdup_printf("%s-window", node);
    const gboolean raw = strcmp(kind->driver, "raw") == 0;

    json_t *format = json_pack("{s:s, s:s, s:s}", "driver", kind->driver, "node-name", node, "file",
                               layer->is_window && !raw ? window : file);
    if (layer->is_window && raw)
        set_window(format, layer);
    json_object_set_new(format, "read-only", json_boolean(read_only));
    json_object_set_new(format, "discard", json_string("unmap"));
    if (kind->has_backing)
        json_object_set_new(format, "backing", last ? json_null() : json_string(backing));
    if (layer->data_fd >= 0)
        json_object_set_new(format, "data-file", json_string(data));

    if (layer->nbd)
        add_nbd_node(args, file, layer->nbd);
    else
        add_file_node(args, file, layer->fd, layer->block_device, read_only);
    if (layer->data_fd >= 0)
        add_file_node(args, data, layer->data_fd, layer->data_block_device, read_only);
    if (layer->is_window && !raw)
        add_window_node(args, window, file, layer, read_only);
    vp_args_json(args, "-blockdev", format);
    return NULL;
}

/* ---- devices ---- */

/* A device of the disk's own on the root bus. */
static json_t *pci_disk(VpArguments *args, const char *driver)
{
    json_t *device = json_pack("{s:s}", "driver", driver);

    vp_args_address(args, device);
    return device;
}

static json_t *scsi_disk(VpArguments *args)
{
    const guint n = args->scsi_disks++;

    if (n == 0) {
        json_t *controller = json_pack("{s:s, s:s}", "driver", "virtio-scsi-pci", "id", "scsi0");

        vp_args_address(args, controller);
        vp_args_json(args, "-device", controller);
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:i}", "driver", "scsi-hd", "bus", "scsi0.0", "channel", 0, "scsi-id",
                     (int)(n % SCSI_LUNS), "lun", (int)(n / SCSI_LUNS));
}

/* q35 has a controller of its own; more, and other machines, get further ones. */
static json_t *sata_disk(VpArguments *args)
{
    const char *machine = vp_args_machine_type(args);
    const gboolean built_in = strcmp(machine, "q35") == 0 || g_str_has_prefix(machine, "pc-q35");
    const guint n = args->sata_disks++;
    const guint controller = n / SATA_PORTS;
    g_autofree char *id = g_strdup_printf("sata%u", controller);
    const gboolean own = controller > 0 || !built_in;
    g_autofree char *bus = g_strdup_printf("%s.%u", own ? id : "ide", n % SATA_PORTS);

    if (own && n % SATA_PORTS == 0) {
        json_t *device = json_pack("{s:s, s:s}", "driver", "ahci", "id", id);

        vp_args_address(args, device);
        vp_args_json(args, "-device", device);
    }
    return json_pack("{s:s, s:s}", "driver", "ide-hd", "bus", bus);
}

static json_t *disk_device(VpArguments *args, const PbDisk *disk, const char *serial)
{
    json_t *device;

    switch (disk->bus) {
    case PB_DISK_BUS_SCSI:
        return scsi_disk(args);
    case PB_DISK_BUS_SATA:
        return sata_disk(args);
    case PB_DISK_BUS_NVME:
        device = pci_disk(args, "nvme");
        json_object_set_new(device, "serial", json_string(serial));
        return device;
    default:
        return pci_disk(args, "virtio-blk-pci");
    }
}

VpError *vp_args_disk(VpArguments *args, guint index)
{
    const PbDisk *disk = args->line->spec->disks[index];
    g_autofree char *id = g_strdup_printf("disk%u", index);
    g_autofree char *top = g_strdup_printf("disk%u-0", index);
    /* QEMU lets the guest see 20 bytes. */
    g_autofree char *serial = g_strdup_printf("%.8s-%.11s", args->line->uid, disk->target);

    /* A node is named by the one above it, so the base comes first. */
    for (gsize depth = args->line->disks[index].n_layers; depth-- > 0;) {
        VpError *error = add_layer(args, index, depth);

        if (error)
            return error;
    }
    json_t *device = disk_device(args, disk, serial);
    json_object_set_new(device, "id", json_string(id));
    json_object_set_new(device, "drive", json_string(top));
    json_object_set_new(device, "bootindex", json_integer(index + 1));
    vp_args_json(args, "-device", device);
    return NULL;
}
