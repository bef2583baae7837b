/*
 * A domain's control groups: a folder of its own under one that the settings name, in each hierarchy that has a controller for what the spec limits. Version
 * 2, version 1, and hosts with some of both. Made before the process is, entered between its making and its exec, and removed when it has ended: the domain's
 * own folder remembers where they are. Blocks for a moment.
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* Where the host has its controllers: what /proc/self/mountinfo says. */
typedef struct VpCgroupHost {
    char *unified;      /* of version 2; NULL: none */
    GHashTable *legacy; /* of version 1: controller to mount point */
} VpCgroupHost;

void vp_cgroup_host_read(const char *mountinfo, VpCgroupHost *ret_host);
void vp_cgroup_host_clear(VpCgroupHost *host);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpCgroupHost, vp_cgroup_host_clear)

/* Makes the groups for `limits` in `parent` (from the mount points on) and sets the limits, and writes down in `dir` where they are. FAILED_PRECONDITION,
 * reason CGROUP, with violations, where the host does not hold them. */
VpError *vp_cgroup_make(const VpCgroupHost *host, const char *parent, const char *uid, const PbResourceLimits *limits,
                        const char *dir);

/* Puts a process into those that were made. */
VpError *vp_cgroup_enter(const char *dir, pid_t pid);

/* Removes them. Their process has ended; the kernel may need a moment to notice. */
void vp_cgroup_remove(const char *dir);
