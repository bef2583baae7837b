/* What of a spec cannot be put into a file: see save.h. What else QEMU has against it, it says itself. */
#include <string.h>

#include "save.h"

static VpError *add(VpError *error, const char *field, const char *why)
{
    if (!error)
        error = vp_error_new(VP_FAILED_PRECONDITION, "CANNOT_BE_SAVED", "%s: %s", field, why);
    return vp_error_violation(error, field, "%s", why);
}

VpError *vp_save_check(const PbDomainSpec *live)
{
    VpError *error = NULL;

    for (size_t i = 0; i < live->n_host_devices; i++) {
        g_autofree char *field = g_strdup_printf("domain.spec.host_devices[%zu]", i);

        error = add(error, field, "a device of the host cannot be put into a file; detach it first");
    }
    for (size_t i = 0; i < live->n_shared_folders; i++) {
        g_autofree char *field = g_strdup_printf("domain.spec.shared_folders[%zu]", i);

        error = add(error, field, "what the guest has open in a folder of the host cannot be put into a file");
    }
    for (size_t i = 0; i < live->n_interfaces; i++) {
        g_autofree char *field = g_strdup_printf("domain.spec.interfaces[%zu].type", i);

        if (live->interfaces[i]->type == PB_INTERFACE_TYPE_PASST)
            error = add(error, field, "the connections that passt holds cannot be put into a file; detach it first");
    }
    for (size_t i = 0; live->cpu && i < live->cpu->n_features; i++) {
        const PbCpuFeature *feature = live->cpu->features[i];
        g_autofree char *field = g_strdup_printf("domain.spec.cpu.features[%zu]", i);

        if (strcmp(feature->name, "invtsc") == 0 && !feature->disabled)
            error = add(error, field, "a guest that relies on invtsc cannot go on with another clock");
    }
    return error;
}
