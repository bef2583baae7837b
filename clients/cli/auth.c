/* vpctl auth: see auth.h. */
#include "clients/cli/auth.h"

#include "base/pb.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "virtplane/v1/auth_service.pb-c.h"

static void line(const char *key, const char *text)
{
    g_autofree char *safe = vp_text_escape(text);

    if (*safe)
        printf("%-10s%s\n", key, safe);
}

static char *join(size_t n, char **texts)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (size_t i = 0; i < n; i++)
        g_string_append_printf(out, "%s%s", i ? " " : "", texts[i]);
    return g_string_free(g_steal_pointer(&out), FALSE);
}

int vp_auth_whoami(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbGetIdentityRequest *request = vp_pb_new(&pb_get_identity_request__descriptor);
    vp_pb_auto PbGetIdentityResponse *answer =
        vp_cli_call(cli, &pb_auth_service__descriptor, "GetIdentity", request, &error);
    if (!answer || !answer->identity)
        return vp_cli_fail(cli, error ? error : vp_error_new(VP_INTERNAL, NULL, "the answer is empty"), "ask");

    if (vp_cli_print(cli, answer, /* stream= */ FALSE))
        return VP_EXIT_DONE;
    if (cli->output == VP_OUTPUT_NAME) {
        g_autofree char *safe = vp_text_escape(answer->identity->name);
        puts(safe);
        return VP_EXIT_DONE;
    }
    g_autofree char *groups = join(answer->identity->n_groups, answer->identity->groups);
    g_autofree char *roles = join(answer->n_roles, answer->roles);
    g_autofree char *kind = vp_text_enum(&pb_identity_kind__descriptor, (int)answer->identity->kind);
    line("identity", answer->identity->name);
    line("known by", answer->identity->kind ? kind : "nothing");
    line("groups", groups);
    line("roles", answer->n_roles ? roles : "none");
    return VP_EXIT_DONE;
}

static void show_bindings(VpCli *cli, const PbCheckAccessResponse *answer)
{
    static const char *const columns[] = {"BINDING", "ROLE", "SUBJECT", "METHOD", "RESOURCE", "DETAIL", NULL};
    VpTable *table = vp_table_new(cli, columns);

    for (size_t i = 0; i < answer->n_bindings; i++) {
        const PbBindingCheck *check = answer->bindings[i];

        vp_table_add(table, check->place, check->role, check->subject_matches ? "yes" : "no",
                     check->role_matches ? "yes" : "no", check->resource_matches ? "yes" : "no", check->detail);
    }
    vp_table_print(table);
}

int vp_auth_can_i(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *as = NULL;
    g_auto(GStrv) groups = NULL;
    gboolean explain = FALSE;
    const GOptionEntry entries[] = {
        {"explain", 0, 0, G_OPTION_ARG_NONE, &explain, "Show how far each binding of the policy applies", NULL},
        {"as", 0, 0, G_OPTION_ARG_STRING, &as, "Ask for another identity, such as uid:1000 or cn:alice (admins only)",
         "IDENTITY"},
        {"group", 0, 0, G_OPTION_ARG_STRING_ARRAY, &groups, "With --as: a group of it, such as gid:100", "GROUP"},
        {0},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbCheckAccessRequest *request = vp_pb_new(&pb_check_access_request__descriptor);
    vp_pb_set(&request->method, argv[1]);
    vp_pb_set(&request->resource, argc > 2 ? argv[2] : "");
    if (as) {
        request->identity = vp_pb_new(&pb_identity__descriptor);
        vp_pb_set(&request->identity->name, as);
        for (char **group = groups; group && *group; group++)
            vp_pb_append(&request->identity->n_groups, &request->identity->groups, g_strdup(*group));
    }
    vp_pb_auto PbCheckAccessResponse *answer =
        vp_cli_call(cli, &pb_auth_service__descriptor, "CheckAccess", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "ask");

    const int exit_code = answer->allowed ? VP_EXIT_DONE : VP_EXIT_FAILED;
    if (vp_cli_print(cli, answer, /* stream= */ FALSE))
        return exit_code;
    g_autofree char *reason = vp_text_escape(answer->reason);
    printf("%s (%s)\n", answer->allowed ? "yes" : "no", reason);
    if (explain)
        show_bindings(cli, answer);
    return exit_code;
}
