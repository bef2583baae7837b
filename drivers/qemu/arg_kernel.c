/* The arguments of a kernel that QEMU loads itself. See arguments.h. */
#include "arguments.h"

/* QEMU reads these by their paths. Below /proc/self/fd that is the file that was opened, whatever has its name by now. */
static void add_file(VpArguments *args, const char *option, int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);

    vp_args_add(args, option, path);
}

void vp_args_kernel(VpArguments *args)
{
    const PbKernelBoot *kernel = args->line->spec->kernel;

    add_file(args, "-kernel", args->line->kernel_fd);
    if (args->line->initrd_fd >= 0)
        add_file(args, "-initrd", args->line->initrd_fd);
    if (kernel->command_line[0])
        vp_args_add(args, "-append", kernel->command_line);
}
