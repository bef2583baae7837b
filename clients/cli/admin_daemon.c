/* vpctl admin connections, close, log-level: see admin.h. */
#include "base/pb.h"
#include "clients/cli/admin.h"
#include "clients/cli/message.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "virtplane/v1/admin_service.pb-c.h"

#define PAGE 1000

/* ---- connections ---- */

static void add_row(VpTable *table, const PbConnection *connection)
{
    g_autofree char *id = g_strdup_printf("%" G_GUINT64_FORMAT, connection->id);
    g_autofree char *calls = g_strdup_printf("%u", connection->active_calls);
    g_autofree char *streams = g_strdup_printf("%u", connection->active_streams);
    g_autofree char *total = g_strdup_printf("%" G_GUINT64_FORMAT, connection->total_calls);
    g_autofree char *since = vp_text_time(connection->connect_time, /* fraction= */ FALSE);
    g_autofree char *last = vp_text_time(connection->last_call_time, /* fraction= */ FALSE);

    vp_table_add(table, id, connection->identity[0] ? connection->identity : "-", connection->caller,
                 connection->address, since, last, calls, streams, total, connection->refused ? "refused" : "");
}

int vp_admin_connections(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    static const char *const columns[] = {"ID",     "IDENTITY", "CALLER", "ADDRESS", "SINCE", "LAST CALL",
                                          ">CALLS", ">STREAMS", ">TOTAL", "",        NULL};
    vp_pb_auto PbListConnectionsRequest *request = vp_pb_new(&pb_list_connections_request__descriptor);
    VpTable *table = NULL;
    gboolean more = TRUE;
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    if (cli->output == VP_OUTPUT_TABLE)
        table = vp_table_new(cli, columns);
    request->page_size = PAGE;
    while (more) {
        VpError *error = NULL;
        vp_pb_auto PbListConnectionsResponse *answer =
            vp_cli_call(cli, &pb_admin_service__descriptor, "ListConnections", request, &error);

        if (!answer) {
            vp_table_free(table);
            return vp_cli_fail(cli, error, "list the connections");
        }
        for (size_t i = 0; i < answer->n_connections; i++) {
            if (table)
                add_row(table, answer->connections[i]);
            else if (!vp_cli_print(cli, answer->connections[i], /* stream= */ TRUE))
                printf("%" G_GUINT64_FORMAT "\n", answer->connections[i]->id);
        }
        more = answer->next_page_token[0] != '\0';
        vp_pb_set(&request->page_token, answer->next_page_token);
    }
    if (table)
        vp_table_print(table);
    return VP_EXIT_DONE;
}

int vp_admin_close(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    for (int i = 1; i < argc; i++) {
        vp_pb_auto PbCloseConnectionRequest *request = vp_pb_new(&pb_close_connection_request__descriptor);
        VpError *error = NULL;
        guint64 id = 0;

        if (!g_ascii_string_to_unsigned(argv[i], 10, 1, G_MAXUINT64, &id, NULL))
            return vp_cli_usage(command, "ID is a number as \"vpctl admin connections\" shows it, not \"%s\"", argv[i]);
        request->id = id;
        vp_pb_auto PbCloseConnectionResponse *answer =
            vp_cli_call(cli, &pb_admin_service__descriptor, "CloseConnection", request, &error);
        if (!answer || !answer->connection)
            return vp_cli_fail(cli, error ? error : vp_error_new(VP_INTERNAL, NULL, "the answer is empty"),
                               "close connection %s", argv[i]);
        if (vp_cli_print(cli, answer->connection, /* stream= */ argc > 2))
            continue;
        g_autofree char *caller = vp_text_escape(answer->connection->caller);
        if (cli->output == VP_OUTPUT_NAME)
            puts(argv[i]);
        else
            printf("connection %s (%s) closed\n", argv[i], caller);
    }
    return VP_EXIT_DONE;
}

/* ---- the log ---- */

int vp_admin_log_level(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *duration = NULL;
    const GOptionEntry entries[] = {
        {"for", 0, 0, G_OPTION_ARG_STRING, &duration, "Go back after TIME, as in 10m", "TIME"},
        {0},
    };
    vp_pb_auto PbSetLogLevelRequest *request = vp_pb_new(&pb_set_log_level_request__descriptor);
    int level = PB_LOG_LEVEL_UNSPECIFIED;
    gint64 ms = 0;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    VpError *error = vp_text_parse_enum(&pb_log_level__descriptor, argv[1], &level);
    if (error)
        return vp_cli_usage_error(command, error);
    if (duration && (!vp_text_parse_duration(duration, &ms) || ms == 0))
        return vp_cli_usage(command, "--for is a duration like 30s or 10m, not \"%s\"", duration);
    request->level = level;
    request->duration = duration ? vp_message_duration(ms) : NULL;
    vp_pb_auto PbSetLogLevelResponse *answer =
        vp_cli_call(cli, &pb_admin_service__descriptor, "SetLogLevel", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "set the log's level");
    if (vp_cli_print(cli, answer, /* stream= */ FALSE))
        return VP_EXIT_DONE;
    g_autofree char *before = vp_text_enum(&pb_log_level__descriptor, (int)answer->previous_level);
    if (cli->output == VP_OUTPUT_NAME)
        puts(before);
    else
        printf("it was %s\n", before);
    return VP_EXIT_DONE;
}
