/* See change.h. */
#include "change.h"

#include "base/pb.h"
#include "base/thread.h"
#include "drivers/spec_change.h"

void vp_test_devices_init(VpTestDevices *devices, const PbDomainSpec *spec)
{
    devices->live = vp_pb_dup(spec);
    devices->pending = g_ptr_array_new_with_free_func(vp_pb_free);
}

void vp_test_devices_clear(VpTestDevices *devices)
{
    vp_pb_free(devices->live);
    g_ptr_array_unref(devices->pending);
}

void vp_test_devices_report(const VpTestDevices *devices, const VpDriverHost *host, const char *uid, PbEventType event,
                            const char *reason, const char *detail)
{
    const VpObservation observation = {
        .event = event,
        .reason = reason,
        .detail = detail,
        .state_stays = TRUE,
        .devices = TRUE,
        .live_spec = devices->live,
        .pending_detaches = (PbPendingDetach *const *)devices->pending->pdata,
        .n_pending_detaches = devices->pending->len,
    };

    host->report(host->data, uid, &observation);
}

static const char *name_of(const PbPendingDetach *detach)
{
    return detach->device_case == PB_PENDING_DETACH__DEVICE_DISK_TARGET ? detach->disk_target : detach->interface_mac;
}

static void ask(VpTestDevices *devices, PbPendingDetach__DeviceCase what, const char *name, gboolean stored)
{
    for (guint i = 0; i < devices->pending->len; i++) {
        if (g_str_equal(name_of(devices->pending->pdata[i]), name)) {
            g_ptr_array_remove_index(devices->pending, i);
            break;
        }
    }
    PbPendingDetach *detach = vp_pb_new(&pb_pending_detach__descriptor);

    detach->device_case = what;
    vp_pb_set(what == PB_PENDING_DETACH__DEVICE_DISK_TARGET ? &detach->disk_target : &detach->interface_mac, name);
    detach->request_time = vp_pb_timestamp(vp_wall_us());
    detach->stored = stored;
    g_ptr_array_add(devices->pending, detach);
}

/* Those that are to go stay with `next` until the guest has let go of them. */
static void keep_pending(VpTestDevices *devices, PbDomainSpec *next, gboolean stored)
{
    const PbDomainSpec *live = devices->live;

    for (size_t i = 0; i < live->n_disks; i++) {
        PbDisk *disk = live->disks[i];

        if (vp_spec_find_disk(next, disk->target))
            continue;
        ask(devices, PB_PENDING_DETACH__DEVICE_DISK_TARGET, disk->target, stored);
        vp_pb_append(&next->n_disks, &next->disks, vp_pb_dup(disk));
    }
    for (size_t i = 0; i < live->n_interfaces; i++) {
        PbInterface *interface = live->interfaces[i];

        if (vp_spec_find_interface(next, interface->mac))
            continue;
        ask(devices, PB_PENDING_DETACH__DEVICE_INTERFACE_MAC, interface->mac, stored);
        vp_pb_append(&next->n_interfaces, &next->interfaces, vp_pb_dup(interface));
    }
}

void vp_test_devices_change(VpTestDevices *devices, const VpDriverHost *host, const char *uid,
                            const PbUpdateDomainRequest *request)
{
    PbDomainSpec *next = vp_pb_dup(request->domain->spec);
    const PbDomainSpec *live = devices->live;
    const gboolean more = next->n_disks > live->n_disks || next->n_interfaces > live->n_interfaces;

    keep_pending(devices, next, request->scope == PB_CHANGE_SCOPE_BOTH);
    const gboolean changed = !vp_pb_equal(next, live);
    vp_pb_free(devices->live);
    devices->live = next;
    if (changed)
        vp_test_devices_report(devices, host, uid, more ? PB_EVENT_TYPE_DEVICE_ADDED : PB_EVENT_TYPE_DEVICE_CHANGED,
                               "REQUESTED", NULL);
    if (devices->pending->len > 0) {
        g_autofree char *names = vp_test_devices_pending(devices);

        vp_test_devices_report(devices, host, uid, PB_EVENT_TYPE_DEVICE_REMOVE_REQUESTED, "REQUESTED", names);
    }
}

void vp_test_devices_let_go(VpTestDevices *devices, const VpDriverHost *host, const char *uid)
{
    if (devices->pending->len == 0)
        return;
    g_autofree char *names = vp_test_devices_pending(devices);

    for (guint i = 0; i < devices->pending->len; i++) {
        const PbPendingDetach *detach = devices->pending->pdata[i];

        if (detach->device_case == PB_PENDING_DETACH__DEVICE_DISK_TARGET)
            vp_spec_remove_disk(devices->live, detach->disk_target);
        else
            vp_spec_remove_interface(devices->live, detach->interface_mac);
    }
    g_ptr_array_set_size(devices->pending, 0);
    vp_test_devices_report(devices, host, uid, PB_EVENT_TYPE_DEVICE_REMOVED, "REQUESTED", names);
}

char *vp_test_devices_pending(const VpTestDevices *devices)
{
    GString *names = g_string_new(NULL);

    for (guint i = 0; i < devices->pending->len; i++)
        g_string_append_printf(names, "%s%s", i ? ", " : "", name_of(devices->pending->pdata[i]));
    return g_string_free(names, FALSE);
}
