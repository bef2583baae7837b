/*
 * The qcow2 parser. Every bound is QEMU's own or the specification's; where QEMU lets something pass that contradicts the specification (a
 * backing name inside the header, two backing formats), the image is malformed here: malformed never means that there is no backing file.
 */
#include "storage/probe/qcow2.h"

#include "storage/probe/parse.h"

#define MIN_CLUSTER_BITS 9
#define MAX_CLUSTER_BITS 21
#define MAX_L1_ENTRIES (32u * 1024 * 1024 / 8)
#define MAX_REFCOUNT_TABLE (8u * 1024 * 1024)
#define MAX_SNAPSHOTS 65536u
#define MIN_SNAPSHOT_ENTRY 40u
#define MAX_BITMAPS 65535u
#define FEATURE_ENTRY 48u
#define FEATURE_NAME 46u

#define INCOMPATIBLE_DATA_FILE (1ull << 2)
#define INCOMPATIBLE_COMPRESSION (1ull << 3)
#define INCOMPATIBLE_EXTENDED_L2 (1ull << 4)
#define INCOMPATIBLE_KNOWN                                                                                             \
    (VP_QCOW2_INCOMPATIBLE_DIRTY | VP_QCOW2_INCOMPATIBLE_CORRUPT | INCOMPATIBLE_DATA_FILE | INCOMPATIBLE_COMPRESSION | \
     INCOMPATIBLE_EXTENDED_L2)
/* Few headers need more than the first read; what these need is hardly ever more than this. */
#define MORE_OF_HEAD 4096u

#define COMPATIBLE_LAZY_REFCOUNTS (1ull << 0)

typedef struct Header {
    guint32 version;
    guint64 backing_offset;
    guint32 backing_size;
    guint32 cluster_bits;
    guint64 size;
    guint32 crypt_method;
    guint32 l1_entries;
    guint64 l1_offset;
    guint64 refcount_offset;
    guint32 refcount_clusters;
    guint32 snapshots;
    guint64 snapshots_offset;
    guint64 incompatible;
    guint64 compatible;
    guint64 autoclear;
    guint32 refcount_order;
    guint32 header_length;
    guint8 compression;
    guint64 cluster_size;
} Header;

/* What the extensions say, before it is held against the header. */
typedef struct Extensions {
    gsize features; /* offset of the feature name table */
    gsize features_size;
    gboolean bitmaps;
    gboolean crypto;
    guint8 seen; /* bit per known type, to find repeats */
} Extensions;

/* The fields of the first 72 bytes, then of version 3's next 32, then the compression type. FALSE: more bytes are needed, or too few exist. */
static void read_header(const guint8 *p, gsize size, Header *header)
{
    *header = (Header){
        .version = vp_be32(p + 4),
        .backing_offset = vp_be64(p + 8),
        .backing_size = vp_be32(p + 16),
        .cluster_bits = vp_be32(p + 20),
        .size = vp_be64(p + 24),
        .crypt_method = vp_be32(p + 32),
        .l1_entries = vp_be32(p + 36),
        .l1_offset = vp_be64(p + 40),
        .refcount_offset = vp_be64(p + 48),
        .refcount_clusters = vp_be32(p + 56),
        .snapshots = vp_be32(p + 60),
        .snapshots_offset = vp_be64(p + 64),
        .refcount_order = 4,
        .header_length = VP_QCOW2_V2_HEADER_SIZE,
    };
    if (header->version == 3 && size >= VP_QCOW2_V3_HEADER_SIZE) {
        header->incompatible = vp_be64(p + 72);
        header->compatible = vp_be64(p + 80);
        header->autoclear = vp_be64(p + 88);
        header->refcount_order = vp_be32(p + 96);
        header->header_length = vp_be32(p + 100);
        header->compression = header->header_length > 104 && size > 104 ? p[104] : 0;
    }
}

/* The numbers without which nothing else can be read. */
static void check_frame(const Header *header, VpProbe *probe)
{
    if (header->cluster_bits < MIN_CLUSTER_BITS || header->cluster_bits > MAX_CLUSTER_BITS) {
        CORRUPT(probe, "its cluster size is 2^%" PRIu32 " bytes; 2^9 to 2^21 are allowed", header->cluster_bits);
        return;
    }
    guint64 cluster = 1ull << header->cluster_bits;
    guint64 offset = header->backing_offset;
    guint64 size = header->backing_size;
    if (header->version == 3 && header->header_length < VP_QCOW2_V3_HEADER_SIZE) {
        CORRUPT(probe, "its header length is %" PRIu32 "; version 3 has at least 104", header->header_length);
    } else if (header->header_length > cluster || header->header_length % 8 != 0) {
        CORRUPT(probe, "its header length is %" PRIu32 ": not a multiple of 8, or beyond the first cluster",
                header->header_length);
    }
    if (offset == 0 && size == 0) {
        return;
    }
    if (offset == 0 || size == 0) {
        CORRUPT(probe, "the name of its backing file is said to be at %" PRIu64 " with a length of %" PRIu64, offset,
                size);
    } else if (offset < header->header_length) {
        CORRUPT(probe, "the name of its backing file lies within the header, at %" PRIu64, offset);
    } else if (size > VP_QCOW2_BACKING_NAME_MAX) {
        CORRUPT(probe, "the name of its backing file has %" PRIu64 " bytes; at most 1023 are allowed", size);
    } else if (offset > cluster || size > cluster - offset) {
        CORRUPT(probe, "the name of its backing file lies beyond the first cluster, at %" PRIu64, offset);
    }
}

static gboolean seen_before(Extensions *extensions, guint bit)
{
    gboolean before = extensions->seen & 1u << bit;
    extensions->seen = (guint8)(extensions->seen | 1u << bit);
    return before;
}

static void take_name(VpProbe *probe, VpProbeText *text, const guint8 *data, gsize size, const char *what)
{
    if (size > 0 && memchr(data, 0, size)) {
        CORRUPT(probe, "%s contains a NUL byte", what);
        return;
    }
    *text = (VpProbeText){(const char *)data, size};
}

static void take_bitmaps(const VpProbeInput *input, const Header *header, VpProbe *probe, const guint8 *data,
                         gsize size)
{
    /* Without the autoclear bit the extension is what an older program left behind. */
    if (!(header->autoclear & VP_QCOW2_AUTOCLEAR_BITMAPS)) {
        return;
    }
    if (size != 24) {
        CORRUPT(probe, "its bitmaps extension has %" G_GSIZE_FORMAT " bytes; 24 are right", size);
        return;
    }
    guint32 count = vp_be32(data);
    guint64 directory_size = vp_be64(data + 8);
    guint64 directory = vp_be64(data + 16);
    if (count == 0 || count > MAX_BITMAPS || directory % header->cluster_size != 0 ||
        directory < header->cluster_size) {
        CORRUPT(probe, "its bitmaps extension names %" PRIu32 " bitmaps with a directory at %" PRIu64, count,
                directory);
    } else if (directory > input->file_size || directory_size > input->file_size - directory) {
        TRUNCATED(probe, "the file ends before its bitmap directory (%" PRIu64 " bytes at %" PRIu64 ")", directory_size,
                  directory);
    }
}

static void take_crypto(const VpProbeInput *input, const Header *header, VpProbe *probe, const guint8 *data, gsize size)
{
    if (header->crypt_method != 2) {
        CORRUPT(probe, "it has a LUKS header but says that it is not encrypted with LUKS");
        return;
    }
    if (size != 16) {
        CORRUPT(probe, "its encryption extension has %" G_GSIZE_FORMAT " bytes; 16 are right", size);
        return;
    }
    guint64 offset = vp_be64(data);
    guint64 length = vp_be64(data + 8);
    if (offset % header->cluster_size != 0 || offset < header->cluster_size) {
        CORRUPT(probe, "its LUKS header is said to be at %" PRIu64, offset);
    } else if (offset > input->file_size || length > input->file_size - offset) {
        TRUNCATED(probe, "the file ends before its LUKS header (%" PRIu64 " bytes at %" PRIu64 ")", length, offset);
    }
}

static void take_extension(const VpProbeInput *input, const Header *header, VpProbe *probe, Extensions *extensions,
                           guint32 type, const guint8 *data, gsize size)
{
    switch (type) {
    case VP_QCOW2_EXT_BACKING_FORMAT:
        if (seen_before(extensions, 0)) {
            CORRUPT(probe, "it declares the format of its backing file twice");
        } else if (size > VP_QCOW2_BACKING_FORMAT_MAX) {
            CORRUPT(probe,
                    "the name of its backing file's format has %" G_GSIZE_FORMAT " bytes; at most 15 are allowed",
                    size);
        } else {
            take_name(probe, &probe->backing_format, data, size, "the name of its backing file's format");
        }
        break;
    case VP_QCOW2_EXT_DATA_FILE:
        if (seen_before(extensions, 1)) {
            CORRUPT(probe, "it names its data file twice");
        } else if (size > VP_QCOW2_BACKING_NAME_MAX) {
            CORRUPT(probe, "the name of its data file has %" G_GSIZE_FORMAT " bytes; at most 1023 are allowed", size);
        } else {
            take_name(probe, &probe->data_file, data, size, "the name of its data file");
        }
        break;
    case VP_QCOW2_EXT_FEATURE_NAMES:
        extensions->features = (gsize)(data - input->head);
        extensions->features_size = size;
        break;
    case VP_QCOW2_EXT_BITMAPS:
        if (seen_before(extensions, 2)) {
            CORRUPT(probe, "it has two bitmaps extensions");
        }
        extensions->bitmaps = TRUE;
        take_bitmaps(input, header, probe, data, size);
        break;
    case VP_QCOW2_EXT_CRYPTO_HEADER:
        if (seen_before(extensions, 3)) {
            CORRUPT(probe, "it has two encryption extensions");
        }
        extensions->crypto = TRUE;
        take_crypto(input, header, probe, data, size);
        break;
    default:
        /* Not known: kept, not judged. A feature that matters has an incompatible bit. */
        break;
    }
}

/* To read on up to `end`: a little more, then all that there may be. */
static gsize more_of_head(guint64 end, guint64 limit)
{
    return (gsize)(end <= MORE_OF_HEAD ? MIN(limit, MORE_OF_HEAD) : limit);
}

/* Answers as vp_probe() does. */
static gsize read_extensions(const VpProbeInput *input, const Header *header, VpProbe *probe, Extensions *extensions)
{
    guint64 end = header->backing_offset ? header->backing_offset : header->cluster_size;
    guint64 limit = MIN(end, input->file_size);
    guint64 at = header->header_length;

    while (at < end) {
        if (end - at < 8) {
            CORRUPT(probe, "its header extensions end in the middle of one, at %" PRIu64, at);
            return 0;
        }
        if (limit < 8 || at > limit - 8) {
            TRUNCATED(probe, "the file ends within its header extensions, at %" PRIu64, at);
            return 0;
        }
        if (input->head_size < at + 8) {
            return more_of_head(at + 8, limit);
        }
        guint32 type = vp_be32(input->head + at);
        guint32 size = vp_be32(input->head + at + 4);
        at += 8;
        if (type == VP_QCOW2_EXT_END) {
            return 0;
        }
        if (size > end - at) {
            CORRUPT(probe,
                    "its header extension 0x%08" PRIx32 " is said to have %" PRIu32 " bytes, beyond the place for it",
                    type, size);
            return 0;
        }
        if (size > limit - at) {
            TRUNCATED(probe, "the file ends within its header extension 0x%08" PRIx32, type);
            return 0;
        }
        if (input->head_size < at + size) {
            return more_of_head(at + size, limit);
        }
        take_extension(input, header, probe, extensions, type, input->head + at, size);
        at += ((guint64)size + 7) & ~7ull;
    }
    return 0;
}

/* The name that the feature name table has for an incompatible bit; size 0 if it has none. */
static VpProbeText feature_name(const VpProbeInput *input, const Extensions *extensions, guint bit)
{
    const guint8 *entry = input->head + extensions->features;
    for (gsize left = extensions->features_size; left >= FEATURE_ENTRY; left -= FEATURE_ENTRY, entry += FEATURE_ENTRY) {
        if (entry[0] == 0 && entry[1] == bit) {
            const guint8 *name = entry + 2;
            const guint8 *nul = memchr(name, 0, FEATURE_NAME);
            return (VpProbeText){(const char *)name, nul ? (gsize)(nul - name) : FEATURE_NAME};
        }
    }
    return (VpProbeText){NULL, 0};
}

static void check_features(const VpProbeInput *input, const Header *header, const Extensions *extensions,
                           VpProbe *probe)
{
    guint64 unknown = header->incompatible & ~INCOMPATIBLE_KNOWN;
    for (guint bit = 0; bit < 64 && unknown; bit++) {
        if (!(unknown & 1ull << bit)) {
            continue;
        }
        VpProbeText name = feature_name(input, extensions, bit);
        vp_probe_note(probe, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE, PB_SEVERITY_ERROR,
                      "it needs the feature of incompatible bit %u, %s%.*s%s, which is not known here", bit,
                      name.size ? "\"" : "which it does not name", (int)name.size, name.size ? name.bytes : "",
                      name.size ? "\"" : "");
    }

    gboolean compression_bit = (header->incompatible & INCOMPATIBLE_COMPRESSION) != 0;
    if (header->compression > 1) {
        vp_probe_note(probe, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE, PB_SEVERITY_ERROR,
                      "it uses compression type %u, which is not known here", header->compression);
    } else if (compression_bit != (header->compression != 0)) {
        CORRUPT(probe, "its compression type and its feature bit for that contradict each other");
    }
    if (header->incompatible & VP_QCOW2_INCOMPATIBLE_CORRUPT) {
        vp_probe_feature(probe, "corrupt");
        CORRUPT(probe, "it was marked as corrupt by a program that found damage in it");
    }
    if (header->incompatible & VP_QCOW2_INCOMPATIBLE_DIRTY) {
        vp_probe_feature(probe, "dirty");
        vp_probe_note(probe, PB_FINDING_CODE_DIRTY, PB_SEVERITY_WARNING,
                      "it was not closed cleanly: its reference counts may be stale, or it is in use right now");
    }
    if (header->incompatible & INCOMPATIBLE_EXTENDED_L2) {
        vp_probe_feature(probe, "extended-l2");
        if (header->cluster_bits < 14) {
            CORRUPT(probe, "it has extended L2 entries, for which its cluster size of %" PRIu64 " is too small",
                    header->cluster_size);
        }
    }
    if (header->compression == 1) {
        vp_probe_feature(probe, "zstd");
    }
    if (header->compatible & COMPATIBLE_LAZY_REFCOUNTS) {
        vp_probe_feature(probe, "lazy-refcounts");
    }
    if (extensions->bitmaps && (header->autoclear & VP_QCOW2_AUTOCLEAR_BITMAPS)) {
        vp_probe_feature(probe, "bitmaps");
    }
    if (header->snapshots) {
        vp_probe_feature(probe, "internal-snapshots");
    }
}

static void check_data_file(const Header *header, VpProbe *probe)
{
    if (!(header->incompatible & INCOMPATIBLE_DATA_FILE)) {
        /* QEMU ignores the name then. It stays in the verdict: an undeclared image may name no file at all. */
        return;
    }
    probe->uses_data_file = TRUE;
    vp_probe_feature(probe, "external-data-file");
    if (header->autoclear & VP_QCOW2_AUTOCLEAR_DATA_FILE_RAW) {
        vp_probe_feature(probe, "data-file-raw");
    }
    if (probe->data_file.size == 0) {
        CORRUPT(probe, "it says that its data is in another file, but does not name one");
    }
}

static void check_encryption(const Header *header, const Extensions *extensions, VpProbe *probe)
{
    if (header->crypt_method == 0) {
        return;
    }
    probe->encrypted = TRUE;
    if (header->crypt_method > 2) {
        vp_probe_note(probe, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE, PB_SEVERITY_ERROR,
                      "it uses encryption method %" PRIu32 ", which is not known here", header->crypt_method);
        return;
    }
    vp_probe_feature(probe, header->crypt_method == 2 ? "luks" : "aes");
    if (header->crypt_method == 2 && !extensions->crypto) {
        CORRUPT(probe, "it is encrypted with LUKS but does not say where its LUKS header is");
    }
    vp_probe_note(probe, PB_FINDING_CODE_ENCRYPTED, PB_SEVERITY_INFO, "its content is encrypted with %s",
                  header->crypt_method == 2 ? "LUKS" : "AES (the old method, which is weak)");
}

/* A table of `size` bytes at `offset`: on a cluster's boundary, not over the header, and within the file. */
static void check_table(const VpProbeInput *input, const Header *header, VpProbe *probe, const char *what,
                        guint64 offset, guint64 size)
{
    if (offset % header->cluster_size != 0 || offset < header->cluster_size || offset > (guint64)G_MAXINT64 - size) {
        CORRUPT(probe, "its %s is said to be at %" PRIu64, what, offset);
    } else if (offset > input->file_size || size > input->file_size - offset) {
        TRUNCATED(probe,
                  "the file has %" PRIu64 " bytes and ends before its %s does (%" PRIu64 " bytes at %" PRIu64 ")",
                  input->file_size, what, size, offset);
    }
}

static void check_tables(const VpProbeInput *input, const Header *header, VpProbe *probe)
{
    guint64 entry = header->incompatible & INCOMPATIBLE_EXTENDED_L2 ? 16 : 8;
    guint64 covered = header->cluster_size * (header->cluster_size / entry); /* guest bytes of one L1 entry; < 2^40 */

    if (header->size > (guint64)G_MAXINT64) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " bytes", header->size);
    } else if (header->l1_entries > MAX_L1_ENTRIES) {
        CORRUPT(probe, "its L1 table has %" PRIu32 " entries; at most %u are allowed", header->l1_entries,
                MAX_L1_ENTRIES);
    } else if (header->l1_entries < header->size / covered + (header->size % covered != 0)) {
        CORRUPT(probe, "its L1 table of %" PRIu32 " entries is too small for a virtual size of %" PRIu64 " bytes",
                header->l1_entries, header->size);
    } else if (header->l1_entries > 0) {
        check_table(input, header, probe, "L1 table", header->l1_offset, 8ull * header->l1_entries);
    }

    if (header->refcount_order > 6) {
        CORRUPT(probe, "its reference counts have 2^%" PRIu32 " bits; at most 2^6 are allowed", header->refcount_order);
    }
    if (header->refcount_clusters == 0 || header->refcount_clusters > MAX_REFCOUNT_TABLE / header->cluster_size) {
        CORRUPT(probe, "its reference count table has %" PRIu32 " clusters", header->refcount_clusters);
    } else {
        check_table(input, header, probe, "reference count table", header->refcount_offset,
                    header->refcount_clusters * header->cluster_size);
    }

    if (header->snapshots > MAX_SNAPSHOTS) {
        CORRUPT(probe, "it has %" PRIu32 " internal snapshots; at most %u are allowed", header->snapshots,
                MAX_SNAPSHOTS);
    } else if (header->snapshots > 0) {
        check_table(input, header, probe, "snapshot table", header->snapshots_offset,
                    (guint64)header->snapshots * MIN_SNAPSHOT_ENTRY);
    }
}

/* Answers as vp_probe() does. */
static gsize read_backing_name(const VpProbeInput *input, const Header *header, VpProbe *probe)
{
    guint64 end = header->backing_offset + header->backing_size;
    if (header->backing_offset == 0) {
        return 0;
    }
    if (end > input->file_size) {
        TRUNCATED(probe, "the file ends before the name of its backing file does, at %" PRIu64, end);
        return 0;
    }
    if (input->head_size < end) {
        return (gsize)end;
    }
    take_name(probe, &probe->backing_path, input->head + header->backing_offset, header->backing_size,
              "the name of its backing file");
    return 0;
}

gsize vp_qcow2_parse(const VpProbeInput *input, VpProbe *probe)
{
    Header header;
    Extensions extensions = {0};
    gsize need = 0;
    gsize first = MIN((gsize)VP_PROBE_HEAD_FIRST, (gsize)MIN(input->file_size, (guint64)VP_PROBE_HEAD_FIRST));

    if (input->head_size < first) {
        return first;
    }
    if (input->head_size >= 8) {
        probe->version = vp_be32(input->head + 4);
        if (probe->version != 2 && probe->version != 3) {
            vp_probe_note(probe, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE, PB_SEVERITY_ERROR,
                          "it is qcow2 of version %" PRIu32 "; versions 2 and 3 are known here", probe->version);
            return 0;
        }
    }
    if (input->head_size < VP_QCOW2_V2_HEADER_SIZE ||
        (probe->version == 3 && input->head_size < VP_QCOW2_V3_HEADER_SIZE)) {
        TRUNCATED(probe, "the file has %" G_GSIZE_FORMAT " bytes and ends within its qcow2 header", input->head_size);
        return 0;
    }
    read_header(input->head, input->head_size, &header);
    check_frame(&header, probe);
    if (!probe->well_formed) {
        return 0;
    }
    header.cluster_size = 1ull << header.cluster_bits;
    probe->cluster_size = header.cluster_size;
    probe->virtual_size = header.size & ~(guint64)511; /* QEMU shows whole sectors */
    if (header.header_length > input->file_size) {
        TRUNCATED(probe, "the file has %" PRIu64 " bytes and ends within its qcow2 header", input->file_size);
        return 0;
    }

    need = read_extensions(input, &header, probe, &extensions);
    if (need == 0) {
        need = read_backing_name(input, &header, probe);
    }
    if (need != 0) {
        return need;
    }
    check_features(input, &header, &extensions, probe);
    check_data_file(&header, probe);
    check_encryption(&header, &extensions, probe);
    check_tables(input, &header, probe);
    return 0;
}

gboolean vp_qcow2_layout(const guint8 *head, gsize head_size, VpQcow2Layout *ret_layout)
{
    Header header;
    if (head_size < VP_QCOW2_V3_HEADER_SIZE) {
        return FALSE;
    }
    read_header(head, head_size, &header);
    if (header.cluster_bits < MIN_CLUSTER_BITS || header.cluster_bits > MAX_CLUSTER_BITS) {
        return FALSE;
    }
    VpQcow2Layout layout = {
        .header_end = header.header_length,
        .cluster_size = (gsize)1 << header.cluster_bits,
        .autoclear = header.autoclear,
        .incompatible = header.incompatible,
    };
    guint64 end = header.backing_offset ? header.backing_offset : layout.cluster_size;
    guint64 at = layout.header_end;
    while (at < end) {
        if (end > head_size || end - at < 8) {
            return FALSE;
        }
        guint32 type = vp_be32(head + at);
        guint32 size = vp_be32(head + at + 4);
        if (type == VP_QCOW2_EXT_END) {
            layout.has_end_mark = TRUE;
            break;
        }
        if (size > end - at - 8) {
            return FALSE;
        }
        layout.has_backing_format = layout.has_backing_format || type == VP_QCOW2_EXT_BACKING_FORMAT;
        at += 8 + (((guint64)size + 7) & ~7ull);
    }
    layout.extensions_end = (gsize)at;
    *ret_layout = layout;
    return TRUE;
}
