/* See image_format.h. */
#include "image_format.h"

#include <string.h>

static const VpQemuFormat formats[] = {
    {PB_IMAGE_FORMAT_RAW, "raw", FALSE, FALSE},
    /* What lies in a raw image is the guest's affair. */
    {PB_IMAGE_FORMAT_ISO, "raw", FALSE, FALSE},
    {PB_IMAGE_FORMAT_GPT, "raw", FALSE, FALSE},
    {PB_IMAGE_FORMAT_MBR, "raw", FALSE, FALSE},
    {PB_IMAGE_FORMAT_FAT, "raw", FALSE, FALSE},
    {PB_IMAGE_FORMAT_QCOW, "qcow", TRUE, FALSE},
    {PB_IMAGE_FORMAT_QCOW2, "qcow2", TRUE, FALSE},
    {PB_IMAGE_FORMAT_QED, "qed", TRUE, FALSE},
    {PB_IMAGE_FORMAT_VMDK, "vmdk", TRUE, FALSE},
    {PB_IMAGE_FORMAT_VDI, "vdi", FALSE, FALSE},
    {PB_IMAGE_FORMAT_VPC, "vpc", FALSE, FALSE},
    {PB_IMAGE_FORMAT_VHDX, "vhdx", FALSE, FALSE},
    {PB_IMAGE_FORMAT_PARALLELS, "parallels", FALSE, FALSE},
    {PB_IMAGE_FORMAT_DMG, "dmg", FALSE, TRUE},
    {PB_IMAGE_FORMAT_BOCHS, "bochs", FALSE, TRUE},
    {PB_IMAGE_FORMAT_CLOOP, "cloop", FALSE, TRUE},
    {PB_IMAGE_FORMAT_LUKS, "luks", FALSE, FALSE},
};

const VpQemuFormat *vp_qemu_format(PbImageFormat format)
{
    for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (formats[i].format == format)
            return &formats[i];
    }
    return NULL;
}

static gboolean has_feature(const PbImageLayer *layer, const char *feature)
{
    for (size_t i = 0; i < layer->n_features; i++) {
        if (strcmp(layer->features[i], feature) == 0)
            return TRUE;
    }
    return FALSE;
}

static gboolean is_luks(const PbImageLayer *layer)
{
    return layer->format == PB_IMAGE_FORMAT_LUKS ||
           (layer->format == PB_IMAGE_FORMAT_QCOW2 && has_feature(layer, "luks"));
}

/* A compressed vmdk is a stream that is written once: QEMU opens it for writing, and fails the guest's writes. */
static gboolean is_compressed_vmdk(const PbImageLayer *layer)
{
    return layer->format == PB_IMAGE_FORMAT_VMDK && has_feature(layer, "compressed");
}

VpError *vp_qemu_check_layer(const PbImageLayer *layer, gboolean write, gboolean secret)
{
    const VpQemuFormat *format = vp_qemu_format(layer->format);
    VpError *error = NULL;

    if (layer->encrypted && !is_luks(layer))
        error = vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED_FORMAT",
                             "%s is encrypted with the old AES, which QEMU runs no guest on; decrypt a copy with "
                             "qemu-img convert",
                             layer->path);
    else if (layer->encrypted && !secret)
        error = vp_error_new(VP_FAILED_PRECONDITION, "SECRET_REQUIRED",
                             "%s is encrypted; name the secret with its passphrase in the disk's field \"secret\"%s",
                             layer->path,
                             layer->format == PB_IMAGE_FORMAT_LUKS
                                 ? ", or declare its format to be raw if the guest itself decrypts it"
                                 : "");
    else if (!format)
        error = vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED_FORMAT",
                             "%s is of a format that QEMU is not given; convert it to qcow2", layer->path);
    else if (write && (format->read_only || is_compressed_vmdk(layer)))
        error = vp_error_new(
            VP_FAILED_PRECONDITION, "READ_ONLY_FORMAT",
            "%s is a %s image that can only be read; make the disk read-only, or convert the image to qcow2",
            layer->path, format->driver);
    return error ? vp_error_with(error, "path", layer->path) : NULL;
}
