/* vpctl: finds the command in the table and runs it. */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/version.h"
#include "clients/cli/cli.h"
#include "clients/cli/completion.h"
#include "clients/cli/text.h"
#include "clients/cli/virsh.h"

static const char GLOBAL_HELP[] =
    "Options:\n"
    "  -c, --connect ADDRESS   The daemon: unix:PATH or HOST:PORT. Also VIRTPLANE_ENDPOINT; without both, the socket\n"
    "                          of this user's daemon\n"
    "  --ca, --cert, --key, --token-file FILE   How to show who you are at HOST:PORT (vpctl host --help)\n"
    "  -o, --output FORM       table (default), wide, json, yaml or name\n"
    "  -t, --timeout TIME      Give up after this time (default 60s)\n"
    "  -h, --help              Help, also for each command: vpctl domain create --help\n"
    "\n"
    "Exit codes: 0 done, 1 refused or failed, 2 wrong usage.\n";

/* The groups as a person reads of them. */
static const char *title_of(const char *group)
{
    static const struct {
        const char *group;
        const char *title;
    } titles[] = {
        {"domain", "Domains"},
        {"guest", "Inside guests"},
        {"image", "Disk images"},
        {"operation", "Slow work"},
        {"admin", "The daemon and its store"},
        {"auth", "Who may do what"},
        {"pki", "Certificates"},
    };

    for (gsize i = 0; group && i < G_N_ELEMENTS(titles); i++) {
        if (g_str_equal(titles[i].group, group))
            return titles[i].title;
    }
    return group ? group : "Events, the host, and the rest";
}

static int print_help(const char *group)
{
    const VpCommand *before = NULL;

    printf("Usage: vpctl [OPTION...] %s%sCOMMAND [ARGUMENT...]\n", group ? group : "", group ? " " : "");
    for (const VpCommand *command = vp_commands; command->name; command++) {
        if (group && g_strcmp0(command->group, group) != 0)
            continue;
        if (!before || g_strcmp0(before->group, command->group) != 0)
            printf("\n%s\n", title_of(command->group));
        before = command;
        g_autofree char *name = g_strdup_printf("%s%s%s %s", command->group ? command->group : "",
                                                command->group ? " " : "", command->name, command->arguments);
        printf("  %-34s %s\n", name, command->summary);
    }
    printf("\n%s", GLOBAL_HELP);
    return VP_EXIT_DONE;
}

/* "domain list", "image list" for "list": the commands of that name, wherever they stand. */
static char *same_name(const char *word)
{
    GString *out = g_string_new(NULL);

    for (const VpCommand *command = vp_commands; command->name; command++) {
        if (g_str_equal(command->name, word))
            g_string_append_printf(out, "%svpctl %s%s%s", out->len ? ", " : "", command->group ? command->group : "",
                                   command->group ? " " : "", command->name);
    }
    return g_string_free(out, FALSE);
}

/* What may have been meant: the word of virsh, the same word in another place, one that is spelt alike. */
static char *guess(const char *word, const char *group)
{
    const char *ours = !group || g_str_equal(group, "domain") ? vp_virsh_translate(word) : NULL;
    g_autofree char *elsewhere = same_name(word);
    g_autoptr(GPtrArray) words = g_ptr_array_new();

    if (ours)
        return g_strdup_printf("; virsh's %s is here:  %s", word, ours);
    if (*elsewhere)
        return g_strdup_printf("; there is %s", elsewhere);
    for (const VpCommand *command = vp_commands; command->name; command++) {
        if (group && g_strcmp0(command->group, group) == 0)
            g_ptr_array_add(words, (gpointer)command->name);
        else if (!group)
            g_ptr_array_add(words, (gpointer)(command->group ? command->group : command->name));
    }
    g_ptr_array_add(words, NULL);

    const char *nearest = vp_text_nearest(word, (const char *const *)words->pdata);
    return nearest ? g_strdup_printf("; did you mean \"%s\"?", nearest) : g_strdup("");
}

static int unknown(const char *word, const char *group)
{
    const VpCommand of_group = {.name = group ? group : ""};
    g_autofree char *hint = guess(word, group);

    return vp_cli_usage(group ? &of_group : NULL, "there is no command \"%s%s%s\"%s", group ? group : "",
                        group ? " " : "", word, hint);
}

/* Takes the next word off the arguments; options may stand before it. NULL: *ret_exit is what to return. */
static const char *next_word(VpCli *cli, int *argc, char ***argv, const char *group, int *ret_exit)
{
    if (!vp_cli_parse_globals(cli, argc, argv, ret_exit))
        return NULL;
    if (*argc < 2) {
        const VpCommand of_group = {.name = group ? group : ""};

        *ret_exit = cli->help ? print_help(group)
                    : group   ? vp_cli_usage(&of_group, "a command is missing after \"%s\"", group)
                              : vp_cli_usage(NULL, "what should be done?");
        return NULL;
    }
    (*argc)--;
    return *++*argv;
}

/* vpctl help [GROUP] [COMMAND]; argv[0] is "help". */
static int help(VpCli *cli, int argc, char **argv)
{
    const char *group = argc > 1 && vp_cli_is_group(argv[1]) ? argv[1] : NULL;
    const int at = group ? 2 : 1;

    if (argc <= at)
        return print_help(group);
    const VpCommand *command = vp_cli_find_command(group, argv[at]);
    if (!command)
        return unknown(argv[at], group);
    char *words[] = {argv[at], (char *)"--help", NULL};
    return command->run(cli, command, 2, words);
}

static int run(VpCli *cli, int argc, char **argv)
{
    int code;
    const char *word = next_word(cli, &argc, &argv, NULL, &code);
    const char *group = NULL;

    if (!word)
        return code;
    if (vp_cli_is_group(word)) {
        group = word;
        word = next_word(cli, &argc, &argv, group, &code);
        if (!word)
            return code;
    }
    if (!group && g_str_equal(word, "help"))
        return help(cli, argc, argv);
    if (!group && g_str_equal(word, VP_COMPLETE_WORD))
        return vp_completion_list(cli, argc, argv);

    const VpCommand *command = vp_cli_find_command(group, word);
    return command ? command->run(cli, command, argc, argv) : unknown(word, group);
}

/* What cannot be sent is refused here, once for all commands. */
static int check_arguments(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!g_utf8_validate(argv[i], -1, NULL))
            return vp_cli_usage(NULL, "the argument \"%s\" is not UTF-8 and cannot be sent", argv[i]);
    }
    return VP_EXIT_DONE;
}

int main(int argc, char **argv)
{
    const char *no_color = g_getenv("NO_COLOR");
    const char *term = g_getenv("TERM");
    VpCli cli = {0};

    setlocale(LC_ALL, "");
    cli.color = isatty(STDOUT_FILENO) && !(no_color && *no_color) && g_strcmp0(term, "dumb") != 0;
    cli.unicode = g_str_equal(nl_langinfo(CODESET), "UTF-8");
    if (argc == 2 && g_str_equal(argv[1], "--version")) {
        printf("vpctl %s\n", VP_VERSION);
        return VP_EXIT_DONE;
    }
    int code = check_arguments(argc, argv);
    if (code != VP_EXIT_DONE)
        return code;

    /* GOption takes words out of the array that it is given; the words stay ours. */
    g_autofree char **words = g_memdup2(argv, sizeof(char *) * ((gsize)argc + 1));
    code = run(&cli, argc, words);
    vp_cli_disconnect(&cli);
    if (cli.library)
        vp_client_library_shutdown();
    g_free(cli.address);
    g_free(cli.output_name);
    g_free(cli.timeout_text);
    g_free(cli.ca);
    g_free(cli.certificate);
    g_free(cli.key);
    g_free(cli.token_file);

    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "vpctl: cannot write the answer: %s\n", g_strerror(errno));
        return VP_EXIT_FAILED;
    }
    return code;
}
