/* Apple's disk image (UDIF), told by its trailer. It can only be read. A split one has the rest of its data in further files. */
#include "storage/probe/parse.h"

#define TRAILER_SIZE 512u
#define SEARCH_SIZE 1023u

/* Bounds that QEMU has for the list of blocks. */
#define MAX_PART_BYTES (16u << 20)

static void check_part(VpProbe *probe, guint64 trailer, guint64 offset, guint64 size, const char *what)
{
    if (size > 0 && (offset > trailer || size > trailer - offset)) {
        CORRUPT(probe, "its %s is said to have %" PRIu64 " bytes at %" PRIu64 ", beyond the file's %" PRIu64, what,
                size, offset, trailer);
    }
}

/* Files may have odd sizes, so that QEMU looks for the mark in the last two sectors and takes the first: there has to be one alone. */
static gboolean has_decoy(const VpProbeInput *input, VpProbe *probe, guint64 trailer)
{
    guint64 end = (input->file_size + 511) & ~(guint64)511;
    guint64 from = end > SEARCH_SIZE ? end - SEARCH_SIZE : 0;
    if (from >= trailer) {
        return FALSE;
    }
    gsize size = (gsize)(trailer - from) + 3; /* one that begins before the trailer may end in it */
    const guint8 *bytes = vp_probe_at(input, probe, from, size, "its trailer");
    if (bytes && memmem(bytes, size, "koly", 4)) {
        CORRUPT(probe, "it has two trailers, and programs differ in which one they take");
        return TRUE;
    }
    return bytes == NULL;
}

void vp_dmg_parse(const VpProbeInput *input, VpProbe *probe)
{
    guint64 trailer = input->file_size - TRAILER_SIZE; /* the mark is there */
    const guint8 *koly = vp_probe_at(input, probe, trailer, TRAILER_SIZE, "its trailer");
    if (!koly || has_decoy(input, probe, trailer)) {
        return;
    }
    guint64 sectors = vp_be64(koly + 492);
    guint32 segments = vp_be32(koly + 60);
    guint64 resources = vp_be64(koly + 48);
    guint64 list = vp_be64(koly + 224);

    probe->version = vp_be32(koly + 4);
    if (probe->version != 4 || vp_be32(koly + 8) != TRAILER_SIZE) {
        UNKNOWN_FEATURE(probe,
                        "it is dmg of version %" PRIu32 " with a trailer of %" PRIu32
                        " bytes; version 4 with 512 is known "
                        "here",
                        probe->version, vp_be32(koly + 8));
        return;
    }
    if (sectors == 0 || sectors > (guint64)G_MAXINT64 / 512) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " sectors", sectors);
        return;
    }
    probe->virtual_size = sectors * 512;
    check_part(probe, trailer, vp_be64(koly + 24), vp_be64(koly + 32), "data");
    check_part(probe, trailer, vp_be64(koly + 40), resources, "resource fork");
    check_part(probe, trailer, vp_be64(koly + 216), list, "list of blocks");
    if (resources == 0 && list == 0) {
        CORRUPT(probe, "it has no list of blocks");
    } else if (list > MAX_PART_BYTES || resources > MAX_PART_BYTES) {
        CORRUPT(probe, "its list of blocks has %" PRIu64 " bytes; at most 16 MiB are allowed", MAX(list, resources));
    }
    if (segments > 1) {
        vp_probe_feature(probe, "segmented");
        vp_probe_other(probe, "segment", "", 0);
    }
}
