/* A domain's threads and the host's CPUs: see domain_parts.h. */
#include "domain_parts.h"

#include "pinning.h"

typedef struct Pin {
    VpQemuDomain *domain;
    void (*done)(VpQemuDomain *domain, VpError *error);
} Pin;

static void pin_end(Pin *pin, VpError *error)
{
    pin->done(pin->domain, error);
    vp_qemu_domain_unref(pin->domain);
    g_free(pin);
}

static VpError *bind_thread(json_t *thread, const cpu_set_t *set)
{
    const json_int_t id = json_integer_value(json_object_get(thread, "thread-id"));

    return set && id > 0 ? vp_pinning_bind((pid_t)id, set) : NULL;
}

static void on_iothreads(void *data, json_t *result, VpError *error)
{
    Pin *pin = data;
    cpu_set_t scratch;
    json_t *thread;
    size_t i;

    json_array_foreach(result, i, thread)
    {
        const char *id = json_string_value(json_object_get(thread, "id"));
        guint64 number = 0;

        if (!error && id && g_str_has_prefix(id, "io") &&
            g_ascii_string_to_unsigned(id + 2, 10, 1, G_MAXUINT16, &number, NULL))
            error = bind_thread(thread, vp_pinning_of_iothread(pin->domain->pinning, (guint)number, &scratch));
    }
    pin_end(pin, error);
}

static void on_cpus(void *data, json_t *result, VpError *error)
{
    Pin *pin = data;
    cpu_set_t scratch;
    json_t *cpu;
    size_t i;

    json_array_foreach(result, i, cpu)
    {
        const guint index = (guint)json_integer_value(json_object_get(cpu, "cpu-index"));

        if (!error)
            error = bind_thread(cpu, vp_pinning_of_vcpu(pin->domain->pinning, index, &scratch));
    }
    if (error || pin->domain->pinning->n_iothreads == 0 || !pin->domain->qmp) {
        pin_end(pin, error);
        return;
    }
    vp_qmp_execute(pin->domain->qmp, "query-iothreads", NULL, 0, on_iothreads, pin);
}

void vp_qemu_domain_pin(VpQemuDomain *domain, void (*done)(VpQemuDomain *domain, VpError *error))
{
    Pin *pin = g_new0(Pin, 1);

    *pin = (Pin){.domain = vp_qemu_domain_ref(domain), .done = done};
    vp_qmp_execute(domain->qmp, "query-cpus-fast", NULL, 0, on_cpus, pin);
}
