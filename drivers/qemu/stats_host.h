/* What the host itself knows of a domain's process, whether QEMU answers or not: read from /proc and /sys, which never wait for it. */
#pragma once

#include "process.h"
#include "stats_read.h"

/* Fills in CPU time, the vCPUs' (`threads` of VpVcpuThread), resident memory and interfaces. What cannot be read stays at 0. */
void vp_stats_host(const VpProcess *process, const GArray *threads, const PbDomainSpec *spec, const char *uid,
                   PbDomainStats *stats);

/* Adds an entry for each interface: with the counters of its tap device as the kernel shows them below `classes` (/sys/class/net), turned round to the
 * guest's view, if that device is this domain's. */
void vp_stats_interfaces(const char *classes, const PbDomainSpec *spec, const char *uid, PbDomainStats *stats);
