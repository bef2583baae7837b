/* "vpctl completion bash": the completion script, made from the table of commands. */
#pragma once

#include "clients/cli/cli.h"

int vp_completion(VpCli *cli, const VpCommand *command, int argc, char **argv);
