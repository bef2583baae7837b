/* See spec_change.h. */
#include "drivers/spec_change.h"

#include "base/pb.h"

PbDisk *vp_spec_find_disk(const PbDomainSpec *spec, const char *target)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (g_str_equal(spec->disks[i]->target, target))
            return spec->disks[i];
    }
    return NULL;
}

PbInterface *vp_spec_find_interface(const PbDomainSpec *spec, const char *mac)
{
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        if (g_ascii_strcasecmp(spec->interfaces[i]->mac, mac) == 0)
            return spec->interfaces[i];
    }
    return NULL;
}

void vp_spec_remove_disk(PbDomainSpec *spec, const char *target)
{
    size_t kept = 0;

    for (size_t i = 0; i < spec->n_disks; i++) {
        if (g_str_equal(spec->disks[i]->target, target))
            vp_pb_free(spec->disks[i]);
        else
            spec->disks[kept++] = spec->disks[i];
    }
    spec->n_disks = kept;
}

void vp_spec_remove_interface(PbDomainSpec *spec, const char *mac)
{
    size_t kept = 0;

    for (size_t i = 0; i < spec->n_interfaces; i++) {
        if (g_ascii_strcasecmp(spec->interfaces[i]->mac, mac) == 0)
            vp_pb_free(spec->interfaces[i]);
        else
            spec->interfaces[kept++] = spec->interfaces[i];
    }
    spec->n_interfaces = kept;
}

VpError *vp_spec_cannot_change(VpError *error, const char *what, const char *field, ...)
{
    VpError *made = error;
    va_list args;

    va_start(args, field);
    g_autofree char *name = g_strdup_vprintf(field, args);
    va_end(args);
    g_autofree char *path = g_strconcat("domain.spec.", name, NULL);
    if (!made)
        made = vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_RUNNING",
                            "%s: %s; with CHANGE_SCOPE_STORED it changes at the next start", path, what);
    return vp_error_violation(made, path, "%s", what);
}

/* Adds a violation for each field that differs and is not in `may`. */
static VpError *check_fields(VpError *error, const void *live, const void *wanted, const char *const *may,
                             const char *prefix)
{
    const ProtobufCMessageDescriptor *descriptor = ((const ProtobufCMessage *)live)->descriptor;
    VpError *found = error;

    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];

        if (!g_strv_contains(may, field->name) && !vp_pb_field_equal(live, wanted, field))
            found = vp_spec_cannot_change(found, "cannot change while the domain runs", "%s%s", prefix, field->name);
    }
    return found;
}

static VpError *check_disk(VpError *error, const PbDomainSpec *live, const PbDisk *disk, size_t index)
{
    static const char *const of_disk[] = {"throttle", "write_threshold_bytes", NULL};
    static const char *const of_cdrom[] = {"throttle", "path", "format", NULL};
    const PbDisk *now = vp_spec_find_disk(live, disk->target);
    g_autofree char *prefix = g_strdup_printf("disks[%zu].", index);

    if (!now)
        return error;
    return check_fields(error, now, disk, now->device == PB_DISK_DEVICE_CDROM ? of_cdrom : of_disk, prefix);
}

static VpError *check_interface(VpError *error, const PbDomainSpec *live, const PbInterface *interface, size_t index)
{
    static const char *const none[] = {NULL};
    const PbInterface *now = vp_spec_find_interface(live, interface->mac);
    g_autofree char *prefix = g_strdup_printf("interfaces[%zu].", index);

    return now ? check_fields(error, now, interface, none, prefix) : error;
}

VpError *vp_spec_check_change(const PbDomainSpec *live, const PbDomainSpec *wanted, const char *const *fields)
{
    g_autoptr(GPtrArray) may = g_ptr_array_new();

    g_ptr_array_add(may, "description");
    g_ptr_array_add(may, "disks");
    g_ptr_array_add(may, "interfaces");
    for (const char *const *field = fields; *field; field++)
        g_ptr_array_add(may, (gpointer)*field);
    g_ptr_array_add(may, NULL);
    VpError *error = check_fields(NULL, live, wanted, (const char *const *)may->pdata, "");
    for (size_t i = 0; i < wanted->n_disks; i++)
        error = check_disk(error, live, wanted->disks[i], i);
    for (size_t i = 0; i < wanted->n_interfaces; i++)
        error = check_interface(error, live, wanted->interfaces[i], i);
    return error;
}
