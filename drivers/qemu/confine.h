/*
 * What a process gives up between its making and its exec: a user, namespaces, a root folder of its own, capabilities, system calls. process.c has it done in
 * the child, where there is no memory to be had and no lock to be taken: everything is prepared beforehand, by contain.c.
 */
#pragma once

#include <glib.h>
#include <linux/filter.h>
#include <sys/types.h>

typedef enum VpViewKind {
    VP_VIEW_FOLDER,   /* made */
    VP_VIEW_LINK,     /* made, leads to `source` */
    VP_VIEW_SHOWN,    /* the host's `source`, read only */
    VP_VIEW_WRITABLE, /* the host's `source` */
    VP_VIEW_DEVICE,   /* as the host's `source`, for the process' user alone */
} VpViewKind;

/* Something in the root folder; what is above it comes before it. */
typedef struct VpViewEntry {
    VpViewKind kind;
    char *source;     /* of the host; NULL for a folder */
    char *target;     /* from the root on, without a "/" at its front */
    gboolean is_file; /* `source` is none of the folders */
    dev_t device;
} VpViewEntry;

#define VP_CONFINE_GROUPS 2

typedef struct VpConfine {
    gboolean change_user; /* to the next four */
    uid_t uid;
    gid_t gid;
    gid_t groups[VP_CONFINE_GROUPS];
    guint n_groups;
    int namespaces;      /* CLONE_NEW... */
    const char *uid_map; /* with CLONE_NEWUSER: what is written to /proc/self/uid_map, and gid_map */
    const char *gid_map;
    const char *
        root; /* a folder on which the root is put together, seen by nobody else; NULL: the host's. Needs CLONE_NEWNS */
    const VpViewEntry *view;
    guint n_view;
    const char *apparmor;            /* the profile that the exec changes to; NULL: none */
    const struct sock_fprog *filter; /* of system calls; NULL: none */
    gboolean drop_capabilities;
} VpConfine;

/* Both are called in the child alone, the one before the process is let go and the other before its exec. NULL, or the step that failed, with errno. */
const char *vp_confine_separate(const VpConfine *confine);
const char *vp_confine_drop(const VpConfine *confine);
