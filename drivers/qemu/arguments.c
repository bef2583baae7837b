/* See arguments.h. */
#include "arguments.h"

#include <string.h>

/* Devices are functions of the root bus from slot 2 on, eight in a slot. */
#define FIRST_SLOT 2

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

void vp_args_address(VpArguments *args, json_t *device)
{
    const guint n = args->functions++;
    g_autofree char *address = g_strdup_printf("%x.%x", FIRST_SLOT + n / 8, n % 8);

    json_object_set_new(device, "addr", json_string(address));
    if (n % 8 == 0)
        json_object_set_new(device, "multifunction", json_true());
}

char *vp_args_fd_set(VpArguments *args, int fd, const char *label)
{
    const guint set = ++args->fd_sets;
    g_autofree char *add_fd = g_strdup_printf("fd=%d,set=%u,opaque=%s", fd, set, label);

    vp_args_add(args, "-add-fd", add_fd);
    return g_strdup_printf("/dev/fdset/%u", set);
}
