/* What --cpu, --firmware, --cdrom and the options of a kernel say: see machine_option.h. */
#include "clients/cli/machine_option.h"

#include <string.h>

#include "base/pb.h"

static VpError *bad_cpu(const char *text, const char *part)
{
    return vp_error_new(
        VP_INVALID_ARGUMENT, "BAD_OPTION",
        "--cpu %s: \"%s\" is not known here; there is +FEATURE, -FEATURE, sockets=N, cores=N, threads=N "
        "and max=N",
        text, part);
}

static void add_feature(PbCpu *cpu, const char *part)
{
    PbCpuFeature *feature = vp_pb_new(&pb_cpu_feature__descriptor);

    vp_pb_set(&feature->name, part + 1);
    feature->disabled = part[0] == '-';
    vp_pb_append(&cpu->n_features, &cpu->features, feature);
}

static gboolean set_number(PbCpu *cpu, const char *part)
{
    const struct {
        const char *prefix;
        guint32 *field;
    } numbers[] = {
        {"sockets=", &cpu->sockets},
        {"cores=", &cpu->cores},
        {"threads=", &cpu->threads},
        {"max=", &cpu->max_vcpus},
    };
    guint64 value = 0;

    for (gsize i = 0; i < G_N_ELEMENTS(numbers); i++) {
        if (!g_str_has_prefix(part, numbers[i].prefix))
            continue;
        if (!g_ascii_string_to_unsigned(strchr(part, '=') + 1, 10, 1, G_MAXUINT16, &value, NULL))
            return FALSE;
        *numbers[i].field = (guint32)value;
        return TRUE;
    }
    return FALSE;
}

VpError *vp_cpu_parse(PbDomainSpec *spec, const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    vp_pb_auto PbCpu *cpu = vp_pb_new(&pb_cpu__descriptor);

    if (parts[0])
        vp_pb_set(&cpu->model, parts[0]);
    for (char **part = parts[0] ? parts + 1 : parts; *part; part++) {
        if (strchr("+-", (*part)[0]) && (*part)[0] && (*part)[1])
            add_feature(cpu, *part);
        else if (!set_number(cpu, *part))
            return bad_cpu(text, *part);
    }
    vp_pb_free(spec->cpu);
    spec->cpu = g_steal_pointer(&cpu);
    return NULL;
}

VpError *vp_firmware_parse(PbDomainSpec *spec, const char *text)
{
    const gboolean secure = g_str_equal(text, "uefi-secure");

    if (!secure && !g_str_equal(text, "uefi") && !g_str_equal(text, "bios"))
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--firmware is bios, uefi or uefi-secure, not \"%s\"",
                            text);
    vp_pb_free(spec->firmware);
    spec->firmware = vp_pb_new(&pb_firmware__descriptor);
    spec->firmware->type = g_str_equal(text, "bios") ? PB_FIRMWARE_TYPE_BIOS : PB_FIRMWARE_TYPE_UEFI;
    spec->firmware->secure_boot = secure;
    return NULL;
}

static void set_path(char **field, const char *path, const char *folder)
{
    g_autofree char *absolute = g_canonicalize_filename(path, folder);

    vp_pb_set(field, absolute);
}

void vp_cdrom_add(PbDomainSpec *spec, const char *path, const char *folder)
{
    PbDisk *disk = vp_pb_new(&pb_disk__descriptor);

    disk->device = PB_DISK_DEVICE_CDROM;
    disk->bus = PB_DISK_BUS_SATA;
    disk->read_only = TRUE;
    /* A cd-rom is sectors one after the other, whatever they say. */
    if (*path) {
        set_path(&disk->path, path, folder);
        disk->format = PB_IMAGE_FORMAT_RAW;
    }
    vp_pb_append(&spec->n_disks, &spec->disks, disk);
}

void vp_kernel_set(PbDomainSpec *spec, const char *kernel, const char *initrd, const char *words, const char *folder)
{
    if (!kernel && !initrd && !words)
        return;
    if (!spec->kernel)
        spec->kernel = vp_pb_new(&pb_kernel_boot__descriptor);
    if (kernel)
        set_path(&spec->kernel->kernel_path, kernel, folder);
    if (initrd)
        set_path(&spec->kernel->initrd_path, initrd, folder);
    if (words)
        vp_pb_set(&spec->kernel->command_line, words);
}
