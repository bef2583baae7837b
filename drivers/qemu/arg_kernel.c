/* The arguments of what boots: UEFI in flash memory, and a kernel that QEMU loads itself. See arguments.h. */
#include "arguments.h"

static void add_flash(VpArguments *args, const char *node, int fd, gboolean read_only)
{
    g_autofree char *file_node = g_strdup_printf("%s-file", node);
    g_autofree char *path = vp_args_fd_set(args, fd, file_node);

    vp_args_json(args, "-blockdev",
                 json_pack("{s:s, s:s, s:s, s:b}", "driver", "file", "node-name", file_node, "filename", path,
                           "read-only", read_only));
    vp_args_json(args, "-blockdev",
                 json_pack("{s:s, s:s, s:s, s:b}", "driver", "raw", "node-name", node, "file", file_node, "read-only",
                           read_only));
}

void vp_args_firmware(VpArguments *args)
{
    const VpFirmwareFds *firmware = &args->line->firmware;

    if (firmware->secure)
        vp_args_add(args, "-global", "driver=cfi.pflash01,property=secure,value=on");
    add_flash(args, "firmware", firmware->code_fd, TRUE);
    add_flash(args, "variables", firmware->variables_fd, FALSE);
}

/* QEMU reads these by their paths. Below /dev/fd that is the file that was opened, whatever has its name by now. */
static void add_file(VpArguments *args, const char *option, int fd)
{
    g_autofree char *path = g_strdup_printf("/dev/fd/%d", fd);

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
