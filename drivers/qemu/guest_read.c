/* See guest_read.h. */
#include "guest_read.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/pb.h"

/* The last second that a google.protobuf.Timestamp has. */
#define MAX_SECONDS G_GINT64_CONSTANT(253402300799)

/* ---- values ---- */

/* jansson has let UTF-8 pass alone, and no NUL. */
static char *cut(const char *text)
{
    if (!text)
        return g_strdup("");
    if (strlen(text) <= VP_GUEST_MAX_TEXT)
        return g_strdup(text);
    const char *end = text + VP_GUEST_MAX_TEXT;
    while ((*end & 0xc0) == 0x80)
        end--;
    return g_strndup(text, (gsize)(end - text));
}

char *vp_guest_read_text(json_t *object, const char *key)
{
    return cut(json_string_value(json_object_get(object, key)));
}

static void set_text(char **field, json_t *object, const char *key)
{
    g_autofree char *text = vp_guest_read_text(object, key);

    vp_pb_set(field, text);
}

/* FALSE: there is none, or it is out of bounds. */
static gboolean read_integer(json_t *object, const char *key, gint64 min, gint64 max, gint64 *ret_number)
{
    json_t *value = json_object_get(object, key);

    if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max)
        return FALSE;
    *ret_number = json_integer_value(value);
    return TRUE;
}

/* One that may be left out, and is 0 then. */
static guint64 counter(json_t *object, const char *key)
{
    gint64 number = 0;

    read_integer(object, key, 0, G_MAXINT64, &number);
    return (guint64)number;
}

static gboolean is_base64(const char *text, gsize length)
{
    const gsize digits = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    const gsize pads = strspn(text + digits, "=");

    return length % 4 == 0 && pads <= 2 && digits + pads == length;
}

gboolean vp_guest_read_bytes(json_t *object, const char *key, gsize max, guint8 **ret_bytes, gsize *ret_size)
{
    json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    const gsize length = json_string_length(value);

    *ret_bytes = NULL;
    *ret_size = 0;
    if (!value)
        return TRUE;
    if (!text || !is_base64(text, length) || length / 4 * 3 > max + 2)
        return FALSE;
    guint8 *bytes = g_base64_decode(text, ret_size);
    if (*ret_size > max) {
        g_free(bytes);
        return FALSE;
    }
    *ret_bytes = bytes;
    return TRUE;
}

/* ---- programs and files ---- */

gboolean vp_guest_read_pid(json_t *result, gint64 *ret_pid)
{
    return read_integer(result, "pid", 1, G_MAXINT64, ret_pid);
}

gboolean vp_guest_read_handle(json_t *result, gint64 *ret_handle)
{
    if (!json_is_integer(result) || json_integer_value(result) < 0)
        return FALSE;
    *ret_handle = json_integer_value(result);
    return TRUE;
}

gboolean vp_guest_read_status(json_t *result, gboolean *ret_exited, gint32 *ret_exit_code, gint32 *ret_signal)
{
    json_t *exited = json_object_get(result, "exited");
    gint64 exit_code = 0;
    gint64 killer = 0;

    if (!json_is_boolean(exited))
        return FALSE;
    if (json_object_get(result, "exitcode") && !read_integer(result, "exitcode", G_MININT32, G_MAXUINT32, &exit_code))
        return FALSE;
    if (json_object_get(result, "signal") && !read_integer(result, "signal", 0, 255, &killer))
        return FALSE;
    *ret_exited = json_is_true(exited);
    /* Of Windows they are unsigned. */
    *ret_exit_code = (gint32)(guint32)exit_code;
    *ret_signal = (gint32)killer;
    return TRUE;
}

static gboolean read_output(json_t *result, const char *key, const char *truncated_key, gsize max,
                            ProtobufCBinaryData *data, protobuf_c_boolean *truncated)
{
    guint8 *bytes;
    gsize size;

    if (!vp_guest_read_bytes(result, key, G_MAXSIZE - 2, &bytes, &size))
        return FALSE;
    if (size > max || json_is_true(json_object_get(result, truncated_key)))
        *truncated = TRUE;
    *data = (ProtobufCBinaryData){.data = size > max ? g_realloc(bytes, max) : bytes, .len = MIN(size, max)};
    return TRUE;
}

PbRunGuestCommandResponse *vp_guest_read_run(json_t *result, gsize max)
{
    PbRunGuestCommandResponse *response = vp_pb_new(&pb_run_guest_command_response__descriptor);
    gboolean exited;

    if (vp_guest_read_status(result, &exited, &response->exit_code, &response->signal) && exited &&
        read_output(result, "out-data", "out-truncated", max, &response->output, &response->truncated) &&
        read_output(result, "err-data", "err-truncated", max, &response->error_output, &response->truncated))
        return response;
    vp_pb_free(response);
    return NULL;
}

gboolean vp_guest_read_chunk(json_t *result, gsize max, guint8 **ret_bytes, gsize *ret_size, gboolean *ret_at_end)
{
    json_t *eof = json_object_get(result, "eof");
    gint64 count;

    if (!json_is_boolean(eof) || !read_integer(result, "count", 0, (gint64)max, &count) ||
        !vp_guest_read_bytes(result, "buf-b64", max, ret_bytes, ret_size))
        return FALSE;
    if (*ret_size != (gsize)count) {
        g_clear_pointer(ret_bytes, g_free);
        return FALSE;
    }
    *ret_at_end = json_is_true(eof);
    return TRUE;
}

gboolean vp_guest_read_written(json_t *result, gsize size, gsize *ret_written)
{
    gint64 count;

    if (!read_integer(result, "count", 1, (gint64)size, &count))
        return FALSE;
    *ret_written = (gsize)count;
    return TRUE;
}

gboolean vp_guest_read_count(json_t *result, guint32 *ret_count)
{
    if (!json_is_integer(result) || json_integer_value(result) < 0 || json_integer_value(result) > G_MAXINT32)
        return FALSE;
    *ret_count = (guint32)json_integer_value(result);
    return TRUE;
}

/* ---- the agent and its guest ---- */

gboolean vp_guest_read_agent(json_t *result, PbPingGuestResponse *response)
{
    json_t *commands = json_object_get(result, "supported_commands");
    size_t i;
    json_t *item;

    if (!json_is_object(result) || !json_is_array(commands))
        return FALSE;
    set_text(&response->version, result, "version");
    json_array_foreach(commands, i, item)
    {
        g_autofree char *name = vp_guest_read_text(item, "name");

        if (!*name || response->n_commands >= VP_GUEST_MAX_LIST)
            continue;
        PbGuestAgentCommand *command = vp_pb_new(&pb_guest_agent_command__descriptor);
        vp_pb_set(&command->name, name);
        command->enabled = json_is_true(json_object_get(item, "enabled"));
        vp_pb_append(&response->n_commands, &response->commands, command);
    }
    return TRUE;
}

gboolean vp_guest_read_system(json_t *result, PbGuestInfo *info)
{
    if (!json_is_object(result))
        return FALSE;
    PbGuestOperatingSystem *system = vp_pb_new(&pb_guest_operating_system__descriptor);
    const struct {
        char **field;
        const char *key;
    } fields[] = {
        {&system->id, "id"},
        {&system->name, "name"},
        {&system->pretty_name, "pretty-name"},
        {&system->version, "version"},
        {&system->version_id, "version-id"},
        {&system->kernel_release, "kernel-release"},
        {&system->kernel_version, "kernel-version"},
        {&system->machine, "machine"},
        {&system->variant, "variant"},
        {&system->variant_id, "variant-id"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(fields); i++)
        set_text(fields[i].field, result, fields[i].key);
    vp_pb_free(info->operating_system);
    info->operating_system = system;
    return TRUE;
}

gboolean vp_guest_read_host_name(json_t *result, PbGuestInfo *info)
{
    if (!json_is_string(json_object_get(result, "host-name")))
        return FALSE;
    set_text(&info->host_name, result, "host-name");
    return TRUE;
}

gboolean vp_guest_read_zone(json_t *result, PbGuestInfo *info)
{
    gint64 offset;

    /* ISO 8601 knows less than a day. */
    if (!read_integer(result, "offset", -24 * 60 * 60, 24 * 60 * 60, &offset))
        return FALSE;
    info->time_zone_offset_seconds = (gint32)offset;
    set_text(&info->time_zone, result, "zone");
    return TRUE;
}

static void read_disks(json_t *disks, PbGuestFilesystem *filesystem)
{
    size_t i;
    json_t *disk;

    json_array_foreach(disks, i, disk)
    {
        g_autofree char *serial = vp_guest_read_text(disk, "serial");
        g_autofree char *path = vp_guest_read_text(disk, "dev");
        char **name = *serial ? &serial : &path;

        if (**name && filesystem->n_disks < VP_GUEST_MAX_LIST)
            vp_pb_append(&filesystem->n_disks, &filesystem->disks, g_steal_pointer(name));
    }
}

gboolean vp_guest_read_filesystems(json_t *result, PbGuestInfo *info)
{
    size_t i;
    json_t *item;

    if (!json_is_array(result))
        return FALSE;
    json_array_foreach(result, i, item)
    {
        if (!json_is_object(item) || info->n_file_systems >= VP_GUEST_MAX_LIST)
            continue;
        PbGuestFilesystem *filesystem = vp_pb_new(&pb_guest_filesystem__descriptor);
        set_text(&filesystem->device, item, "name");
        set_text(&filesystem->mount_point, item, "mountpoint");
        set_text(&filesystem->type, item, "type");
        filesystem->total_bytes = counter(item, "total-bytes");
        filesystem->used_bytes = counter(item, "used-bytes");
        read_disks(json_object_get(item, "disk"), filesystem);
        vp_pb_append(&info->n_file_systems, &info->file_systems, filesystem);
    }
    return TRUE;
}

/* ---- the network ---- */

/* "52:54:00:12:34:56", in lower case; empty for anything else. */
static void read_mac(json_t *item, PbGuestInterface *interface)
{
    g_autofree char *text = vp_guest_read_text(item, "hardware-address");
    g_autofree char *mac = g_ascii_strdown(text, -1);

    if (strlen(mac) != 17)
        return;
    for (gsize i = 0; i < 17; i++) {
        if (i % 3 == 2 ? mac[i] != ':' : !g_ascii_isxdigit(mac[i]))
            return;
    }
    vp_pb_set(&interface->mac, mac);
}

/* NULL: it is none. A zone ("%eth0") is left out: the interface is known. */
static PbGuestAddress *read_address(json_t *item)
{
    g_autofree char *text = vp_guest_read_text(item, "ip-address");
    char shown[INET6_ADDRSTRLEN];
    guint8 bytes[16];
    gint64 prefix = 0;

    text[strcspn(text, "%")] = '\0';
    const int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, text, bytes) != 1 || !inet_ntop(family, bytes, shown, sizeof(shown)))
        return NULL;
    if (json_object_get(item, "prefix") && !read_integer(item, "prefix", 0, family == AF_INET6 ? 128 : 32, &prefix))
        return NULL;
    PbGuestAddress *address = vp_pb_new(&pb_guest_address__descriptor);
    vp_pb_set(&address->address, shown);
    address->prefix_length = (guint32)prefix;
    return address;
}

static void read_counters(json_t *statistics, PbGuestInterface *interface)
{
    if (!json_is_object(statistics))
        return;
    PbGuestInterfaceCounters *counters = vp_pb_new(&pb_guest_interface_counters__descriptor);

    counters->received_bytes = counter(statistics, "rx-bytes");
    counters->received_packets = counter(statistics, "rx-packets");
    counters->received_errors = counter(statistics, "rx-errs");
    counters->received_dropped = counter(statistics, "rx-dropped");
    counters->sent_bytes = counter(statistics, "tx-bytes");
    counters->sent_packets = counter(statistics, "tx-packets");
    counters->sent_errors = counter(statistics, "tx-errs");
    counters->sent_dropped = counter(statistics, "tx-dropped");
    interface->counters = counters;
}

static PbGuestInterface *read_interface(json_t *item)
{
    PbGuestInterface *interface = vp_pb_new(&pb_guest_interface__descriptor);
    size_t i;
    json_t *found;

    set_text(&interface->name, item, "name");
    read_mac(item, interface);
    read_counters(json_object_get(item, "statistics"), interface);
    json_array_foreach(json_object_get(item, "ip-addresses"), i, found)
    {
        PbGuestAddress *address = interface->n_addresses < VP_GUEST_MAX_LIST ? read_address(found) : NULL;

        if (address)
            vp_pb_append(&interface->n_addresses, &interface->addresses, address);
    }
    return interface;
}

PbListGuestInterfacesResponse *vp_guest_read_interfaces(json_t *result)
{
    size_t i;
    json_t *item;

    if (!json_is_array(result))
        return NULL;
    PbListGuestInterfacesResponse *response = vp_pb_new(&pb_list_guest_interfaces_response__descriptor);
    json_array_foreach(result, i, item)
    {
        if (json_is_object(item) && response->n_interfaces < VP_GUEST_MAX_LIST)
            vp_pb_append(&response->n_interfaces, &response->interfaces, read_interface(item));
    }
    return response;
}

/* ---- users, time, trim ---- */

PbListGuestUsersResponse *vp_guest_read_users(json_t *result)
{
    size_t i;
    json_t *item;

    if (!json_is_array(result))
        return NULL;
    PbListGuestUsersResponse *response = vp_pb_new(&pb_list_guest_users_response__descriptor);
    json_array_foreach(result, i, item)
    {
        const double login = json_number_value(json_object_get(item, "login-time"));

        if (!json_is_object(item) || response->n_users >= VP_GUEST_MAX_LIST)
            continue;
        PbGuestUser *user = vp_pb_new(&pb_guest_user__descriptor);
        set_text(&user->name, item, "user");
        set_text(&user->domain, item, "domain");
        if (login > 0 && login < (double)MAX_SECONDS)
            user->login_time = vp_pb_timestamp((gint64)(login * 1e6));
        vp_pb_append(&response->n_users, &response->users, user);
    }
    return response;
}

gboolean vp_guest_read_time(json_t *result, gint64 *ret_wall_us)
{
    if (!json_is_integer(result) || json_integer_value(result) < 0)
        return FALSE;
    *ret_wall_us = json_integer_value(result) / 1000;
    return TRUE;
}

PbTrimGuestFilesystemsResponse *vp_guest_read_trim(json_t *result)
{
    json_t *paths = json_object_get(result, "paths");
    size_t i;
    json_t *item;

    if (!json_is_array(paths))
        return NULL;
    PbTrimGuestFilesystemsResponse *response = vp_pb_new(&pb_trim_guest_filesystems_response__descriptor);
    json_array_foreach(paths, i, item)
    {
        if (!json_is_object(item) || response->n_file_systems >= VP_GUEST_MAX_LIST)
            continue;
        PbGuestTrim *trim = vp_pb_new(&pb_guest_trim__descriptor);
        set_text(&trim->mount_point, item, "path");
        trim->trimmed_bytes = counter(item, "trimmed");
        trim->minimum_bytes = counter(item, "minimum");
        set_text(&trim->error, item, "error");
        vp_pb_append(&response->n_file_systems, &response->file_systems, trim);
    }
    return response;
}
