/* QEMU's arguments as a whole: see command_line.h. What a kind of device needs is in a file of its own, arg_KIND.c. */
#include "command_line.h"

#include "arguments.h"

static VpError *add_all(VpArguments *args)
{
    const PbDomainSpec *spec = args->line->spec;
    VpError *error = NULL;

    vp_args_add(args, args->line->binary, NULL);
    vp_args_machine(args);
    vp_args_actions(args);
    vp_args_panic(args);
    vp_args_ports(args);
    for (guint i = 0; i < spec->n_disks && !error; i++)
        error = vp_args_disk(args, i);
    if (error)
        return error;
    for (guint i = 0; i < spec->n_interfaces; i++)
        vp_args_interface(args, i);
    for (guint i = 0; i < spec->n_shared_folders; i++)
        vp_args_shared_folder(args, i);
    if (spec->vsock)
        vp_args_vsock(args);
    for (guint i = 0; i < spec->n_host_devices; i++)
        vp_args_host_device(args, i);
    for (guint i = 0; i < spec->n_serial_ports; i++)
        vp_args_serial_port(args, i);
    if (spec->guest_agent)
        vp_args_guest_agent(args);
    if (spec->firmware && spec->firmware->type == PB_FIRMWARE_TYPE_UEFI)
        vp_args_firmware(args);
    if (spec->kernel && spec->kernel->kernel_path[0])
        vp_args_kernel(args);
    vp_args_screen(args);
    vp_args_usb_devices(args);
    if (spec->tpm)
        vp_args_tpm(args);
    if (spec->rng)
        vp_args_rng(args);
    if (spec->watchdog)
        vp_args_watchdog(args);
    if (!spec->memory || !spec->memory->no_balloon)
        vp_args_balloon(args);
    for (size_t i = 0; i < spec->n_arguments; i++)
        vp_args_add(args, spec->arguments[i], NULL);
    return NULL;
}

VpError *vp_command_line(const VpCommandLine *line, char ***ret_argv)
{
    VpArguments args = {.line = line, .argv = g_ptr_array_new_with_free_func(g_free)};
    VpError *error = add_all(&args);

    if (error) {
        g_ptr_array_unref(args.argv);
        return error;
    }
    g_ptr_array_add(args.argv, NULL);
    *ret_argv = (char **)g_ptr_array_free(args.argv, FALSE);
    return NULL;
}
