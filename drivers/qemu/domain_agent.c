/*
 * A domain's guest agent: when its port is open and when not, and what is told of that. See domain_parts.h. While the guest has its end closed we have ours
 * closed too: QEMU would keep what is sent for whoever opens it next.
 */
#include "domain_parts.h"

#include <string.h>

#include "base/log.h"
#include "guest.h"
#include "ids.h"

#define AGENT_SOCKET VP_ID_AGENT ".sock"

/* ---- what is told ---- */

void vp_qemu_agent_tell(VpQemuDomain *domain, PbEventType event, const char *reason)
{
    const VpObservation observation = {.event = event,
                                       .reason = reason,
                                       .agent = &domain->agent_told,
                                       .state_stays = TRUE};

    domain->driver->host->report(domain->driver->host->data, domain->uid, &observation);
}

static void tell_disconnected(VpQemuDomain *domain, const char *reason)
{
    if (!domain->agent_told.connected)
        return;
    domain->agent_told.connected = FALSE;
    vp_qemu_agent_tell(domain, PB_EVENT_TYPE_AGENT_DISCONNECTED, reason);
}

static void on_answers(void *data)
{
    VpQemuDomain *domain = data;

    if (!domain->agent_told.connected) {
        domain->agent_told.connected = TRUE;
        vp_qemu_agent_tell(domain, PB_EVENT_TYPE_AGENT_CONNECTED, "ANSWERS");
    }
    vp_guest_answers(domain);
}

static void on_silent(void *data)
{
    tell_disconnected(data, "NO_ANSWER");
}

static const VpAgentHandler agent_handler = {.answers = on_answers, .silent = on_silent};

/* ---- coming and going ---- */

void vp_qemu_domain_make_agent(VpQemuDomain *domain)
{
    domain->agent = vp_agent_new(vp_loop_uv(domain->driver->host->loop), &agent_handler, domain);
    vp_guest_init(domain);
}

void vp_qemu_domain_free_agent(VpQemuDomain *domain)
{
    vp_guest_free(domain);
    vp_agent_free(g_steal_pointer(&domain->agent));
}

/* The guest has its end of the port open. */
static void connect_agent(VpQemuDomain *domain)
{
    g_autoptr(VpError) error = NULL;
    int fd;

    if (vp_agent_is_open(domain->agent))
        return;
    error = vp_folder_connect_to(domain->dir, AGENT_SOCKET, &fd);
    if (!error)
        error = vp_agent_open(domain->agent, fd);
    if (error)
        vp_log(VP_LOG_WARNING, "domain %s: the guest's agent cannot be reached: %s", domain->name, error->message);
}

static void set_port(VpQemuDomain *domain, gboolean open)
{
    if (!domain->agent)
        return;
    if (open) {
        connect_agent(domain);
        return;
    }
    vp_agent_shut(domain->agent);
    vp_guest_agent_gone(domain);
    tell_disconnected(domain, "PORT_CLOSED");
}

void vp_qemu_domain_port_changed(VpQemuDomain *domain, json_t *arguments)
{
    const char *id = json_string_value(json_object_get(arguments, "id"));

    if (g_strcmp0(id, VP_ID_AGENT) == 0)
        set_port(domain, json_is_true(json_object_get(arguments, "open")));
}

static void on_chardevs(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;
    size_t i;
    json_t *chardev;

    json_array_foreach(result, i, chardev)
    {
        const char *label = json_string_value(json_object_get(chardev, "label"));

        if (g_strcmp0(label, VP_ID_AGENT) == 0)
            set_port(domain, json_is_true(json_object_get(chardev, "frontend-open")));
    }
    vp_error_free(error);
}

void vp_qemu_domain_look_for_agent(VpQemuDomain *domain)
{
    if (domain->live->guest_agent)
        vp_qmp_execute(domain->qmp, "query-chardev", NULL, 0, on_chardevs, domain);
}

/* ---- commands ---- */

void vp_qemu_agent_execute(VpQemuDomain *domain, const char *command, json_t *arguments, gint64 deadline_us,
                           VpAgentDone done, void *data)
{
    vp_agent_execute(domain->agent, command, arguments, deadline_us, done, data);
}
