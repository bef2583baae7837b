/* The parts of AdminService that have files of their own. */
#pragma once

#include "server/services/services.h"
#include "virtplane/v1/admin_service.pb-c.h"

/* Both look at all connections: for a worker. */
void vp_admin_list_connections(VpCall *call, const void *message, void *context);
void vp_admin_close_connection(VpCall *call, const void *message, void *context);
