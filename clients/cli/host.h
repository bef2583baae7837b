/* "vpctl host", "daemon" and "version": what answers, and on what machine. */
#pragma once

#include "clients/cli/cli.h"

int vp_host(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_daemon(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_version(VpCli *cli, const VpCommand *command, int argc, char **argv);
