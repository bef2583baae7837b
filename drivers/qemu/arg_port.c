/* The arguments of ports: what the guest writes to or reads from, and what is at the other end. See arguments.h. */
#include "arguments.h"
#include "ids.h"
#include "layout.h"

/* The controller that virtio ports hang on, made with the first. */
static void need_serial_bus(VpArguments *args)
{
    if (args->has_serial_bus)
        return;
    json_t *controller = json_pack("{s:s, s:s}", "driver", "virtio-serial-pci", "id", "vserial");

    args->has_serial_bus = TRUE;
    vp_args_address(args, controller, VP_SLOT_SERIAL);
    vp_args_json(args, "-device", controller);
}

/* A socket that waits for a client, with a log of what comes out of the guest or without. */
static void add_chardev(VpArguments *args, const char *id, const VpPortFds *fds)
{
    GString *chardev = g_string_new(NULL);

    g_string_append_printf(chardev, "socket,id=%s,fd=%d,server=on,wait=off", id, fds->socket_fd);
    if (fds->log_fd >= 0) {
        g_autofree char *label = g_strdup_printf("%s-log", id);
        g_autofree char *path = vp_args_fd_set(args, fds->log_fd, label);

        g_string_append_printf(chardev, ",logfile=%s,logappend=on", path);
    }
    vp_args_add(args, "-chardev", chardev->str);
    g_string_free(chardev, TRUE);
}

void vp_args_serial_port(VpArguments *args, guint index)
{
    const PbSerialPort *port = args->line->spec->serial_ports[index];
    g_autofree char *id = g_strdup_printf("serial%u", index);

    add_chardev(args, id, &args->line->serial_ports[index]);
    if (port->model == PB_SERIAL_PORT_MODEL_VIRTIO) {
        need_serial_bus(args);
        vp_args_json(args, "-device",
                     json_pack("{s:s, s:s, s:s}", "driver", "virtconsole", "bus", "vserial.0", "chardev", id));
        return;
    }
    g_autofree char *serial = g_strdup_printf("chardev:%s", id);
    vp_args_add(args, "-serial", serial);
}

void vp_args_guest_agent(VpArguments *args)
{
    need_serial_bus(args);
    add_chardev(args, VP_ID_AGENT, &args->line->agent);
    vp_args_json(args, "-device",
                 json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "virtserialport", "id", VP_ID_AGENT, "bus",
                           "vserial.0", "chardev", VP_ID_AGENT, "name", "org.qemu.guest_agent.0"));
}
