/* See scope_option.h. */
#include "clients/cli/scope_option.h"

#include "clients/cli/message.h"
#include "clients/cli/text.h"

enum {
    /* What the daemon takes where no time is named. */
    JOB_MS = 60000,
    GRACE_MS = 5000,
};

VpError *vp_scope_parse(const char *text, PbChangeScope *ret_scope)
{
    int value = PB_CHANGE_SCOPE_UNSPECIFIED;
    VpError *error = text ? vp_text_parse_enum(&pb_change_scope__descriptor, text, &value) : NULL;

    *ret_scope = (PbChangeScope)value;
    return error ? vp_error_prefix(error, "--scope") : NULL;
}

Google__Protobuf__Duration *vp_scope_job_timeout(VpCli *cli)
{
    const gint64 job_ms = cli->timeout_given ? cli->timeout_ms : 0;

    cli->timeout_ms = (job_ms ? job_ms : JOB_MS) + GRACE_MS;
    return job_ms ? vp_message_duration(job_ms) : NULL;
}

void vp_scope_tell(VpCli *cli, const void *answer, const char *who, const char *what, const PbOperation *operation)
{
    g_autofree char *name = vp_text_escape(who);
    g_autofree char *done = vp_text_escape(what);

    if (cli->output == VP_OUTPUT_NAME) {
        puts(name);
    } else if (!vp_cli_print(cli, answer, /* stream= */ FALSE)) {
        if (operation && operation->state != PB_OPERATION_STATE_SUCCEEDED) {
            g_autofree char *uid = vp_text_escape(operation->uid);

            printf("domain \"%s\": operation %s is under way\n", name, uid);
        } else {
            printf("domain \"%s\": %s\n", name, done);
        }
    }
}
