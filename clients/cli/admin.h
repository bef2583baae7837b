/* "vpctl admin": who is connected to the daemon and how much it logs (admin_daemon.c); backup, restore and check of its store. Backup and check ask the daemon;
 * restore, and check --state-dir, work on a store that no daemon has. */
#pragma once

#include "clients/cli/cli.h"

int vp_admin_connections(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_admin_close(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_admin_log_level(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_admin_backup(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_admin_restore(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_admin_check(VpCli *cli, const VpCommand *command, int argc, char **argv);
