/* See live_read.h. */
#include "live_read.h"

#include <string.h>

#include "base/pb.h"
#include "ids.h"

gboolean vp_live_has(json_t *list, const char *name)
{
    json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        if (g_strcmp0(json_string_value(json_object_get(item, "name")), name) == 0)
            return TRUE;
    }
    return FALSE;
}

json_t *vp_live_find_block(json_t *blocks, const PbDisk *disk)
{
    g_autofree char *id = vp_id_disk(disk);
    g_autofree char *backend = vp_id_disk_backend(disk);
    json_t *block;
    size_t i;

    json_array_foreach(blocks, i, block)
    {
        const char *qdev = json_string_value(json_object_get(block, "qdev"));

        if (g_strcmp0(qdev, backend) == 0 || g_strcmp0(qdev, id) == 0)
            return block;
    }
    return NULL;
}

const char *vp_live_node(json_t *block)
{
    return json_string_value(json_object_get(json_object_get(block, "inserted"), "node-name"));
}

/* NULL: none. */
static PbThrottle *throttle_of(json_t *block, const PbDisk *disk)
{
    json_t *inserted = json_object_get(block, "inserted");
    g_autofree char *own = vp_id_disk_backend(disk);
    const char *group = json_string_value(json_object_get(inserted, "group"));
    PbThrottle *throttle = vp_pb_new(&pb_throttle__descriptor);
    const struct {
        const char *key;
        guint64 *field;
    } fields[] = {
        {"bps", &throttle->total_bytes_per_second},       {"bps_rd", &throttle->read_bytes_per_second},
        {"bps_wr", &throttle->write_bytes_per_second},    {"iops", &throttle->total_requests_per_second},
        {"iops_rd", &throttle->read_requests_per_second}, {"iops_wr", &throttle->write_requests_per_second},
    };
    gboolean any = FALSE;

    for (guint i = 0; i < G_N_ELEMENTS(fields); i++) {
        *fields[i].field = (guint64)MAX(0, json_integer_value(json_object_get(inserted, fields[i].key)));
        any = any || *fields[i].field;
    }
    if (!any) {
        vp_pb_free(throttle);
        return NULL;
    }
    if (group && strcmp(group, own) != 0)
        vp_pb_set(&throttle->group, group);
    return throttle;
}

static gboolean has_limits(const PbThrottle *t)
{
    return t && (t->total_bytes_per_second || t->read_bytes_per_second || t->write_bytes_per_second ||
                 t->total_requests_per_second || t->read_requests_per_second || t->write_requests_per_second);
}

gboolean vp_live_same_throttle(json_t *block, const PbDisk *disk)
{
    vp_pb_auto PbThrottle *there = throttle_of(block, disk);

    if (!there || !has_limits(disk->throttle))
        return !there && !has_limits(disk->throttle);
    return vp_pb_equal(there, disk->throttle);
}

void vp_live_read_throttle(json_t *block, PbDisk *disk)
{
    PbThrottle *there = throttle_of(block, disk);

    vp_pb_free(disk->throttle);
    disk->throttle = there;
}
