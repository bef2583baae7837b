/* The list of all services (a new one is one line here), and what they share. */
#include "server/services/services.h"

VpHandlerTable *vp_services_tables(VpServices *services)
{
    const VpMethodHandler *const all[] = {
        vp_admin_handlers, vp_auth_handlers,  vp_domain_handlers,    vp_event_handlers,  vp_guest_handlers,
        vp_host_handlers,  vp_image_handlers, vp_operation_handlers, vp_secret_handlers,
    };
    VpHandlerTable *tables = g_new0(VpHandlerTable, G_N_ELEMENTS(all) + 1);

    for (gsize i = 0; i < G_N_ELEMENTS(all); i++)
        tables[i] = (VpHandlerTable){.handlers = all[i], .context = services};
    return tables;
}

VpError *vp_slow_enter(gint *count, gint most, const char *what)
{
    if (g_atomic_int_add(count, 1) < most)
        return NULL;
    vp_slow_leave(count);
    return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY", "%d %s already; try again", most, what),
                          1000);
}

void vp_slow_leave(gint *count)
{
    g_atomic_int_add(count, -1);
}
