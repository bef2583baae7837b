/* See record_plan.h. */
#include "storage/chain/record_plan.h"

#include <string.h>

#include "storage/probe/qcow2.h"

#define SECTOR 512u

/* Where things are and go to; all within the first cluster. */
typedef struct Room {
    gsize extension; /* the new extension; the old end mark is here, if there is one */
    gsize body;      /* behind its 8 bytes */
    gsize area_end;  /* behind the new end mark */
    gsize name;      /* the backing name now */
    gsize name_size;
    gsize new_name; /* where it goes to; the same if it stays */
    gboolean has_end_mark;
} Room;

static gsize align8(gsize value)
{
    return (value + 7) & ~(gsize)7;
}

static guint64 get_be(const guint8 *p, guint bytes)
{
    guint64 value = 0;
    for (guint i = 0; i < bytes; i++) {
        value = value << 8 | p[i];
    }
    return value;
}

static void put_be(guint8 *p, guint64 value, guint bytes)
{
    for (guint i = 0; i < bytes; i++) {
        p[i] = (guint8)(value >> 8 * (bytes - 1 - i));
    }
}

static gboolean all_zero(const guint8 *head, gsize from, gsize to)
{
    for (gsize i = from; i < to; i++) {
        if (head[i] != 0) {
            return FALSE;
        }
    }
    return TRUE;
}

static const char *find_room(const guint8 *head, gsize head_size, gsize format_size, Room *ret)
{
    VpQcow2Layout layout;
    if (!vp_qcow2_layout(head, head_size, &layout) || head_size < layout.cluster_size) {
        return "its header cannot be followed to its end";
    }
    Room room = {
        .extension = layout.extensions_end,
        .name = (gsize)get_be(head + 8, 8),
        .name_size = (gsize)get_be(head + 16, 4),
        .has_end_mark = layout.has_end_mark,
    };
    if (layout.has_backing_format) {
        return "it holds an empty backing format already";
    }
    room.body = room.extension + 8;
    room.area_end = room.body + align8(format_size) + 8;
    gsize name_end = room.name + room.name_size;
    if (!room.has_end_mark && (room.extension != room.name || room.body > SECTOR)) {
        return "its header extensions have no end mark";
    }
    gsize free_from = room.has_end_mark ? room.body : room.extension;
    if (room.name >= room.area_end) {
        room.new_name = room.name;
    } else {
        room.new_name = align8(MAX(room.area_end, name_end));
    }
    gsize last = MAX(room.area_end, room.new_name + room.name_size);
    if (last > layout.cluster_size) {
        return "its first cluster has no room for it";
    }
    /* All that is written over has to be free: everything to the last byte but the name itself. */
    if (!all_zero(head, free_from, MIN(room.name, last)) || !all_zero(head, MIN(name_end, last), last)) {
        return "its first cluster holds something unknown in the place for it";
    }
    *ret = room;
    return NULL;
}

static void add(VpRecordPlan *plan, const guint8 *image, gsize from, gsize to)
{
    plan->writes[plan->n_writes++] = (VpHeaderWrite){from, g_bytes_new(image + from, to - from)};
}

const char *vp_record_plan(const guint8 *head, gsize head_size, const char *format, VpRecordPlan *ret)
{
    gsize format_size = strlen(format);
    Room room;
    const char *why = find_room(head, head_size, format_size, &room);
    if (why) {
        return why;
    }
    /* The first cluster as it shall be; the writes are cut out of it as it grows. */
    gsize size = MAX(MAX(room.area_end, room.new_name + room.name_size), room.name + room.name_size);
    g_autofree guint8 *image = g_memdup2(head, size);
    VpRecordPlan plan = {.extension_offset = room.extension};

    if (room.new_name != room.name) {
        memcpy(image + room.new_name, head + room.name, room.name_size);
        add(&plan, image, room.new_name, room.new_name + room.name_size);
        put_be(image + 8, room.new_name, 8);
        if (room.has_end_mark) {
            add(&plan, image, 8, 16);
        } else {
            /* The area was ended by the name; now that this is elsewhere, it needs a mark, at the same stroke. */
            memset(image + room.extension, 0, 8);
            add(&plan, image, 8, room.body);
        }
        memset(image + room.body, 0, room.new_name - room.body);
    }
    memcpy(image + room.body, format, format_size);
    add(&plan, image, room.body, room.new_name != room.name ? room.new_name : room.area_end);
    put_be(image + room.extension, VP_QCOW2_EXT_BACKING_FORMAT, 4);
    put_be(image + room.extension + 4, format_size, 4);
    add(&plan, image, room.extension, room.body);
    *ret = plan;
    return NULL;
}

void vp_record_plan_clear(VpRecordPlan *plan)
{
    for (guint i = 0; i < plan->n_writes; i++) {
        g_bytes_unref(plan->writes[i].bytes);
    }
    plan->n_writes = 0;
}
