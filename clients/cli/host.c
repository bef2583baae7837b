/* vpctl host, daemon, version: see host.h. */
#include "clients/cli/host.h"

#include "base/pb.h"
#include "base/version.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "clients/json/json.h"
#include "virtplane/v1/admin_service.pb-c.h"
#include "virtplane/v1/host_service.pb-c.h"

static void line(const char *key, const char *text)
{
    g_autofree char *safe = vp_text_escape(text);

    if (*safe)
        printf("%-14s%s\n", key, safe);
}

static char *accelerators_text(const PbDriverCapabilities *driver)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (size_t i = 0; i < driver->n_accelerators; i++) {
        g_autofree char *name = vp_text_enum(&pb_accelerator__descriptor, (int)driver->accelerators[i]);
        g_string_append_printf(out, "%s%s", i ? "," : "", name);
    }
    return g_strdup(out->str);
}

static void show_drivers(VpCli *cli, const PbGetCapabilitiesResponse *answer)
{
    static const char *const columns[] = {"DRIVER", "USABLE", "VERSION", "CPUS", ">METHODS", "PROGRAM", "DETAIL", NULL};
    VpTable *table = vp_table_new(cli, columns);

    for (size_t i = 0; i < answer->n_drivers; i++) {
        const PbDriverCapabilities *driver = answer->drivers[i];
        g_autofree char *methods = g_strdup_printf("%zu", driver->n_methods);
        g_autofree char *accelerators = accelerators_text(driver);

        vp_table_add(table, driver->name, driver->available ? "yes" : "no", driver->version, accelerators, methods,
                     driver->binary, driver->detail);
    }
    vp_table_print(table);
    for (size_t i = 0; i < answer->n_drivers; i++) {
        const PbDriverCapabilities *driver = answer->drivers[i];

        for (size_t j = 0; j < driver->n_containment_missing; j++) {
            g_autofree char *what = vp_text_escape(driver->containment_missing[j]);

            printf("%s%s: domains go without %s\n", i + j ? "" : "\n", driver->name, what);
        }
    }
}

static void show_host(const PbHost *host)
{
    g_autofree char *cpus = g_strdup_printf("%u", host->cpus);
    g_autofree char *total = vp_text_size(host->memory_bytes);
    g_autofree char *available = vp_text_size(host->memory_available_bytes);
    g_autofree char *memory = g_strdup_printf("%s, %s available", total, available);
    g_autofree char *kvm = g_strdup_printf("%s%s%s", host->kvm_available ? "usable" : "not usable",
                                           *host->kvm_detail ? ": " : "", host->kvm_detail);

    line("host", host->name);
    line("architecture", host->architecture);
    line("kernel", host->kernel_release);
    line("cpus", cpus);
    line("memory", memory);
    line("kvm", kvm);
}

int vp_host(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbGetHostRequest *host_request = vp_pb_new(&pb_get_host_request__descriptor);
    vp_pb_auto PbGetHostResponse *host =
        vp_cli_call(cli, &pb_host_service__descriptor, "GetHost", host_request, &error);
    if (!host)
        return vp_cli_fail(cli, error, "describe the host");
    vp_pb_auto PbGetCapabilitiesRequest *request = vp_pb_new(&pb_get_capabilities_request__descriptor);
    vp_pb_auto PbGetCapabilitiesResponse *answer =
        vp_cli_call(cli, &pb_host_service__descriptor, "GetCapabilities", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "list what the host can do");

    /* Two answers, which have no field in common, as one object. */
    json_t *json = vp_json_print(host);
    json_object_update_new(json, vp_json_print(answer));
    if (vp_cli_print_value(cli, json, /* stream= */ FALSE))
        return VP_EXIT_DONE;
    if (cli->output == VP_OUTPUT_NAME) {
        g_autofree char *name = vp_text_escape(host->host ? host->host->name : "");
        puts(name);
        return VP_EXIT_DONE;
    }
    if (host->host)
        show_host(host->host);
    g_autoptr(GString) formats = g_string_new(NULL);
    for (size_t i = 0; i < answer->n_image_formats; i++)
        g_string_append_printf(formats, "%s%s", i ? ", " : "", answer->image_formats[i]);
    line("image formats", formats->str);
    line("daemon", answer->daemon_version);
    puts("");
    show_drivers(cli, answer);
    return VP_EXIT_DONE;
}

static void show_daemon(const PbDaemon *daemon)
{
    g_autofree char *pid = g_strdup_printf("%d", daemon->pid);
    g_autofree char *started = vp_text_time(daemon->start_time, /* fraction= */ FALSE);
    g_autofree char *revisions = g_strdup_printf("%" G_GINT64_FORMAT " (events kept from %" G_GINT64_FORMAT " on)",
                                                 daemon->revision, daemon->oldest_revision);

    line("version", daemon->version);
    line("pid", pid);
    line("started", started);
    for (size_t i = 0; i < daemon->n_addresses; i++)
        line(i ? "" : "addresses", daemon->addresses[i]);
    line("state folder", daemon->state_dir);
    line("revision", revisions);
}

static PbGetDaemonResponse *get_daemon(VpCli *cli, VpError **error)
{
    vp_pb_auto PbGetDaemonRequest *request = vp_pb_new(&pb_get_daemon_request__descriptor);

    return vp_cli_call(cli, &pb_admin_service__descriptor, "GetDaemon", request, error);
}

int vp_daemon(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbGetDaemonResponse *answer = get_daemon(cli, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "describe the daemon");
    if (vp_cli_print(cli, answer, /* stream= */ FALSE) || !answer->daemon)
        return VP_EXIT_DONE;
    if (cli->output == VP_OUTPUT_NAME) {
        printf("%d\n", answer->daemon->pid);
        return VP_EXIT_DONE;
    }
    show_daemon(answer->daemon);
    return VP_EXIT_DONE;
}

int vp_version(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbGetDaemonResponse *answer = get_daemon(cli, &error);
    vp_error_free(error);

    g_autofree char *daemon_version = vp_text_escape(answer && answer->daemon ? answer->daemon->version : "");
    if (vp_cli_print_value(cli, json_pack("{s:s,s:s}", "clientVersion", VP_VERSION, "daemonVersion", daemon_version),
                           FALSE))
        return VP_EXIT_DONE;
    if (cli->output == VP_OUTPUT_NAME) {
        puts(VP_VERSION);
        return VP_EXIT_DONE;
    }
    printf("vpctl %s\n", VP_VERSION);
    if (*daemon_version)
        printf("virtplaned %s at %s\n", daemon_version, vp_client_address(cli->client));
    else
        printf("no daemon answers\n");
    return VP_EXIT_DONE;
}
