/* See threshold.h. */
#include "threshold.h"

#include "ids.h"

static const json_t *find_node(const json_t *nodes, const char *wanted)
{
    const json_t *node;
    size_t i;

    json_array_foreach(nodes, i, node)
    {
        if (g_strcmp0(json_string_value(json_object_get(node, "node-name")), wanted) == 0)
            return node;
    }
    return NULL;
}

/* The node that the disk's writes go to; NULL: QEMU has none. */
static const json_t *find_written(const json_t *nodes, const PbDisk *disk)
{
    g_autofree char *data = vp_id_disk_written(disk, /* has_data_file= */ TRUE);
    g_autofree char *file = vp_id_disk_written(disk, /* has_data_file= */ FALSE);
    const json_t *node = find_node(nodes, data);

    return node ? node : find_node(nodes, file);
}

json_t *vp_threshold_command(const char *node, guint64 bytes)
{
    return json_pack("{s:s, s:{s:s, s:I}}", "execute", "block-set-write-threshold", "arguments", "node-name", node,
                     "write-threshold", (json_int_t)bytes);
}

/* Adds the one for a disk, if it needs one. */
static void add_command(json_t *commands, const PbDisk *disk, const json_t *nodes)
{
    const json_t *node = find_written(nodes, disk);
    const json_int_t wanted = (json_int_t)disk->write_threshold_bytes;

    if (node && json_integer_value(json_object_get(node, "write_threshold")) != wanted)
        json_array_append_new(commands, vp_threshold_command(json_string_value(json_object_get(node, "node-name")),
                                                             disk->write_threshold_bytes));
}

json_t *vp_threshold_commands_of(const PbDisk *disk, const json_t *nodes)
{
    json_t *commands = json_array();

    add_command(commands, disk, nodes);
    return commands;
}

json_t *vp_threshold_commands(const PbDomainSpec *spec, const json_t *nodes)
{
    json_t *commands = json_array();

    for (size_t i = 0; i < spec->n_disks; i++)
        add_command(commands, spec->disks[i], nodes);
    return commands;
}
