/* The text part of a vmdk, alone in a file or within a sparse one. Private to storage/probe. */
#pragma once

#include "storage/probe/probe.h"

/* QEMU reads no more of a descriptor than this. */
#define VP_VMDK_DESCRIPTOR_MAX ((1u << 20) - 1)

typedef struct VpVmdkDescriptor {
    gboolean has_version;
    gboolean has_cid;
    VpProbeText create_type;
    VpProbeText parent_hint; /* the file name of the parent */
    gboolean has_parent_cid;
    gboolean parent_cid_is_none;
    guint extents;
    guint sparse_extents;     /* of them, those of the kind SPARSE */
    VpProbeText first_extent; /* its file name; size 0 for one of zeroes */
    guint64 sectors;          /* of all extents together */
    const char *error;        /* the first thing that is wrong; NULL: nothing */
} VpVmdkDescriptor;

/* Reads the text up to its end or its first NUL. Line ends of all systems are taken. */
void vp_vmdk_descriptor_read(const char *text, gsize size, VpVmdkDescriptor *ret);
