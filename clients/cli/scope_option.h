/* What the commands that change a running domain have in common: --scope, how long they may take, and what is told at the end. */
#pragma once

#include "clients/cli/cli.h"
#include "virtplane/v1/domain_service.pb-c.h"

/* The option's entry for a command's table: G_OPTION_ARG_FILENAME into `text`. */
#define VP_SCOPE_ENTRY(text)                                                                                           \
    {                                                                                                                  \
        "scope", 0, 0, G_OPTION_ARG_FILENAME, (text),                                                                  \
            "What changes: live (what runs), stored (from the next start on) or both (default: both, if it runs)",     \
            "SCOPE"                                                                                                    \
    }

/* `text` NULL: both, if it runs. */
VpError *vp_scope_parse(const char *text, PbChangeScope *ret_scope);

/* The time that the job may take, if one was named, for the request; the call's own limit comes later, so that the job's error is what is told. */
Google__Protobuf__Duration *vp_scope_job_timeout(VpCli *cli);

/* "domain "web": WHAT", or the answer as --output says; `operation` of one that was not waited for. */
void vp_scope_tell(VpCli *cli, const void *answer, const char *who, const char *what, const PbOperation *operation);
