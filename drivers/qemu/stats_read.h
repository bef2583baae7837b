/*
 * What QEMU tells of a domain's counters, from its answers into the message. Pure: an answer that lacks something, or is of another shape, leaves that at 0.
 * `result` may be NULL: QEMU refused.
 */
#pragma once

#include <glib.h>
#include <jansson.h>
#include <sys/types.h>

#include "virtplane/v1/domain_stats.pb-c.h"

/* The thread that runs a virtual CPU. */
typedef struct VpVcpuThread {
    guint index;
    pid_t tid;
} VpVcpuThread;

/* More than a domain has; QEMU is not trusted with our memory. */
#define VP_STATS_MAX_VCPUS 1024

/* query-cpus-fast: replaces what is in `threads` (of VpVcpuThread), if that is an answer. */
void vp_stats_read_cpus(json_t *result, GArray *threads);
/* query-blockstats: adds an entry for each of the spec's disks that QEMU has. */
void vp_stats_read_blocks(json_t *result, const PbDomainSpec *spec, PbDomainStats *stats);
/* query-balloon. These three fill in stats->memory, which must be there. */
void vp_stats_read_balloon(json_t *result, PbDomainStats *stats);
/* The balloon's property "guest-stats". */
void vp_stats_read_guest(json_t *result, PbDomainStats *stats);
/* query-memory-size-summary, of a domain without a balloon. */
void vp_stats_read_memory_size(json_t *result, PbDomainStats *stats);
