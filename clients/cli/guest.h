/* The commands of "vpctl guest": what the agent in a domain's guest does. */
#pragma once

#include "clients/cli/cli.h"

int vp_guest_ping(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_info(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_addresses(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_users(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_time(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_set_time(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_set_password(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_freeze(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_thaw(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_trim(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_exec(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_read(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_guest_write(VpCli *cli, const VpCommand *command, int argc, char **argv);
