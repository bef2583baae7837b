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
};

const VpQemuFormat *vp_qemu_format(PbImageFormat format)
{
    for (gsize i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (formats[i].format == format)
            return &formats[i];
    }
    return NULL;
}

/* A compressed vmdk is a stream that is written once: QEMU opens it for writing, and fails the guest's writes. */
static gboolean is_compressed_vmdk(const PbImageLayer *layer)
{
    for (size_t i = 0; layer->format == PB_IMAGE_FORMAT_VMDK && i < layer->n_features; i++) {
        if (strcmp(layer->features[i], "compressed") == 0)
            return TRUE;
    }
    return FALSE;
}

VpError *vp_qemu_check_layer(const PbImageLayer *layer, gboolean write)
{
    const VpQemuFormat *format = vp_qemu_format(layer->format);
    VpError *error = NULL;

    if (layer->encrypted)
        error = vp_error_new(
            VP_FAILED_PRECONDITION, "SECRET_REQUIRED",
            "%s is encrypted, and a disk cannot be given a secret as yet; decrypt a copy with qemu-img convert%s",
            layer->path,
            layer->format == PB_IMAGE_FORMAT_LUKS ? ", or declare its format to be raw if the guest itself decrypts it"
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
