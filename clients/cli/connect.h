/* The connection with what the options, or else the environment, say of certificates and tokens. */
#pragma once

#include "clients/cli/cli.h"

VpClient *vp_cli_connect(VpCli *cli, const char *address, VpError **error);
