/* QEMU's arguments as a whole: see command_line.h. What a kind of device needs is in the file of its own, arg_KIND.c. */
#include "command_line.h"

#include "arguments.h"

#define DEFAULT_MEMORY_MIB 512

static void add_machine(VpArguments *args)
{
    const VpCommandLine *line = args->line;
    const guint64 memory_mib = line->spec->memory_bytes ? line->spec->memory_bytes / 1024 / 1024 : DEFAULT_MEMORY_MIB;
    g_autofree char *name = vp_args_quoted(line->name);
    g_autofree char *guest = g_strdup_printf("guest=%s,process=qemu-%.10s", name, line->uid);
    g_autofree char *type = vp_args_quoted(vp_args_machine_type(args));
    g_autofree char *machine =
        g_strdup_printf("%s,accel=%s", type, line->accelerator == PB_ACCELERATOR_KVM ? "kvm" : "tcg");
    g_autofree char *size = g_strdup_printf("size=%" G_GUINT64_FORMAT "M", memory_mib);
    g_autofree char *cpus = g_strdup_printf("cpus=%u", line->spec->vcpus ? line->spec->vcpus : 1);

    vp_args_add(args, "-nodefaults", NULL);
    vp_args_add(args, "-no-user-config", NULL);
    vp_args_add(args, "-S", NULL);
    vp_args_add(args, "-name", guest);
    vp_args_add(args, "-uuid", line->uid);
    vp_args_add(args, "-machine", machine);
    vp_args_add(args, "-cpu", line->cpu);
    vp_args_add(args, "-m", size);
    vp_args_add(args, "-smp", cpus);
    vp_args_add(args, "-display", "none");
    vp_args_add(args, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    vp_args_add(args, "-msg", "timestamp=on");

    g_autofree char *chardev = g_strdup_printf("socket,id=qmp,fd=%d,server=on,wait=off", line->qmp_fd);
    vp_args_add(args, "-chardev", chardev);
    vp_args_add(args, "-mon", "chardev=qmp,mode=control");
}

VpError *vp_command_line(const VpCommandLine *line, char ***ret_argv)
{
    VpArguments args = {.line = line, .argv = g_ptr_array_new_with_free_func(g_free)};
    VpError *error = NULL;

    vp_args_add(&args, line->binary, NULL);
    add_machine(&args);
    if (vp_args_is_x86(&args))
        vp_args_add(&args, "-device", "pvpanic"); /* tells us of a guest's panic */
    for (guint i = 0; i < line->spec->n_disks && !error; i++)
        error = vp_args_disk(&args, i);
    for (guint i = 0; i < line->spec->n_interfaces && !error; i++)
        vp_args_interface(&args, i);
    for (guint i = 0; i < line->spec->n_serial_ports && !error; i++)
        vp_args_serial_port(&args, i);
    if (line->spec->kernel && line->spec->kernel->kernel_path[0])
        vp_args_kernel(&args);
    if (error) {
        g_ptr_array_unref(args.argv);
        return error;
    }
    g_ptr_array_add(args.argv, NULL);
    *ret_argv = (char **)g_ptr_array_free(args.argv, FALSE);
    return NULL;
}
