/* See stats_read.h. */
#include "stats_read.h"

#include <string.h>

#include "base/pb.h"
#include "ids.h"

/* A counter, at most as large as a signed number. The balloon's "not told" is 2^64-1; a line in which that stands is read as reals (qmp.c). */
static guint64 number(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);

    if (json_is_integer(value))
        return (guint64)MAX(0, json_integer_value(value));
    const double real = json_real_value(value);
    return real > 0 && real < (double)G_MAXINT64 ? (guint64)real : 0;
}

void vp_stats_read_cpus(json_t *result, GArray *threads)
{
    size_t i;
    json_t *cpu;

    if (!json_is_array(result))
        return;
    g_array_set_size(threads, 0);
    json_array_foreach(result, i, cpu)
    {
        const VpVcpuThread thread = {
            .index = (guint)number(cpu, "cpu-index"),
            .tid = (pid_t)number(cpu, "thread-id"),
        };

        if (thread.tid > 0 && threads->len < VP_STATS_MAX_VCPUS)
            g_array_append_val(threads, thread);
    }
}

/* Whether a device's path is of this disk: "/machine/peripheral/disk-vda/virtio-backend", or "disk-vda" itself. */
static gboolean is_of(const char *path, const char *id)
{
    const char *at = strstr(path, id);
    const gsize length = strlen(id);

    return at && (at == path || at[-1] == '/') && (at[length] == '\0' || at[length] == '/');
}

static json_t *find_device(json_t *devices, const char *id)
{
    size_t i;
    json_t *device;

    json_array_foreach(devices, i, device)
    {
        const char *path = json_string_value(json_object_get(device, "qdev"));

        if (path && is_of(path, id))
            return device;
    }
    return NULL;
}

static PbDiskStats *read_disk(const char *target, json_t *device)
{
    static const char *const failures[] = {
        "failed_rd_operations",  "failed_wr_operations",  "failed_flush_operations",  "failed_unmap_operations",
        "invalid_rd_operations", "invalid_wr_operations", "invalid_flush_operations", "invalid_unmap_operations",
    };
    json_t *counters = json_object_get(device, "stats");
    PbDiskStats *disk = vp_pb_new(&pb_disk_stats__descriptor);

    vp_pb_set(&disk->target, target);
    disk->read_bytes = number(counters, "rd_bytes");
    disk->write_bytes = number(counters, "wr_bytes");
    disk->read_requests = number(counters, "rd_operations");
    disk->write_requests = number(counters, "wr_operations");
    disk->flush_requests = number(counters, "flush_operations");
    disk->read_time_ns = number(counters, "rd_total_time_ns");
    disk->write_time_ns = number(counters, "wr_total_time_ns");
    disk->flush_time_ns = number(counters, "flush_total_time_ns");
    for (gsize i = 0; i < G_N_ELEMENTS(failures); i++)
        disk->errors += number(counters, failures[i]);
    /* The format's file is where bytes are written to; the device itself counts those that the guest sees. */
    disk->allocation_bytes = number(json_object_get(json_object_get(device, "parent"), "stats"), "wr_highest_offset");
    return disk;
}

void vp_stats_read_blocks(json_t *result, const PbDomainSpec *spec, PbDomainStats *stats)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        g_autofree char *id = vp_id_disk(spec->disks[i]);
        json_t *device = find_device(result, id);

        if (device)
            vp_pb_append(&stats->n_disks, &stats->disks, read_disk(spec->disks[i]->target, device));
    }
}

void vp_stats_read_balloon(json_t *result, PbDomainStats *stats)
{
    stats->memory->actual_bytes = number(result, "actual");
}

void vp_stats_read_guest(json_t *result, PbDomainStats *stats)
{
    json_t *told = json_object_get(result, "stats");
    const guint64 when_s = number(result, "last-update");
    PbMemoryStats *memory = stats->memory;

    if (when_s == 0)
        return;
    memory->guest_available_bytes = number(told, "stat-available-memory");
    memory->guest_unused_bytes = number(told, "stat-free-memory");
    memory->guest_swap_in_bytes = number(told, "stat-swap-in");
    memory->guest_swap_out_bytes = number(told, "stat-swap-out");
    memory->guest_total_bytes = number(told, "stat-total-memory");
    memory->guest_disk_cache_bytes = number(told, "stat-disk-caches");
    memory->guest_major_faults = number(told, "stat-major-faults");
    memory->guest_minor_faults = number(told, "stat-minor-faults");
    memory->guest_time = vp_pb_timestamp((gint64)MIN(when_s, G_MAXINT32) * G_USEC_PER_SEC);
}

void vp_stats_read_memory_size(json_t *result, PbDomainStats *stats)
{
    stats->memory->actual_bytes = number(result, "base-memory") + number(result, "plugged-memory");
}
