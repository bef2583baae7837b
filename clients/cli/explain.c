/* vpctl image explain: see explain.h. */
#include "clients/cli/explain.h"

#include <string.h>

#include "clients/cli/image.h"
#include "clients/cli/text.h"

/* Made by the build from docs/findings.md. */
extern const unsigned char vp_findings_text[];

const char *vp_explain_page(void)
{
    return (const char *)vp_findings_text;
}

/* The code in a heading "## CODE" (backticks are let pass), or NULL if the line is none. */
static char *heading_code(const char *line)
{
    if (!g_str_has_prefix(line, "## "))
        return NULL;

    const char *start = line + strlen("## ");
    start += strspn(start, " `");
    if (g_str_has_prefix(start, "FINDING_CODE_"))
        start += strlen("FINDING_CODE_");
    const gsize length = strspn(start, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    return length ? g_strndup(start, length) : NULL;
}

char *vp_explain_section(const char *markdown, const char *code)
{
    g_autofree char *upper = g_ascii_strup(code, -1);
    g_auto(GStrv) lines = g_strsplit(markdown, "\n", -1);
    g_autoptr(GString) section = NULL;

    g_strdelimit(upper, "-", '_');
    const char *wanted = g_str_has_prefix(upper, "FINDING_CODE_") ? upper + strlen("FINDING_CODE_") : upper;
    for (char **line = lines; *line; line++) {
        g_autofree char *here = heading_code(*line);

        if (section && (here || g_str_has_prefix(*line, "## ") || g_str_has_prefix(*line, "# ")))
            break;
        if (section)
            g_string_append_printf(section, "%s\n", *line);
        if (here && g_str_equal(here, wanted))
            section = g_string_new(NULL);
    }
    return section ? g_strdup(g_strstrip(section->str)) : NULL;
}

char **vp_explain_codes(const char *markdown)
{
    g_auto(GStrv) lines = g_strsplit(markdown, "\n", -1);
    g_autoptr(GPtrArray) codes = g_ptr_array_new();

    for (char **line = lines; *line; line++) {
        char *code = heading_code(*line);
        if (code)
            g_ptr_array_add(codes, code);
    }
    g_ptr_array_add(codes, NULL);
    return (char **)g_ptr_array_steal(codes, NULL);
}

static void print_codes(const char *markdown)
{
    g_auto(GStrv) codes = vp_explain_codes(markdown);

    for (char **code = codes; *code; code++)
        puts(*code);
}

/* "; did you mean A or B?": one mistyped, or those that have the text in them. */
static char *suggest(const char *text, char **codes)
{
    g_autofree char *upper = g_ascii_strup(text, -1);
    g_strdelimit(upper, "-", '_');
    const char *nearest = vp_text_nearest(upper, (const char *const *)codes);
    GString *out = g_string_new(NULL);

    if (nearest)
        g_string_append_printf(out, "; did you mean %s?", nearest);
    for (char **code = codes; !nearest && *upper && *code; code++) {
        if (strstr(*code, upper) || strstr(upper, *code))
            g_string_append_printf(out, "%s%s", out->len ? ", " : "; did you mean ", *code);
    }
    if (!nearest && out->len)
        g_string_append_c(out, '?');
    return g_string_free(out, FALSE);
}

int vp_image_explain(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    const char *markdown = vp_explain_page();
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    if (argc < 2) {
        print_codes(markdown);
        return VP_EXIT_DONE;
    }
    g_autofree char *section = vp_explain_section(markdown, argv[1]);
    if (section) {
        g_autofree char *upper = g_ascii_strup(argv[1], -1);
        if (vp_cli_print_value(cli, json_pack("{s:s,s:s}", "code", upper, "explanation", section), /* stream= */ FALSE))
            return VP_EXIT_DONE;
        puts(section);
        return VP_EXIT_DONE;
    }

    g_auto(GStrv) codes = vp_explain_codes(markdown);
    g_autofree char *hint = suggest(argv[1], codes);
    return vp_cli_usage(command, "there is no finding \"%s\"%s (vpctl image explain, without a code, lists all)",
                        argv[1], hint);
}
