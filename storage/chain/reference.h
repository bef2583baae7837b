/*
 * What the name of a backing or data file means: a file of this host (or a window of one), something remote, or something that is not taken.
 * Pure text; nothing is looked up. QEMU's own reading is followed (docs/images.md has the table), and where that depends on the working
 * directory of a process, the name is not taken.
 */
#pragma once

#include "storage/chain/nbd.h"
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
    PbImageFormat format; /* FILE, REMOTE: the driver of a json reference, or UNSPECIFIED */
    gboolean is_window;   /* FILE: not the whole file but `size` bytes from `offset` on; size 0: up to the end */
    guint64 offset;
    guint64 size;
    gboolean is_device; /* FILE: it has to be a block device (host_device) */
    char *protocol;     /* REMOTE: "nbd", "rbd", without what follows a `+` */
    VpNbd *nbd;         /* REMOTE by nbd: where, if that is said in full and in no odd way */
    char *why;          /* UNSUPPORTED: why it is not taken; escaped */
} VpReference;

/* `overlay`: the absolute path of the file that holds the name; a relative name is relative to the folder of that. NULL: relative names are
 * not taken. `ret` is to be cleared. */
void vp_reference_parse(const char *name, const char *overlay, VpReference *ret);

/* The protocol that a name begins with, for policy: "nbd" of "nbd+unix"; NULL if it is none that goes over a network. */
const char *vp_reference_protocol(const char *name, gsize length);

void vp_reference_clear(VpReference *reference);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpReference, vp_reference_clear)
