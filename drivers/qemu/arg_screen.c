/* The arguments of the screen, of what shows it, and of USB. See arguments.h. */
#include "arguments.h"
#include "ids.h"
#include "layout.h"

static void add_graphics(VpArguments *args, PbGraphicsType type)
{
    const char *folder = args->line->screen_path;
    g_autofree char *vnc = g_strdup_printf("unix:%s/vnc.sock", folder);
    g_autofree char *spice = g_strdup_printf("unix=on,addr=%s/spice.sock,disable-ticketing=on", folder);

    if (type == PB_GRAPHICS_TYPE_VNC)
        vp_args_add(args, "-vnc", vnc);
    else
        vp_args_add(args, "-spice", spice);
}

static const char *video_driver(const VpArguments *args)
{
    switch (args->line->spec->video) {
    case PB_VIDEO_MODEL_NONE:
        return NULL;
    case PB_VIDEO_MODEL_VIRTIO:
        return vp_args_is_x86(args) ? "virtio-vga" : "virtio-gpu-pci";
    case PB_VIDEO_MODEL_QXL:
        return "qxl-vga";
    case PB_VIDEO_MODEL_VGA:
        return "VGA";
    default:
        return args->line->spec->n_graphics == 0 ? NULL : vp_args_is_x86(args) ? "VGA" : "virtio-gpu-pci";
    }
}

void vp_args_screen(VpArguments *args)
{
    const PbDomainSpec *spec = args->line->spec;
    const char *driver = video_driver(args);

    for (size_t i = 0; i < spec->n_graphics; i++)
        add_graphics(args, spec->graphics[i]);
    if (!driver)
        return;
    json_t *device = json_pack("{s:s, s:s}", "driver", driver, "id", VP_ID_VIDEO);

    vp_args_address(args, device, VP_SLOT_VIDEO);
    vp_args_json(args, "-device", device);
}

void vp_args_need_usb(VpArguments *args)
{
    if (args->has_usb)
        return;
    json_t *controller = json_pack("{s:s, s:s, s:i, s:i}", "driver", "qemu-xhci", "id", "usb", "p2", 15, "p3", 15);

    args->has_usb = TRUE;
    vp_args_address(args, controller, VP_SLOT_USB);
    vp_args_json(args, "-device", controller);
}

void vp_args_usb_devices(VpArguments *args)
{
    static const char *const drivers[] = {
        [PB_USB_DEVICE_TABLET] = "usb-tablet",
        [PB_USB_DEVICE_KEYBOARD] = "usb-kbd",
        [PB_USB_DEVICE_MOUSE] = "usb-mouse",
    };
    const PbDomainSpec *spec = args->line->spec;

    for (size_t i = 0; i < spec->n_usb_devices; i++) {
        const char *driver = drivers[spec->usb_devices[i]];
        g_autofree char *id = g_strdup_printf("usb%zu", i);
        g_autofree char *port = g_strdup_printf("%zu", i + 1);

        vp_args_need_usb(args);
        if (driver)
            vp_args_json(args, "-device",
                         json_pack("{s:s, s:s, s:s, s:s}", "driver", driver, "id", id, "bus", "usb.0", "port", port));
    }
}
