/* The commands of "vpctl image". */
#pragma once

#include "clients/cli/cli.h"
#include "virtplane/v1/image.pb-c.h"

int vp_image_inspect(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_image_list(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_image_graph(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_image_probe(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_image_record(VpCli *cli, const VpCommand *command, int argc, char **argv);
int vp_image_explain(VpCli *cli, const VpCommand *command, int argc, char **argv);

/* ---- what they share (image.c) ---- */

/* The path from the working folder; owned by the caller. */
char *vp_image_absolute(const char *path);
/* The format that an option names; `text` NULL: none. INVALID_ARGUMENT. */
VpError *vp_image_take_format(const char *option, const char *text, PbImageFormat *ret);
