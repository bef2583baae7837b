/* Defaults, and the checks of what is no disk or interface: see spec.h. */
#include "spec.h"

#include "base/pb.h"
#include "layout.h"

#define MIB (1024ULL * 1024)

void vp_spec_violation(VpSpecCheck *check, const char *text, const char *field, ...)
{
    va_list args;

    va_start(args, field);
    g_autofree char *name = g_strdup_vprintf(field, args);
    va_end(args);
    g_autofree char *path = g_strconcat("domain.spec.", name, NULL);
    if (!check->error)
        check->error = vp_error_new(VP_INVALID_ARGUMENT, "INVALID_SPEC", "the spec is not valid: %s: %s", path, text);
    vp_error_violation(check->error, path, "%s", text);
}

void vp_spec_check_enum(VpSpecCheck *check, const ProtobufCEnumDescriptor *descriptor, int value, const char *field)
{
    if (!protobuf_c_enum_descriptor_get_value(descriptor, value))
        vp_spec_violation(check, "is no value that is known", "%s", field);
}

/* ---- defaults ---- */

void vp_spec_complete_qemu(PbDomainSpec *spec)
{
    if (spec->n_serial_ports == 0)
        vp_pb_append(&spec->n_serial_ports, &spec->serial_ports, vp_pb_new(&pb_serial_port__descriptor));
    for (size_t i = 0; i < spec->n_serial_ports; i++) {
        if (spec->serial_ports[i]->model == PB_SERIAL_PORT_MODEL_UNSPECIFIED)
            spec->serial_ports[i]->model = PB_SERIAL_PORT_MODEL_UART;
    }
    /* Random, as nobody else keeps count of them; one that is taken is refused at the start. */
    if (spec->vsock && spec->vsock->cid == 0)
        spec->vsock->cid = (guint32)g_random_int_range(1000, G_MAXINT32);
    vp_layout_complete(spec);
}

/* ---- checks ---- */

static void check_kernel(VpSpecCheck *check)
{
    const PbKernelBoot *kernel = check->spec->kernel;

    if (!kernel || kernel->kernel_path[0])
        return;
    if (kernel->initrd_path[0])
        vp_spec_violation(check, "needs a kernel: set kernel_path as well", "kernel.initrd_path");
    if (kernel->command_line[0])
        vp_spec_violation(check, "needs a kernel: set kernel_path as well", "kernel.command_line");
}

static void check_cpu(VpSpecCheck *check)
{
    const PbCpu *cpu = check->spec->cpu;
    const guint32 vcpus = check->spec->vcpus ? check->spec->vcpus : 1;

    if (!cpu)
        return;
    const guint32 most = cpu->max_vcpus ? cpu->max_vcpus : vcpus;
    const guint64 package = (guint64)MAX(cpu->cores, 1) * MAX(cpu->threads, 1);
    if (most < vcpus)
        vp_spec_violation(check, "is less than vcpus", "cpu.max_vcpus");
    if (most % package != 0 || (cpu->sockets && cpu->sockets * package != most))
        vp_spec_violation(check,
                          "sockets, cores and threads do not make the number of virtual CPUs (the most there can be)",
                          "cpu.%s",
                          cpu->sockets ? "sockets"
                          : cpu->cores ? "cores"
                                       : "threads");
    for (size_t i = 0; i < cpu->n_features; i++) {
        if (!cpu->features[i]->name[0])
            vp_spec_violation(check, "must be set, as in \"aes\"", "cpu.features[%zu].name", i);
        for (size_t j = 0; j < i; j++) {
            if (g_str_equal(cpu->features[i]->name, cpu->features[j]->name))
                vp_spec_violation(check, "is named twice", "cpu.features[%zu].name", i);
        }
    }
}

static void check_memory(VpSpecCheck *check)
{
    const PbMemory *memory = check->spec->memory;

    if (check->spec->memory_bytes % MIB != 0)
        vp_spec_violation(check, "must be a multiple of 1 MiB", "memory_bytes");
    if (!memory)
        return;
    if (memory->hugepage_bytes && !memory->hugepages)
        vp_spec_violation(check, "needs memory.hugepages", "memory.hugepage_bytes");
    if (memory->hugepage_bytes & (memory->hugepage_bytes - 1))
        vp_spec_violation(check, "must be a power of two", "memory.hugepage_bytes");
    else if (memory->hugepage_bytes && check->spec->memory_bytes % memory->hugepage_bytes != 0)
        vp_spec_violation(check, "memory_bytes is no multiple of it", "memory.hugepage_bytes");
    if (memory->max_bytes % MIB != 0)
        vp_spec_violation(check, "must be a multiple of 1 MiB", "memory.max_bytes");
    if (memory->max_bytes && memory->max_bytes < check->spec->memory_bytes)
        vp_spec_violation(check, "is less than memory_bytes", "memory.max_bytes");
    if (memory->slots && memory->max_bytes <= check->spec->memory_bytes)
        vp_spec_violation(check, "needs memory.max_bytes above memory_bytes", "memory.slots");
    if (!memory->slots && memory->max_bytes > check->spec->memory_bytes)
        vp_spec_violation(check, "needs memory.slots to put what is attached into", "memory.max_bytes");
}

static void check_graphics(VpSpecCheck *check)
{
    const PbDomainSpec *spec = check->spec;

    for (size_t i = 0; i < spec->n_graphics; i++) {
        if (spec->graphics[i] != PB_GRAPHICS_TYPE_VNC && spec->graphics[i] != PB_GRAPHICS_TYPE_SPICE)
            vp_spec_violation(check, "must be VNC or SPICE", "graphics[%zu]", i);
        if (i > 0 && spec->graphics[i] == spec->graphics[0])
            vp_spec_violation(check, "is there already", "graphics[%zu]", i);
    }
    vp_spec_check_enum(check, &pb_video_model__descriptor, (int)spec->video, "video");
}

static void check_firmware(VpSpecCheck *check)
{
    const PbFirmware *firmware = check->spec->firmware;

    if (!firmware)
        return;
    vp_spec_check_enum(check, &pb_firmware_type__descriptor, (int)firmware->type, "firmware.type");
    if (firmware->secure_boot && firmware->type != PB_FIRMWARE_TYPE_UEFI)
        vp_spec_violation(check, "needs firmware.type FIRMWARE_TYPE_UEFI", "firmware.secure_boot");
    if (firmware->secure_boot && !vp_layout_is_q35(check->spec->machine) && check->spec->machine[0])
        vp_spec_violation(check, "needs the machine q35", "firmware.secure_boot");
}

static void check_rest(VpSpecCheck *check)
{
    const PbDomainSpec *spec = check->spec;

    vp_spec_check_enum(check, &pb_accelerator__descriptor, (int)spec->accelerator, "accelerator");
    for (size_t i = 0; i < spec->n_serial_ports; i++) {
        g_autofree char *field = g_strdup_printf("serial_ports[%zu].model", i);

        vp_spec_check_enum(check, &pb_serial_port_model__descriptor, (int)spec->serial_ports[i]->model, field);
    }
    if (spec->clock)
        vp_spec_check_enum(check, &pb_clock_zone__descriptor, (int)spec->clock->zone, "clock.zone");
    if (spec->watchdog) {
        vp_spec_check_enum(check, &pb_watchdog_model__descriptor, (int)spec->watchdog->model, "watchdog.model");
        vp_spec_check_enum(check, &pb_watchdog_action__descriptor, (int)spec->watchdog->action, "watchdog.action");
    }
    vp_spec_check_enum(check, &pb_panic_model__descriptor, (int)spec->panic, "panic");
    if (spec->panic == PB_PANIC_MODEL_PCI && !vp_layout_has_pcie(spec->machine))
        vp_spec_violation(check, "needs a machine with PCI Express", "panic");
    if (spec->panic == PB_PANIC_MODEL_NONE && spec->on_panic)
        vp_spec_violation(check, "needs a panic device", "on_panic");
    vp_spec_check_enum(check, &pb_tpm_model__descriptor, (int)spec->tpm, "tpm");
    for (size_t i = 0; i < spec->n_usb_devices; i++) {
        g_autofree char *field = g_strdup_printf("usb_devices[%zu]", i);

        vp_spec_check_enum(check, &pb_usb_device__descriptor, (int)spec->usb_devices[i], field);
    }
}

VpError *vp_spec_validate(const PbDomainSpec *spec)
{
    VpSpecCheck check = {.spec = spec};

    check_memory(&check);
    check_cpu(&check);
    vp_spec_check_disks(&check);
    vp_spec_check_interfaces(&check);
    vp_spec_check_limits(&check);
    vp_spec_check_host_parts(&check);
    vp_spec_check_numa(&check);
    check_kernel(&check);
    check_graphics(&check);
    check_firmware(&check);
    check_rest(&check);
    return check.error;
}
