/* vpctl domain save, restore, discard-saved. On a terminal the first two show how far they are, and Ctrl-C gives the work up, not the command alone. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "clients/cli/domain.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/message.h"
#include "clients/cli/text.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/operation_service.pb-c.h"

/* The job's own limit comes first, so that its error is what is told. */
#define GRACE_MS 10000
/* All memory goes through a disk. */
#define DEFAULT_MS (60 * 60 * 1000)

typedef struct Wish {
    const char *method;
    const char *doing;
    const char *file;
    gboolean paused;
    gboolean no_wait;
} Wish;

static void tell(VpCli *cli, const char *who, const PbDomain *domain, const PbOperation *operation)
{
    vp_domain_tell(who, domain, operation);
    if (operation && operation->state != PB_OPERATION_STATE_SUCCEEDED)
        return;
    if (domain && domain->status && domain->status->saved && cli->output == VP_OUTPUT_TABLE) {
        g_autofree char *path = vp_text_escape(domain->status->saved->path);

        printf("saved in %s\n", path);
    }
}

static void *make_request(const VpCli *cli, const Wish *wish, const char *who, gboolean no_wait)
{
    const ProtobufCMethodDescriptor *method =
        protobuf_c_service_descriptor_get_method_by_name(&pb_domain_service__descriptor, wish->method);
    void *request = vp_pb_new(method->input);

    vp_message_set_who(request, who);
    *(protobuf_c_boolean *)vp_message_field(request, "no_wait") = no_wait;
    if (wish->paused)
        *(protobuf_c_boolean *)vp_message_field(request, "paused") = TRUE;
    if (wish->file) {
        g_autofree char *path = g_canonicalize_filename(wish->file, NULL);

        vp_pb_set(vp_message_field(request, "path"), path);
    }
    if (cli->timeout_given)
        *(Google__Protobuf__Duration **)vp_message_field(request, "timeout") =
            vp_message_duration(cli->timeout_ms - GRACE_MS);
    return request;
}

static int print(VpCli *cli, void *answer, const char *who, gboolean stream)
{
    if (cli->output == VP_OUTPUT_NAME)
        puts(who);
    else if (!vp_cli_print(cli, answer, stream))
        tell(cli, who, *(PbDomain **)vp_message_field(answer, "domain"),
             *(PbOperation **)vp_message_field(answer, "operation"));
    return VP_EXIT_DONE;
}

static int run_plain(VpCli *cli, const Wish *wish, const char *who, gboolean stream)
{
    VpError *error = NULL;
    vp_pb_auto void *request = make_request(cli, wish, who, wish->no_wait);
    vp_pb_auto void *answer = vp_cli_call(cli, &pb_domain_service__descriptor, wish->method, request, &error);

    if (!answer)
        return vp_cli_fail(cli, error, "%s domain \"%s\"", wish->doing, who);
    return print(cli, answer, who, stream);
}

/* ---- with progress ---- */

static void show_progress(const PbOperation *operation)
{
    g_autofree char *message = vp_text_escape(operation->message);

    fprintf(stderr, "\r\033[K%3u %%  %s", operation->progress_percent, message);
}

static void cancel(VpCli *cli, const char *uid)
{
    vp_pb_auto PbCancelOperationRequest *request = vp_pb_new(&pb_cancel_operation_request__descriptor);
    g_autoptr(VpError) error = NULL;

    fprintf(stderr, "\r\033[Kgiving it up ...");
    vp_pb_set(&request->uid, uid);
    vp_pb_auto void *answer = vp_cli_call(cli, &pb_operation_service__descriptor, "CancelOperation", request, &error);
    (void)answer;
}

/* The operation once it has ended, owned by the caller. */
static PbOperation *follow(VpCli *cli, const char *uid, VpInterrupt *interrupt, VpError **error)
{
    vp_pb_auto PbWatchOperationRequest *request = vp_pb_new(&pb_watch_operation_request__descriptor);
    VpClient *client = vp_cli_client(cli, error);
    PbOperation *last = NULL;

    vp_pb_set(&request->uid, uid);
    g_autoptr(VpClientStream) stream =
        client ? vp_client_stream_new(client, &pb_operation_service__descriptor, "WatchOperation", request, 0, error)
               : NULL;
    if (stream && interrupt)
        vp_interrupt_watch(interrupt, stream);
    while (stream) {
        vp_pb_auto PbWatchOperationResponse *item = vp_client_stream_read(stream, 0, error);

        if (!item || !item->operation)
            break;
        vp_pb_free(last);
        last = vp_pb_dup(item->operation);
        show_progress(last);
    }
    if (interrupt)
        vp_interrupt_watch(interrupt, NULL);
    return last;
}

static VpError *operation_error(const PbOperation *operation)
{
    const PbOperationError *told = operation->error;
    VpError *error = vp_error_new(told ? (VpCode)told->code : VP_UNKNOWN, told ? told->reason : "OPERATION_FAILED",
                                  "%s", told ? told->message : "it did not end well");

    for (size_t i = 0; told && i < told->n_metadata; i++)
        vp_error_with(error, told->metadata[i]->key, told->metadata[i]->value);
    return error;
}

static int run_shown(VpCli *cli, const Wish *wish, const char *who, VpInterrupt *interrupt)
{
    VpError *error = NULL;
    vp_pb_auto void *request = make_request(cli, wish, who, /* no_wait= */ TRUE);
    vp_pb_auto void *answer = vp_cli_call(cli, &pb_domain_service__descriptor, wish->method, request, &error);

    if (!answer)
        return vp_cli_fail(cli, error, "%s domain \"%s\"", wish->doing, who);
    PbOperation **operation = vp_message_field(answer, "operation");
    g_autofree char *uid = g_strdup(*operation ? (*operation)->uid : "");
    vp_pb_auto PbOperation *ended = follow(cli, uid, interrupt, &error);
    if (vp_interrupt_came(interrupt)) {
        g_clear_pointer(&error, vp_error_free);
        cancel(cli, uid);
        vp_pb_free(ended);
        ended = follow(cli, uid, NULL, &error);
    }
    fprintf(stderr, "\r\033[K");
    if (!error && ended && ended->state != PB_OPERATION_STATE_SUCCEEDED)
        error = operation_error(ended);
    if (error)
        return vp_cli_fail(cli, error, "%s domain \"%s\"", wish->doing, who);
    vp_pb_auto PbGetDomainResponse *now = vp_domain_fetch(cli, who, &error);
    if (!now)
        return vp_cli_fail(cli, error, "%s domain \"%s\"", wish->doing, who);
    tell(cli, who, now->domain, NULL);
    return VP_EXIT_DONE;
}

/* ---- the commands ---- */

static void set_limit(VpCli *cli)
{
    cli->timeout_ms = (cli->timeout_given ? cli->timeout_ms : DEFAULT_MS) + GRACE_MS;
}

static int run_all(VpCli *cli, const VpCommand *command, const Wish *wish, int argc, char **argv)
{
    int code = VP_EXIT_DONE;

    if (wish->file && argc > 2)
        return vp_cli_usage(command, "--file goes with one domain");
    set_limit(cli);
    const gboolean shown = !wish->no_wait && cli->output == VP_OUTPUT_TABLE && isatty(STDERR_FILENO);
    VpError *error = NULL;
    g_autoptr(VpInterrupt) interrupt = shown ? vp_interrupt_new(&error) : NULL;
    if (error)
        return vp_cli_fail(cli, error, "%s", wish->doing);
    for (int i = 1; i < argc; i++) {
        const int one =
            shown ? run_shown(cli, wish, argv[i], interrupt) : run_plain(cli, wish, argv[i], /* stream= */ argc > 2);

        if (one != VP_EXIT_DONE)
            code = one;
    }
    return code;
}

int vp_domain_save(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    const gboolean saves = g_str_equal(command->name, "save");
    Wish wish = {
        .method = saves ? "SaveDomain" : "RestoreDomain",
        .doing = saves ? "save" : "restore",
    };
    g_autofree char *file = NULL;
    const GOptionEntry entries[] = {
        {"file", 0, 0, G_OPTION_ARG_FILENAME, &file, "The file, on the daemon's host; without it the daemon keeps one",
         "FILE"},
        {"paused", 0, 0, G_OPTION_ARG_NONE, &wish.paused, "Restore with the CPUs halted", NULL},
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &wish.no_wait, "Do not wait until it is done; tell the operation", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    wish.file = file;
    return run_all(cli, command, &wish, argc, argv);
}

int vp_domain_discard_saved(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    const Wish wish = {.method = "DiscardSavedState", .doing = "discard the saved state of"};
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    set_limit(cli);
    for (int i = 1; i < argc; i++) {
        if (run_plain(cli, &wish, argv[i], /* stream= */ argc > 2) != VP_EXIT_DONE)
            code = VP_EXIT_FAILED;
    }
    return code;
}
