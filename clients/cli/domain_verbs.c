/* vpctl domain start, shutdown, poweroff, reboot, reset, pause, resume, delete: one call for each domain that is
 * named. */
#include <string.h>

#include "base/pb.h"
#include "clients/cli/domain.h"
#include "clients/cli/message.h"
#include "clients/cli/text.h"
#include "virtplane/v1/domain_service.pb-c.h"

typedef struct Verb {
    const char *command;
    const char *method;
    const char *doing; /* in an error: "cannot start domain" */
} Verb;

static const Verb VERBS[] = {
    {"start", "StartDomain", "start"},           {"shutdown", "ShutdownDomain", "shut down"},
    {"poweroff", "PowerOffDomain", "power off"}, {"reboot", "RebootDomain", "reboot"},
    {"reset", "ResetDomain", "reset"},           {"pause", "PauseDomain", "pause"},
    {"resume", "ResumeDomain", "resume"},
};

enum {
    /* The job's own limit comes first, so that its error is what is told. */
    GRACE_MS = 5000,
};

static const Verb *find_verb(const char *command)
{
    for (gsize i = 0; i < G_N_ELEMENTS(VERBS); i++) {
        if (g_str_equal(VERBS[i].command, command))
            return &VERBS[i];
    }
    g_assert_not_reached();
}

static void tell(const char *who, const PbDomain *domain, const PbOperation *operation)
{
    g_autofree char *name = vp_text_escape(domain ? domain->name : who);

    if (operation && operation->state != PB_OPERATION_STATE_SUCCEEDED) {
        g_autofree char *uid = vp_text_escape(operation->uid);
        g_autofree char *state = vp_text_enum(&pb_operation_state__descriptor, (int)operation->state);
        printf("domain \"%s\": operation %s is %s\n", name, uid, state);
        return;
    }
    g_autofree char *state = domain ? vp_domain_state_line(domain) : g_strdup("done");
    printf("domain \"%s\" %s\n", name, state);
}

static int run_one(VpCli *cli, const Verb *verb, void *request, const char *who, gboolean stream)
{
    VpError *error = NULL;
    vp_pb_auto void *answer = vp_cli_call(cli, &pb_domain_service__descriptor, verb->method, request, &error);

    if (!answer)
        return vp_cli_fail(cli, error, "%s domain \"%s\"", verb->doing, who);
    if (cli->output == VP_OUTPUT_NAME)
        puts(who);
    else if (!vp_cli_print(cli, answer, stream))
        tell(who, *(PbDomain **)vp_message_field(answer, "domain"),
             *(PbOperation **)vp_message_field(answer, "operation"));
    return VP_EXIT_DONE;
}

int vp_domain_verb(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    const Verb *verb = find_verb(command->name);
    gboolean no_wait = FALSE;
    gboolean paused = FALSE;
    const gboolean is_start = g_str_equal(command->name, "start");
    const GOptionEntry entries[] = {
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &no_wait, "Do not wait until it is done; tell the operation", NULL},
        {"paused", 0, is_start ? 0 : G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &paused, "Start with the CPUs halted",
         NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (paused && !is_start)
        return vp_cli_usage(command, "--paused goes with start alone");
    const gint64 job_ms = cli->timeout_given ? cli->timeout_ms : 0;
    cli->timeout_ms += GRACE_MS;

    const ProtobufCMethodDescriptor *method =
        protobuf_c_service_descriptor_get_method_by_name(&pb_domain_service__descriptor, verb->method);
    for (int i = 1; i < argc; i++) {
        vp_pb_auto void *request = vp_pb_new(method->input);

        vp_message_set_who(request, argv[i]);
        *(protobuf_c_boolean *)vp_message_field(request, "no_wait") = no_wait;
        if (paused)
            *(protobuf_c_boolean *)vp_message_field(request, "paused") = TRUE;
        if (job_ms)
            *(Google__Protobuf__Duration **)vp_message_field(request, "timeout") = vp_message_duration(job_ms);
        if (run_one(cli, verb, request, argv[i], /* stream= */ argc > 2) != VP_EXIT_DONE)
            code = VP_EXIT_FAILED;
    }
    return code;
}

int vp_domain_delete(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    for (int i = 1; i < argc; i++) {
        vp_pb_auto PbDeleteDomainRequest *request = vp_pb_new(&pb_delete_domain_request__descriptor);
        g_autofree char *request_id = g_uuid_string_random();
        VpError *error = NULL;

        vp_message_set_who(request, argv[i]);
        vp_pb_set(&request->request_id, request_id);
        vp_pb_auto PbDeleteDomainResponse *answer =
            vp_cli_call(cli, &pb_domain_service__descriptor, "DeleteDomain", request, &error);
        if (!answer)
            code = vp_cli_fail(cli, error, "delete domain \"%s\"", argv[i]);
        else if (cli->output == VP_OUTPUT_NAME)
            puts(argv[i]);
        else if (!vp_cli_print(cli, answer, /* stream= */ argc > 2))
            printf("domain \"%s\" deleted\n", argv[i]);
    }
    return code;
}
