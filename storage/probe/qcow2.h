/*
 * qcow2, versions 2 and 3: its header and header extensions, as docs/interop/qcow2.txt of QEMU has them. The parser is pure; storage/chain uses
 * the constants for its edit of the header.
 */
#pragma once

#include "storage/probe/probe.h"

#define VP_QCOW2_V2_HEADER_SIZE 72u
#define VP_QCOW2_V3_HEADER_SIZE 104u
#define VP_QCOW2_BACKING_NAME_MAX 1023u
/* QEMU keeps the name of a backing format in 16 bytes. */
#define VP_QCOW2_BACKING_FORMAT_MAX 15u

#define VP_QCOW2_EXT_END 0u
#define VP_QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define VP_QCOW2_EXT_FEATURE_NAMES 0x6803f857u
#define VP_QCOW2_EXT_CRYPTO_HEADER 0x0537be77u
#define VP_QCOW2_EXT_BITMAPS 0x23852875u
#define VP_QCOW2_EXT_DATA_FILE 0x44415441u

#define VP_QCOW2_INCOMPATIBLE_DIRTY (1ull << 0)
#define VP_QCOW2_INCOMPATIBLE_CORRUPT (1ull << 1)
#define VP_QCOW2_AUTOCLEAR_BITMAPS (1ull << 0)
#define VP_QCOW2_AUTOCLEAR_DATA_FILE_RAW (1ull << 1)
#define VP_QCOW2_AUTOCLEAR_KNOWN (VP_QCOW2_AUTOCLEAR_BITMAPS | VP_QCOW2_AUTOCLEAR_DATA_FILE_RAW)

/* Fills in `probe` from an image that has the mark. Answers as vp_probe() does. */
gsize vp_qcow2_parse(const VpProbeInput *input, VpProbe *probe);

/* Where the parts of the first cluster lie; for images that vp_qcow2_parse() found well formed. */
typedef struct VpQcow2Layout {
    gsize header_end;     /* the extensions begin here */
    gsize extensions_end; /* where the next extension would go: at the end mark, or where the area ends without one */
    gboolean has_end_mark;
    gboolean has_backing_format; /* an extension of that type is there, be it empty */
    gsize cluster_size;
    guint64 autoclear;
    guint64 incompatible;
} VpQcow2Layout;

/* FALSE if the head does not hold it all. */
gboolean vp_qcow2_layout(const guint8 *head, gsize head_size, VpQcow2Layout *ret_layout);
