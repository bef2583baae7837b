/*
 * What the name of a backing or data file means: a file of this host, something remote, or something that is not taken. Pure text; nothing is
 * looked up. QEMU's own reading is followed, and where that depends on the working directory of a process, the name is not taken.
 */
#pragma once

#include "virtplane/v1/image.pb-c.h"

#include <glib.h>

typedef enum VpReferenceKind {
    VP_REFERENCE_FILE,
    VP_REFERENCE_REMOTE,
    VP_REFERENCE_UNSUPPORTED,
} VpReferenceKind;

typedef struct VpReference {
    VpReferenceKind kind;
    char *path;           /* FILE: absolute */
    PbImageFormat format; /* FILE: the driver of a json reference, or UNSPECIFIED */
    char *why;            /* else: what it is ("nbd"), or why it is not taken; escaped */
} VpReference;

/* `overlay`: the absolute path of the file that holds the name; a relative name is relative to the folder of that. NULL: relative names are
 * not taken. `ret` is to be cleared. */
void vp_reference_parse(const char *name, const char *overlay, VpReference *ret);

void vp_reference_clear(VpReference *reference);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpReference, vp_reference_clear)
