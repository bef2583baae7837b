/* qcow, version 1. It cannot record its backing file's format. */
#include "storage/probe/parse.h"

#define HEADER_SIZE 48u
#define MIN_CLUSTER_BITS 9
#define MAX_CLUSTER_BITS 16
#define MIN_L2_BITS 6
#define MAX_L2_BITS 13

void vp_qcow_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint64 backing_offset = vp_be64(header + 8);
    guint64 backing_size = vp_be32(header + 16);
    guint64 size = vp_be64(header + 24);
    guint cluster_bits = header[32];
    guint l2_bits = header[33];
    guint32 crypt_method = vp_be32(header + 36);
    guint64 l1_offset = vp_be64(header + 40);

    probe->version = 1;
    probe->virtual_size = size & ~(guint64)511; /* QEMU shows whole sectors */
    if (cluster_bits < MIN_CLUSTER_BITS || cluster_bits > MAX_CLUSTER_BITS) {
        CORRUPT(probe, "its cluster size is 2^%u bytes; 2^9 to 2^16 are allowed", cluster_bits);
        return;
    }
    probe->cluster_size = 1ull << cluster_bits;
    if (l2_bits < MIN_L2_BITS || l2_bits > MAX_L2_BITS) {
        CORRUPT(probe, "its L2 tables have 2^%u entries; 2^6 to 2^13 are allowed", l2_bits);
        return;
    }
    if (size <= 1 || size > (guint64)G_MAXINT64) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " bytes", size);
        return;
    }
    guint shift = cluster_bits + l2_bits; /* at most 29 */
    guint64 l1_entries = (size >> shift) + ((size & ((1ull << shift) - 1)) != 0);
    if (l1_entries > G_MAXINT32 / 8) {
        CORRUPT(probe, "its virtual size of %" PRIu64 " bytes is too large for its cluster size", size);
        return;
    }
    if (l1_offset < HEADER_SIZE) {
        CORRUPT(probe, "its L1 table is said to be at %" PRIu64, l1_offset);
    } else {
        vp_probe_holds(input, probe, l1_offset, l1_entries * 8, "its L1 table");
    }
    if (crypt_method > 1) {
        UNKNOWN_FEATURE(probe, "it uses encryption method %" PRIu32 ", which is not known here", crypt_method);
    } else if (crypt_method == 1) {
        probe->encrypted = TRUE;
        vp_probe_feature(probe, "aes");
        vp_probe_note(probe, PB_FINDING_CODE_ENCRYPTED, PB_SEVERITY_INFO,
                      "its content is encrypted with AES (the old method, which is weak)");
    }
    if (backing_offset != 0 || backing_size != 0) {
        if (backing_offset < HEADER_SIZE) {
            CORRUPT(probe, "the name of its backing file is said to be at %" PRIu64 " with a length of %" PRIu64,
                    backing_offset, backing_size);
        } else {
            vp_probe_backing_at(input, probe, backing_offset, backing_size);
        }
    }
}
