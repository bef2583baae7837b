/* Options, connection, printing: see cli.h. */
#include "clients/cli/cli.h"

#include <stdlib.h>
#include <string.h>

#include "clients/cli/complain.h"
#include "clients/cli/completion.h"
#include "clients/cli/connect.h"
#include "clients/cli/text.h"
#include "clients/cli/yaml.h"
#include "clients/json/json.h"

enum {
    DEFAULT_TIMEOUT_MS = 60 * 1000,
};

/* ---- options ---- */

static int take_output(VpCli *cli, const VpCommand *command)
{
    static const char *const names[] = {"table", "json", "yaml", "name", NULL};

    cli->wide = g_strcmp0(cli->output_name, "wide") == 0;
    if (cli->wide)
        return VP_EXIT_DONE;
    for (int i = 0; cli->output_name && names[i]; i++) {
        if (g_str_equal(cli->output_name, names[i])) {
            cli->output = (VpOutput)i;
            return VP_EXIT_DONE;
        }
    }
    if (cli->output_name)
        return vp_cli_usage(command, "--output is table, wide, json, yaml or name, not \"%s\"", cli->output_name);
    return VP_EXIT_DONE;
}

static int take_settings(VpCli *cli, const VpCommand *command)
{
    cli->timeout_ms = DEFAULT_TIMEOUT_MS;
    cli->timeout_given = cli->timeout_text != NULL;
    if (cli->timeout_given && (!vp_text_parse_duration(cli->timeout_text, &cli->timeout_ms) || cli->timeout_ms == 0))
        return vp_cli_usage(command, "--timeout is a duration like 30s, 500ms or 2m, not \"%s\"", cli->timeout_text);
    return take_output(cli, command);
}

/* GOption writes into the strings' places and frees nothing that was there. */
static void forget(char **place, char **saved)
{
    if (*place != *saved)
        g_free(*saved);
}

enum {
    GLOBAL_OPTIONS = 9,
};

static void global_options(VpCli *cli, GOptionEntry ret_entries[GLOBAL_OPTIONS + 1])
{
    const GOptionEntry globals[GLOBAL_OPTIONS + 1] = {
        {"connect", 'c', 0, G_OPTION_ARG_FILENAME, &cli->address, "The daemon's address: unix:PATH or HOST:PORT",
         "ADDRESS"},
        {"ca", 0, 0, G_OPTION_ARG_FILENAME, &cli->ca, "For HOST:PORT: the CA of daemons (default: the system's)",
         "FILE"},
        {"cert", 0, 0, G_OPTION_ARG_FILENAME, &cli->certificate, "For HOST:PORT: your certificate", "FILE"},
        {"key", 0, 0, G_OPTION_ARG_FILENAME, &cli->key, "For HOST:PORT: the key of your certificate", "FILE"},
        {"token-file", 0, 0, G_OPTION_ARG_FILENAME, &cli->token_file, "For HOST:PORT: a file with a bearer token",
         "FILE"},
        {"insecure-tcp", 0, 0, G_OPTION_ARG_NONE, &cli->insecure_tcp,
         "Talk to HOST:PORT without TLS: whoever is on the way reads it and changes it", NULL},
        {"output", 'o', 0, G_OPTION_ARG_FILENAME, &cli->output_name, "table (default), wide, json, yaml or name",
         "FORM"},
        {"timeout", 't', 0, G_OPTION_ARG_FILENAME, &cli->timeout_text, "Give up after this time (default 60s)", "TIME"},
        {"help", 'h', 0, G_OPTION_ARG_NONE, &cli->help, "Show this help", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };

    memcpy(ret_entries, globals, sizeof(globals));
}

static gboolean parse(VpCli *cli, GOptionContext *context, const GOptionEntry *entries, int *argc, char ***argv,
                      GError **error)
{
    GOptionEntry globals[GLOBAL_OPTIONS + 1];
    char **places[] = {&cli->address,     &cli->output_name, &cli->timeout_text, &cli->ca,
                       &cli->certificate, &cli->key,         &cli->token_file};
    char *saved[G_N_ELEMENTS(places)];

    for (gsize i = 0; i < G_N_ELEMENTS(places); i++)
        saved[i] = *places[i];
    global_options(cli, globals);
    g_option_context_set_help_enabled(context, FALSE);
    if (entries)
        g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_add_main_entries(context, globals, NULL);
    const gboolean ok = g_option_context_parse(context, argc, argv, error);
    for (gsize i = 0; i < G_N_ELEMENTS(places); i++)
        forget(places[i], &saved[i]);
    return ok;
}

/* For completion: instead of parsing. */
static gboolean list_options(VpCli *cli, const GOptionEntry *entries)
{
    GOptionEntry globals[GLOBAL_OPTIONS + 1];

    if (!cli->complete)
        return FALSE;
    global_options(cli, globals);
    vp_completion_add_options(cli->complete, entries);
    vp_completion_add_options(cli->complete, globals);
    return TRUE;
}

gboolean vp_cli_parse_globals(VpCli *cli, int *argc, char ***argv, int *ret_exit)
{
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) wrong = NULL;

    if (list_options(cli, NULL))
        return FALSE;
    g_option_context_set_strict_posix(context, TRUE);
    if (parse(cli, context, NULL, argc, argv, &wrong))
        return TRUE;
    *ret_exit = vp_cli_usage(NULL, "%s", wrong->message);
    return FALSE;
}

static void print_help(GOptionContext *context, const VpCommand *command)
{
    g_autofree char *name =
        g_strdup_printf("vpctl %s%s%s", command->group ? command->group : "", command->group ? " " : "", command->name);
    g_autofree char *examples = command->examples ? g_strdup_printf("Examples:\n%s", command->examples) : NULL;

    /* GLib names the program in the usage line after this. */
    g_set_prgname(name);
    g_option_context_set_summary(context, command->summary);
    g_option_context_set_description(context, examples);
    g_autofree char *help = g_option_context_get_help(context, TRUE, NULL);
    fputs(help, stdout);
}

gboolean vp_cli_parse(VpCli *cli, const VpCommand *command, const GOptionEntry *entries, int *argc, char ***argv,
                      int *ret_exit)
{
    g_autoptr(GOptionContext) context = g_option_context_new(command->arguments);
    g_autoptr(GError) wrong = NULL;

    *ret_exit = VP_EXIT_DONE;
    if (list_options(cli, entries))
        return FALSE;
    if (!parse(cli, context, entries, argc, argv, &wrong)) {
        *ret_exit = vp_cli_usage(command, "%s", wrong->message);
        return FALSE;
    }
    if (cli->help) {
        print_help(context, command);
        return FALSE;
    }

    /* "--" ends the options; GLib leaves it where arguments follow. */
    if (*argc > 1 && g_str_equal((*argv)[1], "--")) {
        (*argv)++;
        (*argc)--;
    }
    const guint given = (guint)*argc - 1;
    if (given < command->min_arguments) {
        *ret_exit = vp_cli_usage(command, "%s is missing", command->arguments);
        return FALSE;
    }
    if (given > command->max_arguments) {
        *ret_exit = vp_cli_usage(command, "\"%s\" is one argument too many", (*argv)[command->max_arguments + 1]);
        return FALSE;
    }
    *ret_exit = take_settings(cli, command);
    return *ret_exit == VP_EXIT_DONE;
}

/* ---- the connection ---- */

VpClient *vp_cli_client(VpCli *cli, VpError **error)
{
    const char *environment = g_getenv("VIRTPLANE_ENDPOINT");

    if (cli->client)
        return cli->client;
    g_autofree char *address = cli->address                          ? g_strdup(cli->address)
                               : environment && *environment != '\0' ? g_strdup(environment)
                                                                     : vp_client_default_address();
    if (!address) {
        *error = vp_error_new(
            VP_INVALID_ARGUMENT, "NO_ADDRESS",
            "there is no address: XDG_RUNTIME_DIR is not set; say --connect unix:PATH or set VIRTPLANE_ENDPOINT");
        return NULL;
    }
    if (!cli->library)
        vp_client_library_init();
    cli->library = TRUE;
    cli->client = vp_cli_connect(cli, address, error);
    return cli->client;
}

void vp_cli_disconnect(VpCli *cli)
{
    g_clear_pointer(&cli->client, vp_client_free);
}

void *vp_cli_call(VpCli *cli, const ProtobufCServiceDescriptor *service, const char *method, const void *request,
                  VpError **error)
{
    VpClient *client = vp_cli_client(cli, error);

    return client ? vp_client_call(client, service, method, request, cli->timeout_ms, error) : NULL;
}

/* ---- printing ---- */

int vp_cli_fail(VpCli *cli, VpError *error, const char *doing, ...)
{
    va_list args;

    va_start(args, doing);
    g_autofree char *what = g_strdup_vprintf(doing, args);
    va_end(args);
    const gboolean for_program = cli->output == VP_OUTPUT_JSON || cli->output == VP_OUTPUT_YAML;
    const char *address = cli->client ? vp_client_address(cli->client) : NULL;
    g_autofree char *text = for_program ? vp_complain_json(error) : vp_complain(error, what, address, cli->timeout_ms);
    const gboolean no_address = g_strcmp0(error->reason, "BAD_ADDRESS") == 0;

    /* What was answered so far comes first where both go to one place. */
    fflush(stdout);
    fputs(text, stderr);
    vp_error_free(error);
    return no_address ? VP_EXIT_USAGE : VP_EXIT_FAILED;
}

int vp_cli_usage(const VpCommand *command, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *safe = vp_text_escape(what);

    fprintf(stderr, "vpctl: %s\n", safe);
    if (command && command->group)
        fprintf(stderr, "Try 'vpctl %s %s --help'.\n", command->group, command->name);
    else if (command)
        fprintf(stderr, "Try 'vpctl %s --help'.\n", command->name);
    else
        fprintf(stderr, "Try 'vpctl --help'.\n");
    return VP_EXIT_USAGE;
}

int vp_cli_usage_error(const VpCommand *command, VpError *error)
{
    const int code = vp_cli_usage(command, "%s", error->message);

    vp_error_free(error);
    return code;
}

static void print_json(const json_t *json, gboolean stream)
{
    char *text = json_dumps(json, stream ? JSON_COMPACT : JSON_INDENT(2));
    g_autofree char *safe = vp_text_escape_json(text);

    puts(safe);
    free(text);
}

static void print_yaml(const json_t *json, gboolean stream)
{
    g_autofree char *text = vp_yaml_print(json);

    printf("%s%s", stream ? "---\n" : "", text);
}

gboolean vp_cli_print_value(VpCli *cli, json_t *json, gboolean stream)
{
    const gboolean wanted = cli->output == VP_OUTPUT_JSON || cli->output == VP_OUTPUT_YAML;

    if (cli->output == VP_OUTPUT_JSON)
        print_json(json, stream);
    else if (cli->output == VP_OUTPUT_YAML)
        print_yaml(json, stream);
    json_decref(json);
    if (wanted && stream)
        fflush(stdout);
    return wanted;
}

gboolean vp_cli_print(VpCli *cli, const void *message, gboolean stream)
{
    if (cli->output != VP_OUTPUT_JSON && cli->output != VP_OUTPUT_YAML)
        return FALSE;
    return vp_cli_print_value(cli, vp_json_print(message), stream);
}
