/* See pinning.h. */
#include "pinning.h"

#include <errno.h>
#include <string.h>

static gboolean add_range(const char *text, cpu_set_t *set)
{
    g_auto(GStrv) ends = g_strsplit(text, "-", 3);
    const guint n = g_strv_length(ends);
    guint64 first = 0;
    guint64 last = 0;

    if (n < 1 || n > 2 || !g_ascii_string_to_unsigned(ends[0], 10, 0, CPU_SETSIZE - 1, &first, NULL))
        return FALSE;
    if (n == 2 && !g_ascii_string_to_unsigned(ends[1], 10, first, CPU_SETSIZE - 1, &last, NULL))
        return FALSE;
    for (guint64 cpu = first; cpu <= MAX(first, last); cpu++)
        CPU_SET(cpu, set);
    return TRUE;
}

gboolean vp_cpu_set_parse(const char *text, cpu_set_t *ret_set)
{
    g_auto(GStrv) ranges = g_strsplit(text, ",", -1);

    CPU_ZERO(ret_set);
    for (char **range = ranges; *range; range++) {
        if (!add_range(*range, ret_set))
            return FALSE;
    }
    return CPU_COUNT(ret_set) > 0;
}

static void check_set(const char *text, const cpu_set_t *there, const char *field, VpError **error)
{
    g_autofree char *path = g_strconcat("domain.spec.pinning.", field, NULL);
    cpu_set_t wanted;
    cpu_set_t both;

    if (!text[0] || !vp_cpu_set_parse(text, &wanted))
        return;
    CPU_AND(&both, &wanted, there);
    if (CPU_EQUAL(&both, &wanted))
        return;
    if (!*error)
        *error = vp_error_new(VP_FAILED_PRECONDITION, "CPUS_UNAVAILABLE", "%s: this daemon has not all of the CPUs %s",
                              path, text);
    vp_error_violation(*error, path, "this daemon has not all of the CPUs %s", text);
}

VpError *vp_pinning_check(const PbDomainSpec *spec)
{
    const PbPinning *pinning = spec->pinning;
    VpError *error = NULL;
    cpu_set_t there;

    if (!pinning || sched_getaffinity(0, sizeof(there), &there) < 0)
        return NULL;
    check_set(pinning->emulator_cpus, &there, "emulator_cpus", &error);
    for (size_t i = 0; i < pinning->n_vcpus; i++) {
        g_autofree char *field = g_strdup_printf("vcpus[%zu].cpus", i);

        check_set(pinning->vcpus[i]->cpus, &there, field, &error);
    }
    for (size_t i = 0; i < pinning->n_iothreads; i++) {
        g_autofree char *field = g_strdup_printf("iothreads[%zu].cpus", i);

        check_set(pinning->iothreads[i]->cpus, &there, field, &error);
    }
    return error;
}

static const cpu_set_t *find(PbCpuPin *const *pins, size_t n, guint index, cpu_set_t *scratch)
{
    for (size_t i = 0; i < n; i++) {
        if (pins[i]->index == index && vp_cpu_set_parse(pins[i]->cpus, scratch))
            return scratch;
    }
    return NULL;
}

const cpu_set_t *vp_pinning_of_vcpu(const PbPinning *pinning, guint index, cpu_set_t *scratch)
{
    return find(pinning->vcpus, pinning->n_vcpus, index, scratch);
}

const cpu_set_t *vp_pinning_of_iothread(const PbPinning *pinning, guint index, cpu_set_t *scratch)
{
    return find(pinning->iothreads, pinning->n_iothreads, index, scratch);
}

VpError *vp_pinning_bind(pid_t thread, const cpu_set_t *set)
{
    if (sched_setaffinity(thread, sizeof(*set), set) == 0 || errno == ESRCH)
        return NULL;
    return vp_error_new(VP_FAILED_PRECONDITION, "CPUS_UNAVAILABLE", "cannot bind thread %d to its CPUs: %s", thread,
                        g_strerror(errno));
}
