/* The arguments of what the guest has of the host: folders, vsock, PCI devices. See arguments.h. */
#include "arguments.h"

void vp_args_shared_folder(VpArguments *args, guint index)
{
    const PbSharedFolder *folder = args->line->spec->shared_folders[index];
    g_autofree char *id = g_strdup_printf("fs%u", folder->slot);
    g_autofree char *chardev = g_strdup_printf("socket,id=%s,fd=%d", id, args->line->folder_fds[index]);
    json_t *device = json_pack("{s:s, s:s, s:s, s:s, s:i}", "driver", "vhost-user-fs-pci", "id", id, "chardev", id,
                               "tag", folder->tag, "queue-size", 1024);

    vp_args_slot(args, device, folder->slot);
    vp_args_add(args, "-chardev", chardev);
    vp_args_json(args, "-device", device);
}

void vp_args_vsock(VpArguments *args)
{
    const PbVsock *vsock = args->line->spec->vsock;
    g_autofree char *fd = g_strdup_printf("%d", args->line->vsock_fd);
    json_t *device = json_pack("{s:s, s:s, s:I, s:s}", "driver", "vhost-vsock-pci", "id", "vsock0", "guest-cid",
                               (json_int_t)vsock->cid, "vhostfd", fd);

    vp_args_slot(args, device, vsock->slot);
    vp_args_json(args, "-device", device);
}

void vp_args_host_device(VpArguments *args, guint index)
{
    const PbHostDevice *host = args->line->spec->host_devices[index];
    g_autofree char *id = g_strdup_printf("host%u", host->slot);
    json_t *device = json_pack("{s:s, s:s, s:s}", "driver", "vfio-pci", "id", id, "host", host->address);

    vp_args_slot(args, device, host->slot);
    if (host->boot_index)
        json_object_set_new(device, "bootindex", json_integer(host->boot_index));
    if (host->no_rom)
        json_object_set_new(device, "rombar", json_integer(0));
    vp_args_json(args, "-device", device);
}
