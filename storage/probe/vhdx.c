/* VHDX, as [MS-VHDX] has it: the current header of two, the region table, the metadata table and its items. */
#include "storage/probe/crc32c.h"
#include "storage/probe/parse.h"

#define KIB 1024u
#define MIB (1024u * 1024u)
#define HEADER1 (64u * KIB)
#define HEADER2 (128u * KIB)
#define HEADER_SIZE 4096u
#define REGIONS (192u * KIB)
#define REGIONS_SIZE (64u * KIB)
#define MAX_REGIONS 2047u
#define METADATA_TABLE_SIZE (64u * KIB)
#define MAX_ITEMS 2047u
#define MIN_BLOCK MIB
#define MAX_BLOCK (256u * MIB)
#define MAX_SIZE (64ull << 40)
#define MAX_LOCATOR (64u * KIB)
#define MAX_LOCATOR_ENTRIES 64u

#define HAS_PARENT 2u
#define LEAVE_ALLOCATED 1u
#define REQUIRED_REGION 1u
#define REQUIRED_ITEM 4u

/* GUIDs as they lie in the file. */
static const guint8 guid_table[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                      0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const guint8 guid_metadata[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                         0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};

typedef enum Item { ITEM_PARAMETERS, ITEM_SIZE, ITEM_PAGE83, ITEM_LOGICAL, ITEM_PHYSICAL, ITEM_PARENT, ITEMS } Item;

static const struct {
    guint8 guid[16];
    guint32 size; /* 0: varies */
    const char *what;
} items[ITEMS] = {
    [ITEM_PARAMETERS] = {{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7,
                          0x6b},
                         8,
                         "its file parameters"},
    [ITEM_SIZE] = {{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8},
                   8,
                   "its virtual size"},
    [ITEM_PAGE83] = {{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46},
                     16,
                     "its disk identifier"},
    [ITEM_LOGICAL] = {{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f},
                      4,
                      "its logical sector size"},
    [ITEM_PHYSICAL] = {{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56},
                       4,
                       "its physical sector size"},
    [ITEM_PARENT] = {{0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c},
                     0,
                     "its parent locator"},
};

typedef struct Place {
    guint64 offset;
    guint32 size; /* 0: there is none */
} Place;

static gboolean sum_is_right(const guint8 *bytes, gsize size)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return TRUE || size || bytes;
#else
    return vp_crc32c(bytes, size, 4) == vp_le32(bytes + 4);
#endif
}

static gboolean header_is_valid(const guint8 *header)
{
    return memcmp(header, "head", 4) == 0 && sum_is_right(header, HEADER_SIZE);
}

static void check_log(const VpProbeInput *input, VpProbe *probe, const guint8 *header)
{
    static const guint8 null[16];
    guint64 size = vp_le32(header + 68);
    guint64 offset = vp_le64(header + 72);

    if (offset < MIB || offset % MIB != 0 || size == 0 || size % MIB != 0) {
        CORRUPT(probe, "its log is said to have %" PRIu64 " bytes at %" PRIu64, size, offset);
        return;
    }
    vp_probe_holds(input, probe, offset, size, "its log");
    if (memcmp(header + 48, null, sizeof(null)) == 0) {
        return;
    }
    vp_probe_feature(probe, "dirty-log");
    if (vp_le16(header + 64) != 0) {
        UNKNOWN_FEATURE(probe, "its log is of version %u; version 0 is known here", vp_le16(header + 64));
    }
    DIRTY(probe,
          "it was not closed cleanly, or is in use right now: its log has to be replayed, which QEMU does only when "
          "it opens it for writing");
}

/* The one header that is valid, or the newer one of two. FALSE: none, or bytes are missing. */
static gboolean read_headers(const VpProbeInput *input, VpProbe *probe, Place *ret_log)
{
    const guint8 *first = vp_probe_at(input, probe, HEADER1, HEADER_SIZE, "its first header");
    const guint8 *second = first ? vp_probe_at(input, probe, HEADER2, HEADER_SIZE, "its second header") : NULL;
    if (!first || !second) {
        return FALSE;
    }
    gboolean first_valid = header_is_valid(first);
    gboolean second_valid = header_is_valid(second);
    const guint8 *current = first_valid ? first : second;

    if (!first_valid && !second_valid) {
        CORRUPT(probe, "neither of its two headers is valid");
        return FALSE;
    }
    if (first_valid && second_valid) {
        guint64 one = vp_le64(first + 8);
        guint64 two = vp_le64(second + 8);
        current = one > two ? first : second;
        if (one == two && memcmp(first, second, HEADER_SIZE) != 0) {
            CORRUPT(probe, "its two headers differ, and neither is the newer one");
            return FALSE;
        }
    }
    probe->version = vp_le16(current + 66);
    if (probe->version != 1) {
        UNKNOWN_FEATURE(probe, "it is vhdx of version %" PRIu32 "; version 1 is known here", probe->version);
        return FALSE;
    }
    check_log(input, probe, current);
    *ret_log = (Place){vp_le64(current + 72), vp_le32(current + 68)};
    return TRUE;
}

/* FALSE: what follows cannot be read. */
static gboolean read_regions(const VpProbeInput *input, VpProbe *probe, Place *ret_table, Place *ret_metadata)
{
    const guint8 *regions = vp_probe_at(input, probe, REGIONS, REGIONS_SIZE, "its region table");
    if (!regions) {
        return FALSE;
    }
    guint32 count = vp_le32(regions + 8);
    *ret_table = *ret_metadata = (Place){0};
    if (memcmp(regions, "regi", 4) != 0 || !sum_is_right(regions, REGIONS_SIZE) || count > MAX_REGIONS) {
        CORRUPT(probe, "its region table has no mark, a wrong checksum or too many entries");
        return FALSE;
    }
    for (guint32 i = 0; i < count; i++) {
        const guint8 *entry = regions + 16 + 32 * (gsize)i;
        Place place = {vp_le64(entry + 16), vp_le32(entry + 24)};
        Place *known = memcmp(entry, guid_table, 16) == 0      ? ret_table
                       : memcmp(entry, guid_metadata, 16) == 0 ? ret_metadata
                                                               : NULL;
        if (!known && vp_le32(entry + 28) & REQUIRED_REGION) {
            UNKNOWN_FEATURE(probe, "it has a required region that is not known here");
        }
        if (!known) {
            continue;
        }
        if (known->size > 0 || place.offset < MIB || place.offset % MIB != 0 || place.size == 0 ||
            place.size % MIB != 0) {
            CORRUPT(probe, "one of its regions is named twice or lies at %" PRIu64, place.offset);
            return FALSE;
        }
        *known = place;
        if (!vp_probe_holds(input, probe, place.offset, place.size,
                            known == ret_table ? "its block table" : "its metadata")) {
            return FALSE;
        }
    }
    if (ret_table->size == 0 || ret_metadata->size == 0) {
        CORRUPT(probe, "it has no block table or no metadata");
        return FALSE;
    }
    return TRUE;
}

static Item item_of(const guint8 *guid)
{
    Item item = 0;
    while (item < ITEMS && memcmp(items[item].guid, guid, 16) != 0) {
        item++;
    }
    return item;
}

static gboolean read_items(const VpProbeInput *input, VpProbe *probe, const Place *metadata, Place found[ITEMS])
{
    const guint8 *table = vp_probe_at(input, probe, metadata->offset, METADATA_TABLE_SIZE, "its metadata table");
    if (!table) {
        return FALSE;
    }
    guint32 count = vp_le16(table + 10);
    if (memcmp(table, "metadata", 8) != 0 || count > MAX_ITEMS) {
        CORRUPT(probe, "its metadata table has no mark or too many entries");
        return FALSE;
    }
    for (guint32 i = 0; i < count; i++) {
        const guint8 *entry = table + 32 + 32 * (gsize)i;
        guint64 offset = vp_le32(entry + 16);
        guint32 size = vp_le32(entry + 20);
        Item item = item_of(entry);
        if (item == ITEMS) {
            if (vp_le32(entry + 24) & REQUIRED_ITEM) {
                UNKNOWN_FEATURE(probe, "it has a required metadata item that is not known here");
            }
            continue;
        }
        if (found[item].size > 0 || offset < METADATA_TABLE_SIZE || offset + size > metadata->size || size == 0 ||
            (items[item].size > 0 && size != items[item].size) || size > MAX_LOCATOR) {
            CORRUPT(probe, "%s %s", items[item].what,
                    found[item].size > 0 ? "is there twice" : "lies outside its place");
            return FALSE;
        }
        found[item] = (Place){metadata->offset + offset, size};
    }
    for (Item item = 0; item < ITEM_PARENT; item++) {
        if (found[item].size == 0 && item != ITEM_PAGE83) {
            CORRUPT(probe, "%s is missing", items[item].what);
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean key_is(const guint8 *key, gsize size, const char *name)
{
    gsize i = 0;
    for (; name[i] && 2 * i + 1 < size; i++) {
        if (key[2 * i] != (guint8)name[i] || key[2 * i + 1] != 0) {
            return FALSE;
        }
    }
    return name[i] == '\0' && size == 2 * i;
}

/* Keys and values in UTF-16: the parent by a relative path, a volume path or an absolute path of Windows. */
static void read_parent(const VpProbeInput *input, VpProbe *probe, const Place *place)
{
    static const char *const names[] = {"relative_path", "absolute_win32_path", "volume_path"};
    const guint8 *locator = vp_probe_at(input, probe, place->offset, place->size, "its parent locator");
    if (!locator) {
        return;
    }
    gsize count = place->size >= 20 ? vp_le16(locator + 18) : 0;
    if (count > MAX_LOCATOR_ENTRIES || 20 + 12 * count > place->size) {
        CORRUPT(probe, "its parent locator has %" G_GSIZE_FORMAT " entries", count);
        count = 0;
    }
    for (gsize n = 0; n < G_N_ELEMENTS(names); n++) {
        for (gsize i = 0; i < count; i++) {
            const guint8 *entry = locator + 20 + 12 * i;
            guint64 key = vp_le32(entry);
            guint64 value = vp_le32(entry + 4);
            gsize key_size = vp_le16(entry + 8);
            gsize value_size = vp_le16(entry + 10);
            if (key + key_size <= place->size && value + value_size <= place->size && value_size % 2 == 0 &&
                key_is(locator + key, key_size, names[n])) {
                vp_probe_other_utf16(probe, "parent", locator + value, value_size, /* big_endian= */ FALSE);
            }
        }
    }
    vp_probe_other(probe, "parent", "", 0);
}

static void check_disk(const VpProbeInput *input, VpProbe *probe, const Place found[ITEMS], const Place *table)
{
    const guint8 *value[ITEM_PARENT] = {NULL};
    for (Item item = 0; item < ITEM_PARENT; item++) {
        if (found[item].size > 0) {
            value[item] = vp_probe_at(input, probe, found[item].offset, found[item].size, items[item].what);
            if (!value[item]) {
                return;
            }
        }
    }
    guint64 block = vp_le32(value[ITEM_PARAMETERS]);
    guint32 bits = vp_le32(value[ITEM_PARAMETERS] + 4);
    guint64 size = vp_le64(value[ITEM_SIZE]);
    guint64 logical = vp_le32(value[ITEM_LOGICAL]);
    guint32 physical = vp_le32(value[ITEM_PHYSICAL]);

    probe->virtual_size = size;
    probe->cluster_size = block;
    if (!vp_is_power_of_2(block) || block < MIN_BLOCK || block > MAX_BLOCK) {
        CORRUPT(probe, "its block size is %" PRIu64 " bytes; powers of 2 from 1 to 256 MiB are allowed", block);
        return;
    }
    if ((logical != 512 && logical != 4096) || (physical != 512 && physical != 4096)) {
        CORRUPT(probe, "its sectors have %" PRIu64 " bytes (physical: %" PRIu32 "); 512 and 4096 are allowed", logical,
                physical);
        return;
    }
    if (size > MAX_SIZE || size % logical != 0) {
        CORRUPT(probe, "its virtual size is %" PRIu64 " bytes", size);
        return;
    }
    /* A bitmap's entry follows the entries of each chunk of blocks. */
    guint64 ratio = (8ull * MIB * logical) / block;
    guint64 blocks = size / block + (size % block != 0);
    guint64 entries = blocks + (blocks ? (blocks - 1) / ratio : 0);
    if (entries * 8 > table->size) {
        CORRUPT(probe, "its block table of %" PRIu32 " bytes is too small for its virtual size", table->size);
    }
    if (bits & LEAVE_ALLOCATED) {
        vp_probe_feature(probe, "fixed");
    }
    if (bits & HAS_PARENT || found[ITEM_PARENT].size > 0) {
        vp_probe_feature(probe, "differencing");
        if (found[ITEM_PARENT].size > 0) {
            read_parent(input, probe, &found[ITEM_PARENT]);
        } else {
            CORRUPT(probe, "it says that it has a parent, but does not name one");
        }
    }
}

static gboolean overlap(const Place *one, const Place *two)
{
    return one->offset < two->offset + two->size && two->offset < one->offset + one->size;
}

void vp_vhdx_parse(const VpProbeInput *input, VpProbe *probe)
{
    Place log;
    Place table;
    Place metadata;
    Place found[ITEMS] = {{0}};

    if (!read_headers(input, probe, &log) || !read_regions(input, probe, &table, &metadata)) {
        return;
    }
    if (probe->well_formed && (overlap(&log, &table) || overlap(&log, &metadata) || overlap(&table, &metadata))) {
        CORRUPT(probe, "its log, its block table and its metadata overlap");
    } else if (read_items(input, probe, &metadata, found)) {
        check_disk(input, probe, found, &table);
    }
}
