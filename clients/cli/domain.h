/* The commands of "vpctl domain". */
#pragma once

#include "clients/cli/cli.h"
#include "virtplane/v1/domain_service.pb-c.h"

int vp_domain_create(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_list(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_show(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_update(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_delete(VpCli *cli, const VpCommand *command, int argc, char **argv);
/* save and restore, by the command's name. */
int vp_domain_save(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_discard_saved(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_autostart(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_console(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_screen(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_screenshot(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_stats(VpCli *cli, const VpCommand *command, int argc, char **argv);
/* attach-disk and attach-interface: by the command's name. */
int vp_domain_attach(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_detach(VpCli *cli, const VpCommand *command, int argc, char **argv);
/* change-media and eject: by the command's name. */
int vp_domain_medium(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_domain_throttle(VpCli *cli, const VpCommand *command, int argc, char **argv);
/* start, shutdown, poweroff, reboot, reset, pause, resume: by the command's name. */
int vp_domain_verb(VpCli *cli, const VpCommand *command, int argc, char **argv);

/* "running (requested), pid 4711, kvm". */
char *vp_domain_state_line(const PbDomain *domain);

/* The daemon's answer about a domain by its name or uid; one with no domain in it is an error. */
PbGetDomainResponse *vp_domain_fetch(VpCli *cli, const char *who, VpError **error);

/* Says what has become of a domain: `operation` may be NULL, and so may `domain` of which `who` is the name then. */
void vp_domain_tell(const char *who, const PbDomain *domain, const PbOperation *operation);

/* All pages as one answer; `request` is changed. */
PbListDomainsResponse *vp_domain_list_all(VpCli *cli, PbListDomainsRequest *request, VpError **error);
