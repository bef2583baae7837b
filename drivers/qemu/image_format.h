/* Which image formats QEMU is given, as what, and what it can do with them. Used for the spec, the command line and a start. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/image.pb-c.h"

typedef struct VpQemuFormat {
    PbImageFormat format;
    const char *driver;   /* of -blockdev */
    gboolean has_backing; /* takes a node below it, or an explicit null */
    gboolean read_only;   /* QEMU only reads it */
} VpQemuFormat;

/* NULL: QEMU is not given images of this format. */
const VpQemuFormat *vp_qemu_format(PbImageFormat format);

/* FAILED_PRECONDITION for a proven layer that QEMU could not use: SECRET_REQUIRED, READ_ONLY_FORMAT, UNSUPPORTED_FORMAT. `secret`: its disk has one. */
VpError *vp_qemu_check_layer(const PbImageLayer *layer, gboolean write, gboolean secret);
