/* A network interface's arguments. See arguments.h. */
#include "arguments.h"

void vp_args_interface(VpArguments *args, guint index)
{
    const PbInterface *interface = args->line->spec->interfaces[index];
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
    vp_args_address(args, device);
    vp_args_add(args, "-netdev", backend);
    vp_args_json(args, "-device", device);
}
