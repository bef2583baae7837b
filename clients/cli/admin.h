/* "vpctl admin": backup, restore and check of the daemon's store. Backup and check ask the daemon; restore, and check --state-dir, work on a store that no
 * daemon has. */
#pragma once

#include "clients/cli/cli.h"

int vp_admin_backup(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_admin_restore(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_admin_check(VpCli *cli, const VpCommand *command, int argc, char **argv);
