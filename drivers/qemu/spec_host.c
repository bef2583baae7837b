/* The checks of folders, vsock and devices of the host: see spec.h. */
#include "layout.h"
#include "spec.h"

static void check_folders(VpSpecCheck *check)
{
    const PbDomainSpec *spec = check->spec;

    for (size_t i = 0; i < spec->n_shared_folders; i++) {
        const PbSharedFolder *folder = spec->shared_folders[i];

        if (!folder->tag[0])
            vp_spec_violation(check, "must be set: the guest mounts the folder by it", "shared_folders[%zu].tag", i);
        if (!folder->path[0])
            vp_spec_violation(check, "must be set", "shared_folders[%zu].path", i);
        for (size_t j = 0; j < i && folder->tag[0]; j++) {
            if (g_str_equal(folder->tag, spec->shared_folders[j]->tag))
                vp_spec_violation(check, "is that of another folder as well", "shared_folders[%zu].tag", i);
        }
    }
}

/* "0000:3b:00.0" */
static gboolean is_address(const char *text)
{
    static const char pattern[] = "xxxx:xx:xx.x";

    for (gsize i = 0; i < sizeof(pattern); i++) {
        if (pattern[i] == 'x' ? !g_ascii_isxdigit(text[i]) : text[i] != pattern[i])
            return FALSE;
    }
    return g_ascii_xdigit_value(text[8]) <= 1 && g_ascii_xdigit_value(text[11]) <= 7;
}

static void check_devices(VpSpecCheck *check)
{
    const PbDomainSpec *spec = check->spec;

    for (size_t i = 0; i < spec->n_host_devices; i++) {
        const char *address = spec->host_devices[i]->address;

        if (!is_address(address))
            vp_spec_violation(check, "must be the address of a PCI device, as in \"0000:3b:00.0\"",
                              "host_devices[%zu].address", i);
        for (size_t j = 0; j < i; j++) {
            if (g_ascii_strcasecmp(address, spec->host_devices[j]->address) == 0)
                vp_spec_violation(check, "is named twice", "host_devices[%zu].address", i);
        }
    }
}

static void violation_at(VpSpecCheck *check, const VpPciPlace *place, const char *field, const char *text)
{
    if (place->index == VP_PCI_PLACE_ONE)
        vp_spec_violation(check, text, "%s.%s", place->field, field);
    else
        vp_spec_violation(check, text, "%s[%zu].%s", place->field, place->index, field);
}

static gboolean is_checked_elsewhere(const VpPciPlace *place)
{
    return g_str_equal(place->field, "disks") || g_str_equal(place->field, "interfaces");
}

static void check_places(VpSpecCheck *check)
{
    VpPciPlace places[VP_PCI_PLACES];
    const guint n = vp_layout_pci(check->spec, places);

    for (guint i = 0; i < n; i++) {
        if (is_checked_elsewhere(&places[i]))
            continue;
        if (*places[i].slot > vp_layout_slots(check->spec->machine))
            violation_at(check, &places[i], "slot", "this machine has not so many");
        for (guint j = 0; j < i; j++) {
            if (*places[i].slot && *places[i].slot == *places[j].slot)
                violation_at(check, &places[i], "slot", "is the slot of another device as well");
            if (places[i].boot_index && places[j].boot_index && *places[i].boot_index &&
                *places[i].boot_index == *places[j].boot_index)
                violation_at(check, &places[i], "boot_index", "is that of another device as well");
        }
    }
}

void vp_spec_check_host_parts(VpSpecCheck *check)
{
    check_folders(check);
    check_devices(check);
    if (check->spec->vsock && check->spec->vsock->cid && check->spec->vsock->cid < 3)
        vp_spec_violation(check, "must be 3 or more: those below are the host's", "vsock.cid");
    check_places(check);
}
