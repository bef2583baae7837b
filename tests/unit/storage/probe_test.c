/* The probe on headers made by hand: every bound, every mark, every polyglot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "storage/probe/qcow2.h"
#include "tests/unit/storage/headers.h"

static void plain_qcow2(void **state)
{
    (void)state;
    for (guint32 version = 2; version <= 3; version++) {
        g_autoptr(GByteArray) file = header_new(version);
        VpProbe probe;
        probe_file(file, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
        assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_QCOW2);
        assert_true(probe.format_matches && probe.readable && probe.well_formed);
        assert_int_equal(probe.n_issues, 0);
        assert_int_equal(probe.version, version);
        assert_int_equal(probe.virtual_size, 1 << 20);
        assert_int_equal(probe.cluster_size, HEADER_CLUSTER);
        assert_int_equal(probe.backing_path.size, 0);
        assert_int_equal(probe.backing_format.size, 0);
    }
}

static void backing_name_and_format(void **state)
{
    (void)state;
    for (guint32 version = 2; version <= 3; version++) {
        g_autoptr(GByteArray) file = header_new(version);
        VpProbe probe;
        header_extension(file, version == 2 ? 72 : 104, VP_QCOW2_EXT_BACKING_FORMAT, "raw", 3);
        header_backing(file, 40000, "/base.img"); /* beyond the first read, as libvirt never sees it */
        probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
        assert_true(probe.well_formed);
        assert_memory_equal(probe.backing_path.bytes, "/base.img", 9);
        assert_int_equal(probe.backing_path.size, 9);
        assert_int_equal(probe.backing_format.size, 3);
        assert_memory_equal(probe.backing_format.bytes, "raw", 3);
    }
}

/* One number of a good header is replaced; what is found? */
typedef struct Damage {
    const char *what;
    gsize offset;
    guint size;
    guint64 value;
    PbFindingCode code;
} Damage;

static const Damage damages[] = {
    {"version 0", 4, 4, 0, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE},
    {"version 9", 4, 4, 9, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE},
    {"cluster_bits 8", 20, 4, 8, PB_FINDING_CODE_HEADER_CORRUPT},
    {"cluster_bits 22", 20, 4, 22, PB_FINDING_CODE_HEADER_CORRUPT},
    {"cluster_bits 4 G", 20, 4, 0xffffffff, PB_FINDING_CODE_HEADER_CORRUPT},
    {"backing offset without size", 8, 8, 4096, PB_FINDING_CODE_HEADER_CORRUPT},
    {"backing size without offset", 16, 4, 9, PB_FINDING_CODE_HEADER_CORRUPT},
    {"virtual size 2^63", 24, 8, 1ull << 63, PB_FINDING_CODE_HEADER_CORRUPT},
    {"virtual size beyond the L1 table", 24, 8, 1ull << 40, PB_FINDING_CODE_HEADER_CORRUPT},
    {"crypt method 3", 32, 4, 3, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE},
    {"LUKS without its header", 32, 4, 2, PB_FINDING_CODE_HEADER_CORRUPT},
    {"L1 of 4 G entries", 36, 4, 0xffffffff, PB_FINDING_CODE_HEADER_CORRUPT},
    {"L1 of no entries", 36, 4, 0, PB_FINDING_CODE_HEADER_CORRUPT},
    {"L1 over the header", 40, 8, 0, PB_FINDING_CODE_HEADER_CORRUPT},
    {"L1 off a cluster's boundary", 40, 8, HEADER_CLUSTER + 8, PB_FINDING_CODE_HEADER_CORRUPT},
    {"L1 beyond the file", 40, 8, 4 * HEADER_CLUSTER, PB_FINDING_CODE_TRUNCATED},
    {"L1 at 2^64", 40, 8, 0xffffffffffff0000ull, PB_FINDING_CODE_HEADER_CORRUPT},
    {"reference counts beyond the file", 48, 8, 4 * HEADER_CLUSTER, PB_FINDING_CODE_TRUNCATED},
    {"reference counts off a boundary", 48, 8, HEADER_CLUSTER + 1, PB_FINDING_CODE_HEADER_CORRUPT},
    {"no reference counts", 56, 4, 0, PB_FINDING_CODE_HEADER_CORRUPT},
    {"too many reference counts", 56, 4, 129, PB_FINDING_CODE_HEADER_CORRUPT},
    {"snapshots over the header", 60, 4, 1, PB_FINDING_CODE_HEADER_CORRUPT},
    {"65537 snapshots", 60, 4, 65537, PB_FINDING_CODE_HEADER_CORRUPT},
    {"dirty", 72, 8, 1, PB_FINDING_CODE_DIRTY},
    {"corrupt", 72, 8, 2, PB_FINDING_CODE_HEADER_CORRUPT},
    {"data file without a name", 72, 8, 4, PB_FINDING_CODE_HEADER_CORRUPT},
    {"compression bit without a type", 72, 8, 8, PB_FINDING_CODE_HEADER_CORRUPT},
    {"unknown bit", 72, 8, 1ull << 63, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE},
    {"reference counts of 2^7 bits", 96, 4, 7, PB_FINDING_CODE_HEADER_CORRUPT},
    {"header length 100", 100, 4, 100, PB_FINDING_CODE_HEADER_CORRUPT},
    {"header length 108", 100, 4, 108, PB_FINDING_CODE_HEADER_CORRUPT},
    {"header length beyond the cluster", 100, 4, HEADER_CLUSTER + 8, PB_FINDING_CODE_HEADER_CORRUPT},
    {"extension beyond its place", 104, 8, 0x12345678ffffffffull, PB_FINDING_CODE_HEADER_CORRUPT},
    {"backing format of 16 bytes", 104, 8, 0xe2792aca00000010ull, PB_FINDING_CODE_HEADER_CORRUPT},
    {"crypto header of no encrypted image", 104, 8, 0x0537be7700000010ull, PB_FINDING_CODE_HEADER_CORRUPT},
};

static void damaged_headers(void **state)
{
    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(damages); i++) {
        const Damage *damage = &damages[i];
        g_autoptr(GByteArray) file = header_new(3);
        VpProbe probe;
        if (damage->size == 4) {
            header_put32(file, damage->offset, (guint32)damage->value);
        } else {
            header_put64(file, damage->offset, damage->value);
        }
        probe_file(file, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
        if (!has_issue(&probe, damage->code)) {
            fail_msg("%s: not found", damage->what);
        }
        assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_QCOW2); /* damaged is never raw */
        assert_int_equal(probe.well_formed, damage->code == PB_FINDING_CODE_DIRTY);
    }
}

static void backing_name_bounds(void **state)
{
    (void)state;
    static const struct {
        guint64 offset;
        guint32 size;
        gboolean good;
    } cases[] = {
        {4096, 1023, TRUE},
        {4096, 1024, FALSE},
        {4096, 1u << 20, FALSE},
        {HEADER_CLUSTER - 10, 10, TRUE},
        {HEADER_CLUSTER - 10, 11, FALSE},
        {HEADER_CLUSTER, 1, FALSE},
        {0xffffffffffffffffull, 2, FALSE},
        {103, 4, FALSE},
        {104, 4, TRUE},
        {108, 4, FALSE}, /* half an extension before it */
    };
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) file = header_new(3);
        VpProbe probe;
        header_put64(file, 8, cases[i].offset);
        header_put32(file, 16, cases[i].size);
        if (cases[i].offset < HEADER_CLUSTER && cases[i].size <= 1024) {
            memset(file->data + cases[i].offset, 'a', cases[i].size);
        }
        probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
        if (probe.well_formed != cases[i].good) {
            fail_msg("name of %u bytes at %" G_GUINT64_FORMAT, cases[i].size, cases[i].offset);
        }
        if (cases[i].good) {
            assert_int_equal(probe.backing_path.size, cases[i].size);
        }
    }
}

static void nul_in_names(void **state)
{
    (void)state;
    g_autoptr(GByteArray) file = header_new(3);
    VpProbe probe;
    header_backing(file, 4096, "/a/b");
    file->data[4097] = 0;
    probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_true(has_issue(&probe, PB_FINDING_CODE_HEADER_CORRUPT));
    assert_int_equal(probe.backing_path.size, 0);
}

static void repeated_extension(void **state)
{
    (void)state;
    g_autoptr(GByteArray) file = header_new(3);
    VpProbe probe;
    gsize at = header_extension(file, 104, VP_QCOW2_EXT_BACKING_FORMAT, "raw", 3);
    header_extension(file, at, VP_QCOW2_EXT_BACKING_FORMAT, "qcow2", 5);
    header_backing(file, 4096, "/a/b");
    probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_true(has_issue(&probe, PB_FINDING_CODE_HEADER_CORRUPT));
}

static void unknown_feature_is_named(void **state)
{
    (void)state;
    g_autoptr(GByteArray) file = header_new(3);
    VpProbe probe;
    guint8 table[48] = {0, 40};
    strcpy((char *)table + 2, "teleportation");
    header_put64(file, 72, 1ull << 40);
    header_extension(file, 104, VP_QCOW2_EXT_FEATURE_NAMES, table, sizeof(table));
    probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_int_equal(probe.n_issues, 1);
    assert_int_equal(probe.issues[0].code, PB_FINDING_CODE_UNKNOWN_INCOMPATIBLE_FEATURE);
    assert_non_null(strstr(probe.issues[0].text, "bit 40"));
    assert_non_null(strstr(probe.issues[0].text, "teleportation"));
}

static void extended_l2_halves_the_l1(void **state)
{
    (void)state;
    g_autoptr(GByteArray) file = header_new(3);
    VpProbe probe;
    header_put64(file, 24, 400u << 20); /* one L1 entry covers 512 MiB, or 256 with extended L2 entries */
    probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_true(probe.well_formed);
    header_put64(file, 72, 1 << 4);
    probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_true(has_issue(&probe, PB_FINDING_CODE_HEADER_CORRUPT));
}

static void data_file_name(void **state)
{
    (void)state;
    g_autoptr(GByteArray) file = header_new(3);
    VpProbe probe;
    header_extension(file, 104, VP_QCOW2_EXT_DATA_FILE, "/d", 2);
    probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_false(probe.uses_data_file); /* QEMU ignores it without the bit */
    assert_int_equal(probe.data_file.size, 2);
    header_put64(file, 72, 4);
    probe_file(file, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_true(probe.uses_data_file && probe.well_formed);
}

static void cut_files(void **state)
{
    (void)state;
    g_autoptr(GByteArray) file = header_new(3);
    /* Whatever is left of it, with the mark it is a truncated qcow2; only less than the mark is raw. */
    for (gsize size = 0; size < 3 * HEADER_CLUSTER + 8; size += size < 256 ? 1 : 4093) {
        VpProbe probe;
        probe_bytes(file->data, size, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
        if (size < 4) {
            assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_RAW);
        } else {
            assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_QCOW2);
            assert_true(has_issue(&probe, PB_FINDING_CODE_TRUNCATED));
        }
    }
    VpProbe probe;
    probe_bytes(file->data, 3 * HEADER_CLUSTER + 8, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_true(probe.well_formed);
}

/* Marks of the other formats. `tail`: counted from the end of the file. */
typedef struct Mark {
    PbImageFormat format;
    gboolean tail;
    gsize offset;
    const char *bytes;
    gsize size;
} Mark;

#define MARK(format, offset, literal)                                                                                  \
    {                                                                                                                  \
        PB_IMAGE_FORMAT_##format, FALSE, (offset), (literal), sizeof(literal) - 1                                      \
    }

static const Mark marks[] = {
    MARK(QCOW, 0, "QFI\xfb\0\0\0\1"),
    MARK(QCOW2, 0, "QFI\xfb\0\0\0\3"),
    MARK(QED, 0, "QED\0"),
    MARK(VMDK, 0, "KDMV"),
    MARK(VMDK, 0, "COWD"),
    MARK(VMDK, 0, "# Disk DescriptorFile\nversion=1\n"),
    MARK(VMDK, 0, "# made by hand\n\n  # more\nversion=3\n"),
    MARK(VDI, 64, "\x7f\x10\xda\xbe"),
    MARK(VPC, 0, "conectix"),
    {PB_IMAGE_FORMAT_VPC, TRUE, 512, "conectix", 8},
    MARK(VHDX, 0, "vhdxfile"),
    {PB_IMAGE_FORMAT_DMG, TRUE, 512, "koly", 4},
    MARK(BOCHS, 0, "Bochs Virtual HD Image\0"),
    MARK(CLOOP, 0, "#!/bin/sh\n#V2.0 Format\n"),
    MARK(PARALLELS, 0, "WithoutFreeSpace"),
    MARK(PARALLELS, 0, "WithouFreSpacExt"),
    MARK(LUKS, 0, "LUKS\xba\xbe\0\2"),
};

static void marks_of_other_formats(void **state)
{
    (void)state;
    g_autofree guint8 *file = g_malloc(100000);
    for (gsize i = 0; i < G_N_ELEMENTS(marks); i++) {
        VpProbe probe;
        memset(file, 0, 100000);
        memcpy(file + (marks[i].tail ? 100000 - marks[i].offset : marks[i].offset), marks[i].bytes, marks[i].size);
        probe_bytes(file, 100000, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
        assert_int_equal(probe.looks_like, marks[i].format);
        assert_int_equal(probe.matches, 1u << marks[i].format);
    }
}

static void put_mbr(guint8 *file)
{
    file[446 + 4] = 0x83;
    file[446 + 12] = 1;
    file[510] = 0x55;
    file[511] = 0xaa;
}

static void put_fat(guint8 *file)
{
    memcpy(file, "\xeb\x3c\x90", 3);
    file[12] = 2;
    file[13] = 4;
    memcpy(file + 54, "FAT16   ", 8);
    file[510] = 0x55;
    file[511] = 0xaa;
}

static void raw_and_what_is_in_it(void **state)
{
    (void)state;
    g_autofree guint8 *file = g_malloc0(100000);
    VpProbe probe;

    probe_bytes(file, 100000, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_RAW);
    assert_int_equal(probe.content, PB_IMAGE_FORMAT_UNSPECIFIED);
    assert_int_equal(probe.virtual_size, 100000);

    put_mbr(file);
    probe_bytes(file, 100000, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_RAW);
    assert_int_equal(probe.content, PB_IMAGE_FORMAT_MBR);

    memcpy(file + 512, "EFI PART", 8);
    probe_bytes(file, 100000, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_int_equal(probe.content, PB_IMAGE_FORMAT_GPT);

    memcpy(file + 32769, "CD001", 5); /* a bootable ISO has all three, and is one raw disk */
    probe_bytes(file, 100000, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_RAW);
    assert_int_equal(probe.content, PB_IMAGE_FORMAT_ISO);

    memset(file, 0, 100000);
    put_fat(file);
    probe_bytes(file, 100000, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_RAW);
    assert_int_equal(probe.content, PB_IMAGE_FORMAT_FAT);

    /* A fixed VHD is a disk with a footer: no polyglot. */
    memset(file, 0, 100000);
    put_mbr(file);
    memcpy(file + 100000 - 512, "conectix", 8);
    probe_bytes(file, 100000, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_VPC);
}

static void polyglots(void **state)
{
    (void)state;
    VpProbe probe;
    g_autoptr(GByteArray) iso = header_new(3);
    memcpy(iso->data + 32769, "CD001", 5);
    probe_file(iso, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_UNSPECIFIED);
    assert_int_equal(probe.matches, 1u << PB_IMAGE_FORMAT_QCOW2 | 1u << PB_IMAGE_FORMAT_ISO);
    /* Declared, it is what it was declared to be. */
    probe_file(iso, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_true(probe.format_matches && probe.well_formed);

    g_autoptr(GByteArray) vhd = header_new(3);
    memcpy(vhd->data + vhd->len - 512, "conectix", 8);
    probe_file(vhd, PB_IMAGE_FORMAT_UNSPECIFIED, &probe);
    assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_UNSPECIFIED);
}

static void declared_formats(void **state)
{
    (void)state;
    VpProbe probe;
    g_autoptr(GByteArray) file = header_new(3);
    g_autofree guint8 *zeroes = g_malloc0(100000);

    probe_file(file, PB_IMAGE_FORMAT_RAW, &probe);
    assert_int_equal(probe.format, PB_IMAGE_FORMAT_RAW);
    assert_int_equal(probe.looks_like, PB_IMAGE_FORMAT_QCOW2);
    assert_int_equal(probe.virtual_size, HEADER_FILE);
    probe_bytes(zeroes, 100000, PB_IMAGE_FORMAT_QCOW2, &probe);
    assert_false(probe.format_matches);
    probe_bytes(zeroes, 100000, PB_IMAGE_FORMAT_ISO, &probe);
    assert_int_equal(probe.format, PB_IMAGE_FORMAT_RAW);
    assert_true(probe.readable);
    probe_bytes(zeroes, 100000, PB_IMAGE_FORMAT_VMDK, &probe);
    assert_true(probe.readable);
    assert_false(probe.format_matches);
    probe_bytes(zeroes, 100000, PB_IMAGE_FORMAT_DIRECTORY, &probe);
    assert_false(probe.readable);
    probe_bytes(zeroes, 100000, (PbImageFormat)99, &probe);
    assert_false(probe.readable);
}

/* Tables so large that they could hold more bytes than a disk can have. */
static void qed_of_too_many_bytes(void **state)
{
    (void)state;
    guint8 header[4096] = "QED";
    VpProbe probe;
    VpProbeInput input = {.head = header, .head_size = sizeof(header), .file_size = 8ull << 30};

    header[7] = 4;         /* clusters of 64 MiB */
    header[8] = 16;        /* tables of 16 clusters */
    header[12] = 1;        /* the header has one */
    header[40 + 3] = 4;    /* the L1 table is behind it */
    header[48 + 7] = 0x80; /* 8 EiB */
    assert_true(vp_probe(&input, PB_IMAGE_FORMAT_QED, &probe));
    assert_true(has_issue(&probe, PB_FINDING_CODE_HEADER_CORRUPT));
    header[48 + 7] = 0x40;
    assert_true(vp_probe(&input, PB_IMAGE_FORMAT_QED, &probe));
    assert_true(probe.well_formed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_qcow2),
        cmocka_unit_test(backing_name_and_format),
        cmocka_unit_test(damaged_headers),
        cmocka_unit_test(backing_name_bounds),
        cmocka_unit_test(nul_in_names),
        cmocka_unit_test(repeated_extension),
        cmocka_unit_test(unknown_feature_is_named),
        cmocka_unit_test(data_file_name),
        cmocka_unit_test(extended_l2_halves_the_l1),
        cmocka_unit_test(cut_files),
        cmocka_unit_test(marks_of_other_formats),
        cmocka_unit_test(raw_and_what_is_in_it),
        cmocka_unit_test(polyglots),
        cmocka_unit_test(declared_formats),
        cmocka_unit_test(qed_of_too_many_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
