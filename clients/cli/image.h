/* The commands of "vpctl image". */
#pragma once

#include "clients/cli/cli.h"

int vp_image_inspect(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_image_probe(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_image_record(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_image_explain(VpCli *cli, const VpCommand *command, int argc, char **argv);
