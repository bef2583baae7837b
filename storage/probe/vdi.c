/* VDI, VirtualBox's disk image: dynamic, static, undo and differencing. QEMU opens the first two. */
#include <stdio.h>

#include "storage/probe/parse.h"

#define HEADER_SIZE 512u
#define QEMU_BLOCK_SIZE (1u << 20)
#define MAX_BLOCKS ((G_MAXINT32 + 1u - 512u) / 4)

enum { TYPE_DYNAMIC = 1, TYPE_STATIC = 2, TYPE_UNDO = 3, TYPE_DIFFERENCING = 4 };

static gboolean uuid_is_null(const guint8 *uuid)
{
    static const guint8 null[16];
    return memcmp(uuid, null, sizeof(null)) == 0;
}

/* VirtualBox finds the parent by this number in its registry, or among the disks of the machine. */
static void name_parent(VpProbe *probe, const guint8 *uuid)
{
    char text[64];
    int size = snprintf(text, sizeof(text), "%08" PRIx32 "-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", vp_le32(uuid),
                        vp_le16(uuid + 4), vp_le16(uuid + 6), uuid[8], uuid[9], uuid[10], uuid[11], uuid[12], uuid[13],
                        uuid[14], uuid[15]);
    vp_probe_other(probe, "parent", text, (gsize)size);
}

static void check_map(const VpProbeInput *input, VpProbe *probe, const guint8 *header)
{
    guint64 map = vp_le32(header + 340);
    guint64 data = vp_le32(header + 344);
    guint64 size = vp_le64(header + 368);
    guint64 block = vp_le32(header + 376);
    guint64 blocks = vp_le32(header + 384);
    guint64 allocated = vp_le32(header + 388);

    if (map % 512 != 0 || data % 512 != 0 || map < HEADER_SIZE || map > data) {
        CORRUPT(probe, "its block map is said to be at %" PRIu64 " and its data at %" PRIu64, map, data);
        return;
    }
    if (!vp_is_power_of_2(block) || block < 512) {
        CORRUPT(probe, "its block size is %" PRIu64 " bytes", block);
        return;
    }
    probe->cluster_size = block;
    if (size > (guint64)G_MAXINT64 || blocks > MAX_BLOCKS || size > blocks * block) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " bytes, more than its %" PRIu64 " blocks of %" PRIu64, size,
                blocks, block);
        return;
    }
    if (allocated > blocks) {
        CORRUPT(probe, "it says that %" PRIu64 " of its %" PRIu64 " blocks are allocated", allocated, blocks);
        return;
    }
    if (map + blocks * 4 > data) {
        CORRUPT(probe, "its block map of %" PRIu64 " entries reaches into its data at %" PRIu64, blocks, data);
        return;
    }
    vp_probe_holds(input, probe, map, blocks * 4, "its block map");
    if (allocated > 0) {
        vp_probe_holds(input, probe, data, allocated * block, "its data");
    }
    if (block != QEMU_BLOCK_SIZE) {
        UNSUPPORTED(probe, "its blocks have %" PRIu64 " bytes, and QEMU opens vdi with blocks of 1 MiB only", block);
    }
}

void vp_vdi_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint32 version = vp_le32(header + 68);
    guint32 type = vp_le32(header + 76);

    probe->version = version >> 16;
    if (version != 0x00010001) {
        UNKNOWN_FEATURE(probe, "it is vdi of version %" PRIu32 ".%" PRIu32 "; version 1.1 is known here", version >> 16,
                        version & 0xffff);
        return;
    }
    /* VirtualBox itself has written sizes that are no whole sectors; QEMU rounds them up. */
    guint64 size = vp_le64(header + 368);
    probe->virtual_size = size <= (guint64)G_MAXINT64 - 511 ? (size + 511) & ~511ull : size;
    if (vp_le32(header + 360) != 512) {
        CORRUPT(probe, "its sectors have %" PRIu32 " bytes; 512 are right", vp_le32(header + 360));
    }
    check_map(input, probe, header);
    switch (type) {
    case TYPE_DYNAMIC:
        break;
    case TYPE_STATIC:
        vp_probe_feature(probe, "static");
        break;
    case TYPE_UNDO:
    case TYPE_DIFFERENCING:
        vp_probe_feature(probe, type == TYPE_UNDO ? "undo" : "differencing");
        name_parent(probe, header + 440);
        break;
    default:
        CORRUPT(probe, "its image type is %" PRIu32 "; 1 to 4 are known", type);
        break;
    }
    /* A parent is a parent, whatever the type says. */
    if (!uuid_is_null(header + 424)) {
        name_parent(probe, header + 424);
    }
    if (!uuid_is_null(header + 440)) {
        name_parent(probe, header + 440);
    }
}
