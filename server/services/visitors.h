/*
 * Who has come in, in the journal: a CLIENT_CONNECTED for each client that has not called for a while. Only where the settings ask for it ([events] clients):
 * every run of vpctl is a client. Used by the gate.
 */
#pragma once

#include "server/store/store.h"

typedef struct VpVisitors VpVisitors;

/* `store` outlives it. */
VpVisitors *vp_visitors_new(VpStore *store);
/* One that calls: `identity`, by its process or connection as `caller` ("uid=0 pid=4711"). Any thread; never blocks. */
void vp_visitors_note(VpVisitors *visitors, const char *identity, const char *caller);
/* All that was committed before was told. NULL is let pass. */
void vp_visitors_free(VpVisitors *visitors);
