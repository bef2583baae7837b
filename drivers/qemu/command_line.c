/* QEMU's arguments: see command_line.h. Everything with a name or a path in it is JSON, where quoting is the library's. */
#include "command_line.h"
#include "image_format.h"

#include <jansson.h>
#include <string.h>

#define DEFAULT_MEMORY_MIB 512
/* Devices are functions of the root bus from slot 2 on, eight in a slot: room for all that a spec can hold, at addresses that
 * depend on nothing but the order in the spec. */
#define FIRST_SLOT 2
#define SATA_PORTS 6
#define SCSI_LUNS 64

typedef struct Builder {
    const VpCommandLine *line;
    GPtrArray *argv;
    guint fd_sets;
    guint functions; /* on the root bus */
    guint sata_disks;
    guint scsi_disks;
} Builder;

static void add(Builder *builder, const char *option, const char *value)
{
    g_ptr_array_add(builder->argv, g_strdup(option));
    if (value)
        g_ptr_array_add(builder->argv, g_strdup(value));
}

static void add_json(Builder *builder, const char *option, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER);

    add(builder, option, text);
    free(text);
    json_decref(value);
}

/* QEMU's key=value options end at a comma; a doubled one stands for itself. */
static char *quoted(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);

    return g_strjoinv(",,", parts);
}

/* ---- the machine ---- */

static gboolean is_x86(const Builder *builder)
{
    return strcmp(builder->line->architecture, "x86_64") == 0;
}

static const char *machine_type(const Builder *builder)
{
    const char *wanted = builder->line->spec->machine;

    if (wanted[0])
        return wanted;
    return is_x86(builder) ? "q35" : "virt";
}

static void add_machine(Builder *builder)
{
    const VpCommandLine *line = builder->line;
    const guint64 memory_mib = line->spec->memory_bytes ? line->spec->memory_bytes / 1024 / 1024 : DEFAULT_MEMORY_MIB;
    g_autofree char *name = quoted(line->name);
    g_autofree char *guest = g_strdup_printf("guest=%s,process=qemu-%.10s", name, line->uid);
    g_autofree char *type = quoted(machine_type(builder));
    g_autofree char *machine =
        g_strdup_printf("%s,accel=%s", type, line->accelerator == PB_ACCELERATOR_KVM ? "kvm" : "tcg");
    g_autofree char *size = g_strdup_printf("size=%" G_GUINT64_FORMAT "M", memory_mib);
    g_autofree char *cpus = g_strdup_printf("cpus=%u", line->spec->vcpus ? line->spec->vcpus : 1);

    add(builder, "-nodefaults", NULL);
    add(builder, "-no-user-config", NULL);
    add(builder, "-S", NULL);
    add(builder, "-name", guest);
    add(builder, "-uuid", line->uid);
    add(builder, "-machine", machine);
    add(builder, "-cpu", line->cpu);
    add(builder, "-m", size);
    add(builder, "-smp", cpus);
    add(builder, "-display", "none");
    add(builder, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    add(builder, "-msg", "timestamp=on");

    g_autofree char *chardev = g_strdup_printf("socket,id=qmp,fd=%d,server=on,wait=off", line->qmp_fd);
    add(builder, "-chardev", chardev);
    add(builder, "-mon", "chardev=qmp,mode=control");
}

/* Puts a device on the root bus. */
static void set_address(Builder *builder, json_t *device)
{
    const guint n = builder->functions++;
    g_autofree char *address = g_strdup_printf("%x.%x", FIRST_SLOT + n / 8, n % 8);

    json_object_set_new(device, "addr", json_string(address));
    if (n % 8 == 0)
        json_object_set_new(device, "multifunction", json_true());
}

/* ---- disks: nodes ---- */

/* The node of one descriptor. A read-only one may be swapped for a writable one later, when a commit asks for it. */
static void add_file_node(Builder *builder, const char *node, int fd, gboolean block_device, gboolean read_only)
{
    const guint set = ++builder->fd_sets;
    g_autofree char *add_fd = g_strdup_printf("fd=%d,set=%u,opaque=%s", fd, set, node);
    g_autofree char *path = g_strdup_printf("/dev/fdset/%u", set);
    json_t *file = json_pack("{s:s, s:s, s:s}", "driver", block_device ? "host_device" : "file", "node-name", node,
                             "filename", path);

    json_object_set_new(file, "read-only", json_boolean(read_only));
    if (read_only)
        json_object_set_new(file, "auto-read-only", json_true());
    json_object_set_new(file, "discard", json_string("unmap"));
    add(builder, "-add-fd", add_fd);
    add_json(builder, "-blockdev", file);
}

static void set_window(json_t *node, const VpLayerFds *layer)
{
    json_object_set_new(node, "offset", json_integer((json_int_t)layer->offset));
    /* QEMU takes whole sectors alone. One of another size reaches to the end of the file, which is what it takes without. */
    if (layer->size % 512 == 0)
        json_object_set_new(node, "size", json_integer((json_int_t)layer->size));
}

/* Between the file and a format that knows of no windows: a raw node that shows the window alone. */
static void add_window_node(Builder *builder, const char *node, const char *file, const VpLayerFds *layer,
                            gboolean read_only)
{
    json_t *raw = json_pack("{s:s, s:s, s:s}", "driver", "raw", "node-name", node, "file", file);

    set_window(raw, layer);
    json_object_set_new(raw, "read-only", json_boolean(read_only));
    if (read_only)
        json_object_set_new(raw, "auto-read-only", json_true());
    json_object_set_new(raw, "discard", json_string("unmap"));
    add_json(builder, "-blockdev", raw);
}

static VpError *add_layer(Builder *builder, guint disk, gsize depth)
{
    const VpDiskFds *disk_fds = &builder->line->disks[disk];
    const VpLayerFds *layer = &disk_fds->layers[depth];
    const PbDisk *spec = builder->line->spec->disks[disk];
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

    add_file_node(builder, file, layer->fd, layer->block_device, read_only);
    if (layer->data_fd >= 0)
        add_file_node(builder, data, layer->data_fd, layer->data_block_device, read_only);
    if (layer->is_window && !raw)
        add_window_node(builder, window, file, layer, read_only);
    add_json(builder, "-blockdev", format);
    return NULL;
}

/* ---- disks: devices ---- */

/* A device of the disk's own on the root bus. */
static json_t *pci_disk(Builder *builder, const char *driver)
{
    json_t *device = json_pack("{s:s}", "driver", driver);

    set_address(builder, device);
    return device;
}

static json_t *scsi_disk(Builder *builder)
{
    const guint n = builder->scsi_disks++;

    if (n == 0) {
        json_t *controller = json_pack("{s:s, s:s}", "driver", "virtio-scsi-pci", "id", "scsi0");

        set_address(builder, controller);
        add_json(builder, "-device", controller);
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:i}", "driver", "scsi-hd", "bus", "scsi0.0", "channel", 0, "scsi-id",
                     (int)(n % SCSI_LUNS), "lun", (int)(n / SCSI_LUNS));
}

/* q35 has a controller of its own; more, and other machines, get further ones. */
static json_t *sata_disk(Builder *builder)
{
    const char *machine = machine_type(builder);
    const gboolean built_in = strcmp(machine, "q35") == 0 || g_str_has_prefix(machine, "pc-q35");
    const guint n = builder->sata_disks++;
    const guint controller = n / SATA_PORTS;
    g_autofree char *id = g_strdup_printf("sata%u", controller);
    const gboolean own = controller > 0 || !built_in;
    g_autofree char *bus = g_strdup_printf("%s.%u", own ? id : "ide", n % SATA_PORTS);

    if (own && n % SATA_PORTS == 0) {
        json_t *device = json_pack("{s:s, s:s}", "driver", "ahci", "id", id);

        set_address(builder, device);
        add_json(builder, "-device", device);
    }
    return json_pack("{s:s, s:s}", "driver", "ide-hd", "bus", bus);
}

static json_t *disk_device(Builder *builder, const PbDisk *disk, const char *serial)
{
    json_t *device;

    switch (disk->bus) {
    case PB_DISK_BUS_SCSI:
        return scsi_disk(builder);
    case PB_DISK_BUS_SATA:
        return sata_disk(builder);
    case PB_DISK_BUS_NVME:
        device = pci_disk(builder, "nvme");
        json_object_set_new(device, "serial", json_string(serial));
        return device;
    default:
        return pci_disk(builder, "virtio-blk-pci");
    }
}

static VpError *add_disk(Builder *builder, guint index)
{
    const PbDisk *disk = builder->line->spec->disks[index];
    g_autofree char *id = g_strdup_printf("disk%u", index);
    g_autofree char *top = g_strdup_printf("disk%u-0", index);
    /* QEMU lets the guest see 20 bytes. */
    g_autofree char *serial = g_strdup_printf("%.8s-%.11s", builder->line->uid, disk->target);

    /* A node is named by the one above it, so the base comes first. */
    for (gsize depth = builder->line->disks[index].n_layers; depth-- > 0;) {
        VpError *error = add_layer(builder, index, depth);

        if (error)
            return error;
    }
    json_t *device = disk_device(builder, disk, serial);
    json_object_set_new(device, "id", json_string(id));
    json_object_set_new(device, "drive", json_string(top));
    json_object_set_new(device, "bootindex", json_integer(index + 1));
    add_json(builder, "-device", device);
    return NULL;
}

/* ---- the rest ---- */

static void add_interface(Builder *builder, guint index)
{
    const PbInterface *interface = builder->line->spec->interfaces[index];
    g_autofree char *netdev = g_strdup_printf("net%u", index);
    g_autofree char *id = g_strdup_printf("nic%u", index);
    /* A hub with one port leads nowhere; the link itself is taken down over QMP before the guest runs. */
    g_autofree char *backend = interface->type == PB_INTERFACE_TYPE_NONE
                                   ? g_strdup_printf("hubport,id=%s,hubid=%u", netdev, index)
                                   : g_strdup_printf("user,id=%s", netdev);
    json_t *device = json_pack("{s:s, s:s, s:s, s:s}", "driver",
                               interface->model == PB_INTERFACE_MODEL_E1000 ? "e1000" : "virtio-net-pci", "id", id,
                               "netdev", netdev, "romfile", ""); /* no boot from the network */

    if (interface->mac[0])
        json_object_set_new(device, "mac", json_string(interface->mac));
    set_address(builder, device);
    add(builder, "-netdev", backend);
    add_json(builder, "-device", device);
}

VpError *vp_command_line(const VpCommandLine *line, char ***ret_argv)
{
    Builder builder = {.line = line, .argv = g_ptr_array_new_with_free_func(g_free)};
    VpError *error = NULL;

    add(&builder, line->binary, NULL);
    add_machine(&builder);
    if (is_x86(&builder))
        add(&builder, "-device", "pvpanic"); /* tells us of a guest's panic */
    for (guint i = 0; i < line->spec->n_disks && !error; i++)
        error = add_disk(&builder, i);
    for (guint i = 0; i < line->spec->n_interfaces && !error; i++)
        add_interface(&builder, i);
    if (error) {
        g_ptr_array_unref(builder.argv);
        return error;
    }
    g_ptr_array_add(builder.argv, NULL);
    *ret_argv = (char **)g_ptr_array_free(builder.argv, FALSE);
    return NULL;
}
