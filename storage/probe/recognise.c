/*
 * The marks of every known format, each with the cheap checks that keep chance hits out. Only the mark: whether the rest of a header makes sense
 * is for the format's own parser. A missed mark would let an image pass as raw, so where in doubt a mark counts.
 */
#include "storage/probe/recognise.h"

#include "storage/probe/parse.h"

static gboolean has(const VpProbeInput *in, gsize offset, const void *mark, gsize size)
{
    const guint8 *bytes = vp_probe_find(in, offset, size);
    return bytes && memcmp(bytes, mark, size) == 0;
}

#define HAS(in, offset, literal) has((in), (offset), (literal), sizeof(literal) - 1)

static gboolean tail_has(const guint8 *tail, const char *mark)
{
    return tail && memcmp(tail, mark, strlen(mark)) == 0;
}

static gboolean is_qcow(const VpProbeInput *in)
{
    return HAS(in, 0, "QFI\xfb") && in->head_size >= 8 && vp_be32(in->head + 4) == 1;
}

static gboolean is_qcow2(const VpProbeInput *in)
{
    /* Whatever the version, and even if the file ends after the mark: a future or damaged qcow2 is no raw disk. */
    return HAS(in, 0, "QFI\xfb") && !is_qcow(in);
}

static gboolean is_qed(const VpProbeInput *in)
{
    return has(in, 0, "QED", 4);
}

/* A text descriptor: comment and empty lines, then `version=`; or the comment that all writers put first. */
static gboolean is_vmdk_descriptor(const VpProbeInput *in)
{
    static const char first[] = "# disk descriptorfile";
    gsize limit = MIN(in->head_size, 4096);
    gsize at = 0;
    if (limit >= sizeof(first) - 1 && g_ascii_strncasecmp((const char *)in->head, first, sizeof(first) - 1) == 0) {
        return TRUE;
    }
    if (limit == 0 || in->head[0] != '#') {
        return FALSE;
    }
    while (at < limit) {
        const guint8 *newline = memchr(in->head + at, '\n', limit - at);
        gsize end = newline ? (gsize)(newline - in->head) : limit;
        gsize start = at;
        while (start < end && (in->head[start] == ' ' || in->head[start] == '\r' || in->head[start] == '\t')) {
            start++;
        }
        if (start < end && in->head[start] != '#') {
            return HAS(in, start, "version=");
        }
        at = end + 1;
    }
    return FALSE;
}

static gboolean is_vmdk(const VpProbeInput *in)
{
    return HAS(in, 0, "KDMV") || HAS(in, 0, "COWD") || is_vmdk_descriptor(in);
}

static gboolean is_vdi(const VpProbeInput *in)
{
    return HAS(in, 64, "\x7f\x10\xda\xbe");
}

static gboolean is_vpc_head(const VpProbeInput *in)
{
    return HAS(in, 0, "conectix");
}

static gboolean is_luks(const VpProbeInput *in)
{
    return HAS(in, 0, "LUKS\xba\xbe");
}

static gboolean is_parallels(const VpProbeInput *in)
{
    return HAS(in, 0, "WithoutFreeSpace") || HAS(in, 0, "WithouFreSpacExt");
}

static gboolean is_bochs(const VpProbeInput *in)
{
    return has(in, 0, "Bochs Virtual HD Image", 23);
}

static gboolean is_cloop(const VpProbeInput *in)
{
    return HAS(in, 0, "#!/bin/sh\n#V2.0 Format\n");
}

static gboolean is_iso(const VpProbeInput *in)
{
    /* The first volume descriptor: ISO 9660's, or the start of UDF's recognition sequence. */
    return HAS(in, 32769, "CD001") || HAS(in, 32769, "BEA01");
}

static gboolean is_gpt(const VpProbeInput *in)
{
    return HAS(in, 512, "EFI PART") || HAS(in, 4096, "EFI PART");
}

static gboolean is_fat(const VpProbeInput *in)
{
    if (in->head_size < 512 || !HAS(in, 510, "\x55\xaa")) {
        return FALSE;
    }
    guint16 sector = vp_le16(in->head + 11);
    guint8 cluster = in->head[13];
    gboolean jump = in->head[0] == 0xe9 || (in->head[0] == 0xeb && in->head[2] == 0x90);
    gboolean sizes = sector >= 512 && sector <= 4096 && (sector & (sector - 1)) == 0 && cluster != 0 &&
                     (cluster & (cluster - 1)) == 0;
    return jump && sizes && (HAS(in, 54, "FAT") || HAS(in, 82, "FAT32"));
}

static gboolean is_mbr(const VpProbeInput *in)
{
    gboolean any = FALSE;
    if (in->head_size < 512 || !HAS(in, 510, "\x55\xaa")) {
        return FALSE;
    }
    for (guint i = 0; i < 4; i++) {
        const guint8 *entry = in->head + 446 + 16 * i;
        if (entry[0] != 0 && entry[0] != 0x80) {
            return FALSE;
        }
        any = any || (entry[4] != 0 && vp_le32(entry + 12) != 0);
    }
    return any;
}

guint32 vp_recognise(const VpProbeInput *input, guint32 *ret_by_tail)
{
    guint32 matches = 0;
    guint32 by_tail = 0;
    gboolean gpt = is_gpt(input);
    gboolean fat = is_fat(input);

    matches |= is_qcow(input) ? 1u << PB_IMAGE_FORMAT_QCOW : 0;
    matches |= is_qcow2(input) ? 1u << PB_IMAGE_FORMAT_QCOW2 : 0;
    matches |= is_qed(input) ? 1u << PB_IMAGE_FORMAT_QED : 0;
    matches |= is_vmdk(input) ? 1u << PB_IMAGE_FORMAT_VMDK : 0;
    matches |= is_vdi(input) ? 1u << PB_IMAGE_FORMAT_VDI : 0;
    matches |= is_vpc_head(input) ? 1u << PB_IMAGE_FORMAT_VPC : 0;
    matches |= HAS(input, 0, "vhdxfile") ? 1u << PB_IMAGE_FORMAT_VHDX : 0;
    matches |= is_bochs(input) ? 1u << PB_IMAGE_FORMAT_BOCHS : 0;
    matches |= is_cloop(input) ? 1u << PB_IMAGE_FORMAT_CLOOP : 0;
    matches |= is_parallels(input) ? 1u << PB_IMAGE_FORMAT_PARALLELS : 0;
    matches |= is_luks(input) ? 1u << PB_IMAGE_FORMAT_LUKS : 0;
    matches |= is_iso(input) ? 1u << PB_IMAGE_FORMAT_ISO : 0;
    matches |= gpt ? 1u << PB_IMAGE_FORMAT_GPT : 0;
    matches |= fat ? 1u << PB_IMAGE_FORMAT_FAT : 0;
    /* A GPT comes with a protective MBR, and a FAT boot sector's code can look like a partition table. */
    matches |= !gpt && !fat && is_mbr(input) ? 1u << PB_IMAGE_FORMAT_MBR : 0;

    const guint8 *tail = NULL;
    if (input->file_size >= VP_PROBE_TAIL) {
        tail = vp_probe_find(input, input->file_size - VP_PROBE_TAIL, VP_PROBE_MARK);
    }
    if (tail_has(tail, "conectix")) {
        by_tail |= 1u << PB_IMAGE_FORMAT_VPC;
    }
    if (tail_has(tail, "koly")) {
        by_tail |= 1u << PB_IMAGE_FORMAT_DMG;
    }
    *ret_by_tail = by_tail & ~matches;
    return matches | by_tail;
}
