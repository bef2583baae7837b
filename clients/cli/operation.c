/* vpctl operation list, show, cancel, watch: slow work. */
#include "clients/cli/operation.h"

#include "base/pb.h"
#include "clients/cli/message.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "virtplane/v1/operation_service.pb-c.h"

enum {
    MAX_LISTED = 1000,
    MAX_MESSAGE = 60, /* characters in a table; --output wide and show have all */
};

static void line(const char *key, const char *text)
{
    g_autofree char *safe = vp_text_escape(text);

    if (*safe && !g_str_equal(safe, "-"))
        printf("%-14s%s\n", key, safe);
}

static void show(const PbOperation *operation)
{
    g_autofree char *state = vp_text_enum(&pb_operation_state__descriptor, (int)operation->state);
    g_autofree char *state_line = g_strdup_printf("%s, %u %%", state, operation->progress_percent);
    g_autofree char *resource = g_strdup_printf("%s/%s", operation->resource_type, operation->resource_name);
    g_autofree char *created = vp_text_time(operation->create_time, /* fraction= */ TRUE);
    g_autofree char *started = vp_text_time(operation->start_time, /* fraction= */ TRUE);
    g_autofree char *ended = vp_text_time(operation->end_time, /* fraction= */ TRUE);
    g_autofree char *deadline = vp_text_time(operation->deadline_time, /* fraction= */ TRUE);

    line("operation", operation->uid);
    line("type", operation->type);
    line("on", resource);
    line("state", state_line);
    line("message", operation->message);
    line("asked by", operation->caller);
    line("asked", created);
    line("started", started);
    line("ended", ended);
    line("given up", deadline);
    if (!operation->error)
        return;
    line("error", operation->error->message);
    line("reason", operation->error->reason);
    for (size_t i = 0; i < operation->error->n_metadata; i++) {
        g_autofree char *key = vp_text_escape(operation->error->metadata[i]->key);
        line(key, operation->error->metadata[i]->value);
    }
}

int vp_operation_list(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    static const char *const columns[] = {"OPERATION", "TYPE", "RESOURCE", "STATE", ">%",
                                          "ASKED",     "BY",   "MESSAGE",  NULL};
    gboolean active = FALSE;
    const GOptionEntry entries[] = {
        {"active", 0, 0, G_OPTION_ARG_NONE, &active, "Only those that have not ended", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbListOperationsRequest *request = vp_pb_new(&pb_list_operations_request__descriptor);
    request->active_only = active;
    request->page_size = MAX_LISTED; /* as many as the daemon keeps of those that have ended */
    vp_pb_auto PbListOperationsResponse *answer =
        vp_cli_call(cli, &pb_operation_service__descriptor, "ListOperations", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "list operations");
    if (vp_cli_print(cli, answer, /* stream= */ FALSE))
        return VP_EXIT_DONE;

    VpTable *table = cli->output == VP_OUTPUT_TABLE && answer->n_operations ? vp_table_new(cli, columns) : NULL;
    for (size_t i = 0; i < answer->n_operations; i++) {
        const PbOperation *operation = answer->operations[i];
        g_autofree char *state = vp_text_enum(&pb_operation_state__descriptor, (int)operation->state);
        g_autofree char *resource = g_strdup_printf("%s/%s", operation->resource_type, operation->resource_name);
        g_autofree char *percent = g_strdup_printf("%u", operation->progress_percent);
        g_autofree char *created = vp_text_time(operation->create_time, /* fraction= */ FALSE);
        g_autofree char *uid = vp_text_escape(operation->uid);

        const char *message = operation->error ? operation->error->message : operation->message;
        g_autofree char *shown = cli->wide ? g_strdup(message) : vp_text_shorten(message, MAX_MESSAGE);

        if (table)
            vp_table_add(table, uid, operation->type, resource, state, percent, created, operation->caller, shown);
        else
            puts(uid);
    }
    if (table)
        vp_table_print(table);
    else if (answer->n_operations == 0)
        fprintf(stderr, "no operations\n");
    return VP_EXIT_DONE;
}

/* One call that takes a uid and answers an operation. */
static int call_one(VpCli *cli, const char *method, const char *uid, const char *doing)
{
    const ProtobufCMethodDescriptor *found =
        protobuf_c_service_descriptor_get_method_by_name(&pb_operation_service__descriptor, method);
    vp_pb_auto void *request = vp_pb_new(found->input);
    VpError *error = NULL;

    vp_pb_set(vp_message_field(request, "uid"), uid);
    vp_pb_auto void *answer = vp_cli_call(cli, &pb_operation_service__descriptor, method, request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "%s operation %s", doing, uid);

    const PbOperation *operation = *(PbOperation **)vp_message_field(answer, "operation");
    if (cli->output == VP_OUTPUT_NAME)
        puts(uid);
    else if (!vp_cli_print(cli, answer, /* stream= */ FALSE) && operation)
        show(operation);
    return VP_EXIT_DONE;
}

int vp_operation_show(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    return call_one(cli, "GetOperation", argv[1], "show");
}

int vp_operation_cancel(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    return call_one(cli, "CancelOperation", argv[1], "cancel");
}

static void tell(VpCli *cli, const PbWatchOperationResponse *item)
{
    const PbOperation *operation = item->operation;

    if (vp_cli_print(cli, item, /* stream= */ TRUE) || !operation)
        return;
    g_autofree char *uid = vp_text_escape(operation->uid);
    if (cli->output == VP_OUTPUT_NAME) {
        puts(uid);
        return;
    }
    g_autofree char *state = vp_text_enum(&pb_operation_state__descriptor, (int)operation->state);
    g_autofree char *type = vp_text_escape(operation->type);
    g_autofree char *name = vp_text_escape(operation->resource_name);
    g_autofree char *message = vp_text_escape(operation->error ? operation->error->message : operation->message);
    printf("%s  %s/%s  %s  %u %%  %s\n", uid, type, name, state, operation->progress_percent, message);
    fflush(stdout);
}

int vp_operation_watch(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    VpError *error = NULL;
    PbOperationState last = PB_OPERATION_STATE_UNSPECIFIED;
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbWatchOperationRequest *request = vp_pb_new(&pb_watch_operation_request__descriptor);
    vp_pb_set(&request->uid, argv[1]);
    VpClient *client = vp_cli_client(cli, &error);
    /* Work may take as long as it takes; --timeout sets an end to the watching. */
    g_autoptr(VpClientStream) stream =
        client ? vp_client_stream_new(client, &pb_operation_service__descriptor, "WatchOperation", request,
                                      cli->timeout_given ? cli->timeout_ms : 0, &error)
               : NULL;
    while (stream) {
        vp_pb_auto PbWatchOperationResponse *item = vp_client_stream_read(stream, 0, &error);

        if (!item)
            break;
        last = item->operation ? item->operation->state : last;
        tell(cli, item);
    }
    if (error)
        return vp_cli_fail(cli, error, "watch operation %s", argv[1]);
    return last == PB_OPERATION_STATE_SUCCEEDED ? VP_EXIT_DONE : VP_EXIT_FAILED;
}
