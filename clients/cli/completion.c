/*
 * Completion: see completion.h. What fits depends on the place, and the place is found by the words before it: options and what they take come
 * from the commands' own tables, names from the daemon that these words name, within a short time.
 */
#include "clients/cli/completion.h"

#include <string.h>

#include "base/pb.h"
#include "clients/cli/device_option.h"
#include "clients/cli/domain.h"
#include "clients/cli/event_line.h"
#include "clients/cli/explain.h"
#include "clients/cli/message.h"
#include "clients/cli/text.h"
#include "virtplane/v1/admin_service.pb-c.h"
#include "virtplane/v1/auth_service.pb-c.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"
#include "virtplane/v1/host_service.pb-c.h"
#include "virtplane/v1/image_service.pb-c.h"
#include "virtplane/v1/operation_service.pb-c.h"
#include "virtplane/v1/secret_service.pb-c.h"
#include "virtplane/v1/storage_service.pb-c.h"

enum {
    DAEMON_MS = 2000, /* who presses Tab waits no longer */
    MAX_NAMES = 1000,
};

/* Where the cursor is. */
typedef struct Place {
    VpCli *cli;
    const char *group;
    const VpCommand *command;
    const char *first; /* of the command's arguments; NULL: it comes yet */
    guint n_arguments; /* before the word */
    char **options;    /* of vp_completion_add_options(), of the command or the global ones */
    const char *word;
    const char *prefix; /* of the word, which the candidates go on: "--output=" */
    char *prefix_text;
} Place;

void vp_completion_add_options(GString *out, const GOptionEntry *entries)
{
    for (; entries && entries->long_name; entries++) {
        const char letter[] = {entries->short_name, '\0'};

        if (!(entries->flags & G_OPTION_FLAG_HIDDEN))
            g_string_append_printf(out, "%s\t%s\t%s\t%s\n", entries->long_name, letter,
                                   entries->arg_description ? entries->arg_description : "", entries->description);
    }
}

/* ---- candidates ---- */

static void offer(const Place *place, const char *word, const char *what)
{
    g_autofree char *safe = vp_text_escape(word);
    g_autofree char *shown = vp_text_escape(what);

    if (g_str_has_prefix(safe, place->word))
        printf("%s%s%s%s\n", place->prefix, safe, *shown ? "\t" : "", shown);
}

static void offer_enum(const Place *place, const char *before, const ProtobufCEnumDescriptor *descriptor)
{
    for (unsigned i = 0; i < descriptor->n_values; i++) {
        g_autofree char *name = vp_text_enum(descriptor, descriptor->values[i].value);
        g_autofree char *word = g_strconcat(before, name, NULL);

        if (*name)
            offer(place, word, "");
    }
}

static void offer_domains(const Place *place, const char *before)
{
    vp_pb_auto PbListDomainsRequest *request = vp_pb_new(&pb_list_domains_request__descriptor);
    VpError *error = NULL;

    request->page_size = MAX_NAMES;
    vp_pb_auto PbListDomainsResponse *answer =
        vp_cli_call(place->cli, &pb_domain_service__descriptor, "ListDomains", request, &error);
    vp_error_free(error);
    for (size_t i = 0; answer && i < answer->n_domains; i++) {
        const PbDomain *domain = answer->domains[i];
        g_autofree char *word = g_strconcat(before, domain->name, NULL);
        g_autofree char *state =
            vp_text_enum(&pb_domain_state__descriptor, domain->status ? (int)domain->status->state : 0);

        offer(place, word, state);
    }
}

static void offer_drivers(const Place *place, const char *before)
{
    vp_pb_auto PbGetCapabilitiesRequest *request = vp_pb_new(&pb_get_capabilities_request__descriptor);
    VpError *error = NULL;
    vp_pb_auto PbGetCapabilitiesResponse *answer =
        vp_cli_call(place->cli, &pb_host_service__descriptor, "GetCapabilities", request, &error);

    vp_error_free(error);
    for (size_t i = 0; answer && i < answer->n_drivers; i++) {
        g_autofree char *word = g_strconcat(before, answer->drivers[i]->name, NULL);

        offer(place, word, "");
    }
}

static void offer_operations(const Place *place)
{
    vp_pb_auto PbListOperationsRequest *request = vp_pb_new(&pb_list_operations_request__descriptor);
    VpError *error = NULL;

    request->page_size = MAX_NAMES;
    request->active_only = g_str_equal(place->command->name, "cancel");
    vp_pb_auto PbListOperationsResponse *answer =
        vp_cli_call(place->cli, &pb_operation_service__descriptor, "ListOperations", request, &error);
    vp_error_free(error);
    for (size_t i = 0; answer && i < answer->n_operations; i++) {
        const PbOperation *operation = answer->operations[i];
        g_autofree char *what = g_strdup_printf("%s of %s", operation->type, operation->resource_name);

        offer(place, operation->uid, what);
    }
}

static void offer_methods(const Place *place)
{
    const ProtobufCServiceDescriptor *const services[] = {
        &pb_admin_service__descriptor,     &pb_auth_service__descriptor,   &pb_domain_service__descriptor,
        &pb_event_service__descriptor,     &pb_host_service__descriptor,   &pb_image_service__descriptor,
        &pb_operation_service__descriptor, &pb_secret_service__descriptor, &pb_storage_service__descriptor,
    };

    for (gsize i = 0; i < G_N_ELEMENTS(services); i++) {
        for (unsigned m = 0; m < services[i]->n_methods; m++)
            offer(place, services[i]->methods[m].name, services[i]->short_name);
    }
}

static void offer_findings(const Place *place)
{
    g_auto(GStrv) codes = vp_explain_codes(vp_explain_page());

    for (char **code = codes; *code; code++)
        offer(place, *code, "");
}

static void offer_words(const Place *place, const char *const *words)
{
    for (; *words; words++)
        offer(place, *words, "");
}

static void offer_filters(const Place *place)
{
    if (g_str_has_prefix(place->word, "type="))
        offer_enum(place, "type=", &pb_event_type__descriptor);
    else if (g_str_has_prefix(place->word, "driver="))
        offer_drivers(place, "driver=");
    else if (g_str_has_prefix(place->word, "name="))
        offer_domains(place, "name=");
    for (const char *const *type = vp_event_resource_types; *type; type++) {
        g_autofree char *word = g_strconcat("resource=", *type, NULL);

        if (g_str_has_prefix(place->word, "resource="))
            offer(place, word, "");
    }
    if (!strchr(place->word, '='))
        offer_words(place, (const char *const[]){"type=", "resource=", "name=", "uid=", "driver=", "label=", NULL});
}

static gboolean first_of_group(const VpCommand *command)
{
    return command == vp_commands || g_strcmp0(command[-1].group, command->group) != 0;
}

static void offer_commands(const Place *place)
{
    for (const VpCommand *at = vp_commands; at->name; at++) {
        if (g_strcmp0(at->group, place->group) == 0)
            offer(place, at->name, at->summary);
        else if (!place->group && first_of_group(at))
            offer(place, at->group, "");
    }
    if (!place->group)
        offer(place, "help", "Show what there is");
}

/* What an option takes, by the word for it in its help. */
static void offer_value(const Place *place, const char *option, const char *argument)
{
    if (g_str_equal(argument, "FORM"))
        offer_words(place, (const char *const[]){"table", "wide", "json", "yaml", "name", NULL});
    else if (g_str_equal(argument, "FORMAT"))
        offer_enum(place, "", &pb_image_format__descriptor);
    else if (g_str_equal(argument, "STATE"))
        offer_enum(place, "", &pb_domain_state__descriptor);
    else if (g_str_equal(argument, "DRIVER"))
        offer_drivers(place, "");
    else if (g_str_equal(argument, "INTERFACE"))
        offer_enum(place, "", &pb_interface_type__descriptor);
    else if (g_str_equal(argument, "ACTION"))
        offer_enum(place, "", &pb_lifecycle_action__descriptor);
    else if (g_str_equal(argument, "DEVICE") && g_str_equal(option, "panic-device"))
        offer_enum(place, "", &pb_panic_model__descriptor);
    else if (g_str_equal(argument, "MODE"))
        offer_enum(place, "", &pb_shutdown_mode__descriptor);
    else if (g_str_equal(argument, "SCOPE"))
        offer_enum(place, "", &pb_change_scope__descriptor);
    else if (g_str_equal(argument, "FIRMWARE"))
        offer_words(place, (const char *const[]){"bios", "uefi", "uefi-secure", NULL});
    else if (g_str_equal(option, "filter"))
        offer_filters(place);
    else if (g_str_equal(argument, "FILE") || g_str_equal(argument, "DISK"))
        puts(":files");
    else if (g_str_equal(argument, "DIR"))
        puts(":folders");
    else if (g_str_equal(argument, "ADDRESS"))
        puts(g_str_has_prefix(place->word, "unix:") ? ":files" : "unix:");
}

/* Disks by their targets and interfaces by their MAC addresses, of the domain that was named before. */
static void offer_devices(const Place *place, gboolean interfaces)
{
    VpError *error = NULL;
    vp_pb_auto PbGetDomainResponse *answer = vp_domain_fetch(place->cli, place->first, &error);
    vp_error_free(error);
    const PbDomain *domain = answer ? answer->domain : NULL;
    const PbDomainSpec *spec = !domain                                       ? NULL
                               : domain->status && domain->status->live_spec ? domain->status->live_spec
                                                                             : domain->spec;
    for (size_t i = 0; spec && i < spec->n_disks; i++)
        offer(place, spec->disks[i]->target, spec->disks[i]->path);
    for (size_t i = 0; spec && interfaces && i < spec->n_interfaces; i++)
        offer(place, spec->interfaces[i]->mac, "");
}

/* The word for the argument that comes next, in the command's usage; the last one may stand for several. */
static const char *word_for(const Place *place)
{
    const char *at = place->command->arguments;

    for (guint i = 0; i < place->n_arguments && strchr(at, ' '); i++)
        at = strchr(at, ' ') + 1;
    return at;
}

/* What a command takes, by the word for it in its usage. */
static void offer_argument(const Place *place)
{
    const char *arguments = word_for(place);

    if (g_str_has_prefix(arguments, "DEVICE") || g_str_has_prefix(arguments, "TARGET")) {
        offer_devices(place, arguments[0] == 'D');
    } else if (g_str_has_prefix(arguments, "INTERFACE")) {
        offer_enum(place, "", &pb_interface_type__descriptor);
    } else if (g_str_has_prefix(arguments, "LIMIT")) {
        offer_words(place, vp_throttle_words);
    } else if (g_str_has_prefix(arguments, "NAME") || g_str_has_prefix(arguments, "[PATTERN")) {
        if (g_strcmp0(place->group, "domain") == 0 || g_strcmp0(place->group, "guest") == 0)
            offer_domains(place, "");
        if (g_str_has_suffix(arguments, "on|off"))
            offer_words(place, (const char *const[]){"on", "off", NULL});
    } else if (g_str_has_prefix(arguments, "METHOD")) {
        offer_methods(place);
    } else if (g_str_has_prefix(arguments, "UID")) {
        offer_operations(place);
    } else if (g_str_has_prefix(arguments, "[CODE")) {
        offer_findings(place);
    } else if (g_str_equal(arguments, "SHELL")) {
        offer_words(place, (const char *const[]){"bash", "zsh", NULL});
    } else if (g_str_has_prefix(arguments, "PATH") || g_str_has_prefix(arguments, "FILE") ||
               g_str_has_prefix(arguments, "DISK") || g_str_has_prefix(arguments, "MEDIUM")) {
        puts(":files");
    } else if (g_str_has_prefix(arguments, "FOLDER")) {
        puts(":folders");
    }
}

static void offer_options(const Place *place)
{
    for (char **line = place->options; *line && **line; line++) {
        g_auto(GStrv) parts = g_strsplit(*line, "\t", 4);
        g_autofree char *word = g_strdup_printf("--%s", parts[0]);

        offer(place, word, parts[3]);
    }
}

/* ---- the place ---- */

/* Of the command; the global ones before it is known. */
static void load_options(Place *place)
{
    char *words[] = {(char *)"vpctl", NULL};
    char **argv = words;
    g_autoptr(GString) found = g_string_new(NULL);
    int argc = 1;
    int code;

    place->cli->complete = found;
    if (place->command)
        place->command->run(place->cli, place->command, argc, argv);
    else
        vp_cli_parse_globals(place->cli, &argc, &argv, &code);
    place->cli->complete = NULL;
    g_strfreev(place->options);
    place->options = g_strsplit(found->str, "\n", -1);
}

/* The option that `word` names, as its parts, or NULL. */
static char **find_option(const Place *place, const char *word)
{
    for (char **line = place->options; *line && **line; line++) {
        g_auto(GStrv) parts = g_strsplit(*line, "\t", 4);
        g_autofree char *name = g_strdup_printf("--%s", parts[0]);
        g_autofree char *letter = g_strdup_printf("-%s", parts[1]);
        const gsize length = strlen(name);

        if ((strncmp(word, name, length) == 0 && (!word[length] || word[length] == '=')) ||
            (*parts[1] && g_str_equal(word, letter)))
            return g_steal_pointer(&parts);
    }
    return NULL;
}

/* A word that is no option: the group, the command, or one of its arguments. FALSE: there is no such command. */
static gboolean take_word(Place *place, const char *word)
{
    if (place->command && place->n_arguments++ == 0)
        place->first = word;
    if (place->command || (!place->group && g_str_equal(word, "help")))
        return TRUE;
    if (!place->group && vp_cli_is_group(word)) {
        place->group = word;
        return TRUE;
    }
    place->command = vp_cli_find_command(place->group, word);
    if (place->command)
        load_options(place);
    return place->command != NULL;
}

/* Goes over the words before the last one. *ret_option: the option whose value the last one is, or NULL. */
static gboolean find_place(Place *place, int n_words, char **words, char ***ret_option)
{
    for (int i = 0; i < n_words; i++) {
        if (words[i][0] != '-') {
            if (!take_word(place, words[i]))
                return FALSE;
            continue;
        }
        g_auto(GStrv) option = find_option(place, words[i]);
        if (!option || !*option[2] || strchr(words[i], '='))
            continue;
        if (i + 1 == n_words) {
            *ret_option = g_steal_pointer(&option);
            return TRUE;
        }
        i++;
        if (g_str_equal(option[0], "connect")) {
            g_free(place->cli->address);
            place->cli->address = g_strdup(words[i]);
        }
    }
    return TRUE;
}

static void list(Place *place, char **option)
{
    g_auto(GStrv) written = NULL;
    const char *equals = strchr(place->word, '=');

    if (!option && g_str_has_prefix(place->word, "--") && equals) {
        written = find_option(place, place->word);
        option = written && *written[2] ? written : NULL;
        place->prefix_text = g_strndup(place->word, (gsize)(equals - place->word) + 1);
        place->prefix = place->prefix_text;
        place->word = equals + 1;
        if (!option)
            return;
    }
    if (option)
        offer_value(place, option[0], option[2]);
    else if (place->word[0] == '-')
        offer_options(place);
    else if (place->command)
        offer_argument(place);
    else
        offer_commands(place);
}

int vp_completion_list(VpCli *cli, int argc, char **argv)
{
    g_auto(GStrv) option = NULL;
    Place place = {.cli = cli, .word = argc > 1 ? argv[argc - 1] : "", .prefix = ""};

    cli->timeout_ms = DAEMON_MS;
    load_options(&place);
    if (find_place(&place, argc - 2, argv + 1, &option))
        list(&place, option);
    g_strfreev(place.options);
    g_free(place.prefix_text);
    return VP_EXIT_DONE;
}

/* ---- the scripts ---- */

static const char BASH[] =
    "# bash completion for vpctl:  source <(vpctl completion bash)\n"
    "_vpctl() {\n"
    "    local i line cur IFS=$'\\n'\n"
    "    local -a words=()\n"
    "    # bash cuts words at = and :, vpctl does not.\n"
    "    for ((i = 1; i <= COMP_CWORD; i++)); do\n"
    "        if ((${#words[@]})) && [[ ${COMP_WORDS[i]} == [=:]* || ${COMP_WORDS[i - 1]} == *[=:] ]]; then\n"
    "            words[-1]+=${COMP_WORDS[i]}\n"
    "        else\n"
    "            words+=(\"${COMP_WORDS[i]}\")\n"
    "        fi\n"
    "    done\n"
    "    cur=${words[-1]}\n"
    "    COMPREPLY=()\n"
    "    for line in $(vpctl " VP_COMPLETE_WORD " \"${words[@]}\" 2>/dev/null); do\n"
    "        case $line in\n"
    "        :files) compopt -o filenames; COMPREPLY+=($(compgen -f -- \"${cur##*[=:]}\")) ;;\n"
    "        :folders) compopt -o filenames; COMPREPLY+=($(compgen -d -- \"${cur##*[=:]}\")) ;;\n"
    "        *) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
    "        esac\n"
    "    done\n"
    "    [[ $cur == *[=:]* ]] && COMPREPLY=(\"${COMPREPLY[@]#\"${cur%\"${cur##*[=:]}\"}\"}\")\n"
    "    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:] ]] && compopt -o nospace\n"
    "    return 0\n"
    "}\n"
    "complete -F _vpctl vpctl\n";

static const char ZSH[] =
    "#compdef vpctl\n"
    "# zsh completion for vpctl:  source <(vpctl completion zsh)\n"
    "_vpctl() {\n"
    "    local line\n"
    "    local -a found shown open\n"
    "    for line in \"${(@f)$(vpctl " VP_COMPLETE_WORD " \"${(@Q)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
    "        case $line in\n"
    "        '') ;;\n"
    "        :files) compset -P '*[=:]'; _files ;;\n"
    "        :folders) compset -P '*[=:]'; _files -/ ;;\n"
    "        *[=:]) open+=(\"$line\") ;;\n"
    "        *) found+=(\"${line%%$'\\t'*}\"); shown+=(\"${line/$'\\t'/  -- }\") ;;\n"
    "        esac\n"
    "    done\n"
    "    (( $#open )) && compadd -S '' -a open\n"
    "    (( $#found )) && compadd -l -d shown -a found\n"
    "}\n"
    "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _vpctl \"$@\"; else compdef _vpctl vpctl; fi\n";

int vp_completion(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    if (g_str_equal(argv[1], "bash"))
        fputs(BASH, stdout);
    else if (g_str_equal(argv[1], "zsh"))
        fputs(ZSH, stdout);
    else
        return vp_cli_usage(command, "completion is made for bash and zsh, not for \"%s\"", argv[1]);
    return VP_EXIT_DONE;
}
