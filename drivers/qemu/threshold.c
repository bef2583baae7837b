/* The marks of a domain's disks, when a daemon has connected anew: see domain_parts.h and threshold.h. */
#include "threshold.h"

#include "base/log.h"
#include "domain_parts.h"

static void complain(const VpQemuDomain *domain, const VpError *error)
{
    vp_log(VP_LOG_WARNING, "domain %s: the write thresholds of its disks are not watched: %s", domain->name,
           error->message);
}

static void on_set(void *data, json_t *result, VpError *error)
{
    g_autoptr(VpError) failure = error;

    (void)result;
    if (failure)
        complain(data, failure);
}

static void on_nodes(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;
    g_autoptr(VpError) failure = error;
    json_t *command;
    size_t i;

    if (failure) {
        complain(domain, failure);
        return;
    }
    json_t *commands = vp_threshold_commands(domain->live, result);
    json_array_foreach(commands, i, command)
    {
        if (domain->qmp)
            vp_qmp_execute(domain->qmp, json_string_value(json_object_get(command, "execute")),
                           json_incref(json_object_get(command, "arguments")), 0, on_set, domain);
    }
    json_decref(commands);
}

void vp_qemu_domain_look_for_thresholds(VpQemuDomain *domain)
{
    gboolean any = FALSE;

    for (size_t i = 0; i < domain->live->n_disks; i++)
        any |= domain->live->disks[i]->write_threshold_bytes != 0;
    if (any)
        vp_qmp_execute(domain->qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), 0, on_nodes, domain);
}
