/* The compressed loop image of Knoppix, version 2. It can only be read. */
#include "storage/probe/parse.h"

#define HEADER_SIZE 136u
#define MAX_BLOCK (64u << 20)
#define MAX_TABLE (512u << 20)

void vp_cloop_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint64 block = vp_be32(header + 128);
    guint64 blocks = vp_be32(header + 132);
    guint64 table = (blocks + 1) * 8;

    probe->version = 2;
    if (block == 0 || block % 512 != 0 || block > MAX_BLOCK) {
        CORRUPT(probe, "its blocks have %" PRIu64 " bytes; multiples of 512 up to 64 MiB are allowed", block);
        return;
    }
    probe->cluster_size = block;
    probe->virtual_size = blocks * block; /* below 2^58 */
    if (table > MAX_TABLE) {
        CORRUPT(probe, "it has %" PRIu64 " blocks, too many for its table", blocks);
        return;
    }
    if (!vp_probe_holds(input, probe, HEADER_SIZE, table, "its block table")) {
        return;
    }
    const guint8 *first = vp_probe_at(input, probe, HEADER_SIZE, 8, "its block table");
    const guint8 *last = vp_probe_at(input, probe, HEADER_SIZE + table - 8, 8, "its block table");
    if (!first || !last) {
        return;
    }
    if (vp_be64(first) < HEADER_SIZE + table || vp_be64(first) > vp_be64(last)) {
        CORRUPT(probe, "its first block is said to be at %" PRIu64 " and the end of its last at %" PRIu64,
                vp_be64(first), vp_be64(last));
    } else {
        vp_probe_holds(input, probe, 0, vp_be64(last), "its blocks");
    }
}
