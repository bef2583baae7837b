/* The names that QEMU's tools use for image formats, and what kind of thing each format is. */
#pragma once

#include <glib.h>

#include "virtplane/v1/image.pb-c.h"

/* QEMU's name ("qcow2", "vpc"): what -F and -blockdev take. NULL for UNSPECIFIED and DIRECTORY; "raw" for what sits in a raw disk. */
const char *vp_format_qemu_name(PbImageFormat format);

/* The format of that name (not terminated), or UNSPECIFIED if there is none. */
PbImageFormat vp_format_from_qemu_name(const char *name, gsize length);

/* A name for a person: "qcow2", "an ISO 9660 file system". */
const char *vp_format_words(PbImageFormat format);

/* Whether this is content of a raw disk (a partition table, a file system) and not a format of its own. */
gboolean vp_format_is_raw_content(PbImageFormat format);
