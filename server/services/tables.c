/* The list of all services. A new one is one line here. */
#include "server/services/services.h"

VpHandlerTable *vp_services_tables(VpServices *services)
{
    const VpMethodHandler *const all[] = {
        vp_admin_handlers, vp_domain_handlers, vp_event_handlers,
        vp_host_handlers,  vp_image_handlers,  vp_operation_handlers,
    };
    VpHandlerTable *tables = g_new0(VpHandlerTable, G_N_ELEMENTS(all) + 1);

    for (gsize i = 0; i < G_N_ELEMENTS(all); i++)
        tables[i] = (VpHandlerTable){.handlers = all[i], .context = services};
    return tables;
}
