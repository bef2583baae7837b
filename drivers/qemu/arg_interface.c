/* A network interface's arguments. See arguments.h. */
#include "arguments.h"
#include "ids.h"

/* "3:4", or with names. */
static json_t *names(VpArguments *args, const char *id, const char *kind, const int *fds, guint n)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; i < n; i++) {
        g_autofree char *name = g_strdup_printf("%s-%s%u", id, kind, i);
        g_autofree char *known = vp_args_fd_name(args, fds[i], name);

        g_string_append_printf(text, "%s%s", i ? ":" : "", known);
    }
    return json_string(text->str);
}

static json_t *tap(VpArguments *args, const char *id, const VpNicFds *fds)
{
    const gboolean many = fds->n_queues > 1;
    json_t *netdev = json_pack("{s:s, s:s, s:o}", "type", "tap", "id", id, many ? "fds" : "fd",
                               names(args, id, "tap", fds->tap_fds, fds->n_queues));

    if (fds->vhost_fds[0] >= 0) {
        json_object_set_new(netdev, "vhost", json_true());
        json_object_set_new(netdev, many ? "vhostfds" : "vhostfd",
                            names(args, id, "vhost", fds->vhost_fds, fds->n_queues));
    }
    return netdev;
}

static json_t *passt(VpArguments *args, const char *id, int fd)
{
    g_autofree char *name = g_strdup_printf("%s-passt", id);
    g_autofree char *known = vp_args_fd_name(args, fd, name);

    /* A stream connects on a thread of its own, which knows no names of descriptors; what a running QEMU is given has no other. The frames are the same. */
    if (args->commands)
        return json_pack("{s:s, s:s, s:s}", "type", "socket", "id", id, "fd", known);
    return json_pack("{s:s, s:s, s:b, s:{s:s, s:s}}", "type", "stream", "id", id, "server", 0, "addr", "type", "fd",
                     "str", known);
}

static json_t *backend(VpArguments *args, guint index)
{
    const PbInterface *interface = args->line->spec->interfaces[index];
    g_autofree char *id = vp_id_netdev(interface);

    switch (interface->type) {
    case PB_INTERFACE_TYPE_NONE:
        /* A hub with one port leads nowhere; the link itself is taken down over QMP. */
        return json_pack("{s:s, s:s, s:i}", "type", "hubport", "id", id, "hubid", (int)interface->slot);
    case PB_INTERFACE_TYPE_BRIDGE:
        return tap(args, id, &args->line->nics[index]);
    case PB_INTERFACE_TYPE_PASST:
        return passt(args, id, args->line->nics[index].stream_fd);
    default:
        return json_pack("{s:s, s:s}", "type", "user", "id", id);
    }
}

void vp_args_interface(VpArguments *args, guint index)
{
    const PbInterface *interface = args->line->spec->interfaces[index];
    g_autofree char *netdev = vp_id_netdev(interface);
    g_autofree char *id = vp_id_nic(interface);
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
    vp_args_netdev(args, backend(args, index));
    vp_args_json(args, "-device", device);
}
