/* See contained.h. */
#include "contained.h"

#include "drivers/spec_change.h"
#include "remote.h"

static gboolean has_own_network(const PbContainment *contained)
{
    for (size_t i = 0; contained && i < contained->n_namespaces; i++) {
        if (g_str_equal(contained->namespaces[i], "net"))
            return TRUE;
    }
    return FALSE;
}

VpError *vp_contained_check_interfaces(VpError *error, const PbContainment *contained, const PbDomainSpec *live,
                                       const PbDomainSpec *wanted)
{
    if (!has_own_network(contained))
        return error;
    for (size_t i = 0; i < wanted->n_interfaces; i++) {
        const PbInterface *interface = wanted->interfaces[i];

        if (vp_remote_interface_needs_network(interface) && !vp_spec_find_interface(live, interface->mac))
            error = vp_spec_cannot_change(error,
                                          "the QEMU that runs is kept apart from the host's network, which it had no "
                                          "use for at its start, and user is its own NAT; bridge and passt can come",
                                          "interfaces[%zu].type", i);
    }
    return error;
}

VpError *vp_contained_check_chain(const PbContainment *contained, const PbDisk *disk, size_t index,
                                  const VpChain *chain)
{
    for (guint i = 0; chain && i < chain->files->len; i++) {
        const VpNbd *nbd = g_array_index(chain->files, VpChainFile, i).nbd;
        g_autofree char *what = NULL;

        if (!nbd)
            continue;
        if (nbd->host && has_own_network(contained))
            what = g_strdup_printf("%s is on the NBD server %s, and the QEMU that runs is kept apart from the host's "
                                   "network, which it had no use for at its start",
                                   disk->target, nbd->host);
        else if (!nbd->host && contained && contained->own_root)
            what = g_strdup_printf("%s is on the NBD server at %s, and the QEMU that runs has a root folder of its "
                                   "own, without that socket",
                                   disk->target, nbd->socket);
        if (what)
            return vp_spec_cannot_change(NULL, what, "disks[%zu].path", index);
    }
    return NULL;
}
