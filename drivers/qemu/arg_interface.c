/* A network interface's arguments. See arguments.h. */
#include "arguments.h"
#include "ids.h"

/* "3:4" */
static char *numbers(const int *fds, guint n)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < n; i++)
        g_string_append_printf(text, "%s%d", i ? ":" : "", fds[i]);
    return g_string_free(text, FALSE);
}

static char *tap(const char *id, const VpNicFds *fds)
{
    const gboolean many = fds->n_queues > 1;
    g_autofree char *taps = numbers(fds->tap_fds, fds->n_queues);
    g_autofree char *vhosts = numbers(fds->vhost_fds, fds->n_queues);
    GString *text = g_string_new(NULL);

    g_string_append_printf(text, "tap,id=%s,%s=%s", id, many ? "fds" : "fd", taps);
    if (fds->vhost_fds[0] >= 0)
        g_string_append_printf(text, ",vhost=on,%s=%s", many ? "vhostfds" : "vhostfd", vhosts);
    return g_string_free(text, FALSE);
}

static char *backend(const VpArguments *args, guint index)
{
    const PbInterface *interface = args->line->spec->interfaces[index];
    g_autofree char *id = vp_id_netdev(interface);

    switch (interface->type) {
    case PB_INTERFACE_TYPE_NONE:
        /* A hub with one port leads nowhere; the link itself is taken down over QMP before the guest runs. */
        return g_strdup_printf("hubport,id=%s,hubid=%u", id, interface->slot);
    case PB_INTERFACE_TYPE_BRIDGE:
        return tap(id, &args->line->nics[index]);
    case PB_INTERFACE_TYPE_PASST:
        return g_strdup_printf("stream,id=%s,server=off,addr.type=fd,addr.str=%d", id,
                               args->line->nics[index].stream_fd);
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

    if (interface->queues > 1) {
        json_object_set_new(device, "mq", json_true());
        /* Two a queue, one for its settings, one for what goes over all. */
        json_object_set_new(device, "vectors", json_integer(2 * (json_int_t)interface->queues + 2));
    }
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
