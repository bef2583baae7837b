/*
 * What lies in a raw disk: partition tables and file systems. All of it may be a guest's writing, so nothing here changes what the disk is: it
 * names the content, and warns if the file ends before the content says that it does, as after a copy that was broken off.
 */
#include "storage/probe/formats.h"
#include "storage/probe/parse.h"

#define ISO_DESCRIPTOR 32768u

static void cut(VpProbe *probe, const VpProbeInput *input, guint64 size, const char *what)
{
    vp_probe_note(probe, PB_FINDING_CODE_TRUNCATED, PB_SEVERITY_WARNING,
                  "the file has %" PRIu64 " bytes, and the %s in it says that it has %" PRIu64, input->file_size, what,
                  size);
}

static void look_at_iso(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *descriptor = vp_probe_find(input, ISO_DESCRIPTOR, 2048);
    const guint8 *next = vp_probe_find(input, ISO_DESCRIPTOR + 2048, 6);
    if (!descriptor) {
        return;
    }
    if (memcmp(descriptor + 1, "BEA01", 5) == 0 || (next && memcmp(next + 1, "NSR0", 4) == 0)) {
        vp_probe_feature(probe, "udf");
    }
    if (descriptor[0] != 1 || memcmp(descriptor + 1, "CD001", 5) != 0) {
        return;
    }
    vp_probe_feature(probe, "iso9660");
    guint64 size = (guint64)vp_le32(descriptor + 80) * vp_le16(descriptor + 128);
    if (size > input->file_size) {
        cut(probe, input, size, "ISO 9660 file system");
    }
}

static void look_at_gpt(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *at512 = vp_probe_find(input, 512, 92);
    guint64 sector = at512 && memcmp(at512, "EFI PART", 8) == 0 ? 512 : 4096;
    const guint8 *header = vp_probe_find(input, sector, 92);
    vp_probe_feature(probe, "gpt");
    if (!header) {
        return;
    }
    guint64 backup = vp_le64(header + 32);
    if (backup <= (guint64)G_MAXINT64 / sector - 1 && (backup + 1) * sector > input->file_size) {
        cut(probe, input, (backup + 1) * sector, "GUID partition table");
    }
}

static void look_at_mbr(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *sector = vp_probe_find(input, 0, 512);
    guint64 end = 0;
    if (!sector) {
        return;
    }
    for (guint i = 0; i < 4; i++) {
        const guint8 *entry = sector + 446 + 16 * i;
        if (entry[4] == 0xee) {
            /* Its GPT is not where it should be. */
            vp_probe_feature(probe, "protective-mbr");
            return;
        }
        if (entry[4] != 0) {
            end = MAX(end, ((guint64)vp_le32(entry + 8) + vp_le32(entry + 12)) * 512);
        }
    }
    vp_probe_feature(probe, "mbr");
    if (end > input->file_size) {
        cut(probe, input, end, "partition table");
    }
}

static void look_at_fat(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *sector = vp_probe_find(input, 0, 512);
    if (!sector) {
        return;
    }
    guint64 few = vp_le16(sector + 19);
    guint64 size = (few ? few : vp_le32(sector + 32)) * vp_le16(sector + 11);
    vp_probe_feature(probe, memcmp(sector + 82, "FAT32", 5) == 0   ? "fat32"
                            : memcmp(sector + 54, "FAT16", 5) == 0 ? "fat16"
                            : memcmp(sector + 54, "FAT12", 5) == 0 ? "fat12"
                                                                   : "fat");
    if (size > input->file_size) {
        cut(probe, input, size, "FAT file system");
    }
}

void vp_content_parse(const VpProbeInput *input, VpProbe *probe)
{
    if (probe->matches & 1u << PB_IMAGE_FORMAT_ISO) {
        look_at_iso(input, probe);
    }
    if (probe->matches & 1u << PB_IMAGE_FORMAT_GPT) {
        look_at_gpt(input, probe);
    }
    if (probe->matches & 1u << PB_IMAGE_FORMAT_MBR) {
        look_at_mbr(input, probe);
    }
    if (probe->matches & 1u << PB_IMAGE_FORMAT_FAT) {
        look_at_fat(input, probe);
    }
}
