/*
 * Lines: what goes between the streams of clients and a unix socket at which a port of a domain ends (DomainStatus.endpoints), whatever the driver. One
 * relay serves consoles, where clients share a connection of which one may type, and screens, where each has a connection of its own.
 * Everything of a line happens on the loop's thread; nothing here blocks.
 */
#pragma once

#include "server/domains/domains.h"
#include "server/rpc/rpc.h"

typedef struct VpLines VpLines;

/* All that is given outlives it. `pool` is for reading logs. */
VpLines *vp_lines_new(VpDomains *domains, VpLoop *loop, VpPool *pool);

/* After the server's drain, when no stream is open any more; waits for the last of them. NULL is let pass. */
void vp_lines_free(VpLines *lines);

/* Serve OpenConsole and OpenScreen. */
void vp_lines_open_console(VpLines *lines, VpCall *call);
void vp_lines_open_screen(VpLines *lines, VpCall *call);
