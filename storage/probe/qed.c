/* qed, QEMU's enhanced disk: docs/interop/qed_spec.txt of QEMU. */
#include "storage/probe/parse.h"

#define HEADER_SIZE 64u
#define FEATURE_BACKING_FILE (1ull << 0)
#define FEATURE_NEED_CHECK (1ull << 1)
#define FEATURE_BACKING_RAW (1ull << 2)
#define FEATURES_KNOWN (FEATURE_BACKING_FILE | FEATURE_NEED_CHECK | FEATURE_BACKING_RAW)
#define MIN_CLUSTER 4096u
#define MAX_CLUSTER (64u << 20)
#define MAX_TABLE_CLUSTERS 16u

static void check_backing(const VpProbeInput *input, VpProbe *probe, const guint8 *header, guint64 header_bytes)
{
    guint64 offset = vp_le32(header + 56);
    guint64 size = vp_le32(header + 60);
    if (offset < HEADER_SIZE || offset > header_bytes || size > header_bytes - offset) {
        CORRUPT(probe,
                "the name of its backing file is said to be at %" PRIu64 " with a length of %" PRIu64
                ", outside its header",
                offset, size);
        return;
    }
    if (vp_le64(header + 16) & FEATURE_BACKING_RAW) {
        probe->backing_format = (VpProbeText){"raw", 3};
    }
    vp_probe_backing_at(input, probe, offset, size);
}

void vp_qed_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint64 cluster = vp_le32(header + 4);
    guint64 table_clusters = vp_le32(header + 8);
    guint64 header_clusters = vp_le32(header + 12);
    guint64 features = vp_le64(header + 16);
    guint64 l1_offset = vp_le64(header + 40);
    guint64 size = vp_le64(header + 48);

    if (!vp_is_power_of_2(cluster) || cluster < MIN_CLUSTER || cluster > MAX_CLUSTER) {
        CORRUPT(probe, "its cluster size is %" PRIu64 " bytes; powers of 2 from 4096 to 64 MiB are allowed", cluster);
        return;
    }
    probe->cluster_size = cluster;
    probe->virtual_size = size;
    if (!vp_is_power_of_2(table_clusters) || table_clusters > MAX_TABLE_CLUSTERS) {
        CORRUPT(probe, "its tables have %" PRIu64 " clusters; 1, 2, 4, 8 or 16 are allowed", table_clusters);
        return;
    }
    if (header_clusters == 0) {
        CORRUPT(probe, "its header has no cluster");
        return;
    }
    guint64 header_bytes = header_clusters * cluster; /* below 2^58 */
    guint64 entries = cluster * table_clusters / 8;   /* at most 2^27 */
    if (size % 512 != 0 || size > (guint64)G_MAXINT64 || size / cluster / entries > entries ||
        (size / cluster / entries == entries && size % (cluster * entries) != 0)) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " bytes, too many for its tables or no whole sectors", size);
    }
    if (l1_offset % cluster != 0 || l1_offset < header_bytes) {
        CORRUPT(probe, "its L1 table is said to be at %" PRIu64, l1_offset);
    } else {
        vp_probe_holds(input, probe, l1_offset, table_clusters * cluster, "its L1 table");
    }
    for (guint bit = 0; bit < 64; bit++) {
        if (features & ~FEATURES_KNOWN & 1ull << bit) {
            UNKNOWN_FEATURE(probe, "it needs the feature of bit %u, which is not known here", bit);
        }
    }
    if (features & FEATURE_NEED_CHECK) {
        vp_probe_feature(probe, "need-check");
        DIRTY(probe, "it was not closed cleanly, or is in use right now");
    }
    if (features & FEATURE_BACKING_FILE) {
        check_backing(input, probe, header, header_bytes);
    }
}
