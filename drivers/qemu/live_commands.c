/* See live_commands.h. */
#include "live_commands.h"

#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "ids.h"

/* ---- devices ---- */

/* Controllers come with a start alone: those that the device needs are there. */
static VpArguments begin(const VpCommandLine *line, guint fd_sets)
{
    return (VpArguments){.line = line, .commands = json_array(), .fd_sets = fd_sets, .scsi_disks = 1, .has_usb = TRUE};
}

static void add(json_t *commands, const char *command, json_t *arguments)
{
    json_array_append_new(commands, json_pack("{s:s, s:o}", "execute", command, "arguments", arguments));
}

/* Before the guest sees the device: QEMU has read the headers by now, which must have named nothing new. */
static void add_check(json_t *commands, size_t at)
{
    json_array_insert_new(commands, at,
                          json_pack("{s:s, s:{s:b}, s:s}", "execute", "query-named-block-nodes", "arguments", "flat", 1,
                                    "check", "nodes"));
}

VpError *vp_live_attach_disk(const VpCommandLine *line, guint index, guint fd_sets, json_t **ret_commands)
{
    VpArguments args = begin(line, fd_sets);
    VpError *error = vp_args_disk(&args, index);

    if (error) {
        json_decref(args.commands);
        return error;
    }
    add_check(args.commands, json_array_size(args.commands) - 1);
    *ret_commands = args.commands;
    return NULL;
}

json_t *vp_live_attach_interface(const VpCommandLine *line, guint index)
{
    VpArguments args = begin(line, 0);

    vp_args_interface(&args, index);
    return args.commands;
}

json_t *vp_live_add_dimm(const PbDomainSpec *spec, guint index, guint64 bytes)
{
    const VpCommandLine line = {.spec = spec};
    VpArguments args = begin(&line, 0);

    vp_args_dimm(&args, index, bytes);
    return args.commands;
}

json_t *vp_live_remove_dimm_memory(const char *dimm)
{
    g_autofree char *id = vp_id_dimm_memory((guint)g_ascii_strtoull(dimm + strlen(VP_ID_DIMM), NULL, 10));
    json_t *commands = json_array();

    add(commands, "object-del", json_pack("{s:s}", "id", id));
    return commands;
}

json_t *vp_live_add_cpu(json_t *entry)
{
    json_t *commands = json_array();
    json_t *props = json_object_get(entry, "props");
    json_t *arguments = json_deep_copy(props);
    g_autoptr(GString) id = g_string_new(VP_ID_CPU);
    const char *key;
    json_t *value;

    json_object_foreach(props, key, value)
        g_string_append_printf(id, "-%s%" JSON_INTEGER_FORMAT, key, json_integer_value(value));
    json_object_set(arguments, "driver", json_object_get(entry, "type"));
    json_object_set_new(arguments, "id", json_string(id->str));
    add(commands, "device_add", arguments);
    return commands;
}

void vp_live_secret(json_t *commands, const char *id, guint fd_set)
{
    json_array_append_new(commands, json_pack("{s:s, s:{s:s, s:s}, s:b}", "execute", "object-add", "arguments",
                                              "qom-type", "secret", "id", id, "file-of-fd", 1));
    add(commands, "remove-fd", json_pack("{s:i}", "fdset-id", (int)fd_set));
}

/* ---- media ---- */

VpError *vp_live_add_medium(const VpCommandLine *line, guint index, guint fd_sets, json_t **ret_commands)
{
    VpArguments args = begin(line, fd_sets);
    VpError *error = vp_args_disk_nodes(&args, index);

    if (error) {
        json_decref(args.commands);
        return error;
    }
    add_check(args.commands, json_array_size(args.commands));
    *ret_commands = args.commands;
    return NULL;
}

static json_t *insert_command(const PbDisk *drive, guint side)
{
    g_autofree char *id = vp_id_disk(drive);
    g_autofree char *nodes = vp_id_disk_nodes(drive, side);
    g_autofree char *top = g_strconcat(nodes, "-0", NULL);

    return json_pack("{s:s, s:{s:s, s:s}}", "execute", "blockdev-insert-medium", "arguments", "id", id, "node-name",
                     top);
}

static json_t *drive_command(const PbDisk *drive, const char *command)
{
    g_autofree char *id = vp_id_disk(drive);

    return json_pack("{s:s, s:{s:s}}", "execute", command, "arguments", "id", id);
}

json_t *vp_live_swap_medium(const PbDisk *drive, int old_side, int new_side, gboolean force)
{
    json_t *commands = json_array();
    json_t *open = drive_command(drive, "blockdev-open-tray");

    json_object_set_new(json_object_get(open, "arguments"), "force", json_boolean(force));
    json_object_set_new(open, "undo", drive_command(drive, "blockdev-close-tray"));
    json_array_append_new(commands, open);
    if (old_side >= 0) {
        json_t *remove = drive_command(drive, "blockdev-remove-medium");

        json_object_set_new(remove, "undo", insert_command(drive, (guint)old_side));
        json_array_append_new(commands, remove);
    }
    if (new_side >= 0) {
        json_t *insert = insert_command(drive, (guint)new_side);

        json_object_set_new(insert, "undo", drive_command(drive, "blockdev-remove-medium"));
        json_array_append_new(commands, insert);
    }
    json_array_append_new(commands, drive_command(drive, "blockdev-close-tray"));
    return commands;
}

/* ---- limits ---- */

json_t *vp_live_throttle(const PbDisk *before, const PbDisk *after)
{
    static const PbThrottle none = PB_THROTTLE__INIT;
    json_t *commands = json_array();
    const char *group_before = before->throttle ? before->throttle->group : "";
    const char *group_after = after->throttle ? after->throttle->group : "";
    PbDisk freed = *after;

    freed.throttle = (PbThrottle *)&none;
    /* QEMU leaves a disk in its group unless it is told of another: it leaves when it has no limits. */
    if (!after->throttle || strcmp(group_before, group_after) != 0)
        vp_commands_for_disk(commands, &freed);
    vp_commands_for_disk(commands, after);
    return commands;
}

/* ---- what goes ---- */

typedef struct Leaving {
    const char *name;
    guint64 depth;
    guint rank; /* a format comes before what it lies on */
} Leaving;

static gboolean is_of(const char *name, const char *nodes)
{
    const gsize length = strlen(nodes);

    return name && strncmp(name, nodes, length) == 0 && name[length] == '-';
}

static Leaving read_name(const char *name, const char *nodes)
{
    static const char *const ranks[] = {"", "-window", "-data", "-file"};
    char *rest = NULL;
    Leaving leaving = {.name = name, .depth = g_ascii_strtoull(name + strlen(nodes) + 1, &rest, 10)};

    while (leaving.rank + 1 < G_N_ELEMENTS(ranks) && strcmp(rest, ranks[leaving.rank]) != 0)
        leaving.rank++;
    return leaving;
}

static gint compare(gconstpointer a, gconstpointer b)
{
    const Leaving *first = a;
    const Leaving *second = b;

    if (first->depth != second->depth)
        return first->depth < second->depth ? -1 : 1;
    return (gint)first->rank - (gint)second->rank;
}

static gboolean is_set_of(json_t *set, const char *nodes)
{
    json_t *fd;
    size_t i;

    json_array_foreach(json_object_get(set, "fds"), i, fd)
    {
        if (is_of(json_string_value(json_object_get(fd, "opaque")), nodes))
            return TRUE;
    }
    return FALSE;
}

json_t *vp_live_remove_nodes(json_t *named_nodes, json_t *fdsets, const char *nodes)
{
    g_autoptr(GArray) leaving = g_array_new(FALSE, FALSE, sizeof(Leaving));
    json_t *commands = json_array();
    json_t *item;
    size_t i;

    json_array_foreach(named_nodes, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "node-name"));

        if (is_of(name, nodes)) {
            const Leaving one = read_name(name, nodes);

            g_array_append_val(leaving, one);
        }
    }
    g_array_sort(leaving, compare);
    for (i = 0; i < leaving->len; i++)
        add(commands, "blockdev-del", json_pack("{s:s}", "node-name", g_array_index(leaving, Leaving, i).name));
    json_array_foreach(fdsets, i, item)
    {
        if (is_set_of(item, nodes))
            add(commands, "remove-fd", json_pack("{s:O}", "fdset-id", json_object_get(item, "fdset-id")));
    }
    return commands;
}

guint vp_live_last_fd_set(json_t *fdsets)
{
    json_int_t last = 0;
    json_t *set;
    size_t i;

    json_array_foreach(fdsets, i, set) last = MAX(last, json_integer_value(json_object_get(set, "fdset-id")));
    return (guint)CLAMP(last, 0, G_MAXINT / 2);
}

/* ---- taking back ---- */

json_t *vp_live_undo(json_t *command)
{
    static const struct {
        const char *command;
        const char *undo;
        const char *argument; /* as the one has it */
        const char *as;       /* and as the other wants it */
    } undos[] = {
        {"blockdev-add", "blockdev-del", "node-name", "node-name"},
        {"object-add", "object-del", "id", "id"},
        {"netdev_add", "netdev_del", "id", "id"},
        {"device_add", "device_del", "id", "id"},
        {"add-fd", "remove-fd", "fdset-id", "fdset-id"},
        {"getfd", "closefd", "fdname", "fdname"},
    };
    const char *name = json_string_value(json_object_get(command, "execute"));
    json_t *arguments = json_object_get(command, "arguments");

    if (json_object_get(command, "undo"))
        return json_incref(json_object_get(command, "undo"));
    for (gsize i = 0; i < G_N_ELEMENTS(undos); i++) {
        if (strcmp(undos[i].command, name) == 0)
            return json_pack("{s:s, s:{s:O}}", "execute", undos[i].undo, "arguments", undos[i].as,
                             json_object_get(arguments, undos[i].argument));
    }
    return NULL;
}
