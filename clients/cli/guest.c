/* vpctl guest ping, info, addresses, users, time, set-time, set-password, freeze, thaw, trim: see guest.h. */
#include "clients/cli/guest.h"

#include <string.h>

#include "base/pb.h"
#include "clients/cli/message.h"
#include "clients/cli/secret_input.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "virtplane/v1/guest_service.pb-c.h"

enum {
    MAX_PASSWORD_BYTES = 1024,
    /* The daemon's own limit comes first, so that its error is what is told. */
    GRACE_MS = 2000,
};

/* A request to the guest of domain `who`; --timeout is what the guest is given. */
static void *new_request(VpCli *cli, const ProtobufCMessageDescriptor *descriptor, const char *who)
{
    void *request = vp_pb_new(descriptor);

    vp_message_set_who(request, who);
    if (cli->timeout_given)
        *(Google__Protobuf__Duration **)vp_message_field(request, "timeout") = vp_message_duration(cli->timeout_ms);
    cli->timeout_ms += GRACE_MS;
    return request;
}

/* NULL: *ret_exit is what to return. With --output json or yaml the answer is printed, and NULL as well. */
static void *call(VpCli *cli, const char *method, const void *request, const char *doing, const char *who,
                  int *ret_exit)
{
    VpError *error = NULL;
    void *answer = vp_cli_call(cli, &pb_guest_service__descriptor, method, request, &error);

    *ret_exit = VP_EXIT_DONE;
    if (!answer) {
        *ret_exit = vp_cli_fail(cli, error, "%s the guest of domain \"%s\"", doing, who);
    } else if (vp_cli_print(cli, answer, /* stream= */ FALSE)) {
        vp_pb_free(answer);
        answer = NULL;
    }
    return answer;
}

/* ---- what is asked ---- */

int vp_guest_ping(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbPingGuestRequest *request = new_request(cli, &pb_ping_guest_request__descriptor, argv[1]);
    vp_pb_auto PbPingGuestResponse *answer = call(cli, "PingGuest", request, "reach", argv[1], &code);
    if (!answer)
        return code;
    g_autofree char *version = vp_text_escape(answer->version);
    const double ms = answer->latency ? (double)answer->latency->seconds * 1e3 + answer->latency->nanos / 1e6 : 0;
    g_autoptr(GString) blocked = g_string_new(NULL);

    for (size_t i = 0; i < answer->n_commands; i++) {
        g_autofree char *name = vp_text_escape(answer->commands[i]->name);

        if (!answer->commands[i]->enabled)
            g_string_append_printf(blocked, " %s", name);
    }
    if (cli->output == VP_OUTPUT_NAME) {
        puts(argv[1]);
        return VP_EXIT_DONE;
    }
    printf("agent %s answers in %.1f ms, has %zu commands\n", version, ms, answer->n_commands);
    if (blocked->len > 0)
        printf("switched off in the guest:%s\n", blocked->str);
    return VP_EXIT_DONE;
}

static void print_line(const char *what, const char *text)
{
    g_autofree char *safe = vp_text_escape(text);

    if (*safe)
        printf("%-10s %s\n", what, safe);
}

static void print_filesystems(VpCli *cli, const PbGuestInfo *info)
{
    static const char *const columns[] = {"MOUNTED", "TYPE", "DEVICE", ">USED", ">SIZE", NULL};
    VpTable *table = vp_table_new(cli, columns);

    for (size_t i = 0; i < info->n_file_systems; i++) {
        const PbGuestFilesystem *filesystem = info->file_systems[i];
        g_autofree char *used = filesystem->total_bytes ? vp_text_size(filesystem->used_bytes) : g_strdup("-");
        g_autofree char *size = filesystem->total_bytes ? vp_text_size(filesystem->total_bytes) : g_strdup("-");

        vp_table_add(table, filesystem->mount_point, filesystem->type, filesystem->device, used, size);
    }
    putchar('\n');
    vp_table_print(table);
}

static void print_info(VpCli *cli, const PbGuestInfo *info)
{
    const PbGuestOperatingSystem *system = info->operating_system;
    const gint32 minutes = info->time_zone_offset_seconds / 60;
    g_autofree char *offset = g_strdup_printf("%s UTC%c%02d:%02d", info->time_zone, minutes < 0 ? '-' : '+',
                                              ABS(minutes) / 60, ABS(minutes) % 60);

    print_line("name", info->host_name);
    if (system) {
        g_autofree char *kernel = g_strdup_printf("%s %s", system->kernel_release, system->machine);

        print_line("system", *system->pretty_name ? system->pretty_name : system->name);
        print_line("kernel", kernel);
    }
    print_line("time zone", offset);
    for (size_t i = 0; i < info->n_gaps; i++)
        print_line("not told", info->gaps[i]->message);
    if (info->n_file_systems > 0)
        print_filesystems(cli, info);
}

int vp_guest_info(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbGetGuestInfoRequest *request = new_request(cli, &pb_get_guest_info_request__descriptor, argv[1]);
    vp_pb_auto PbGetGuestInfoResponse *answer = call(cli, "GetGuestInfo", request, "ask", argv[1], &code);
    if (answer && answer->info && cli->output == VP_OUTPUT_NAME)
        print_line("name", answer->info->host_name);
    else if (answer && answer->info)
        print_info(cli, answer->info);
    return code;
}

int vp_guest_addresses(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    static const char *const columns[] = {"INTERFACE", "MAC", "ADDRESS", NULL};
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbListGuestInterfacesRequest *request =
        new_request(cli, &pb_list_guest_interfaces_request__descriptor, argv[1]);
    vp_pb_auto PbListGuestInterfacesResponse *answer = call(cli, "ListGuestInterfaces", request, "ask", argv[1], &code);
    if (!answer)
        return code;
    VpTable *table = cli->output == VP_OUTPUT_NAME ? NULL : vp_table_new(cli, columns);
    for (size_t i = 0; i < answer->n_interfaces; i++) {
        const PbGuestInterface *interface = answer->interfaces[i];

        for (size_t j = 0; j < interface->n_addresses; j++) {
            const PbGuestAddress *address = interface->addresses[j];
            g_autofree char *text = g_strdup_printf("%s/%u", address->address, address->prefix_length);

            if (table)
                vp_table_add(table, interface->name, interface->mac, text);
            else
                puts(address->address);
        }
        if (table && interface->n_addresses == 0)
            vp_table_add(table, interface->name, interface->mac, "-");
    }
    if (table)
        vp_table_print(table);
    return VP_EXIT_DONE;
}

int vp_guest_users(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    static const char *const columns[] = {"USER", "DOMAIN", "SINCE", NULL};
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbListGuestUsersRequest *request = new_request(cli, &pb_list_guest_users_request__descriptor, argv[1]);
    vp_pb_auto PbListGuestUsersResponse *answer = call(cli, "ListGuestUsers", request, "ask", argv[1], &code);
    if (!answer)
        return code;
    VpTable *table = cli->output == VP_OUTPUT_NAME ? NULL : vp_table_new(cli, columns);
    for (size_t i = 0; i < answer->n_users; i++) {
        const PbGuestUser *user = answer->users[i];
        g_autofree char *since = vp_text_time(user->login_time, /* fraction= */ FALSE);
        g_autofree char *name = vp_text_escape(user->name);

        if (table)
            vp_table_add(table, user->name, *user->domain ? user->domain : "-", since);
        else
            puts(name);
    }
    if (table)
        vp_table_print(table);
    return VP_EXIT_DONE;
}

/* ---- the clock ---- */

int vp_guest_time(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbGetGuestTimeRequest *request = new_request(cli, &pb_get_guest_time_request__descriptor, argv[1]);
    vp_pb_auto PbGetGuestTimeResponse *answer = call(cli, "GetGuestTime", request, "ask", argv[1], &code);
    if (!answer)
        return code;
    g_autofree char *time = vp_text_time(answer->time, /* fraction= */ TRUE);
    const double ahead =
        (double)(vp_pb_timestamp_us(answer->time) - vp_pb_timestamp_us(answer->host_time)) / G_USEC_PER_SEC;
    printf("%s, %.3f s %s the host\n", time, ahead < 0 ? -ahead : ahead, ahead < 0 ? "behind" : "ahead of");
    return VP_EXIT_DONE;
}

int vp_guest_set_time(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbSetGuestTimeRequest *request = new_request(cli, &pb_set_guest_time_request__descriptor, argv[1]);
    if (argc > 2) {
        g_autoptr(GTimeZone) local = g_time_zone_new_local();
        g_autoptr(GDateTime) time = g_date_time_new_from_iso8601(argv[2], local);

        if (!time)
            return vp_cli_usage(command, "a time is as in 2026-01-02T03:04:05Z, not \"%s\"", argv[2]);
        request->time = vp_pb_timestamp(g_date_time_to_unix(time) * G_USEC_PER_SEC + g_date_time_get_microsecond(time));
    }
    vp_pb_auto PbSetGuestTimeResponse *answer = call(cli, "SetGuestTime", request, "set the clock of", argv[1], &code);
    if (!answer)
        return code;
    g_autofree char *text = vp_text_time(answer->time, /* fraction= */ TRUE);
    printf("domain \"%s\": its guest's clock is set to %s\n", argv[1], text);
    return VP_EXIT_DONE;
}

/* ---- a password ---- */

int vp_guest_set_password(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *file = NULL;
    gboolean hashed = FALSE;
    const GOptionEntry entries[] = {
        {"file", 'f', 0, G_OPTION_ARG_FILENAME, &file,
         "Read the password from FILE, its first line (default: the standard input)", "FILE"},
        {"hashed", 0, 0, G_OPTION_ARG_NONE, &hashed, "It is a hash already, as mkpasswd prints it", NULL},
        {0},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbSetGuestPasswordRequest *request =
        new_request(cli, &pb_set_guest_password_request__descriptor, argv[1]);
    vp_pb_set(&request->user, argv[2]);
    request->hashed = hashed;
    request->password.data = g_malloc(MAX_PASSWORD_BYTES + 1);
    VpError *error =
        vp_secret_input(file, "password", request->password.data, MAX_PASSWORD_BYTES, &request->password.len);
    if (error) {
        explicit_bzero(request->password.data, MAX_PASSWORD_BYTES + 1);
        return vp_cli_fail(cli, error, "set the password of \"%s\"", argv[2]);
    }
    /* A line's end is not part of it. */
    while (request->password.len > 0 && strchr("\r\n", request->password.data[request->password.len - 1]))
        request->password.len--;
    vp_pb_auto PbSetGuestPasswordResponse *answer =
        call(cli, "SetGuestPassword", request, "set a password in", argv[1], &code);
    explicit_bzero(request->password.data, MAX_PASSWORD_BYTES + 1);
    if (answer)
        printf("domain \"%s\": the password of %s is set\n", argv[1], argv[2]);
    return code;
}

/* ---- its file systems ---- */

int vp_guest_freeze(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *thaw_after = NULL;
    g_auto(GStrv) mount_points = NULL;
    gint64 ms = 0;
    const GOptionEntry entries[] = {
        {"thaw-after", 0, 0, G_OPTION_ARG_STRING, &thaw_after,
         "Thaw them when they have been frozen for so long (default 60s, at most 1h)", "TIME"},
        {"mount-point", 0, 0, G_OPTION_ARG_STRING_ARRAY, &mount_points, "Freeze the one that is mounted here, not all",
         "PATH"},
        {0},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (thaw_after && !vp_text_parse_duration(thaw_after, &ms))
        return vp_cli_usage(command, "--thaw-after is a duration like 30s or 5m, not \"%s\"", thaw_after);
    vp_pb_auto PbFreezeGuestFilesystemsRequest *request =
        new_request(cli, &pb_freeze_guest_filesystems_request__descriptor, argv[1]);
    if (thaw_after)
        request->thaw_after = vp_message_duration(ms);
    for (char **at = mount_points; at && *at; at++)
        vp_pb_append(&request->n_mount_points, &request->mount_points, g_strdup(*at));
    vp_pb_auto PbFreezeGuestFilesystemsResponse *answer =
        call(cli, "FreezeGuestFilesystems", request, "freeze the file systems of", argv[1], &code);
    if (!answer)
        return code;
    g_autofree char *until = vp_text_time(answer->thaw_time, /* fraction= */ FALSE);
    printf("domain \"%s\": %u file systems are frozen, until %s at the latest\n", argv[1], answer->file_systems, until);
    return VP_EXIT_DONE;
}

int vp_guest_thaw(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbThawGuestFilesystemsRequest *request =
        new_request(cli, &pb_thaw_guest_filesystems_request__descriptor, argv[1]);
    vp_pb_auto PbThawGuestFilesystemsResponse *answer =
        call(cli, "ThawGuestFilesystems", request, "thaw the file systems of", argv[1], &code);
    if (answer)
        printf("domain \"%s\": %u file systems were thawed\n", argv[1], answer->file_systems);
    return code;
}

int vp_guest_trim(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    static const char *const columns[] = {"MOUNTED", ">GIVEN BACK", "ERROR", NULL};
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    vp_pb_auto PbTrimGuestFilesystemsRequest *request =
        new_request(cli, &pb_trim_guest_filesystems_request__descriptor, argv[1]);
    vp_pb_auto PbTrimGuestFilesystemsResponse *answer =
        call(cli, "TrimGuestFilesystems", request, "trim the file systems of", argv[1], &code);
    if (!answer)
        return code;
    VpTable *table = vp_table_new(cli, columns);
    for (size_t i = 0; i < answer->n_file_systems; i++) {
        const PbGuestTrim *trim = answer->file_systems[i];
        g_autofree char *size = vp_text_size(trim->trimmed_bytes);

        vp_table_add(table, trim->mount_point, size, *trim->error ? trim->error : "-");
    }
    vp_table_print(table);
    return VP_EXIT_DONE;
}
