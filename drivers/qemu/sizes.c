/* See sizes.h. */
#include "sizes.h"

#include <string.h>

#include "ids.h"

/* ---- CPUs ---- */

static const char *path_of(json_t *cpu)
{
    return json_string_value(json_object_get(cpu, "qom-path"));
}

guint vp_sizes_vcpus(json_t *cpus)
{
    guint n = 0;
    json_t *cpu;
    size_t i;

    json_array_foreach(cpus, i, cpu)
    {
        if (path_of(cpu))
            n += (guint)json_integer_value(json_object_get(cpu, "vcpus-count"));
    }
    return n;
}

/* QEMU lists them from the highest to the lowest. */
GPtrArray *vp_sizes_free_vcpus(json_t *cpus, guint n)
{
    GPtrArray *found = g_ptr_array_new();

    for (size_t i = json_array_size(cpus); i-- > 0 && found->len < n;) {
        json_t *cpu = json_array_get(cpus, i);

        if (!path_of(cpu))
            g_ptr_array_add(found, cpu);
    }
    return found;
}

GPtrArray *vp_sizes_last_vcpus(json_t *cpus, guint n)
{
    GPtrArray *found = g_ptr_array_new();

    for (size_t i = 0; i < json_array_size(cpus) && found->len < n; i++) {
        const char *path = path_of(json_array_get(cpus, i));

        if (path)
            g_ptr_array_add(found, (gpointer)path);
    }
    return found;
}

/* ---- memory ---- */

static guint64 number(json_t *object, const char *key)
{
    return (guint64)MAX(0, json_integer_value(json_object_get(object, key)));
}

guint64 vp_sizes_memory(json_t *summary)
{
    return number(summary, "base-memory") + number(summary, "plugged-memory");
}

/* One of ours, or NULL. */
static const char *dimm_of(json_t *device, guint64 *ret_number)
{
    const char *id = json_string_value(json_object_get(json_object_get(device, "data"), "id"));

    if (id && g_str_has_prefix(id, VP_ID_DIMM) &&
        g_ascii_string_to_unsigned(id + strlen(VP_ID_DIMM), 10, 0, G_MAXUINT16, ret_number, NULL))
        return id;
    return NULL;
}

guint vp_sizes_free_dimm(json_t *devices, guint *ret_n)
{
    guint lowest = 0;
    gboolean taken = TRUE;

    *ret_n = (guint)json_array_size(devices);
    while (taken) {
        guint64 n = 0;
        json_t *device;
        size_t i;

        taken = FALSE;
        json_array_foreach(devices, i, device) taken = taken || (dimm_of(device, &n) && n == lowest);
        if (taken)
            lowest++;
    }
    return lowest;
}

GPtrArray *vp_sizes_leaving_dimms(json_t *devices, guint64 bytes, guint64 *ret_bytes)
{
    GPtrArray *found = g_ptr_array_new();
    guint64 left = bytes;

    for (size_t i = json_array_size(devices); i-- > 0;) {
        json_t *device = json_array_get(devices, i);
        guint64 n = 0;
        const char *id = dimm_of(device, &n);
        const guint64 size = number(json_object_get(device, "data"), "size");

        if (!id || size == 0 || size > left)
            continue;
        left -= size;
        g_ptr_array_add(found, (gpointer)id);
    }
    *ret_bytes = bytes - left;
    return found;
}
