/* "vpctl events": the journal, as history or as it grows. */
#pragma once

#include "clients/cli/cli.h"

int vp_events(VpCli *cli, const VpCommand *command, int argc, char **argv);
