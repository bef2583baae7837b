/* CRC-32C (Castagnoli), as VHDX uses it. Private to storage/probe. */
#pragma once

#include <glib.h>

/* Of the bytes, with the four at `skip` taken as zero. */
guint32 vp_crc32c(const guint8 *bytes, gsize size, gsize skip);
