/* The checks of network interfaces: see spec.h. */
#include <string.h>

#include "layout.h"
#include "spec.h"

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

static void check_bandwidth(VpSpecCheck *check, const PbInterface *interface, const PbBandwidth *bandwidth,
                            const char *field, size_t index)
{
    if (!bandwidth)
        return;
    if (interface->type != PB_INTERFACE_TYPE_BRIDGE)
        vp_spec_violation(check, "is for interfaces of type BRIDGE", "interfaces[%zu].%s", index, field);
    if (bandwidth->bytes_per_second == 0)
        vp_spec_violation(check, "must be set", "interfaces[%zu].%s.bytes_per_second", index, field);
}

/* What only a tap device has. */
static void check_tap(VpSpecCheck *check, const PbInterface *interface, size_t index)
{
    const gboolean fits = interface->type == PB_INTERFACE_TYPE_BRIDGE && interface->model != PB_INTERFACE_MODEL_E1000;
    g_autofree char *vhost = g_strdup_printf("interfaces[%zu].vhost", index);

    vp_spec_check_enum(check, &pb_vhost_mode__descriptor, (int)interface->vhost, vhost);
    if (interface->vhost == PB_VHOST_MODE_ON && !fits)
        vp_spec_violation(check, "is for interfaces of type BRIDGE and model VIRTIO", "%s", vhost);
    if (interface->queues > 1 && !fits)
        vp_spec_violation(check, "is for interfaces of type BRIDGE and model VIRTIO", "interfaces[%zu].queues", index);
    check_bandwidth(check, interface, interface->inbound, "inbound", index);
    check_bandwidth(check, interface, interface->outbound, "outbound", index);
}

static void check_one(VpSpecCheck *check, const PbInterface *interface, size_t index)
{
    g_autofree char *type = g_strdup_printf("interfaces[%zu].type", index);
    g_autofree char *model = g_strdup_printf("interfaces[%zu].model", index);

    vp_spec_check_enum(check, &pb_interface_type__descriptor, (int)interface->type, type);
    vp_spec_check_enum(check, &pb_interface_model__descriptor, (int)interface->model, model);
    check_tap(check, interface, index);
    if (interface->mac[0] && !mac_is_valid(interface->mac))
        vp_spec_violation(check, "must be the address of one host, as in \"52:54:00:12:34:56\"", "interfaces[%zu].mac",
                          index);
    if (interface->type == PB_INTERFACE_TYPE_BRIDGE && !interface->bridge[0])
        vp_spec_violation(check, "must name the bridge", "interfaces[%zu].bridge", index);
    if (interface->type != PB_INTERFACE_TYPE_BRIDGE && interface->bridge[0])
        vp_spec_violation(check, "is for interfaces of type BRIDGE", "interfaces[%zu].bridge", index);
    if (interface->slot > vp_layout_slots(check->spec->machine))
        vp_spec_violation(check, "this machine has not so many", "interfaces[%zu].slot", index);
}

static void check_pairs(VpSpecCheck *check, const PbInterface *interface, size_t index)
{
    const PbDomainSpec *spec = check->spec;

    for (size_t i = 0; i < index; i++) {
        const PbInterface *other = spec->interfaces[i];

        if (interface->mac[0] && g_ascii_strcasecmp(interface->mac, other->mac) == 0)
            vp_spec_violation(check, "is the address of another interface as well", "interfaces[%zu].mac", index);
        if (interface->slot && interface->slot == other->slot)
            vp_spec_violation(check, "is the slot of another interface as well", "interfaces[%zu].slot", index);
        if (interface->boot_index && interface->boot_index == other->boot_index)
            vp_spec_violation(check, "is that of another interface as well", "interfaces[%zu].boot_index", index);
    }
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (interface->slot && interface->slot == spec->disks[i]->slot &&
            vp_layout_disk_bus(spec->disks[i]) == VP_SLOT_BUS_PCI)
            vp_spec_violation(check, "is the slot of a disk as well", "interfaces[%zu].slot", index);
        if (interface->boot_index && interface->boot_index == spec->disks[i]->boot_index)
            vp_spec_violation(check, "is that of a disk as well", "interfaces[%zu].boot_index", index);
    }
}

void vp_spec_check_interfaces(VpSpecCheck *check)
{
    for (size_t i = 0; i < check->spec->n_interfaces; i++) {
        check_one(check, check->spec->interfaces[i], i);
        check_pairs(check, check->spec->interfaces[i], i);
    }
}
