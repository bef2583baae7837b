/* Devices that go from a domain that runs, once its guest lets go of them: see change_parts.h. */
#include "change_parts.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "drivers/spec_change.h"
#include "ids.h"
#include "live_commands.h"
#include "live_read.h"
#include "sizes.h"

/* ---- what is pending ---- */

/* As events and errors name it; owned by the caller. */
static char *name_of(const PbPendingDetach *detach)
{
    switch (detach->device_case) {
    case PB_PENDING_DETACH__DEVICE_DISK_TARGET:
        return g_strdup(detach->disk_target);
    case PB_PENDING_DETACH__DEVICE_INTERFACE_MAC:
        return g_strdup(detach->interface_mac);
    case PB_PENDING_DETACH__DEVICE_VCPUS:
        return g_strdup("vcpus");
    default:
        return g_strdup("memory");
    }
}

static gboolean is_named(const PbPendingDetach *detach, PbPendingDetach__DeviceCase kind, const char *name)
{
    g_autofree char *own = name_of(detach);

    return detach->device_case == kind && g_ascii_strcasecmp(own, name) == 0;
}

static PbPendingDetach *find_pending(const VpQemuDomain *domain, PbPendingDetach__DeviceCase kind, const char *name)
{
    const GPtrArray *pending = domain->devices->pending;

    for (guint i = 0; i < pending->len; i++) {
        if (is_named(pending->pdata[i], kind, name))
            return pending->pdata[i];
    }
    return NULL;
}

char *vp_detach_names(const GPtrArray *awaited)
{
    GString *names = g_string_new(NULL);

    for (guint i = 0; i < awaited->len; i++)
        g_string_append_printf(names, "%s%s", i ? ", " : "", (const char *)awaited->pdata[i]);
    return g_string_free(names, FALSE);
}

void vp_detach_settle(VpQemuDomain *domain, PbPendingDetach__DeviceCase kind, const char *name, VpError *error)
{
    VpQemuChange *change = domain->devices->change;
    PbPendingDetach *detach = find_pending(domain, kind, name);
    guint at = 0;

    if (detach)
        g_ptr_array_remove(domain->devices->pending, detach);
    if (!change || !g_ptr_array_find_with_equal_func(change->awaited, name, g_str_equal, &at)) {
        vp_error_free(error);
        return;
    }
    g_ptr_array_remove_index(change->awaited, at);
    if (change->waiting && (error || change->awaited->len == 0)) {
        change->waiting = FALSE;
        vp_qemu_change_step_done(change, error);
    } else if (!change->error) {
        change->error = error;
    } else {
        vp_error_free(error);
    }
}

/* ---- asking ---- */

typedef struct Ask {
    VpQemuDomain *domain; /* a reference */
    VpQemuChange *change; /* a reference; NULL: what an earlier connection has asked for is asked again */
    PbPendingDetach__DeviceCase kind;
    char *name;
    guint left;     /* devices that QEMU has not answered for */
    gboolean taken; /* asked again: QEMU has passed it on to the guest */
    VpError *error;
} Ask;

static Ask *ask_new(VpQemuDomain *domain, VpQemuChange *change, const PbPendingDetach *detach, guint n)
{
    Ask *ask = g_new(Ask, 1);

    *ask = (Ask){
        .domain = vp_qemu_domain_ref(domain),
        .change = change ? vp_qemu_change_ref(change) : NULL,
        .kind = detach->device_case,
        .name = name_of(detach),
        .left = n,
    };
    return ask;
}

static void ask_end(Ask *ask, VpError *error)
{
    VpQemuChange *change = ask->change;

    vp_qemu_domain_unref(ask->domain);
    g_free(ask->name);
    g_free(ask);
    if (!change) {
        vp_error_free(error);
        return;
    }
    vp_qemu_change_step_done(change, error);
    vp_qemu_change_unref(change);
}

/* QEMU's words for a guest that was asked before. */
static gboolean was_asked(const VpError *error)
{
    return error->code == VP_FAILED_PRECONDITION && strstr(error->message, "already in the process of unplug");
}

/* More words for one that is at it, and for a device that has gone since QEMU was asked for what there is. */
static gboolean goes_already(const VpError *error)
{
    return strstr(error->message, "guest is busy") || g_strcmp0(vp_error_get(error, "class"), "DeviceNotFound") == 0;
}

static void tell_refused(Ask *ask, VpError *error_of_waiting)
{
    vp_detach_settle(ask->domain, ask->kind, ask->name, error_of_waiting);
    vp_qemu_devices_report(ask->domain, PB_EVENT_TYPE_DEVICE_REMOVE_FAILED, "REFUSED", ask->name, NULL);
}

/* Counts an answer of QEMU's; `error`, which is consumed, is one that counts. TRUE with the last one: the first error is the caller's then. */
static gboolean is_last_answer(Ask *ask, VpError *error, VpError **ret_first)
{
    if (ask->error)
        vp_error_free(error);
    else
        ask->error = error;
    if (--ask->left > 0)
        return FALSE;
    *ret_first = g_steal_pointer(&ask->error);
    return TRUE;
}

static void on_asked(void *data, json_t *result, VpError *error)
{
    Ask *ask = data;

    (void)result;
    if (error && was_asked(error))
        g_clear_pointer(&error, vp_error_free);
    if (!is_last_answer(ask, error, &error))
        return;
    /* Without an answer it may have been asked or not: that is looked at when QEMU is there again. */
    if (error && error->code == VP_FAILED_PRECONDITION) {
        vp_error_prefix(error, "%s cannot be detached", ask->name);
        tell_refused(ask, NULL);
    }
    ask_end(ask, error);
}

static void on_asked_again(void *data, json_t *result, VpError *error)
{
    Ask *ask = data;
    VpQemuDomain *domain = ask->domain;

    (void)result;
    ask->taken = ask->taken || !error;
    if (error && (was_asked(error) || goes_already(error)))
        g_clear_pointer(&error, vp_error_free);
    if (!is_last_answer(ask, error, &error))
        return;
    PbPendingDetach *detach = find_pending(domain, ask->kind, ask->name);
    if (!detach || domain->phase != VP_PHASE_UP) {
        ask_end(ask, error);
        return;
    }
    if (error && error->code == VP_FAILED_PRECONDITION) {
        tell_refused(ask, vp_error_prefix(g_steal_pointer(&error), "%s cannot be detached", ask->name));
    } else if (!error && ask->taken) {
        vp_pb_free(detach->request_time);
        detach->request_time = vp_pb_timestamp(vp_wall_us());
        vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_REMOVE_REQUESTED, "ASKED_AGAIN", ask->name, NULL);
    }
    ask_end(ask, error);
}

static void send_ask(Ask *ask, const char *const *ids, guint n, VpQmpDone done)
{
    VpQmp *qmp = ask->domain->qmp;

    for (guint i = 0; i < n; i++)
        vp_qmp_execute(qmp, "device_del", json_pack("{s:s}", "id", ids[i]), 0, done, ask);
}

void vp_detach_ask(VpQemuChange *change, const char *const *ids, guint n, PbPendingDetach *detach)
{
    VpQemuDomain *domain = change->domain;
    Ask *ask = ask_new(domain, change, detach, n);
    PbPendingDetach *before = find_pending(domain, detach->device_case, ask->name);

    if (before)
        g_ptr_array_remove(domain->devices->pending, before);
    detach->request_time = vp_pb_timestamp(vp_wall_us());
    detach->stored = change->stored;
    g_ptr_array_add(domain->devices->pending, detach);
    if (!g_ptr_array_find_with_equal_func(change->awaited, ask->name, g_str_equal, NULL))
        g_ptr_array_add(change->awaited, g_strdup(ask->name));
    vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_REMOVE_REQUESTED, "REQUESTED", ask->name, NULL);
    if (domain->qmp)
        send_ask(ask, ids, n, on_asked);
    else
        ask_end(ask, vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE", "QEMU does not answer"));
}

/* The one, if it is there; owned by the caller, and `id` is taken over. */
static GPtrArray *one_of(json_t *peripherals, char *id)
{
    GPtrArray *ids = g_ptr_array_new_with_free_func(g_free);

    if (id && vp_live_has(peripherals, id))
        g_ptr_array_add(ids, id);
    else
        g_free(id);
    return ids;
}

/* What of it there is still, by the names that device_del takes; owned by the caller, to be freed before the answers. */
static GPtrArray *still_there(const VpQemuDomain *domain, const PbPendingDetach *detach, const VpPresent *present)
{
    const PbDisk *disk;
    const PbInterface *interface;
    guint64 now;

    switch (detach->device_case) {
    case PB_PENDING_DETACH__DEVICE_DISK_TARGET:
        disk = vp_spec_find_disk(domain->live, detach->disk_target);
        return one_of(present->peripherals, disk ? vp_id_disk(disk) : NULL);
    case PB_PENDING_DETACH__DEVICE_INTERFACE_MAC:
        interface = vp_spec_find_interface(domain->live, detach->interface_mac);
        return one_of(present->peripherals, interface ? vp_id_nic(interface) : NULL);
    case PB_PENDING_DETACH__DEVICE_VCPUS:
        now = vp_sizes_vcpus(present->cpus);
        return vp_sizes_last_vcpus(present->cpus, now > detach->vcpus ? (guint)now - detach->vcpus : 0);
    default:
        now = vp_sizes_memory(present->memory);
        return vp_sizes_leaving_dimms(present->dimms, now > detach->memory_bytes ? now - detach->memory_bytes : 0,
                                      &now);
    }
}

void vp_detach_ask_again(VpQemuDomain *domain, const VpPresent *present)
{
    const GPtrArray *pending = domain->devices->pending;

    for (guint i = 0; i < pending->len && domain->qmp; i++) {
        const PbPendingDetach *detach = pending->pdata[i];
        g_autoptr(GPtrArray) ids = still_there(domain, detach, present);

        if (ids->len > 0)
            send_ask(ask_new(domain, NULL, detach, ids->len), (const char *const *)ids->pdata, ids->len,
                     on_asked_again);
    }
}

void vp_step_detach_disk(VpQemuChange *change, const char *target)
{
    const PbDisk *disk = vp_spec_find_disk(change->domain->live, target);

    if (!disk) {
        vp_qemu_change_step_done(change, NULL);
        return;
    }
    g_autofree char *id = vp_id_disk(disk);
    PbPendingDetach *detach = vp_pb_new(&pb_pending_detach__descriptor);
    detach->device_case = PB_PENDING_DETACH__DEVICE_DISK_TARGET;
    vp_pb_set(&detach->disk_target, target);
    vp_detach_ask(change, (const char *const[]){id}, 1, detach);
}

void vp_step_detach_interface(VpQemuChange *change, const char *mac)
{
    const PbInterface *interface = vp_spec_find_interface(change->domain->live, mac);

    if (!interface) {
        vp_qemu_change_step_done(change, NULL);
        return;
    }
    g_autofree char *id = vp_id_nic(interface);
    PbPendingDetach *detach = vp_pb_new(&pb_pending_detach__descriptor);
    detach->device_case = PB_PENDING_DETACH__DEVICE_INTERFACE_MAC;
    vp_pb_set(&detach->interface_mac, mac);
    vp_detach_ask(change, (const char *const[]){id}, 1, detach);
}

/* ---- gone ---- */

/* What was behind a device that has gone: it goes as well, and then the device is told to be gone. */
typedef struct Going {
    VpQemuDomain *domain; /* a reference */
    PbPendingDetach__DeviceCase kind;
    char *name;
    const char *reason;
    char *nodes; /* of a disk */
    char *secret;
    json_t *named_nodes;
} Going;

static void going_free(Going *going)
{
    json_decref(going->named_nodes);
    vp_qemu_domain_unref(going->domain);
    g_free(going->nodes);
    g_free(going->secret);
    g_free(going->name);
    g_free(going);
}

static void on_gone(void *data, VpError *error)
{
    Going *going = data;
    VpQemuDomain *domain = going->domain;

    /* With the connection or the process lost, it is seen again when QEMU is asked the next time. */
    vp_error_free(error);
    if (domain->phase == VP_PHASE_UP && domain->qmp) {
        if (going->kind == PB_PENDING_DETACH__DEVICE_DISK_TARGET) {
            vp_spec_remove_disk(domain->live, going->name);
            vp_qemu_devices_set_status(domain, going->name, NULL);
        } else {
            vp_spec_remove_interface(domain->live, going->name);
        }
        PbPendingDetach *detach = find_pending(domain, going->kind, going->name);
        if (detach)
            g_ptr_array_remove(domain->devices->pending, detach);
        vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_REMOVED, going->reason, going->name, NULL);
        vp_detach_settle(domain, going->kind, going->name, NULL);
    }
    going_free(going);
}

static void on_fdsets(void *data, json_t *result, VpError *error)
{
    Going *going = data;
    json_t *commands = vp_live_remove_nodes(going->named_nodes, result, going->nodes);

    if (going->secret)
        json_array_append_new(commands,
                              json_pack("{s:s, s:{s:s}}", "execute", "object-del", "arguments", "id", going->secret));
    vp_error_free(error);
    vp_script_try(going->domain, commands, on_gone, going);
}

static void on_nodes(void *data, json_t *result, VpError *error)
{
    Going *going = data;

    vp_error_free(error);
    going->named_nodes = json_incref(result);
    if (going->domain->qmp)
        vp_qmp_execute(going->domain->qmp, "query-fdsets", NULL, 0, on_fdsets, going);
    else
        on_gone(going, NULL);
}

static Going *going_new(VpQemuDomain *domain, PbPendingDetach__DeviceCase kind, const char *name, const char *reason)
{
    Going *going = g_new0(Going, 1);
    const gboolean asked = find_pending(domain, kind, name) != NULL;

    *going = (Going){
        .domain = vp_qemu_domain_ref(domain),
        .kind = kind,
        .name = g_strdup(name),
        .reason = reason  ? reason
                  : asked ? "REQUESTED"
                          : "GUEST_REQUEST",
    };
    return going;
}

static void disk_gone(VpQemuDomain *domain, const PbDisk *disk, const char *reason)
{
    Going *going = going_new(domain, PB_PENDING_DETACH__DEVICE_DISK_TARGET, disk->target, reason);

    going->nodes = vp_id_disk_nodes(disk, vp_medium_side(domain, disk->target));
    going->secret = disk->secret[0] ? vp_id_secret(disk) : NULL;
    vp_qmp_execute(domain->qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), 0, on_nodes, going);
}

static void interface_gone(VpQemuDomain *domain, const PbInterface *interface, const char *reason)
{
    Going *going = going_new(domain, PB_PENDING_DETACH__DEVICE_INTERFACE_MAC, interface->mac, reason);
    g_autofree char *netdev = vp_id_netdev(interface);
    json_t *commands = json_array();

    json_array_append_new(commands, json_pack("{s:s, s:{s:s}}", "execute", "netdev_del", "arguments", "id", netdev));
    vp_script_try(domain, commands, on_gone, going);
}

static const PbDisk *disk_of_id(const VpQemuDomain *domain, const char *id)
{
    return g_str_has_prefix(id, VP_ID_DISK) ? vp_spec_find_disk(domain->live, id + strlen(VP_ID_DISK)) : NULL;
}

static const PbInterface *interface_of_id(const VpQemuDomain *domain, const char *id)
{
    for (size_t i = 0; i < domain->live->n_interfaces; i++) {
        g_autofree char *own = vp_id_nic(domain->live->interfaces[i]);

        if (g_str_equal(own, id))
            return domain->live->interfaces[i];
    }
    return NULL;
}

gboolean vp_detach_gone(VpQemuDomain *domain, const char *id, const char *reason)
{
    const PbDisk *disk = disk_of_id(domain, id);
    const PbInterface *interface = interface_of_id(domain, id);

    if ((!disk && !interface) || !domain->qmp)
        return FALSE;
    if (disk)
        disk_gone(domain, disk, reason);
    else
        interface_gone(domain, interface, reason);
    return TRUE;
}

/* What the guest was asked for by this name, of which more than one device may be a part. */
static gboolean refused(VpQemuDomain *domain, PbPendingDetach__DeviceCase kind, const char *name)
{
    PbPendingDetach *detach = find_pending(domain, kind, name);

    if (!detach)
        return TRUE;
    g_ptr_array_remove(domain->devices->pending, detach);
    vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_REMOVE_FAILED, "GUEST_REFUSED", name, NULL);
    vp_detach_settle(domain, kind, name,
                     vp_error_new(VP_FAILED_PRECONDITION, "GUEST_REFUSED",
                                  "the guest has refused to let go of %s; see its own log for why", name));
    return TRUE;
}

gboolean vp_detach_refused(VpQemuDomain *domain, const char *id)
{
    const PbDisk *disk = disk_of_id(domain, id);
    const PbInterface *interface = interface_of_id(domain, id);
    g_autofree char *name = g_strdup(disk ? disk->target : interface ? interface->mac : NULL);

    if (disk)
        return refused(domain, PB_PENDING_DETACH__DEVICE_DISK_TARGET, name);
    if (interface)
        return refused(domain, PB_PENDING_DETACH__DEVICE_INTERFACE_MAC, name);
    if (g_str_has_prefix(id, VP_ID_DIMM))
        return refused(domain, PB_PENDING_DETACH__DEVICE_MEMORY_BYTES, "memory");
    return g_str_has_prefix(id, VP_ID_CPU) && refused(domain, PB_PENDING_DETACH__DEVICE_VCPUS, "vcpus");
}
