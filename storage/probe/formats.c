/* One table of the formats; see formats.h. */
#include "storage/probe/formats.h"

#include <string.h>

typedef struct FormatName {
    PbImageFormat format;
    const char *qemu_name;
    const char *words;
} FormatName;

static const FormatName names[] = {
    {PB_IMAGE_FORMAT_RAW, "raw", "raw"},
    {PB_IMAGE_FORMAT_QCOW, "qcow", "qcow (version 1)"},
    {PB_IMAGE_FORMAT_QCOW2, "qcow2", "qcow2"},
    {PB_IMAGE_FORMAT_QED, "qed", "qed"},
    {PB_IMAGE_FORMAT_VMDK, "vmdk", "vmdk"},
    {PB_IMAGE_FORMAT_VDI, "vdi", "vdi"},
    {PB_IMAGE_FORMAT_VPC, "vpc", "vpc (VHD)"},
    {PB_IMAGE_FORMAT_VHDX, "vhdx", "vhdx"},
    {PB_IMAGE_FORMAT_DMG, "dmg", "dmg"},
    {PB_IMAGE_FORMAT_BOCHS, "bochs", "bochs"},
    {PB_IMAGE_FORMAT_CLOOP, "cloop", "cloop"},
    {PB_IMAGE_FORMAT_PARALLELS, "parallels", "parallels"},
    {PB_IMAGE_FORMAT_LUKS, "luks", "LUKS"},
    {PB_IMAGE_FORMAT_ISO, "raw", "an ISO 9660 or UDF file system"},
    {PB_IMAGE_FORMAT_GPT, "raw", "a GUID partition table"},
    {PB_IMAGE_FORMAT_MBR, "raw", "an MBR partition table"},
    {PB_IMAGE_FORMAT_FAT, "raw", "a FAT file system"},
    {PB_IMAGE_FORMAT_DIRECTORY, NULL, "a directory"},
};

const char *vp_format_qemu_name(PbImageFormat format)
{
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        if (names[i].format == format) {
            return names[i].qemu_name;
        }
    }
    return NULL;
}

PbImageFormat vp_format_from_qemu_name(const char *name, gsize length)
{
    /* The first entry of a name wins: "raw" is RAW. */
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        const char *known = names[i].qemu_name;
        if (known && strlen(known) == length && memcmp(known, name, length) == 0) {
            return names[i].format;
        }
    }
    return PB_IMAGE_FORMAT_UNSPECIFIED;
}

const char *vp_format_words(PbImageFormat format)
{
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        if (names[i].format == format) {
            return names[i].words;
        }
    }
    return "of no known format";
}

gboolean vp_format_is_raw_content(PbImageFormat format)
{
    return format == PB_IMAGE_FORMAT_ISO || format == PB_IMAGE_FORMAT_GPT || format == PB_IMAGE_FORMAT_MBR ||
           format == PB_IMAGE_FORMAT_FAT;
}
