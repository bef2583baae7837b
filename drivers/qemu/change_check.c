/* What of a running domain can be changed, as far as the specs tell: VpDriverOps.check_change. Pure; see devices.h. */
#include "devices.h"

#include "base/pb.h"
#include "contained.h"
#include "drivers/spec_change.h"
#include "layout.h"

static gboolean comes_and_goes(const PbDisk *disk)
{
    return disk->bus != PB_DISK_BUS_SATA;
}

static VpError *check_new_disks(VpError *error, const PbDomainSpec *live, const PbDomainSpec *wanted)
{
    for (size_t i = 0; i < wanted->n_disks; i++) {
        const PbDisk *disk = wanted->disks[i];

        if (vp_spec_find_disk(live, disk->target))
            continue;
        if (!comes_and_goes(disk))
            error = vp_spec_cannot_change(error,
                                          "a SATA device cannot come while the domain runs; virtio, SCSI, NVMe "
                                          "and USB can",
                                          "disks[%zu].bus", i);
    }
    return error;
}

static VpError *check_old_disks(VpError *error, const PbDomainSpec *live, const PbDomainSpec *wanted)
{
    for (size_t i = 0; i < live->n_disks; i++) {
        const PbDisk *disk = live->disks[i];
        g_autofree char *text = g_strdup_printf("%s is on SATA and cannot go while the domain runs", disk->target);

        if (!vp_spec_find_disk(wanted, disk->target) && !comes_and_goes(disk))
            error = vp_spec_cannot_change(error, text, "disks");
    }
    return error;
}

static gboolean is_leaving(const PbDomainSpec *live, const PbDomainSpec *wanted, const VpPciPlace *place)
{
    if (g_str_equal(place->field, "disks"))
        return !vp_spec_find_disk(wanted, live->disks[place->index]->target);
    if (g_str_equal(place->field, "interfaces"))
        return !vp_spec_find_interface(wanted, live->interfaces[place->index]->mac);
    return FALSE;
}

/* A place is free once the guest has let go of what is in it, which is another change. */
static VpError *check_slots(VpError *error, const PbDomainSpec *live, const PbDomainSpec *wanted)
{
    VpPciPlace now[VP_PCI_PLACES];
    VpPciPlace then[VP_PCI_PLACES];
    const guint n_now = vp_layout_pci(live, now);
    const guint n_then = vp_layout_pci(wanted, then);

    for (guint i = 0; i < n_now; i++) {
        for (guint j = 0; is_leaving(live, wanted, &now[i]) && j < n_then; j++) {
            if (*then[j].slot == *now[i].slot)
                error =
                    vp_spec_cannot_change(error, "is the slot of a device that runs and is to go; detach that first",
                                          "%s[%zu].slot", then[j].field, then[j].index);
        }
    }
    return error;
}

static guint32 most_vcpus(const PbDomainSpec *live)
{
    return MAX(MAX(live->vcpus, 1), live->cpu ? live->cpu->max_vcpus : 0);
}

static VpError *check_sizes(VpError *error, const PbDomainSpec *live, const PbDomainSpec *wanted)
{
    const guint64 most = live->memory ? live->memory->max_bytes : 0;

    if (wanted->vcpus > most_vcpus(live))
        error = vp_spec_cannot_change(error, "is more than cpu.max_vcpus leaves room for", "vcpus");
    if (wanted->memory_bytes > live->memory_bytes && wanted->memory_bytes > most)
        error = vp_spec_cannot_change(error, "is more than memory.max_bytes leaves room for", "memory_bytes");
    return error;
}

VpError *vp_qemu_check_change(VpDriver *driver, const PbDomainStatus *status, const PbDomainSpec *live,
                              const PbDomainSpec *wanted)
{
    static const char *const sizes[] = {"vcpus", "memory_bytes", NULL};
    VpError *error = vp_spec_check_change(live, wanted, sizes);

    (void)driver;
    error = check_new_disks(error, live, wanted);
    error = vp_contained_check_interfaces(error, status ? status->containment : NULL, live, wanted);
    error = check_old_disks(error, live, wanted);
    error = check_slots(error, live, wanted);
    return check_sizes(error, live, wanted);
}
