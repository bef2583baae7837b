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

json_t *vp_threshold_commands(const PbDomainSpec *spec, const json_t *nodes)
{
    json_t *commands = json_array();

    for (size_t i = 0; i < spec->n_disks; i++) {
        const PbDisk *disk = spec->disks[i];
        const json_t *node = find_written(nodes, disk);
        const json_int_t wanted = (json_int_t)disk->write_threshold_bytes;

        if (!node || json_integer_value(json_object_get(node, "write_threshold")) == wanted)
            continue;
        json_array_append_new(commands,
                              json_pack("{s:s, s:{s:s, s:I}}", "execute", "block-set-write-threshold", "arguments",
                                        "node-name", json_string_value(json_object_get(node, "node-name")),
                                        "write-threshold", wanted));
    }
    return commands;
}
