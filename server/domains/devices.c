/* Attaching and detaching devices: edits of one device in the stored spec, in the one that runs, or in both. See change.h. */
#include <string.h>

#include "base/pb.h"
#include "drivers/spec_change.h"
#include "server/domains/change.h"

/* ---- attach ---- */

static void add_disk(PbDomainSpec *spec, const PbDisk *disk)
{
    vp_pb_append(&spec->n_disks, &spec->disks, vp_pb_dup(disk));
}

static void add_interface(PbDomainSpec *spec, const PbInterface *interface)
{
    vp_pb_append(&spec->n_interfaces, &spec->interfaces, vp_pb_dup(interface));
}

static void add_device(PbDomainSpec *spec, const PbDevice *device)
{
    if (device->device_case == PB_DEVICE_DISK)
        add_disk(spec, device->disk);
    else
        add_interface(spec, device->interface);
}

/* A spec that has the devices of both, so that what is chosen for a new one is free in both. */
static PbDomain *merge(const PbDomain *stored, const PbDomain *live)
{
    PbDomain *merged = vp_pb_dup(live ? live : stored);

    for (size_t i = 0; live && stored && i < stored->spec->n_disks; i++) {
        if (!vp_spec_find_disk(merged->spec, stored->spec->disks[i]->target))
            add_disk(merged->spec, stored->spec->disks[i]);
    }
    for (size_t i = 0; live && stored && i < stored->spec->n_interfaces; i++) {
        if (!vp_spec_find_interface(merged->spec, stored->spec->interfaces[i]->mac))
            add_interface(merged->spec, stored->spec->interfaces[i]);
    }
    return merged;
}

/* The request's field in the place of that of the spec which the device is the last disk or interface of. */
static VpError *name_request_field(VpError *error, const PbDomainSpec *spec, const PbDevice *device)
{
    const gboolean disk = device->device_case == PB_DEVICE_DISK;
    g_autofree char *prefix = disk ? g_strdup_printf("domain.spec.disks[%zu].", spec->n_disks - 1)
                                   : g_strdup_printf("domain.spec.interfaces[%zu].", spec->n_interfaces - 1);
    const char *name = disk ? "device.disk." : "device.interface.";

    for (guint i = 0; error && error->violations && i < error->violations->len; i++) {
        VpErrorPair *pair = &g_array_index(error->violations, VpErrorPair, i);

        if (!g_str_has_prefix(pair->key, prefix))
            continue;
        char *renamed = g_strconcat(name, pair->key + strlen(prefix), NULL);
        g_free(pair->key);
        pair->key = renamed;
    }
    return error;
}

static VpError *taken(const char *field, const char *what, const char *name, const PbDomain *domain)
{
    return vp_error_violation(vp_error_new(VP_ALREADY_EXISTS, "DEVICE_EXISTS", "the domain %s has a %s %s already",
                                           domain->name, what, name),
                              field, "is taken");
}

static VpError *check_free(const PbDevice *device, const PbDomain *domain)
{
    if (!domain)
        return NULL;
    if (device->device_case == PB_DEVICE_DISK && vp_spec_find_disk(domain->spec, device->disk->target))
        return taken("device.disk.target", "disk", device->disk->target, domain);
    if (device->device_case == PB_DEVICE_INTERFACE && vp_spec_find_interface(domain->spec, device->interface->mac))
        return taken("device.interface.mac", "network interface", device->interface->mac, domain);
    return NULL;
}

/* Takes the completed device out of the merged spec, where it is the last of its kind. */
static PbDevice *take_last(const PbDomainSpec *spec, const PbDevice *asked)
{
    PbDevice *device = vp_pb_new(&pb_device__descriptor);

    device->device_case = asked->device_case;
    if (asked->device_case == PB_DEVICE_DISK)
        device->disk = vp_pb_dup(spec->disks[spec->n_disks - 1]);
    else
        device->interface = vp_pb_dup(spec->interfaces[spec->n_interfaces - 1]);
    return device;
}

static VpError *edit_attach(const VpChange *change, PbDomain *stored, PbDomain *live, gboolean *ret_spec_changed)
{
    VpError *error = check_free(change->device, stored);

    if (!error)
        error = check_free(change->device, live);
    if (error)
        return error;
    vp_pb_auto PbDomain *merged = merge(stored, live);
    add_device(merged->spec, change->device);
    error = name_request_field(vp_domain_validate(change->domains, merged, NULL), merged->spec, change->device);
    if (error)
        return error;
    vp_pb_auto PbDevice *device = take_last(merged->spec, change->device);
    if (stored)
        add_device(stored->spec, device);
    if (live)
        add_device(live->spec, device);
    *ret_spec_changed = TRUE;
    return NULL;
}

static VpError *no_device(const char *field)
{
    return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "%s must be set", field), field,
                              "must be set");
}

void vp_domains_attach(VpDomains *domains, const PbAttachDeviceRequest *request, const VpDomainCaller *caller,
                       guint64 timeout_ms, VpDomainDone done, void *data)
{
    g_autoptr(VpChange) change = vp_change_new(domains, request, caller, done, data);
    g_autoptr(VpError) error = NULL;

    if (vp_change_answered_before(change))
        return;
    if (!request->device || request->device->device_case == PB_DEVICE__NOT_SET) {
        error = no_device("device");
        vp_change_fail(change, error);
        return;
    }
    change->type = "domain.attach-device";
    change->edit = edit_attach;
    change->device = vp_pb_dup(request->device);
    change->expected_revision = request->revision;
    change->scope = request->scope;
    change->timeout_ms = timeout_ms;
    change->record = vp_registry_find(domains, request->name, request->uid, &error);
    if (!change->record)
        vp_change_fail(change, error);
    else if (request->validate_only)
        vp_change_try(change);
    else
        vp_change_submit(g_steal_pointer(&change), request->no_wait);
}

/* ---- detach ---- */

/* Whether it was there. */
static gboolean remove_device(const VpChange *change, PbDomainSpec *spec)
{
    const size_t before = spec->n_disks + spec->n_interfaces;

    if (change->target)
        vp_spec_remove_disk(spec, change->target);
    else
        vp_spec_remove_interface(spec, change->mac);
    return spec->n_disks + spec->n_interfaces < before;
}

static VpError *edit_detach(const VpChange *change, PbDomain *stored, PbDomain *live, gboolean *ret_spec_changed)
{
    const gboolean was_stored = stored && remove_device(change, stored->spec);
    const gboolean was_live = live && remove_device(change, live->spec);
    const char *what = change->target ? "disk" : "network interface";
    const char *name = change->target ? change->target : change->mac;

    if (!was_stored && !was_live)
        return vp_error_violation(vp_error_new(VP_NOT_FOUND, "DEVICE_NOT_FOUND", "the domain %s has no %s %s%s",
                                               change->record->name, what, name,
                                               !live     ? " in what is stored of it"
                                               : !stored ? " as it runs"
                                                         : ""),
                                  change->target ? "disk_target" : "interface_mac", "names none");
    *ret_spec_changed = TRUE;
    return NULL;
}

void vp_domains_detach(VpDomains *domains, const PbDetachDeviceRequest *request, const VpDomainCaller *caller,
                       guint64 timeout_ms, VpDomainDone done, void *data)
{
    g_autoptr(VpChange) change = vp_change_new(domains, request, caller, done, data);
    g_autoptr(VpError) error = NULL;

    if (vp_change_answered_before(change))
        return;
    if (request->device_case == PB_DETACH_DEVICE_REQUEST__DEVICE__NOT_SET) {
        error = no_device("disk_target");
        vp_change_fail(change, error);
        return;
    }
    change->type = "domain.detach-device";
    change->edit = edit_detach;
    if (request->device_case == PB_DETACH_DEVICE_REQUEST__DEVICE_DISK_TARGET)
        change->target = g_strdup(request->disk_target);
    else
        change->mac = g_strdup(request->interface_mac);
    change->expected_revision = request->revision;
    change->scope = request->scope;
    change->timeout_ms = timeout_ms;
    change->record = vp_registry_find(domains, request->name, request->uid, &error);
    if (!change->record)
        vp_change_fail(change, error);
    else
        vp_change_submit(g_steal_pointer(&change), request->no_wait);
}
