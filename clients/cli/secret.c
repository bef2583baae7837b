/* vpctl secret: see secret.h. */
#include "clients/cli/secret.h"

#include <string.h>

#include "base/pb.h"
#include "clients/cli/message.h"
#include "clients/cli/secret_input.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "virtplane/v1/secret_service.pb-c.h"

enum {
    MAX_VALUE_BYTES = 64 * 1024,
    MAX_LISTED = 1000,
};

static int tell(VpCli *cli, const PbSecret *secret, const char *what)
{
    g_autofree char *name = vp_text_escape(secret->name);

    if (vp_cli_print(cli, secret, /* stream= */ FALSE))
        return VP_EXIT_DONE;
    if (cli->output == VP_OUTPUT_NAME)
        puts(name);
    else
        printf("secret %s %s\n", name, what);
    return VP_EXIT_DONE;
}

static VpError *no_answer(void)
{
    return vp_error_new(VP_INTERNAL, NULL, "the answer is empty");
}

/* ---- create ---- */

static VpError *add_label(PbSecret *secret, const char *text)
{
    const char *equals = strchr(text, '=');

    if (!equals || equals == text)
        return vp_error_new(VP_INVALID_ARGUMENT, NULL, "--label is KEY=VALUE, not \"%s\"", text);
    PbSecret__LabelsEntry *entry = vp_pb_new(&pb_secret__labels_entry__descriptor);
    g_autofree char *key = g_strndup(text, (gsize)(equals - text));
    vp_pb_set(&entry->key, key);
    vp_pb_set(&entry->value, equals + 1);
    vp_pb_append(&secret->n_labels, &secret->labels, entry);
    return NULL;
}

static VpError *fill(PbSecret *secret, const char *name, const char *usage, const char *description, char **labels)
{
    int value = PB_SECRET_USAGE_UNSPECIFIED;
    VpError *error = usage ? vp_text_parse_enum(&pb_secret_usage__descriptor, usage, &value) : NULL;

    vp_pb_set(&secret->name, name);
    vp_pb_set(&secret->description, description);
    secret->usage = value;
    for (char **label = labels; !error && label && *label; label++)
        error = add_label(secret, *label);
    return error;
}

int vp_secret_create(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *usage = NULL;
    g_autofree char *description = NULL;
    g_auto(GStrv) labels = NULL;
    gboolean ephemeral = FALSE;
    const GOptionEntry entries[] = {
        {"usage", 0, 0, G_OPTION_ARG_STRING, &usage, "What it is for: image, ceph, iscsi, display or tpm", "USAGE"},
        {"description", 0, 0, G_OPTION_ARG_STRING, &description, "A note", "TEXT"},
        {"label", 'l', 0, G_OPTION_ARG_STRING_ARRAY, &labels, "A label to find it by", "KEY=VALUE"},
        {"ephemeral", 0, 0, G_OPTION_ARG_NONE, &ephemeral, "Keep it in memory only, until the daemon ends", NULL},
        {0},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbCreateSecretRequest *request = vp_pb_new(&pb_create_secret_request__descriptor);
    g_autofree char *id = g_uuid_string_random();
    request->secret = vp_pb_new(&pb_secret__descriptor);
    request->secret->ephemeral = ephemeral;
    vp_pb_set(&request->request_id, id);
    VpError *error = fill(request->secret, argv[1], usage, description, labels);
    if (error)
        return vp_cli_usage_error(command, error);
    vp_pb_auto PbCreateSecretResponse *answer =
        vp_cli_call(cli, &pb_secret_service__descriptor, "CreateSecret", request, &error);
    if (!answer || !answer->secret)
        return vp_cli_fail(cli, error ? error : no_answer(), "create secret \"%s\"", argv[1]);
    return tell(cli, answer->secret, "created");
}

/* ---- set ---- */

int vp_secret_set(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *file = NULL;
    const GOptionEntry entries[] = {
        {"file", 'f', 0, G_OPTION_ARG_FILENAME, &file,
         "Read the value from FILE, as it is (default: the standard input)", "FILE"},
        {0},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbSetSecretValueRequest *request = vp_pb_new(&pb_set_secret_value_request__descriptor);
    vp_message_set_who(request, argv[1]);
    request->value.data = g_malloc(MAX_VALUE_BYTES + 1);
    VpError *error = vp_secret_input(file, "value", request->value.data, MAX_VALUE_BYTES, &request->value.len);
    vp_pb_auto PbSetSecretValueResponse *answer =
        error ? NULL : vp_cli_call(cli, &pb_secret_service__descriptor, "SetSecretValue", request, &error);
    explicit_bzero(request->value.data, MAX_VALUE_BYTES + 1);
    if (!answer || !answer->secret)
        return vp_cli_fail(cli, error ? error : no_answer(), "set the value of \"%s\"", argv[1]);
    return tell(cli, answer->secret, "has a new value");
}

/* ---- list, delete ---- */

static void add_row(VpTable *table, const PbSecret *secret)
{
    g_autofree char *usage = vp_text_enum(&pb_secret_usage__descriptor, (int)secret->usage);
    g_autofree char *set = vp_text_time(secret->value_time, /* fraction= */ FALSE);

    vp_table_add(table, secret->name, usage, secret->has_value ? set : "-", secret->ephemeral ? "yes" : "no",
                 secret->description);
}

int vp_secret_list(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    static const char *const columns[] = {"SECRET", "USAGE", "VALUE SET", "EPHEMERAL", "DESCRIPTION", NULL};
    g_autofree char *token = g_strdup("");
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    const gboolean messages = cli->output == VP_OUTPUT_JSON || cli->output == VP_OUTPUT_YAML;
    const gboolean names = cli->output == VP_OUTPUT_NAME;
    VpTable *table = messages || names ? NULL : vp_table_new(cli, columns);
    do {
        vp_pb_auto PbListSecretsRequest *request = vp_pb_new(&pb_list_secrets_request__descriptor);
        VpError *error = NULL;

        request->page_size = MAX_LISTED;
        vp_pb_set(&request->page_token, token);
        vp_pb_auto PbListSecretsResponse *answer =
            vp_cli_call(cli, &pb_secret_service__descriptor, "ListSecrets", request, &error);
        if (!answer)
            return vp_cli_fail(cli, error, "list secrets");
        g_free(token);
        token = g_strdup(answer->next_page_token);
        for (size_t i = 0; i < answer->n_secrets; i++) {
            const PbSecret *secret = answer->secrets[i];
            g_autofree char *safe = vp_text_escape(secret->name);

            if (messages)
                vp_cli_print(cli, secret, /* stream= */ TRUE);
            else if (names)
                puts(safe);
            else
                add_row(table, secret);
        }
    } while (*token);
    if (table)
        vp_table_print(table);
    return VP_EXIT_DONE;
}

int vp_secret_delete(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int result = VP_EXIT_DONE;
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    for (int i = 1; i < argc; i++) {
        vp_pb_auto PbDeleteSecretRequest *request = vp_pb_new(&pb_delete_secret_request__descriptor);
        VpError *error = NULL;

        vp_message_set_who(request, argv[i]);
        vp_pb_auto PbDeleteSecretResponse *answer =
            vp_cli_call(cli, &pb_secret_service__descriptor, "DeleteSecret", request, &error);
        if (!answer)
            result = vp_cli_fail(cli, error, "delete secret \"%s\"", argv[i]);
        else if (cli->output == VP_OUTPUT_TABLE) {
            g_autofree char *safe = vp_text_escape(argv[i]);
            printf("secret %s deleted\n", safe);
        }
    }
    return result;
}
