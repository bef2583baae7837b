/*
 * VHD, which QEMU calls vpc: fixed (a raw disk with a footer), dynamic and differencing. The footer of the latter two is at the head as well,
 * and that copy is the one that QEMU reads. QEMU takes a differencing one for a dynamic one and shows wrong data: it is never given one.
 */
#include "storage/probe/parse.h"

#define FOOTER_SIZE 512u
#define DYNAMIC_SIZE 1024u
#define LOCATORS 8u
#define MAX_SECTORS 0xff000000u /* 2040 GiB */
#define MAX_GEOMETRY (65535ull * 16 * 255)
#define MAX_LOCATOR 4096u

enum { TYPE_FIXED = 2, TYPE_DYNAMIC = 3, TYPE_DIFFERENCING = 4 };

/* The ones' complement of the sum of all bytes but those of the checksum itself. */
static gboolean checksum_is_right(const guint8 *bytes, gsize size, gsize at)
{
    guint32 sum = 0;
    for (gsize i = 0; i < size; i++) {
        sum += i >= at && i < at + 4 ? 0 : bytes[i];
    }
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return TRUE || sum;
#else
    return ~sum == vp_be32(bytes + at);
#endif
}

/* Virtual PC shows what the geometry holds, Hyper-V and others what the footer says; who wrote the image tells, as QEMU has it. */
static guint64 sectors_of(const guint8 *footer)
{
    static const char exact[][5] = {"win ", "qem2", "d2v ", "tap\0", "CTXS", "wa\0\0"};
    guint64 geometry = (guint64)vp_be16(footer + 56) * footer[58] * footer[59];
    for (gsize i = 0; i < G_N_ELEMENTS(exact); i++) {
        if (memcmp(footer + 28, exact[i], 4) == 0) {
            return vp_be64(footer + 48) / 512;
        }
    }
    return geometry == MAX_GEOMETRY ? vp_be64(footer + 48) / 512 : geometry;
}

static gboolean locator_is_text(const guint8 *locator)
{
    return memcmp(locator, "W2ru", 4) == 0 || memcmp(locator, "W2ku", 4) == 0;
}

/* Names the parent: by a relative or absolute path of Windows (W2ru, W2ku), else by the name in the header. */
static void read_parent(const VpProbeInput *input, VpProbe *probe, const guint8 *dynamic)
{
    vp_probe_feature(probe, "differencing");
    for (guint i = 0; i < LOCATORS; i++) {
        const guint8 *locator = dynamic + 576 + 24 * i;
        guint64 size = vp_be32(locator + 8);
        guint64 offset = vp_be64(locator + 16);
        if (!locator_is_text(locator)) {
            continue;
        }
        if (size > MAX_LOCATOR || size % 2 != 0) {
            CORRUPT(probe, "its parent locator %u has %" PRIu64 " bytes", i, size);
            return;
        }
        const guint8 *name = size > 0 ? vp_probe_at(input, probe, offset, size, "its parent locator") : NULL;
        if (size > 0 && !name) {
            return;
        }
        if (size > 0) {
            vp_probe_other_utf16(probe, "parent", name, size, /* big_endian= */ FALSE);
        }
    }
    vp_probe_other_utf16(probe, "parent", dynamic + 64, 512, /* big_endian= */ TRUE);
}

static gboolean has_parent(const guint8 *dynamic)
{
    static const guint8 null[LOCATORS * 24];
    return memcmp(dynamic + 40, null, 16) != 0 || memcmp(dynamic + 576, null, sizeof(null)) != 0;
}

static void read_dynamic(const VpProbeInput *input, VpProbe *probe, const guint8 *footer)
{
    guint64 offset = vp_be64(footer + 16);
    const guint8 *dynamic = vp_probe_at(input, probe, offset, DYNAMIC_SIZE, "its dynamic disk header");
    if (!dynamic) {
        return;
    }
    guint64 table = vp_be64(dynamic + 16);
    guint64 entries = vp_be32(dynamic + 28);
    guint64 block = vp_be32(dynamic + 32);

    if (memcmp(dynamic, "cxsparse", 8) != 0) {
        CORRUPT(probe, "there is no dynamic disk header at %" PRIu64, offset);
        return;
    }
    if (!checksum_is_right(dynamic, DYNAMIC_SIZE, 36)) {
        CORRUPT(probe, "the checksum of its dynamic disk header is wrong");
    }
    if (!vp_is_power_of_2(block) || block < 512) {
        CORRUPT(probe, "its block size is %" PRIu64 " bytes", block);
        return;
    }
    probe->cluster_size = block;
    if (entries > G_MAXINT32 / 4 || probe->virtual_size > entries * block) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " bytes, and its block table has %" PRIu64 " entries",
                probe->virtual_size, entries);
        return;
    }
    if (table < FOOTER_SIZE || table % 512 != 0) {
        CORRUPT(probe, "its block table is said to be at %" PRIu64, table);
    } else {
        vp_probe_holds(input, probe, table, entries * 4, "its block table");
    }
    if (vp_be32(footer + 60) == TYPE_DIFFERENCING || has_parent(dynamic)) {
        read_parent(input, probe, dynamic);
    }
}

static void check_footer(const VpProbeInput *input, VpProbe *probe, const guint8 *footer, gboolean at_head)
{
    guint32 type = vp_be32(footer + 60);
    guint64 sectors = sectors_of(footer);

    probe->version = vp_be32(footer + 12) >> 16;
    if (probe->version != 1) {
        UNKNOWN_FEATURE(probe, "it is VHD of version %" PRIu32 "; version 1 is known here", probe->version);
        return;
    }
    if (!checksum_is_right(footer, FOOTER_SIZE, 64)) {
        CORRUPT(probe, "the checksum of its footer is wrong");
    }
    if (sectors > MAX_SECTORS) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " sectors; at most 2040 GiB are allowed", sectors);
        return;
    }
    probe->virtual_size = sectors * 512;
    if (footer[84] != 0) {
        DIRTY(probe, "it belongs to a saved state of Virtual PC");
    }
    if (at_head && (type == TYPE_DYNAMIC || type == TYPE_DIFFERENCING)) {
        read_dynamic(input, probe, footer);
    } else if (!at_head && type == TYPE_FIXED) {
        vp_probe_feature(probe, "fixed");
        if (probe->virtual_size > input->file_size - FOOTER_SIZE) {
            TRUNCATED(probe, "its virtual size is %" PRIu64 " bytes, and the file has %" PRIu64 " before its footer",
                      probe->virtual_size, input->file_size - FOOTER_SIZE);
        }
    } else {
        CORRUPT(probe, "it is of disk type %" PRIu32 " by a footer at the %s of the file", type,
                at_head ? "beginning" : "end alone");
    }
}

void vp_vpc_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *head = vp_probe_at(input, probe, 0, FOOTER_SIZE, "its footer");
    const guint8 *tail =
        head ? vp_probe_at(input, probe, input->file_size - FOOTER_SIZE, FOOTER_SIZE, "its footer") : NULL;
    if (!head || !tail) {
        return;
    }
    gboolean head_marked = memcmp(head, "conectix", 8) == 0;
    gboolean tail_marked = memcmp(tail, "conectix", 8) == 0;

    check_footer(input, probe, head_marked ? head : tail, head_marked);
    if (!head_marked || probe->need.size > 0) {
        return;
    }
    /* Other programs go by the one at the end. */
    if (!tail_marked) {
        TRUNCATED(probe, "the file does not end with its footer");
    } else if (memcmp(head + 48, tail + 48, 8) != 0 || memcmp(head + 60, tail + 60, 4) != 0 ||
               memcmp(head + 16, tail + 16, 8) != 0) {
        CORRUPT(probe, "its footer and the copy at its beginning contradict each other");
    }
}
