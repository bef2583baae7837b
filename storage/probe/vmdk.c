/*
 * VMDK: a sparse file with its descriptor inside (monolithicSparse, streamOptimized), one extent of a split disk, a descriptor alone, and ESX's
 * COWD. A descriptor names its extents by paths that QEMU would open by itself: such a disk is told as naming other files and never given to it.
 */
#include "storage/probe/parse.h"
#include "storage/probe/vmdk_descriptor.h"

#define HEADER_SIZE 512u
/* QEMU looks for the descriptor of a sparse file here, whatever the header says, and reads so much. */
#define DESCRIPTOR_OFFSET 512u
#define DESCRIPTOR_SIZE (20u * 512u)
#define FOOTER_SIZE 1536u
#define MARKER_FOOTER 3u
#define GD_AT_END G_MAXUINT64
#define MAX_GRAIN_SECTORS 0x200000u
#define MAX_TABLE_ENTRIES 512u
#define MAX_DIRECTORY (32u << 20)

#define COWD_HEADER_SIZE 2048u
#define COWD_PARENT_SIZE 1024u
#define COWD_TABLE_ENTRIES 4096u
#define COWD_FLAG_ROOT 1u

#define FLAG_REDUNDANT (1u << 1)
#define FLAG_COMPRESSED (1u << 16)
#define FLAG_MARKERS (1u << 17)

static gboolean is_type(VpProbeText type, const char *name)
{
    return type.size == strlen(name) && memcmp(type.bytes, name, type.size) == 0;
}

/* What it names: its parent (which QEMU wants to be a vmdk as well) and, if it is no sparse file itself, its extents. */
static void take_descriptor(VpProbe *probe, const VpVmdkDescriptor *descriptor)
{
    if (descriptor->error) {
        CORRUPT(probe, "its descriptor %s", descriptor->error);
    }
    if (descriptor->parent_hint.size > VP_BACKING_NAME_MAX) {
        CORRUPT(probe, "the name of its parent has %" G_GSIZE_FORMAT " bytes; at most 1023 are allowed",
                descriptor->parent_hint.size);
    } else if (descriptor->parent_hint.size > 0) {
        probe->backing_path = descriptor->parent_hint;
        probe->backing_format = (VpProbeText){"vmdk", 4};
    }
}

static void name_extents(VpProbe *probe, const VpVmdkDescriptor *descriptor)
{
    vp_probe_feature(probe, "extents");
    vp_probe_other(probe, "extent", descriptor->first_extent.bytes, descriptor->first_extent.size);
}

static void parse_text(const VpProbeInput *input, VpProbe *probe)
{
    VpVmdkDescriptor descriptor;
    gsize size = (gsize)MIN(input->file_size, (guint64)VP_VMDK_DESCRIPTOR_MAX);
    if (input->head_size < size) {
        probe->need = (VpProbeRange){0, size};
        return;
    }
    vp_vmdk_descriptor_read((const char *)input->head, size, &descriptor);
    take_descriptor(probe, &descriptor);
    probe->virtual_size = descriptor.sectors * 512;
    if (descriptor.extents == 0 || descriptor.create_type.size == 0) {
        CORRUPT(probe, "its descriptor has no %s", descriptor.extents == 0 ? "extents" : "type");
    } else if (input->file_size > VP_VMDK_DESCRIPTOR_MAX && !memchr(input->head, 0, size)) {
        CORRUPT(probe, "its descriptor has more than 1 MiB");
    }
    /* Even if there are none to be found here: a descriptor is nothing without extents. */
    name_extents(probe, &descriptor);
}

/* The descriptor within a sparse file: at most one extent, which is the file itself whatever its name. */
static void parse_embedded(const VpProbeInput *input, VpProbe *probe, const guint8 *header, gboolean stub)
{
    guint64 offset = vp_le64(header + 28);
    guint64 sectors = vp_le64(header + 36);
    gsize size = (gsize)MIN(input->file_size - DESCRIPTOR_OFFSET, (guint64)DESCRIPTOR_SIZE);
    const guint8 *text = vp_probe_at(input, probe, DESCRIPTOR_OFFSET, size, "its descriptor");
    VpVmdkDescriptor descriptor;
    if (!text) {
        return;
    }
    vp_vmdk_descriptor_read((const char *)text, size, &descriptor);
    if (!stub && (offset == 0 || (!descriptor.has_version && descriptor.extents == 0))) {
        vp_probe_feature(probe, "extent");
        UNSUPPORTED(probe, "it is one extent of a split disk, without the descriptor that says what it belongs to");
        return;
    }
    if (offset != 1 || sectors == 0 || sectors > (guint64)G_MAXINT64 / 512) {
        CORRUPT(probe,
                "its descriptor is said to have %" PRIu64 " sectors at sector %" PRIu64
                "; sector 1 is where programs look",
                sectors, offset);
    }
    if (!memchr(text, 0, size) && size == DESCRIPTOR_SIZE && sectors > DESCRIPTOR_SIZE / 512) {
        CORRUPT(probe, "its descriptor has more than 20 sectors");
    }
    take_descriptor(probe, &descriptor);
    if (stub || descriptor.extents > 1 || descriptor.sparse_extents != descriptor.extents) {
        name_extents(probe, &descriptor);
    } else if (descriptor.create_type.size > 0 && !is_type(descriptor.create_type, "monolithicSparse") &&
               !is_type(descriptor.create_type, "streamOptimized")) {
        CORRUPT(probe, "its descriptor says that it is of type %.*s, which is no single file",
                (int)MIN(descriptor.create_type.size, 32), descriptor.create_type.bytes);
    }
    if (!descriptor.has_version) {
        CORRUPT(probe, "there is no descriptor where it should be");
    }
}

static void check_tables(const VpProbeInput *input, VpProbe *probe, const guint8 *header)
{
    guint32 flags = vp_le32(header + 8);
    guint64 capacity = vp_le64(header + 12);
    guint64 grain = vp_le64(header + 20);
    guint64 entries = vp_le32(header + 44);
    guint64 redundant = vp_le64(header + 48);
    guint64 directory = vp_le64(header + 56);
    guint64 overhead = vp_le64(header + 64);

    if (grain == 0 || grain > MAX_GRAIN_SECTORS) {
        CORRUPT(probe, "its grains have %" PRIu64 " sectors", grain);
        return;
    }
    probe->cluster_size = grain * 512;
    if (entries == 0 || entries > MAX_TABLE_ENTRIES) {
        CORRUPT(probe, "its grain tables have %" PRIu64 " entries; 1 to 512 are allowed", entries);
        return;
    }
    guint64 covered = entries * grain; /* at most 2^30 */
    if (capacity > (guint64)G_MAXINT64 / 512 || capacity / covered >= MAX_DIRECTORY) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " sectors", capacity);
        return;
    }
    probe->virtual_size = capacity * 512;
    guint64 size = (capacity / covered + (capacity % covered != 0)) * 4;
    if (directory > (guint64)G_MAXINT64 / 512 || redundant > (guint64)G_MAXINT64 / 512 || directory == 0) {
        CORRUPT(probe, "its grain directory is said to be at sector %" PRIu64, directory);
        return;
    }
    vp_probe_holds(input, probe, directory * 512, size, "its grain directory");
    if (flags & FLAG_REDUNDANT) {
        vp_probe_holds(input, probe, redundant * 512, size, "its second grain directory");
    }
    if (overhead > input->file_size / 512) {
        TRUNCATED(probe, "the file ends before its first grain, at sector %" PRIu64, overhead);
    }
}

/* A stream is written in one go, so the place of its directory is known at its end only. Answers the header that counts, or NULL. */
static const guint8 *find_header(const VpProbeInput *input, VpProbe *probe, const guint8 *header)
{
    if (vp_le64(header + 56) != GD_AT_END) {
        return header;
    }
    if (input->file_size < HEADER_SIZE + FOOTER_SIZE) {
        TRUNCATED(probe, "the file ends before its footer");
        return NULL;
    }
    const guint8 *footer = vp_probe_at(input, probe, input->file_size - FOOTER_SIZE, FOOTER_SIZE, "its footer");
    if (!footer) {
        return NULL;
    }
    const guint8 *copy = footer + 512;
    if (vp_le32(footer + 8) != 0 || vp_le32(footer + 12) != MARKER_FOOTER || memcmp(copy, "KDMV", 4) != 0 ||
        vp_le64(copy + 56) == GD_AT_END || vp_le32(footer + 1024 + 12) != 0) {
        TRUNCATED(probe, "the file does not end with its footer, which says where its grains are");
        return NULL;
    }
    return copy;
}

static void parse_sparse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *header = vp_probe_at(input, probe, 0, HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint32 flags = vp_le32(header + 8);
    gboolean stub = vp_le64(header + 12) == 0;

    probe->version = vp_le32(header + 4);
    if (probe->version < 1 || probe->version > 3) {
        UNKNOWN_FEATURE(probe, "it is vmdk of version %" PRIu32 "; versions 1 to 3 are known here", probe->version);
        return;
    }
    parse_embedded(input, probe, header, stub);
    if (probe->need.size > 0) {
        return;
    }
    if (stub) {
        return; /* no data of its own: a shell around a descriptor, which QEMU follows */
    }
    if (memcmp(header + 73, "\n \r\n", 4) != 0) {
        CORRUPT(probe, "its line end marks were changed, as by a transfer that takes it for text");
    }
    if (flags & FLAG_COMPRESSED) {
        vp_probe_feature(probe, "compressed");
        if (vp_le16(header + 77) != 1) {
            UNKNOWN_FEATURE(probe, "it uses compression method %u; 1 is known here", vp_le16(header + 77));
        }
    }
    if (flags & FLAG_MARKERS) {
        vp_probe_feature(probe, "stream-optimized");
    }
    if (header[72] != 0) {
        DIRTY(probe, "it was not closed cleanly, or is in use right now");
    }
    const guint8 *current = find_header(input, probe, header);
    if (current) {
        check_tables(input, probe, current);
    }
}

/*
 * ESX's COWD: part of a disk whose descriptor is another file, or an overlay, which names its parent in its header as well. QEMU takes it as an
 * extent only.
 */
static void parse_cowd(const VpProbeInput *input, VpProbe *probe)
{
    vp_probe_feature(probe, "cowd");
    const guint8 *header = vp_probe_at(input, probe, 0, COWD_HEADER_SIZE, "its header");
    if (!header) {
        return;
    }
    guint64 sectors = vp_le32(header + 12);
    guint64 grain = vp_le32(header + 16);
    guint64 directory = vp_le32(header + 20);
    guint64 entries = vp_le32(header + 24);

    probe->version = vp_le32(header + 4);
    if (probe->version != 1) {
        UNKNOWN_FEATURE(probe, "it is COWD of version %" PRIu32 "; version 1 is known here", probe->version);
        return;
    }
    probe->virtual_size = sectors * 512;
    guint64 covered = grain * COWD_TABLE_ENTRIES; /* below 2^44 */
    if (grain == 0 || grain > MAX_GRAIN_SECTORS || entries < sectors / covered + (sectors % covered != 0) ||
        directory * 512 < COWD_HEADER_SIZE) {
        CORRUPT(probe,
                "its %" PRIu64 " sectors in grains of %" PRIu64 " do not fit its directory of %" PRIu64
                " entries at sector %" PRIu64,
                sectors, grain, entries, directory);
        return;
    }
    probe->cluster_size = grain * 512;
    vp_probe_holds(input, probe, directory * 512, entries * 4, "its grain directory");
    if (vp_le32(header + 8) & COWD_FLAG_ROOT) {
        UNSUPPORTED(probe,
                    "it is one extent of a disk of ESX (COWD), without the descriptor that says what it belongs to");
    } else {
        vp_probe_other(probe, "parent", (const char *)header + 32, COWD_PARENT_SIZE);
    }
}

void vp_vmdk_parse(const VpProbeInput *input, VpProbe *probe)
{
    const guint8 *mark = vp_probe_at(input, probe, 0, 4, "its header");
    if (!mark) {
        return;
    }
    if (memcmp(mark, "KDMV", 4) == 0) {
        parse_sparse(input, probe);
    } else if (memcmp(mark, "COWD", 4) == 0) {
        parse_cowd(input, probe);
    } else {
        parse_text(input, probe);
    }
}
