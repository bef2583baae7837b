/* Completion for shells: scripts for bash and zsh that ask vpctl itself what may stand at a place. */
#pragma once

#include "clients/cli/cli.h"

/* vpctl completion SHELL: the script. */
int vp_completion(VpCli *cli, const VpCommand *command, int argc, char **argv);

/* vpctl __complete WORD... (argv[1] on): what may stand in the place of the last word, one a line, as "WORD" or
 * "WORD<tab>WHAT IT IS"; a line ":files" or ":folders" says that names of these fit. The word for the scripts. */
#define VP_COMPLETE_WORD "__complete"
int vp_completion_list(VpCli *cli, int argc, char **argv);

/* One a line: "LONG<tab>SHORT<tab>ARGUMENT<tab>DESCRIPTION", the argument empty if there is none. */
void vp_completion_add_options(GString *out, const GOptionEntry *entries);
