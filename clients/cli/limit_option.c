/* See limit_option.h. */
#include "clients/cli/limit_option.h"

#include <string.h>

#include "base/pb.h"
#include "clients/cli/text.h"

static gboolean parse_cpus(const char *text, guint32 *ret_millis)
{
    char *end = NULL;
    const double cpus = g_ascii_strtod(text, &end);

    if (end == text || *end || !(cpus >= 0.001 && cpus <= 1024))
        return FALSE;
    *ret_millis = (guint32)(cpus * 1000 + 0.5);
    return TRUE;
}

static gboolean parse_number(const char *text, guint64 most, guint32 *ret)
{
    guint64 value = 0;

    if (!g_ascii_string_to_unsigned(text, 10, 1, most, &value, NULL))
        return FALSE;
    *ret = (guint32)value;
    return TRUE;
}

VpError *vp_limit_parse(PbDomainSpec *spec, const char *text)
{
    const char *value = strchr(text, '=');
    gboolean taken = FALSE;

    if (!spec->limits)
        spec->limits = vp_pb_new(&pb_resource_limits__descriptor);
    PbResourceLimits *limits = spec->limits;
    if (g_str_has_prefix(text, "cpu="))
        taken = parse_cpus(value + 1, &limits->cpu_millis);
    else if (g_str_has_prefix(text, "cpu-weight="))
        taken = parse_number(value + 1, 10000, &limits->cpu_weight);
    else if (g_str_has_prefix(text, "memory="))
        taken = vp_text_parse_size(value + 1, &limits->memory_bytes) && limits->memory_bytes > 0;
    else if (g_str_has_prefix(text, "io-weight="))
        taken = parse_number(value + 1, 10000, &limits->io_weight);
    else if (g_str_has_prefix(text, "processes="))
        taken = parse_number(value + 1, 4194304, &limits->processes);
    if (taken)
        return NULL;
    return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION",
                        "--limit is cpu=CPUS, cpu-weight=N, memory=SIZE, io-weight=N or processes=N, not \"%s\"", text);
}

static void add_pin(size_t *n, PbCpuPin ***pins, guint64 index, const char *cpus)
{
    PbCpuPin *pin = vp_pb_new(&pb_cpu_pin__descriptor);

    pin->index = (guint32)index;
    vp_pb_set(&pin->cpus, cpus);
    vp_pb_append(n, pins, pin);
}

VpError *vp_pin_parse(PbDomainSpec *spec, const char *text)
{
    const char *value = strchr(text, '=');
    g_autofree char *what = value ? g_strndup(text, (gsize)(value - text)) : g_strdup("");
    guint64 index = 0;

    if (!spec->pinning)
        spec->pinning = vp_pb_new(&pb_pinning__descriptor);
    PbPinning *pinning = spec->pinning;
    if (g_str_equal(what, "emulator"))
        vp_pb_set(&pinning->emulator_cpus, value + 1);
    else if (g_str_has_prefix(what, "vcpu") && g_ascii_string_to_unsigned(what + 4, 10, 0, 1023, &index, NULL))
        add_pin(&pinning->n_vcpus, &pinning->vcpus, index, value + 1);
    else if (g_str_has_prefix(what, "iothread") && g_ascii_string_to_unsigned(what + 8, 10, 1, 1023, &index, NULL))
        add_pin(&pinning->n_iothreads, &pinning->iothreads, index, value + 1);
    else
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION",
                            "--pin is vcpuN=CPUS, iothreadN=CPUS or emulator=CPUS, not \"%s\"", text);
    return NULL;
}

VpError *vp_share_parse(PbDomainSpec *spec, const char *text, const char *folder)
{
    const char *path = strchr(text, '=');

    if (!path || path == text || !path[1])
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--share is TAG=PATH, not \"%s\"", text);
    PbSharedFolder *share = vp_pb_new(&pb_shared_folder__descriptor);
    g_autofree char *tag = g_strndup(text, (gsize)(path - text));
    g_autofree char *absolute = g_canonicalize_filename(path + 1, folder);

    vp_pb_set(&share->tag, tag);
    vp_pb_set(&share->path, absolute);
    vp_pb_append(&spec->n_shared_folders, &spec->shared_folders, share);
    return NULL;
}

void vp_host_device_add(PbDomainSpec *spec, const char *address)
{
    PbHostDevice *device = vp_pb_new(&pb_host_device__descriptor);

    vp_pb_set(&device->address, address);
    vp_pb_append(&spec->n_host_devices, &spec->host_devices, device);
}
