/* See arguments.h. */
#include "arguments.h"

#include <string.h>

#include "layout.h"

void vp_args_add(VpArguments *args, const char *option, const char *value)
{
    g_ptr_array_add(args->argv, g_strdup(option));
    if (value)
        g_ptr_array_add(args->argv, g_strdup(value));
}

void vp_args_json(VpArguments *args, const char *option, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER);

    vp_args_add(args, option, text);
    free(text);
    json_decref(value);
}

char *vp_args_quoted(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);

    return g_strjoinv(",,", parts);
}

gboolean vp_args_is_x86(const VpArguments *args)
{
    return strcmp(args->line->architecture, "x86_64") == 0;
}

const char *vp_args_machine_type(const VpArguments *args)
{
    const char *wanted = args->line->spec->machine;

    if (wanted[0])
        return wanted;
    return vp_args_is_x86(args) ? "q35" : "virt";
}

static const char *root_bus(const VpArguments *args)
{
    return vp_layout_has_pcie(vp_args_machine_type(args)) ? "pcie.0" : "pci.0";
}

void vp_args_address(const VpArguments *args, json_t *device, guint slot)
{
    g_autofree char *address = g_strdup_printf("%x.0", slot);

    json_object_set_new(device, "bus", json_string(root_bus(args)));
    json_object_set_new(device, "addr", json_string(address));
}

void vp_args_slot(const VpArguments *args, json_t *device, guint slot)
{
    if (!vp_layout_has_pcie(vp_args_machine_type(args))) {
        vp_args_address(args, device, VP_SLOT_FREE + slot - 1);
        return;
    }
    g_autofree char *port = g_strdup_printf("slot%u", slot);

    json_object_set_new(device, "bus", json_string(port));
    json_object_set_new(device, "addr", json_string("0.0"));
}

static guint last_slot(const PbDomainSpec *spec)
{
    VpPciPlace places[VP_PCI_PLACES];
    const guint n = vp_layout_pci(spec, places);
    guint last = 0;

    for (guint i = 0; i < n; i++)
        last = MAX(last, *places[i].slot);
    return last;
}

void vp_args_ports(VpArguments *args)
{
    const PbDomainSpec *spec = args->line->spec;
    const guint spare = spec->hotplug_slots ? spec->hotplug_slots : VP_SPARE_SLOTS;
    const guint ports = MIN(last_slot(spec) + spare, VP_PCIE_SLOTS);

    if (!vp_layout_has_pcie(vp_args_machine_type(args)))
        return;
    for (guint i = 0; i < ports; i++) {
        g_autofree char *id = g_strdup_printf("slot%u", i + 1);
        g_autofree char *address = g_strdup_printf("%x.%x", VP_SLOT_FREE + i / 8, i % 8);

        vp_args_json(args, "-device",
                     json_pack("{s:s, s:s, s:i, s:s, s:s, s:b}", "driver", "pcie-root-port", "id", id, "chassis",
                               (int)i + 1, "bus", "pcie.0", "addr", address, "multifunction", i % 8 == 0));
    }
}

char *vp_args_fd_set(VpArguments *args, int fd, const char *label)
{
    const guint set = ++args->fd_sets;
    g_autofree char *add_fd = g_strdup_printf("fd=%d,set=%u,opaque=%s", fd, set, label);

    vp_args_add(args, "-add-fd", add_fd);
    return g_strdup_printf("/dev/fdset/%u", set);
}
