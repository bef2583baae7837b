/* What the parsers of the formats share, and their table of contents. Private to storage/probe. */
#pragma once

#include <inttypes.h>

#include "storage/probe/bytes.h"
#include "storage/probe/probe.h"

#define CORRUPT(probe, ...) vp_probe_note((probe), PB_FINDING_CODE_HEADER_CORRUPT, PB_SEVERITY_ERROR, __VA_ARGS__)
#define TRUNCATED(probe, ...) vp_probe_note((probe), PB_FINDING_CODE_TRUNCATED, PB_SEVERITY_ERROR, __VA_ARGS__)
#define UNKNOWN_FEATURE(probe, ...)                                                                                    \
    vp_probe_note((probe), PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE, PB_SEVERITY_ERROR, __VA_ARGS__)
/* Sound, but not what QEMU opens. */
#define UNSUPPORTED(probe, ...)                                                                                        \
    vp_probe_note((probe), PB_FINDING_CODE_UNSUPPORTED_FORMAT, PB_SEVERITY_ERROR, __VA_ARGS__)
#define DIRTY(probe, ...) vp_probe_note((probe), PB_FINDING_CODE_DIRTY, PB_SEVERITY_WARNING, __VA_ARGS__)

/* QEMU keeps names of backing files in 1024 bytes. */
#define VP_BACKING_NAME_MAX 1023u

/* The bytes at a place, if they were read; else NULL. */
const guint8 *vp_probe_find(const VpProbeInput *input, guint64 offset, gsize size);

/*
 * The bytes at a place of the file, or NULL: then either the file ends before them, which is noted as TRUNCATED (`what` says what is there:
 * "its block map"), or they have to be read first, and probe->need says so. The parser returns at once in both cases. `size` is at most
 * VP_PROBE_WINDOW_MAX and comes from a format's specification or was checked against it.
 */
const guint8 *vp_probe_at(const VpProbeInput *input, VpProbe *probe, guint64 offset, gsize size, const char *what);

/* Whether the file holds `size` bytes at `offset`; if not, that is noted as TRUNCATED. */
gboolean vp_probe_holds(const VpProbeInput *input, VpProbe *probe, guint64 offset, guint64 size, const char *what);

/* Takes the name of the backing file at `offset`, as vp_probe_at(); notes what QEMU would not take. */
void vp_probe_backing_at(const VpProbeInput *input, VpProbe *probe, guint64 offset, guint64 size);

/* The image names another file that is no backing file of QEMU's: `role` is "parent", "extent" or "segment". The first one stays. The name may be
 * empty. It is kept for messages only, and cut if it is long. */
void vp_probe_other(VpProbe *probe, const char *role, const char *name, gsize size);
void vp_probe_other_utf16(VpProbe *probe, const char *role, const guint8 *name, gsize size, gboolean big_endian);

static inline gboolean vp_is_power_of_2(guint64 value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* One file a format. Each is given an image that has the mark of its format, and fills in `probe`. */
void vp_bochs_parse(const VpProbeInput *input, VpProbe *probe);
void vp_cloop_parse(const VpProbeInput *input, VpProbe *probe);
void vp_dmg_parse(const VpProbeInput *input, VpProbe *probe);
void vp_luks_parse(const VpProbeInput *input, VpProbe *probe);
void vp_parallels_parse(const VpProbeInput *input, VpProbe *probe);
void vp_qcow_parse(const VpProbeInput *input, VpProbe *probe);
void vp_qed_parse(const VpProbeInput *input, VpProbe *probe);
void vp_vdi_parse(const VpProbeInput *input, VpProbe *probe);
void vp_vhdx_parse(const VpProbeInput *input, VpProbe *probe);
void vp_vmdk_parse(const VpProbeInput *input, VpProbe *probe);
void vp_vpc_parse(const VpProbeInput *input, VpProbe *probe);

/* What a raw disk holds: notes what is in it and, as a warning, when the file ends before it does. Never makes a raw disk malformed. */
void vp_content_parse(const VpProbeInput *input, VpProbe *probe);
