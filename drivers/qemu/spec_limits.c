/* The checks of limits and of pinning: see spec.h. */
#include "pinning.h"
#include "spec.h"

static void check_devices(VpSpecCheck *check)
{
    const PbResourceLimits *limits = check->spec->limits;

    for (size_t i = 0; i < limits->n_devices; i++) {
        const PbDeviceLimit *limit = limits->devices[i];

        if (!limit->path[0])
            vp_spec_violation(check, "must be set, as in \"/dev/sda\"", "limits.devices[%zu].path", i);
        for (size_t j = 0; j < i && limit->path[0]; j++) {
            if (g_str_equal(limit->path, limits->devices[j]->path))
                vp_spec_violation(check, "is named twice", "limits.devices[%zu].path", i);
        }
    }
}

static void check_set(VpSpecCheck *check, const char *text, const char *field)
{
    cpu_set_t set;

    if (!vp_cpu_set_parse(text, &set))
        vp_spec_violation(check, "must be a set of CPUs, as in \"0-3,8\"", "pinning.%s", field);
}

static void check_pins(VpSpecCheck *check, PbCpuPin *const *pins, size_t n, const char *kind, guint first, guint last)
{
    for (size_t i = 0; i < n; i++) {
        g_autofree char *cpus = g_strdup_printf("%s[%zu].cpus", kind, i);

        check_set(check, pins[i]->cpus, cpus);
        if (pins[i]->index < first || pins[i]->index > last)
            vp_spec_violation(check, "there is none of this number", "pinning.%s[%zu].index", kind, i);
        for (size_t j = 0; j < i; j++) {
            if (pins[i]->index == pins[j]->index)
                vp_spec_violation(check, "is named twice", "pinning.%s[%zu].index", kind, i);
        }
    }
}

void vp_spec_check_limits(VpSpecCheck *check)
{
    const PbDomainSpec *spec = check->spec;
    const PbPinning *pinning = spec->pinning;
    const guint vcpus = MAX(MAX(spec->vcpus, spec->cpu ? spec->cpu->max_vcpus : 0), 1);

    if (spec->limits && spec->limits->memory_bytes && spec->limits->memory_bytes < spec->memory_bytes)
        vp_spec_violation(check, "is less than the guest's own memory, memory_bytes", "limits.memory_bytes");
    if (spec->limits)
        check_devices(check);
    if (!pinning)
        return;
    if (pinning->emulator_cpus[0])
        check_set(check, pinning->emulator_cpus, "emulator_cpus");
    check_pins(check, pinning->vcpus, pinning->n_vcpus, "vcpus", 0, vcpus - 1);
    check_pins(check, pinning->iothreads, pinning->n_iothreads, "iothreads", 1, spec->iothreads);
}
