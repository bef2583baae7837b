/* "vpctl pki": a small CA, for those who have none. Works on files alone, no daemon takes part. */
#pragma once

#include "clients/cli/cli.h"

int vp_pki_init(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_pki_issue(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_pki_revoke(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_pki_renew_list(VpCli *cli, const VpCommand *command, int argc, char **argv);
