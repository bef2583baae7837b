/* vpctl completion bash: see completion.h. */
#include "clients/cli/completion.h"

#include <string.h>

/* Options come from the command's own help, names of domains from the daemon. */
static const char SCRIPT[] =
    "# bash completion for vpctl:  source <(vpctl completion bash)\n"
    "_vpctl() {\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} group=${COMP_WORDS[1]} words=\n"
    "    if [[ $COMP_CWORD -eq 1 ]]; then\n"
    "        words='@TOP@'\n"
    "    elif [[ $word == -* ]]; then\n"
    "        words=$(vpctl \"${COMP_WORDS[@]:1:2}\" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]+')\n"
    "    elif [[ $COMP_CWORD -eq 2 ]]; then\n"
    "        case $group in\n"
    "@GROUPS@"
    "        esac\n"
    "    elif [[ $group == domain ]]; then\n"
    "        words=$(vpctl --timeout 2s --output name domain list 2>/dev/null)\n"
    "    fi\n"
    "    if [[ -n $words ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
    "    else\n"
    "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
    "    fi\n"
    "}\n"
    "complete -o filenames -F _vpctl vpctl\n";

static void append_word(GString *words, const char *word)
{
    g_string_append_printf(words, "%s%s", words->len ? " " : "", word);
}

static gboolean first_of_group(const VpCommand *command)
{
    return command == vp_commands || g_strcmp0(command[-1].group, command->group) != 0;
}

int vp_completion(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autoptr(GString) top = g_string_new(NULL);
    g_autoptr(GString) groups = g_string_new(NULL);
    g_autoptr(GString) script = g_string_new(SCRIPT);
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    if (!g_str_equal(argv[1], "bash"))
        return vp_cli_usage(command, "completion is made for bash, not for \"%s\"", argv[1]);

    for (const VpCommand *at = vp_commands; at->name; at++) {
        if (!at->group)
            append_word(top, at->name);
        if (!at->group || !first_of_group(at))
            continue;
        g_autoptr(GString) members = g_string_new(NULL);
        for (const VpCommand *member = at; member->name && g_strcmp0(member->group, at->group) == 0; member++)
            append_word(members, member->name);
        append_word(top, at->group);
        g_string_append_printf(groups, "        %s) words='%s' ;;\n", at->group, members->str);
    }
    g_string_replace(script, "@TOP@", top->str, 1);
    g_string_replace(script, "@GROUPS@", groups->str, 1);
    fputs(script->str, stdout);
    return VP_EXIT_DONE;
}
