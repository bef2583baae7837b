/* What of a domain's status follows from the rest: with which spec it runs, and which of its devices are on their way out. Pure. See internal.h. */
#include "base/pb.h"
#include "drivers/spec_change.h"
#include "server/domains/internal.h"

gboolean vp_domain_is_off(const PbDomain *domain)
{
    return domain->status->state == PB_DOMAIN_STATE_SHUTOFF || domain->status->state == PB_DOMAIN_STATE_CRASHED;
}

gboolean vp_domain_runs(const PbDomain *domain)
{
    return !vp_domain_is_off(domain) && domain->status->state != PB_DOMAIN_STATE_SAVED;
}

gboolean vp_domain_is_up(const PbDomain *domain)
{
    switch (domain->status ? domain->status->state : PB_DOMAIN_STATE_SHUTOFF) {
    case PB_DOMAIN_STATE_RUNNING:
    case PB_DOMAIN_STATE_PAUSED:
    case PB_DOMAIN_STATE_SHUTTING_DOWN:
    case PB_DOMAIN_STATE_UNRESPONSIVE:
        return TRUE;
    default:
        return FALSE;
    }
}

const PbDomainSpec *vp_domain_live_spec(const PbDomain *domain)
{
    return domain->status->live_spec ? domain->status->live_spec : domain->spec;
}

void vp_domain_set_live_spec(PbDomain *domain, PbDomainSpec *live)
{
    PbDomainStatus *status = domain->status;

    if (live)
        vp_pb_set(&live->description, domain->spec->description);
    const gboolean same = !live || vp_pb_equal(live, domain->spec);

    vp_pb_free(status->live_spec);
    status->live_spec = same ? NULL : live;
    if (same)
        vp_pb_free(live);
}

void vp_domain_set_spec(PbDomain *domain, PbDomainSpec *spec)
{
    PbDomainSpec *live = NULL;

    if (vp_domain_runs(domain)) {
        live = domain->status->live_spec ? g_steal_pointer(&domain->status->live_spec) : domain->spec;
        if (live == domain->spec)
            domain->spec = NULL;
    }
    vp_pb_free(domain->spec);
    domain->spec = spec;
    vp_domain_set_live_spec(domain, live);
}

/* ---- pending detaches ---- */

static gboolean same_device(const PbPendingDetach *a, const PbPendingDetach *b)
{
    if (a->device_case != b->device_case)
        return FALSE;
    switch (a->device_case) {
    case PB_PENDING_DETACH__DEVICE_DISK_TARGET:
        return g_str_equal(a->disk_target, b->disk_target);
    case PB_PENDING_DETACH__DEVICE_INTERFACE_MAC:
        return g_ascii_strcasecmp(a->interface_mac, b->interface_mac) == 0;
    default:
        return TRUE;
    }
}

static gboolean still_pending(const PbPendingDetach *detach, PbPendingDetach *const *now, gsize n)
{
    for (gsize i = 0; i < n; i++) {
        if (same_device(detach, now[i]))
            return TRUE;
    }
    return FALSE;
}

/* Takes out of `spec` what was pending and is not in `live` any more (NULL: nothing runs any more). */
static void finish_detach(PbDomainSpec *spec, const PbDomainSpec *live, const PbPendingDetach *detach)
{
    switch (detach->device_case) {
    case PB_PENDING_DETACH__DEVICE_DISK_TARGET:
        if (!live || !vp_spec_find_disk(live, detach->disk_target))
            vp_spec_remove_disk(spec, detach->disk_target);
        break;
    case PB_PENDING_DETACH__DEVICE_INTERFACE_MAC:
        if (!live || !vp_spec_find_interface(live, detach->interface_mac))
            vp_spec_remove_interface(spec, detach->interface_mac);
        break;
    case PB_PENDING_DETACH__DEVICE_VCPUS:
        if (!live || live->vcpus == detach->vcpus)
            spec->vcpus = detach->vcpus;
        break;
    case PB_PENDING_DETACH__DEVICE_MEMORY_BYTES:
        if (!live || live->memory_bytes == detach->memory_bytes)
            spec->memory_bytes = detach->memory_bytes;
        break;
    default:
        break;
    }
}

void vp_domain_set_running(PbDomain *domain, const PbDomainSpec *live, PbPendingDetach *const *detaches, gsize n)
{
    PbDomainStatus *status = domain->status;
    PbPendingDetach **before = g_steal_pointer(&status->pending_detaches);
    const size_t n_before = status->n_pending_detaches;

    status->n_pending_detaches = 0;
    for (gsize i = 0; i < n; i++)
        vp_pb_append(&status->n_pending_detaches, &status->pending_detaches, vp_pb_dup(detaches[i]));
    for (size_t i = 0; i < n_before; i++) {
        if (before[i]->stored && !still_pending(before[i], detaches, n))
            finish_detach(domain->spec, live, before[i]);
        vp_pb_free(before[i]);
    }
    g_free(before);
    vp_domain_set_live_spec(domain, vp_pb_dup(live));
}
