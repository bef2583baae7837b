/* The commands of "vpctl operation". */
#pragma once

#include "clients/cli/cli.h"

int vp_operation_list(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_operation_show(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_operation_cancel(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_operation_watch(VpCli *cli, const VpCommand *command, int argc, char **argv);
