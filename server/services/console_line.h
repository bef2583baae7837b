/* OpenConsole and OpenScreen: the streams of calls as clients of lines (server/services/line.h). */
#pragma once

#include "server/rpc/rpc.h"
#include "server/services/line.h"

/* Serve OpenConsole and OpenScreen. */
void vp_lines_open_console(VpLines *lines, VpCall *call);
void vp_lines_open_screen(VpLines *lines, VpCall *call);
