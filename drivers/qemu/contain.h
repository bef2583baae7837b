/*
 * How QEMU, and what serves it, is kept apart from the host and from other domains: what the settings want and this host can do, and from these what a
 * process is to be confined to (confine.h). One for the driver; any thread; blocks for a moment.
 *
 *     contain.c         settings, what the host can do, the plan for a process
 *     contain_view.c    what is in its root folder
 *     contain_user.c    users of domains
 *     contain_look.c    what the kernel tells of a process that runs
 *     confine.c         the plan carried out, in the child
 *     confine_filter.c  the filter of system calls
 */
#pragma once

#include "base/error.h"
#include "confine.h"
#include "virtplane/v1/domain.pb-c.h"
#include "virtplane/v1/host.pb-c.h"

typedef struct VpContain VpContain;

/* Reads [qemu] containment=, uid_range=, user= and paths=. INVALID_ARGUMENT, reason CONFIG. */
VpContain *vp_contain_new(GKeyFile *config, const char *state_dir, const char *run_dir, VpError **error);
void vp_contain_free(VpContain *contain);

/* Says what is wanted and cannot be had on this host. */
void vp_contain_capabilities(VpContain *contain, PbDriverCapabilities *capabilities);

/* The domain is gone, with its folder. */
void vp_contain_forget(VpContain *contain, const char *uid);

/* ---- a start ---- */

/* What a domain's processes are confined to. */
typedef struct VpContainment {
    gboolean change_user;
    uid_t uid; /* what its processes run as, changed or not */
    gid_t gid;
    gboolean own_root;
    gboolean own_network;
    GPtrArray *missing; /* of char: what is wanted and is not had */
    const VpContain *contain;
    char *dir;
} VpContainment;

/* For a domain whose folder `dir` exists. FAILED_PRECONDITION, reason CONTAINMENT, if containment=require wants what this host does not have. */
VpError *vp_contain_domain(VpContain *contain, const char *uid, const char *dir, PbAccelerator accelerator,
                           gboolean needs_network, VpContainment **ret_containment);
/* The same for what such a process is given while it runs: what the kernel told of it holds, whatever the settings are by now. */
VpContainment *vp_containment_of(const VpContain *contain, const PbContainment *contained, const char *dir);
void vp_containment_free(VpContainment *containment);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpContainment, vp_containment_free)

/* One process of it, ready to be spawned. */
typedef struct VpConfinement {
    VpConfine confine;
    GArray *view; /* of VpViewEntry */
} VpConfinement;

/* QEMU itself. */
VpConfinement *vp_containment_qemu(const VpContainment *containment, const char *binary, const PbDomainSpec *spec,
                                   PbAccelerator accelerator);
/* A program that serves it and needs of the domain's folder its subfolder `name` alone, which it may write to. */
VpConfinement *vp_containment_helper(const VpContainment *containment, const char *binary, const char *name);
void vp_confinement_free(VpConfinement *confinement);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpConfinement, vp_confinement_free)

/* Where a process finds what is in the subfolder `name` of the domain's own. Owned by the caller. */
char *vp_containment_path(const VpContainment *containment, const char *name);

/* Makes that subfolder, for its user alone; or, with `for_helper`, for that of a helper. */
VpError *vp_containment_make_folder(const VpContainment *containment, const char *name, gboolean for_helper);

/* Lets its user open what `fd` is by a path below /dev/fd: a pipe is given to it; a file that it may not read is copied into memory, and `fd` is the copy
 * from then on. */
VpError *vp_containment_open_again(const VpContainment *containment, int *fd);

/* ---- what runs ---- */

/* What the kernel tells of a process, for GetDomain; NULL: it has ended. `missing` (of char, or NULL) goes into it. Owned by the caller. */
PbContainment *vp_contain_look(pid_t pid, const GPtrArray *missing);
