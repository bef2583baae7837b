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

/* The command that does for a running domain what the option does. */
static const char *command_of(const char *option)
{
    static const char *const commands[][2] = {{"-blockdev", "blockdev-add"},
                                              {"-object", "object-add"},
                                              {"-device", "device_add"},
                                              {"-netdev", "netdev_add"}};

    for (gsize i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(commands[i][0], option) == 0)
            return commands[i][1];
    }
    g_assert_not_reached();
}

static void add_command(VpArguments *args, const char *command, json_t *arguments, int fd)
{
    json_t *added = json_pack("{s:s, s:o}", "execute", command, "arguments", arguments);

    if (fd >= 0)
        json_object_set_new(added, "fd", json_integer(fd));
    json_array_append_new(args->commands, added);
}

void vp_args_json(VpArguments *args, const char *option, json_t *value)
{
    if (args->commands) {
        add_command(args, command_of(option), value, -1);
        return;
    }
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

    if (args->commands) {
        add_command(args, "add-fd", json_pack("{s:i, s:s}", "fdset-id", (int)set, "opaque", label), fd);
        return g_strdup_printf("/dev/fdset/%u", set);
    }
    g_autofree char *add_fd = g_strdup_printf("fd=%d,set=%u,opaque=%s", fd, set, label);

    vp_args_add(args, "-add-fd", add_fd);
    return g_strdup_printf("/dev/fdset/%u", set);
}

char *vp_args_fd_name(VpArguments *args, int fd, const char *name)
{
    if (!args->commands)
        return g_strdup_printf("%d", fd);
    add_command(args, "getfd", json_pack("{s:s}", "fdname", name), fd);
    return g_strdup(name);
}

/* As in "tap,vhost=on,addr.type=fd", which every QEMU takes; of JSON here only newer ones know. */
static void append_pairs(GString *text, const char *prefix, json_t *object)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        g_autofree char *name = g_strconcat(prefix, key, NULL);

        if (json_is_object(value)) {
            g_autofree char *inner = g_strconcat(name, ".", NULL);

            append_pairs(text, inner, value);
        } else if (json_is_string(value)) {
            g_autofree char *quoted = vp_args_quoted(json_string_value(value));

            /* The type comes first, and needs no name. */
            if (text->len > 0)
                g_string_append_printf(text, ",%s=", name);
            g_string_append(text, quoted);
        } else if (json_is_integer(value)) {
            g_string_append_printf(text, ",%s=%" JSON_INTEGER_FORMAT, name, json_integer_value(value));
        } else {
            g_string_append_printf(text, ",%s=%s", name, json_is_true(value) ? "on" : "off");
        }
    }
}

void vp_args_netdev(VpArguments *args, json_t *netdev)
{
    if (args->commands) {
        vp_args_json(args, "-netdev", netdev);
        return;
    }
    GString *text = g_string_new(NULL);

    append_pairs(text, "", netdev);
    vp_args_add(args, "-netdev", text->str);
    g_string_free(text, TRUE);
    json_decref(netdev);
}
