/* Screens that are served by TCP: the domains' side of it. See VpScreenHost. */
#include "base/pb.h"
#include "server/domains/internal.h"

VpError *vp_screens_check(const VpDomains *domains, const PbDomain *domain)
{
    const VpScreenHost *host = domains->screens;

    if (domain->spec->n_tls_screens == 0)
        return NULL;
    return host ? host->check(host->data, domain)
                : vp_error_new(VP_FAILED_PRECONDITION, "TLS_NOT_SET_UP", "this daemon serves no screens by TCP");
}

gboolean vp_screens_differ(const PbDomainSpec *before, const PbDomainSpec *after)
{
    gboolean same = before->n_tls_screens == after->n_tls_screens;

    for (size_t i = 0; same && i < before->n_tls_screens; i++)
        same = vp_pb_equal(before->tls_screens[i], after->tls_screens[i]);
    return !same;
}

VpError *vp_screens_take(const VpDomains *domains, const PbDomain *domain)
{
    const VpScreenHost *host = domains->screens;
    VpError *error = vp_screens_check(domains, domain);

    return error || domain->spec->n_tls_screens == 0 ? error : host->take(host->data, domain);
}

void vp_screens_settle(VpRecord *record)
{
    const VpScreenHost *host = record->domains->screens;
    g_autoptr(VpDomainView) view = host ? vp_record_view(record) : NULL;

    if (host)
        host->settle(host->data, record->uid, view ? view->domain : NULL);
}

void vp_screens_changed(const VpDomains *domains, const PbDomain *domain)
{
    if (domains->screens)
        domains->screens->changed(domains->screens->data, domain);
}

void vp_screens_tell(const VpRecord *record, PbDomainStatus *status, PbDomainEndpoint *const *before, gsize n_before)
{
    const VpScreenHost *host = record->domains->screens;

    for (size_t i = 0; i < status->n_endpoints; i++) {
        PbDomainEndpoint *endpoint = status->endpoints[i];

        for (gsize j = 0; j < n_before; j++) {
            if (before[j]->tls_port && g_str_equal(before[j]->device, endpoint->device)) {
                vp_pb_set(&endpoint->tls_address, before[j]->tls_address);
                endpoint->tls_port = before[j]->tls_port;
            }
        }
        if (host && !endpoint->tls_port)
            host->tell(host->data, record->uid, endpoint);
    }
}
