/* vpctl domain start, shutdown, poweroff, reboot, reset, pause, resume, delete: one call for each domain that is
 * named. */
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
    /* The daemon's own, see ShutdownDomainRequest.wait. */
    AFTER_FALLBACK_MS = 60000,
    DEFAULT_WAIT_MS = 600000,
};

static const Verb *find_verb(const char *command)
{
    for (gsize i = 0; i < G_N_ELEMENTS(VERBS); i++) {
        if (g_str_equal(VERBS[i].command, command))
            return &VERBS[i];
    }
    g_assert_not_reached();
}

void vp_domain_tell(const char *who, const PbDomain *domain, const PbOperation *operation)
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
        vp_domain_tell(who, *(PbDomain **)vp_message_field(answer, "domain"),
                       *(PbOperation **)vp_message_field(answer, "operation"));
    return VP_EXIT_DONE;
}

/* The options of start, and those of shutdown and reboot. */
typedef struct Wish {
    gboolean no_wait;
    gboolean paused;
    gboolean discard_saved;
    char *mode;
    char *fallback;
    gboolean wait;
    int mode_value;
    gint64 fallback_ms;
} Wish;

static void wish_clear(Wish *wish)
{
    g_free(wish->mode);
    g_free(wish->fallback);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Wish, wish_clear)

static VpError *read_wish(Wish *wish)
{
    if (wish->mode) {
        VpError *error = vp_text_parse_enum(&pb_shutdown_mode__descriptor, wish->mode, &wish->mode_value);
        if (error)
            return vp_error_prefix(error, "--mode");
    }
    if (wish->fallback && (!vp_text_parse_duration(wish->fallback, &wish->fallback_ms) || wish->fallback_ms < 1))
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--fallback is a time as in 60s or 2m, not \"%s\"",
                            wish->fallback);
    if (wish->wait && wish->no_wait)
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION", "--wait and --no-wait do not go together");
    return NULL;
}

/* The wait's own limit comes first, so that its error is what is told. */
static void set_call_timeout(VpCli *cli, const Wish *wish)
{
    if (wish->wait && !cli->timeout_given)
        cli->timeout_ms = wish->fallback_ms ? wish->fallback_ms + AFTER_FALLBACK_MS : DEFAULT_WAIT_MS;
    cli->timeout_ms += GRACE_MS;
}

static void fill_request(void *request, const char *who, const Wish *wish, gint64 job_ms)
{
    vp_message_set_who(request, who);
    *(protobuf_c_boolean *)vp_message_field(request, "no_wait") = wish->no_wait;
    if (wish->paused)
        *(protobuf_c_boolean *)vp_message_field(request, "paused") = TRUE;
    if (wish->discard_saved)
        *(protobuf_c_boolean *)vp_message_field(request, "discard_saved") = TRUE;
    if (wish->mode_value)
        *(PbShutdownMode *)vp_message_field(request, "mode") = (PbShutdownMode)wish->mode_value;
    if (wish->fallback_ms)
        *(Google__Protobuf__Duration **)vp_message_field(request, "fallback_after") =
            vp_message_duration(wish->fallback_ms);
    if (wish->wait)
        *(protobuf_c_boolean *)vp_message_field(request, "wait") = TRUE;
    if (job_ms)
        *(Google__Protobuf__Duration **)vp_message_field(request, "timeout") = vp_message_duration(job_ms);
}

int vp_domain_verb(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    const Verb *verb = find_verb(command->name);
    g_auto(Wish) wish = {0};
    const gboolean shutdown = g_str_equal(command->name, "shutdown");
    const GOptionEntry no_wait =
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &wish.no_wait, "Do not wait until it is done; tell the operation", NULL};
    const GOptionEntry mode = {"mode",
                               0,
                               0,
                               G_OPTION_ARG_STRING,
                               &wish.mode,
                               "How the guest is asked: agent or acpi (default: by its agent if that answers)",
                               "MODE"};
    const GOptionEntry fallback = {"fallback",
                                   0,
                                   0,
                                   G_OPTION_ARG_STRING,
                                   &wish.fallback,
                                   shutdown ? "Power it off if it has not shut down after this time, as in 60s"
                                            : "Reset it if it has not restarted after this time, as in 60s",
                                   "TIME"};
    const GOptionEntry discard = {"discard-saved",
                                  0,
                                  0,
                                  G_OPTION_ARG_NONE,
                                  &wish.discard_saved,
                                  "Boot a domain that is saved; what it was doing is lost",
                                  NULL};
    GOptionEntry entries[6] = {no_wait};
    guint n = 1;
    int code;

    if (g_str_equal(command->name, "start")) {
        entries[n++] =
            (GOptionEntry){"paused", 0, 0, G_OPTION_ARG_NONE, &wish.paused, "Start with the CPUs halted", NULL};
        entries[n++] = discard;
    }
    if (shutdown || g_str_equal(command->name, "reboot")) {
        entries[n++] = mode;
        entries[n++] = fallback;
    }
    if (shutdown)
        entries[n++] = (GOptionEntry){"wait", 0, 0, G_OPTION_ARG_NONE, &wish.wait, "Wait until it is off", NULL};
    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    VpError *error = read_wish(&wish);
    if (error)
        return vp_cli_usage_error(command, error);
    const gint64 job_ms = cli->timeout_given ? cli->timeout_ms : 0;
    set_call_timeout(cli, &wish);

    const ProtobufCMethodDescriptor *method =
        protobuf_c_service_descriptor_get_method_by_name(&pb_domain_service__descriptor, verb->method);
    for (int i = 1; i < argc; i++) {
        vp_pb_auto void *request = vp_pb_new(method->input);

        fill_request(request, argv[i], &wish, job_ms);
        if (run_one(cli, verb, request, argv[i], /* stream= */ argc > 2) != VP_EXIT_DONE)
            code = VP_EXIT_FAILED;
    }
    return code;
}

int vp_domain_delete(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    gboolean discard = FALSE;
    const GOptionEntry entries[] = {
        {"discard-saved", 0, 0, G_OPTION_ARG_NONE, &discard, "Delete it even if it is saved", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    for (int i = 1; i < argc; i++) {
        vp_pb_auto PbDeleteDomainRequest *request = vp_pb_new(&pb_delete_domain_request__descriptor);
        g_autofree char *request_id = g_uuid_string_random();
        VpError *error = NULL;

        vp_message_set_who(request, argv[i]);
        vp_pb_set(&request->request_id, request_id);
        request->discard_saved = discard;
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
