/* A network interface's arguments. See arguments.h. */
#include "arguments.h"
#include "ids.h"

static char *backend(const VpArguments *args, guint index)
{
    const PbInterface *interface = args->line->spec->interfaces[index];
    g_autofree char *id = vp_id_netdev(interface);

    switch (interface->type) {
    case PB_INTERFACE_TYPE_NONE:
        /* A hub with one port leads nowhere; the link itself is taken down over QMP before the guest runs. */
        return g_strdup_printf("hubport,id=%s,hubid=%u", id, interface->slot);
    case PB_INTERFACE_TYPE_BRIDGE:
        return g_strdup_printf("tap,id=%s,fd=%d", id, args->line->tap_fds[index]);
    default:
        return g_strdup_printf("user,id=%s", id);
    }
}

void vp_args_interface(VpArguments *args, guint index)
{
    const PbInterface *interface = args->line->spec->interfaces[index];
    g_autofree char *netdev = vp_id_netdev(interface);
    g_autofree char *id = vp_id_nic(interface);
    g_autofree char *behind = backend(args, index);
    json_t *device = json_pack("{s:s, s:s, s:s}", "driver",
                               interface->model == PB_INTERFACE_MODEL_E1000 ? "e1000" : "virtio-net-pci", "id", id,
                               "netdev", netdev);

    /* What is not to boot from the network needs no program for it. */
    if (interface->boot_index)
        json_object_set_new(device, "bootindex", json_integer(interface->boot_index));
    else
        json_object_set_new(device, "romfile", json_string(""));
    if (interface->mac[0])
        json_object_set_new(device, "mac", json_string(interface->mac));
    vp_args_slot(args, device, interface->slot);
    vp_args_add(args, "-netdev", behind);
    vp_args_json(args, "-device", device);
}
