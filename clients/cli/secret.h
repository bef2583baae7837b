/* "vpctl secret": what images, storage and displays ask for. Values go in and never come out; none is ever an argument, which others of the host can read. */
#pragma once

#include "clients/cli/cli.h"

int vp_secret_create(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_secret_set(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_secret_list(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_secret_delete(VpCli *cli, const VpCommand *command, int argc, char **argv);
