/* What --disk, --interface and --label say: see device_option.h. */
#include "clients/cli/device_option.h"

#include <string.h>

#include "base/pb.h"
#include "clients/cli/text.h"

/* The next part up to a single comma, with ",," as one comma; *text moves behind it, to NULL at the end. */
static char *next_part(const char **text)
{
    GString *part = g_string_new(NULL);
    const char *at = *text;

    for (; *at; at++) {
        if (at[0] == ',' && at[1] != ',')
            break;
        if (at[0] == ',')
            at++;
        g_string_append_c(part, *at);
    }
    *text = *at ? at + 1 : NULL;
    return g_string_free(part, FALSE);
}

static VpError *refuse(const char *option, const char *text, const char *part, const char *known)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--%s %s: \"%s\" is not known here; there is %s", option,
                        text, part, known);
}

static VpError *set_enum(const char *option, const char *text, const ProtobufCEnumDescriptor *descriptor,
                         const char *value, int *ret)
{
    VpError *error = vp_text_parse_enum(descriptor, value, ret);

    return error ? vp_error_prefix(error, "--%s %s", option, text) : NULL;
}

static VpError *set_disk_part(PbDisk *disk, const char *text, const char *part)
{
    int value = 0;
    VpError *error = NULL;

    if (g_str_equal(part, "readonly") || g_str_equal(part, "readonly=on")) {
        disk->read_only = TRUE;
    } else if (g_str_has_prefix(part, "target=")) {
        vp_pb_set(&disk->target, strchr(part, '=') + 1);
    } else if (g_str_has_prefix(part, "format=")) {
        error = set_enum("disk", text, &pb_image_format__descriptor, strchr(part, '=') + 1, &value);
        disk->format = (PbImageFormat)value;
    } else if (g_str_has_prefix(part, "bus=")) {
        error = set_enum("disk", text, &pb_disk_bus__descriptor, strchr(part, '=') + 1, &value);
        disk->bus = (PbDiskBus)value;
    } else if (g_str_has_prefix(part, "cache=")) {
        error = set_enum("disk", text, &pb_disk_cache__descriptor, strchr(part, '=') + 1, &value);
        disk->cache = (PbDiskCache)value;
    } else if (g_str_has_prefix(part, "io=")) {
        error = set_enum("disk", text, &pb_disk_io__descriptor, strchr(part, '=') + 1, &value);
        disk->io = (PbDiskIo)value;
    } else if (g_str_has_prefix(part, "secret=")) {
        vp_pb_set(&disk->secret, strchr(part, '=') + 1);
    } else if (g_str_has_prefix(part, "write-threshold=")) {
        if (!vp_text_parse_size(strchr(part, '=') + 1, &disk->write_threshold_bytes) || !disk->write_threshold_bytes)
            error =
                vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--disk %s: \"%s\" is no size, as in 8G", text, part);
    } else if (g_str_has_prefix(part, "serial=")) {
        vp_pb_set(&disk->serial, strchr(part, '=') + 1);
    } else {
        error = refuse("disk", text, part,
                       "format=, target=, bus=, cache=, io=, secret=, serial=, write-threshold= and readonly (a comma "
                       "in a path is "
                       "written twice)");
    }
    return error;
}

PbDisk *vp_disk_parse(const char *text, const char *folder, VpError **error)
{
    vp_pb_auto PbDisk *disk = vp_pb_new(&pb_disk__descriptor);
    const char *rest = text;
    g_autofree char *first = next_part(&rest);
    const char *path = g_str_has_prefix(first, "path=") ? first + strlen("path=") : first;

    if (!*path) {
        *error = vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--disk %s: the path is missing", text);
        return NULL;
    }
    g_autofree char *absolute = g_canonicalize_filename(path, folder);
    vp_pb_set(&disk->path, absolute);
    while (rest) {
        g_autofree char *part = next_part(&rest);
        VpError *failure = set_disk_part(disk, text, part);

        if (failure) {
            *error = failure;
            return NULL;
        }
    }
    return g_steal_pointer(&disk);
}

static gboolean target_taken(const PbDomainSpec *spec, const char *target)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (g_str_equal(spec->disks[i]->target, target))
            return TRUE;
    }
    return FALSE;
}

static char *target_name(PbDiskBus bus, guint index)
{
    if (bus == PB_DISK_BUS_NVME)
        return g_strdup_printf("nvme%un1", index);

    const char *prefix = bus == PB_DISK_BUS_SCSI || bus == PB_DISK_BUS_SATA || bus == PB_DISK_BUS_USB ? "sd" : "vd";
    /* As the kernel goes on: vdz, vdaa, vdab. */
    if (index < 26)
        return g_strdup_printf("%s%c", prefix, 'a' + (char)index);
    return g_strdup_printf("%s%c%c", prefix, 'a' + (char)(index / 26 - 1), 'a' + (char)(index % 26));
}

void vp_disk_name_targets(PbDomainSpec *spec)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        /* One more name than disks always has a free one. Two letters are enough for 702. */
        for (guint index = 0; !*spec->disks[i]->target && index <= spec->n_disks && index < 702; index++) {
            g_autofree char *target = target_name(spec->disks[i]->bus, index);

            if (!target_taken(spec, target))
                vp_pb_set(&spec->disks[i]->target, target);
        }
    }
}

PbInterface *vp_interface_parse(const char *text, VpError **error)
{
    vp_pb_auto PbInterface *interface = vp_pb_new(&pb_interface__descriptor);
    const char *rest = text;
    g_autofree char *type = next_part(&rest);
    guint64 number = 0;
    int value = 0;
    VpError *failure = set_enum("interface", text, &pb_interface_type__descriptor, type, &value);

    interface->type = (PbInterfaceType)value;
    while (rest && !failure) {
        g_autofree char *part = next_part(&rest);

        if (g_str_has_prefix(part, "mac=")) {
            vp_pb_set(&interface->mac, strchr(part, '=') + 1);
        } else if (g_str_has_prefix(part, "model=")) {
            failure = set_enum("interface", text, &pb_interface_model__descriptor, strchr(part, '=') + 1, &value);
            interface->model = (PbInterfaceModel)value;
        } else if (g_str_has_prefix(part, "bridge=")) {
            vp_pb_set(&interface->bridge, strchr(part, '=') + 1);
        } else if (g_str_has_prefix(part, "queues=") &&
                   g_ascii_string_to_unsigned(strchr(part, '=') + 1, 10, 1, 8, &number, NULL)) {
            interface->queues = (guint32)number;
        } else {
            failure = refuse("interface", text, part, "bridge=, model=, mac= and queues=1 to 8");
        }
    }
    if (failure) {
        *error = failure;
        return NULL;
    }
    return g_steal_pointer(&interface);
}

const char *const vp_throttle_words[] = {"bytes=",    "read-bytes=",    "write-bytes=",
                                         "requests=", "read-requests=", "write-requests=",
                                         "group=",    "none",           NULL};

VpError *vp_throttle_parse(PbDisk *disk, const char *text)
{
    if (g_str_equal(text, "none")) {
        g_clear_pointer(&disk->throttle, vp_pb_free);
        return NULL;
    }
    if (!disk->throttle)
        disk->throttle = vp_pb_new(&pb_throttle__descriptor);
    PbThrottle *throttle = disk->throttle;
    guint64 *const fields[] = {&throttle->total_bytes_per_second,   &throttle->read_bytes_per_second,
                               &throttle->write_bytes_per_second,   &throttle->total_requests_per_second,
                               &throttle->read_requests_per_second, &throttle->write_requests_per_second};

    if (g_str_has_prefix(text, "group=")) {
        vp_pb_set(&throttle->group, strchr(text, '=') + 1);
        return NULL;
    }
    for (guint i = 0; i < G_N_ELEMENTS(fields); i++) {
        if (g_str_has_prefix(text, vp_throttle_words[i]) && vp_text_parse_size(strchr(text, '=') + 1, fields[i]))
            return NULL;
    }
    return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION",
                        "a limit is bytes=, read-bytes= or write-bytes=SIZE, requests=, read-requests= or "
                        "write-requests=N, group=NAME or none, not \"%s\"",
                        text);
}

void vp_label_remove(PbDomain *domain, const char *key)
{
    size_t kept = 0;

    for (size_t i = 0; i < domain->n_labels; i++) {
        if (g_str_equal(domain->labels[i]->key, key))
            vp_pb_free(domain->labels[i]);
        else
            domain->labels[kept++] = domain->labels[i];
    }
    domain->n_labels = kept;
}

VpError *vp_label_parse(PbDomain *domain, const char *text)
{
    const char *equals = strchr(text, '=');

    if (!equals || equals == text)
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--label is KEY=VALUE, not \"%s\"", text);

    PbDomain__LabelsEntry *entry = vp_pb_new(&pb_domain__labels_entry__descriptor);
    g_autofree char *key = g_strndup(text, (gsize)(equals - text));

    vp_label_remove(domain, key);
    vp_pb_set(&entry->key, key);
    vp_pb_set(&entry->value, equals + 1);
    vp_pb_append(&domain->n_labels, &domain->labels, entry);
    return NULL;
}
