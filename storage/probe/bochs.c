/* Bochs' growing image, a redo log upon nothing. Its other redo logs (undoable, volatile) lie upon a second file. */
#include "storage/probe/parse.h"

#define HEADER_SIZE 512u
#define MAX_CATALOG 0x100000u
#define MAX_EXTENT 0x800000u

static gboolean is_name(const guint8 *field, const char *name)
{
    return memcmp(field, name, strlen(name) + 1) == 0;
}

void vp_bochs_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint32 version = vp_le32(header + 64);
    guint64 header_size = vp_le32(header + 68);
    guint64 catalog = vp_le32(header + 72);
    guint64 bitmap = vp_le32(header + 76);
    guint64 extent = vp_le32(header + 80);

    probe->version = version >> 16;
    if (version != 0x00010000 && version != 0x00020000) {
        UNKNOWN_FEATURE(probe, "it is bochs of version 0x%08" PRIx32 "; 1 and 2 are known here", version);
        return;
    }
    guint64 size = vp_le64(header + (probe->version == 1 ? 84 : 88));
    if (!is_name(header + 32, "Redolog")) {
        CORRUPT(probe, "its type is not Redolog");
        return;
    }
    if (is_name(header + 48, "Undoable") || is_name(header + 48, "Volatile")) {
        vp_probe_feature(probe, "redolog");
        vp_probe_other(probe, "parent", "the image that this redo log was made for",
                       strlen("the image that this redo log was made for"));
    } else if (!is_name(header + 48, "Growing")) {
        CORRUPT(probe, "its subtype is not Growing, Undoable or Volatile");
        return;
    }
    if (catalog > MAX_CATALOG || !vp_is_power_of_2(extent) || extent < 512 || extent > MAX_EXTENT) {
        CORRUPT(probe, "its catalog has %" PRIu64 " entries, and its extents %" PRIu64 " bytes", catalog, extent);
        return;
    }
    probe->cluster_size = extent;
    if (size > catalog * extent) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " bytes, more than its catalog of %" PRIu64 " entries covers",
                size, catalog);
        return;
    }
    probe->virtual_size = size / 512 * 512;
    if (bitmap < (extent / 512 + 7) / 8 || header_size < HEADER_SIZE) {
        CORRUPT(probe, "its header has %" PRIu64 " bytes, and its bitmaps %" PRIu64, header_size, bitmap);
        return;
    }
    vp_probe_holds(input, probe, header_size, catalog * 4, "its catalog");
}
