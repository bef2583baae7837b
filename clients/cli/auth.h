/* "vpctl auth": who the daemon takes one for, and what that identity may do. */
#pragma once

#include "clients/cli/cli.h"

int vp_auth_whoami(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_auth_can_i(VpCli *cli, const VpCommand *command, int argc, char **argv);
