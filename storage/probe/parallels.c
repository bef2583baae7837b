/* Parallels and ploop: docs/interop/parallels.txt of QEMU. Snapshots of these are separate files, named by an XML file beside them only. */
#include "storage/probe/parse.h"

#define HEADER_SIZE 64u
#define IN_USE 0x746f6e59u /* "Yont", as ploop writes it */
#define MAX_TRACKS (G_MAXINT32 / 513)
#define MAX_ENTRIES (G_MAXINT32 / 4)
#define FLAG_EMPTY 1u

void vp_parallels_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    gboolean extended = memcmp(header, "WithouFreSpacExt", 16) == 0;
    guint64 tracks = vp_le32(header + 28);
    guint64 entries = vp_le32(header + 32);
    guint64 sectors = vp_le64(header + 36);
    guint64 data = vp_le32(header + 48);
    guint64 extension = vp_le64(header + 56);
    guint64 table_end = HEADER_SIZE + entries * 4;

    probe->version = vp_le32(header + 16);
    if (probe->version != 2) {
        UNKNOWN_FEATURE(probe, "it is parallels of version %" PRIu32 "; version 2 is known here", probe->version);
        return;
    }
    if (extended) {
        vp_probe_feature(probe, "extended");
    } else {
        sectors &= 0xffffffff; /* the upper half was not written by old programs */
    }
    if (tracks == 0 || tracks > MAX_TRACKS || entries > MAX_ENTRIES) {
        CORRUPT(probe, "its clusters have %" PRIu64 " sectors, and its table %" PRIu64 " entries", tracks, entries);
        return;
    }
    probe->cluster_size = tracks * 512;
    if (sectors > (guint64)G_MAXINT64 / 512 || sectors > tracks * entries) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " sectors, more than its table of %" PRIu64 " entries covers",
                sectors, entries);
        return;
    }
    probe->virtual_size = sectors * 512;
    vp_probe_holds(input, probe, HEADER_SIZE, entries * 4, "its block table");
    if (data != 0 && data * 512 < table_end) {
        CORRUPT(probe, "its data is said to begin at %" PRIu64 ", within its table", data * 512);
    }
    if (vp_le32(header + 44) == IN_USE) {
        DIRTY(probe, "it was not closed cleanly, or is in use right now");
    }
    if (vp_le32(header + 52) & FLAG_EMPTY) {
        vp_probe_feature(probe, "empty");
    }
    if (extended && extension != 0) {
        vp_probe_feature(probe, "format-extension");
        if (extension > input->file_size / 512) {
            TRUNCATED(probe, "the file ends before its format extension at sector %" PRIu64, extension);
        }
    }
}
