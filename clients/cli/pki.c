/* vpctl pki: see pki.h. */
#include "clients/cli/pki.h"

#include <string.h>
#include <unistd.h>

#include "clients/cli/pki_ca.h"
#include "clients/cli/text.h"

/* The CA outlives what it signs; a year of a certificate is what one remembers to renew; a list that is too old keeps everyone out. */
enum {
    CA_DAYS = 3650,
    CERTIFICATE_DAYS = 397,
    LIST_DAYS = 365,
    MOST_DAYS = 7300,
    MAX_NAME_BYTES = 63,
};

static char *folder_of(char *given)
{
    if (given)
        return g_strdup(given);
    return geteuid() == 0 ? g_strdup("/etc/virtplane/pki")
                          : g_build_filename(g_get_user_config_dir(), "virtplane", "pki", NULL);
}

/* Names become files' names and common names. */
static gboolean is_name(const char *name)
{
    const gsize length = strlen(name);

    return length > 0 && length <= MAX_NAME_BYTES && g_ascii_isalnum(name[0]) &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length &&
           !g_str_equal(name, "ca");
}

static gboolean is_days(int days)
{
    return days > 0 && days <= MOST_DAYS;
}

int vp_pki_init(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *dir = NULL;
    g_autofree char *name = NULL;
    int days = CA_DAYS;
    const GOptionEntry entries[] = {
        {"dir", 0, 0, G_OPTION_ARG_FILENAME, &dir, "The CA's folder", "DIR"},
        {"name", 0, 0, G_OPTION_ARG_STRING, &name, "The CA's name (default: virtplane CA)", "NAME"},
        {"days", 0, 0, G_OPTION_ARG_INT, &days, "How long it is good (default 3650)", "DAYS"},
        {0},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (!is_days(days))
        return vp_cli_usage(command, "--days is a number from 1 to %d", MOST_DAYS);
    g_autofree char *folder = folder_of(dir);
    VpError *error = vp_ca_init(folder, name ? name : "virtplane CA", (guint)days);
    if (error)
        return vp_cli_fail(cli, error, "make a CA");
    g_autofree char *safe = vp_text_escape(folder);
    printf("%s/ca.crt is for all who shall trust it; keep ca.key to yourself\n", safe);
    return VP_EXIT_DONE;
}

int vp_pki_issue(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *dir = NULL;
    g_autofree char *uri = NULL;
    g_auto(GStrv) hosts = NULL;
    int days = CERTIFICATE_DAYS;
    const GOptionEntry entries[] = {
        {"dir", 0, 0, G_OPTION_ARG_FILENAME, &dir, "The CA's folder", "DIR"},
        {"server", 0, 0, G_OPTION_ARG_STRING_ARRAY, &hosts,
         "For a daemon that is reached by this name or IP address; may be given again", "HOST"},
        {"uri", 0, 0, G_OPTION_ARG_STRING, &uri, "For a client with this name (default: its common name, NAME)", "URI"},
        {"days", 0, 0, G_OPTION_ARG_INT, &days, "How long it is good (default 397)", "DAYS"},
        {0},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (!is_days(days))
        return vp_cli_usage(command, "--days is a number from 1 to %d", MOST_DAYS);
    if (!is_name(argv[1]))
        return vp_cli_usage(command, "\"%s\" is no name: letters, digits, \".\", \"_\" and \"-\"", argv[1]);
    if (hosts && uri)
        return vp_cli_usage(command, "a certificate is for a server or for a client, not for both");
    g_autofree char *folder = folder_of(dir);
    g_autoptr(VpCa) ca = vp_ca_open(folder, &error);
    const VpCaRequest request = {.name = argv[1], .hosts = (const char *const *)hosts, .uri = uri, .days = (guint)days};
    if (ca)
        error = vp_ca_issue(ca, &request);
    if (error)
        return vp_cli_fail(cli, error, "issue a certificate");
    g_autofree char *safe = vp_text_escape(folder);
    printf("%s/%s.crt and its key %s/%s.key\n", safe, argv[1], safe, argv[1]);
    return VP_EXIT_DONE;
}

static int sign_list(VpCli *cli, const VpCommand *command, int argc, char **argv, gboolean revoke)
{
    g_autofree char *dir = NULL;
    int days = LIST_DAYS;
    const GOptionEntry entries[] = {
        {"dir", 0, 0, G_OPTION_ARG_FILENAME, &dir, "The CA's folder", "DIR"},
        {"days", 0, 0, G_OPTION_ARG_INT, &days, "When the list has to be signed anew (default 365)", "DAYS"},
        {0},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (!is_days(days))
        return vp_cli_usage(command, "--days is a number from 1 to %d", MOST_DAYS);
    g_autofree char *folder = folder_of(dir);
    g_autoptr(VpCa) ca = vp_ca_open(folder, &error);
    if (ca)
        error = vp_ca_revoke(ca, revoke ? argv[1] : NULL, (guint)days);
    if (error)
        return vp_cli_fail(cli, error, "sign the list of withdrawn certificates");
    g_autofree char *safe = vp_text_escape(folder);
    printf("%s/ca.crl is for the daemons, which see at once that it has changed\n", safe);
    return VP_EXIT_DONE;
}

int vp_pki_revoke(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    return sign_list(cli, command, argc, argv, /* revoke= */ TRUE);
}

int vp_pki_renew_list(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    return sign_list(cli, command, argc, argv, /* revoke= */ FALSE);
}
