/* The arguments of the machine itself: type, CPUs, memory, clock, and what is the same for every domain. See arguments.h. */
#include <string.h>

#include "arguments.h"

static gboolean is_uefi(const PbDomainSpec *spec)
{
    return spec->firmware && spec->firmware->type == PB_FIRMWARE_TYPE_UEFI;
}

static void add_type(VpArguments *args)
{
    const VpCommandLine *line = args->line;
    g_autofree char *type = vp_args_quoted(vp_args_machine_type(args));
    GString *machine = g_string_new(type);

    g_string_append_printf(machine, ",accel=%s", line->accelerator == PB_ACCELERATOR_KVM ? "kvm" : "tcg");
    if (is_uefi(line->spec))
        g_string_append(machine, ",pflash0=firmware,pflash1=variables");
    if (is_uefi(line->spec) && line->firmware.secure)
        g_string_append(machine, ",smm=on");
    if (vp_args_has_one_backend(args))
        g_string_append(machine, ",memory-backend=ram");
    vp_args_add(args, "-machine", machine->str);
    g_string_free(machine, TRUE);
}

static void add_cpu(VpArguments *args)
{
    const PbCpu *cpu = args->line->spec->cpu;
    const gboolean own = cpu && cpu->model[0];
    /* The host's model comes with what this host needs to run it. */
    const gboolean host = own && strcmp(cpu->model, "host") == 0 && g_str_has_prefix(args->line->cpu, "host");
    GString *model = g_string_new(own && !host ? cpu->model : args->line->cpu);

    for (size_t i = 0; cpu && i < cpu->n_features; i++)
        g_string_append_printf(model, ",%s=%s", cpu->features[i]->name, cpu->features[i]->disabled ? "off" : "on");
    vp_args_add(args, "-cpu", model->str);
    g_string_free(model, TRUE);
}

static void add_topology(VpArguments *args)
{
    const PbCpu *cpu = args->line->spec->cpu;
    const guint vcpus = args->line->spec->vcpus ? args->line->spec->vcpus : 1;
    GString *smp = g_string_new(NULL);

    g_string_append_printf(smp, "cpus=%u", vcpus);
    if (cpu && cpu->max_vcpus > vcpus)
        g_string_append_printf(smp, ",maxcpus=%u", cpu->max_vcpus);
    if (cpu && (cpu->sockets || cpu->cores || cpu->threads)) {
        const guint most = MAX(vcpus, cpu->max_vcpus);
        const guint cores = MAX(cpu->cores, 1);
        const guint threads = MAX(cpu->threads, 1);

        g_string_append_printf(smp, ",sockets=%u,cores=%u,threads=%u", most / cores / threads, cores, threads);
    }
    vp_args_add(args, "-smp", smp->str);
    g_string_free(smp, TRUE);
}

static void add_clock(VpArguments *args)
{
    const PbClock *clock = args->line->spec->clock;

    if (clock && clock->zone == PB_CLOCK_ZONE_LOCALTIME)
        vp_args_add(args, "-rtc", "base=localtime");
}

void vp_args_machine(VpArguments *args)
{
    const VpCommandLine *line = args->line;
    g_autofree char *name = vp_args_quoted(line->name);
    g_autofree char *guest = g_strdup_printf("guest=%s,process=qemu-%.10s", name, line->uid);

    vp_args_add(args, "-nodefaults", NULL);
    vp_args_add(args, "-no-user-config", NULL);
    vp_args_add(args, "-S", NULL);
    if (line->incoming)
        vp_args_add(args, "-incoming", "defer");
    vp_args_add(args, "-name", guest);
    vp_args_add(args, "-uuid", line->uid);
    add_type(args);
    add_cpu(args);
    vp_args_memory(args);
    add_topology(args);
    vp_args_numa(args);
    add_clock(args);
    vp_args_add(args, "-display", "none");
    vp_args_add(args, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    vp_args_add(args, "-msg", "timestamp=on");

    g_autofree char *chardev = g_strdup_printf("socket,id=qmp,fd=%d,server=on,wait=off", line->qmp_fd);
    vp_args_add(args, "-chardev", chardev);
    vp_args_add(args, "-mon", "chardev=qmp,mode=control");
    for (guint i = 1; i <= line->spec->iothreads; i++) {
        g_autofree char *id = g_strdup_printf("io%u", i);

        vp_args_json(args, "-object", json_pack("{s:s, s:s}", "qom-type", "iothread", "id", id));
    }
}
