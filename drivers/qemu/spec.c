/* Checks of a spec that need no file: the rest of command_line.h. */
#include <string.h>

#include "base/pb.h"
#include "command_line.h"
#include "image_format.h"

#define MIB (1024ULL * 1024)

/* Adds a violation, making the error with the first. */
static void violation(VpError **error, const char *list, size_t index, const char *field, const char *text)
{
    g_autofree char *path =
        list ? g_strdup_printf("domain.spec.%s[%zu].%s", list, index, field) : g_strdup_printf("domain.spec.%s", field);

    if (!*error)
        *error = vp_error_new(VP_INVALID_ARGUMENT, "INVALID_SPEC", "the spec is not valid: %s: %s", path, text);
    vp_error_violation(*error, path, "%s", text);
}

static void check_disk(const PbDomainSpec *spec, size_t index, VpError **error)
{
    const PbDisk *disk = spec->disks[index];

    if (!disk->target[0])
        violation(error, "disks", index, "target", "a disk needs a target, as in \"vda\"");
    if (disk->path[0] != '/')
        violation(error, "disks", index, "path", "must be an absolute path");
    if (disk->format != PB_IMAGE_FORMAT_UNSPECIFIED && !vp_qemu_format(disk->format))
        violation(error, "disks", index, "format",
                  "QEMU is not given images of this format; convert it with qemu-img convert -O qcow2");
    if (!protobuf_c_enum_descriptor_get_value(&pb_disk_bus__descriptor, (int)disk->bus))
        violation(error, "disks", index, "bus", "is no bus that is known");
    if (disk->bus == PB_DISK_BUS_SATA && disk->read_only)
        violation(error, "disks", index, "read_only", "a SATA disk cannot be read-only; use virtio or SCSI");
    for (size_t i = 0; i < index; i++) {
        const PbDisk *other = spec->disks[i];

        if (disk->target[0] && strcmp(disk->target, other->target) == 0)
            violation(error, "disks", index, "target", "is the target of another disk as well");
        if (strcmp(disk->path, other->path) == 0 && !(disk->read_only && other->read_only))
            violation(error, "disks", index, "path",
                      "is the image of another disk as well, and one of them writes to it");
    }
}

/* Six bytes; the first must not have the group bit, and not all may be zero. */
static gboolean mac_is_valid(const char *mac)
{
    gboolean any = FALSE;

    if (strlen(mac) != 17)
        return FALSE;
    for (guint i = 0; i < 17; i++) {
        if (i % 3 == 2 ? mac[i] != ':' : !g_ascii_isxdigit(mac[i]))
            return FALSE;
        any = any || (i % 3 != 2 && mac[i] != '0');
    }
    return any && g_ascii_xdigit_value(mac[1]) % 2 == 0;
}

static void check_interface(const PbDomainSpec *spec, size_t index, VpError **error)
{
    const PbInterface *interface = spec->interfaces[index];

    if (interface->mac[0] && !mac_is_valid(interface->mac))
        violation(error, "interfaces", index, "mac", "must be the address of one host, as in \"52:54:00:12:34:56\"");
    if (!protobuf_c_enum_descriptor_get_value(&pb_interface_type__descriptor, (int)interface->type))
        violation(error, "interfaces", index, "type", "is no type that is known");
    if (!protobuf_c_enum_descriptor_get_value(&pb_interface_model__descriptor, (int)interface->model))
        violation(error, "interfaces", index, "model", "is no model that is known");
    for (size_t i = 0; i < index; i++) {
        if (interface->mac[0] && g_ascii_strcasecmp(interface->mac, spec->interfaces[i]->mac) == 0)
            violation(error, "interfaces", index, "mac", "is the address of another interface as well");
    }
}

static void check_kernel(const PbDomainSpec *spec, VpError **error)
{
    const PbKernelBoot *kernel = spec->kernel;

    if (!kernel || kernel->kernel_path[0])
        return;
    if (kernel->initrd_path[0])
        violation(error, NULL, 0, "kernel.initrd_path", "needs a kernel: set kernel_path as well");
    if (kernel->command_line[0])
        violation(error, NULL, 0, "kernel.command_line", "needs a kernel: set kernel_path as well");
}

void vp_spec_complete_qemu(PbDomainSpec *spec)
{
    if (spec->n_serial_ports == 0)
        vp_pb_append(&spec->n_serial_ports, &spec->serial_ports, vp_pb_new(&pb_serial_port__descriptor));
    for (size_t i = 0; i < spec->n_serial_ports; i++) {
        if (spec->serial_ports[i]->model == PB_SERIAL_PORT_MODEL_UNSPECIFIED)
            spec->serial_ports[i]->model = PB_SERIAL_PORT_MODEL_UART;
    }
}

VpError *vp_spec_validate(const PbDomainSpec *spec)
{
    VpError *error = NULL;

    if (spec->memory_bytes % MIB != 0)
        violation(&error, NULL, 0, "memory_bytes", "must be a multiple of 1 MiB");
    if (!protobuf_c_enum_descriptor_get_value(&pb_accelerator__descriptor, (int)spec->accelerator))
        violation(&error, NULL, 0, "accelerator", "is no accelerator that is known");
    for (size_t i = 0; i < spec->n_disks; i++)
        check_disk(spec, i, &error);
    for (size_t i = 0; i < spec->n_interfaces; i++)
        check_interface(spec, i, &error);
    for (size_t i = 0; i < spec->n_serial_ports; i++) {
        if (!protobuf_c_enum_descriptor_get_value(&pb_serial_port_model__descriptor, (int)spec->serial_ports[i]->model))
            violation(&error, "serial_ports", i, "model", "is no model that is known");
    }
    check_kernel(spec, &error);
    return error;
}
