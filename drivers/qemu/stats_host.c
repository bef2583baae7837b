/* See stats_host.h. */
#include "stats_host.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/pb.h"
#include "tap.h"

#define NS_PER_S G_GUINT64_CONSTANT(1000000000)

/* A small file of the kernel's, as text. FALSE: it is not there. */
static gboolean read_text(const char *path, char *text, gsize size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return FALSE;
    const ssize_t n = read(fd, text, size - 1);
    close(fd);
    if (n < 0)
        return FALSE;
    text[n] = '\0';
    return TRUE;
}

/* ---- CPU and memory ---- */

/* Exact, and with the threads that have ended; /proc tells the same in hundredths of a second. */
static guint64 process_time_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec time;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) < 0)
        return 0;
    return (guint64)time.tv_sec * NS_PER_S + (guint64)time.tv_nsec;
}

static guint64 resident_bytes(pid_t pid)
{
    char path[64];
    char text[256];
    unsigned long long pages = 0;

    snprintf(path, sizeof(path), "/proc/%d/statm", pid);
    if (!read_text(path, text, sizeof(text)) || sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (guint64)sysconf(_SC_PAGESIZE);
}

/* User and system time of a thread in ticks, of a kernel that keeps no finer account. */
static guint64 thread_ticks_ns(pid_t pid, pid_t tid)
{
    char path[64];
    char text[1024];
    unsigned long long user = 0;
    unsigned long long system = 0;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
    if (!read_text(path, text, sizeof(text)))
        return 0;
    /* The name in parentheses may hold anything; fields 14 and 15 are the 12th and 13th behind it. */
    const char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
        return 0;
    return (user + system) * (NS_PER_S / (guint64)sysconf(_SC_CLK_TCK));
}

static PbVcpuStats *read_vcpu(pid_t pid, const VpVcpuThread *thread)
{
    PbVcpuStats *vcpu = vp_pb_new(&pb_vcpu_stats__descriptor);
    char path[64];
    char text[256];
    unsigned long long ran = 0;
    unsigned long long waited = 0;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, thread->tid);
    if (read_text(path, text, sizeof(text)) && sscanf(text, "%llu %llu", &ran, &waited) != 2)
        ran = 0;
    vcpu->index = thread->index;
    vcpu->cpu_time_ns = ran > 0 ? ran : thread_ticks_ns(pid, thread->tid);
    vcpu->wait_time_ns = waited;
    return vcpu;
}

/* ---- interfaces ---- */

/* A tap device of this name may be another domain's, which has the same MAC address. */
static gboolean is_owned(const char *classes, const char *tap, const char *uid)
{
    g_autofree char *path = g_strdup_printf("%s/%s/ifalias", classes, tap);
    g_autofree char *wanted = vp_tap_alias(uid);
    char text[256];

    return read_text(path, text, sizeof(text)) && strcmp(g_strchomp(text), wanted) == 0;
}

static guint64 tap_counter(const char *classes, const char *tap, const char *counter)
{
    g_autofree char *path = g_strdup_printf("%s/%s/statistics/%s", classes, tap, counter);
    char text[64];

    return read_text(path, text, sizeof(text)) ? g_ascii_strtoull(text, NULL, 10) : 0;
}

/* What the host sends into a tap device, the guest receives. */
static void read_tap(const char *classes, const char *tap, PbInterfaceStats *interface)
{
    interface->counted = TRUE;
    interface->receive_bytes = tap_counter(classes, tap, "tx_bytes");
    interface->transmit_bytes = tap_counter(classes, tap, "rx_bytes");
    interface->receive_packets = tap_counter(classes, tap, "tx_packets");
    interface->transmit_packets = tap_counter(classes, tap, "rx_packets");
    interface->receive_errors = tap_counter(classes, tap, "tx_errors");
    interface->transmit_errors = tap_counter(classes, tap, "rx_errors");
    interface->receive_drops = tap_counter(classes, tap, "tx_dropped");
    interface->transmit_drops = tap_counter(classes, tap, "rx_dropped");
}

void vp_stats_interfaces(const char *classes, const PbDomainSpec *spec, const char *uid, PbDomainStats *stats)
{
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        const PbInterface *from = spec->interfaces[i];
        PbInterfaceStats *interface = vp_pb_new(&pb_interface_stats__descriptor);
        g_autofree char *tap = vp_tap_name(from->mac);

        vp_pb_set(&interface->mac, from->mac);
        if (from->type == PB_INTERFACE_TYPE_BRIDGE && is_owned(classes, tap, uid))
            read_tap(classes, tap, interface);
        vp_pb_append(&stats->n_interfaces, &stats->interfaces, interface);
    }
}

void vp_stats_host(const VpProcess *process, const GArray *threads, const PbDomainSpec *spec, const char *uid,
                   PbDomainStats *stats)
{
    stats->cpu_time_ns = process_time_ns(process->pid);
    if (!stats->memory)
        stats->memory = vp_pb_new(&pb_memory_stats__descriptor);
    stats->memory->resident_bytes = resident_bytes(process->pid);
    for (guint i = 0; i < threads->len; i++)
        vp_pb_append(&stats->n_vcpus, &stats->vcpus, read_vcpu(process->pid, &g_array_index(threads, VpVcpuThread, i)));
    vp_stats_interfaces("/sys/class/net", spec, uid, stats);
}
