/* Turns: see fair.h. Groups and lanes are there for as long as something of them waits. */
#include "base/fair.h"

typedef struct Lane {
    guint64 id;
    GQueue items;
    GList link; /* in its group's */
} Lane;

typedef struct Group {
    guint64 id;
    guint length;
    GHashTable *lanes; /* by id */
    GQueue turns;      /* of its lanes */
    GList link;
} Group;

struct VpFair {
    guint length;
    GHashTable *groups; /* by id */
    GQueue turns;       /* of the groups */
};

static void lane_free(gpointer data)
{
    Lane *lane = data;

    g_queue_clear(&lane->items);
    g_free(lane);
}

static void group_free(gpointer data)
{
    Group *group = data;

    g_hash_table_unref(group->lanes);
    g_free(group);
}

VpFair *vp_fair_new(void)
{
    VpFair *fair = g_new0(VpFair, 1);

    fair->groups = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, group_free);
    g_queue_init(&fair->turns);
    return fair;
}

void vp_fair_free(VpFair *fair)
{
    if (!fair)
        return;
    g_hash_table_unref(fair->groups);
    g_free(fair);
}

static Group *take_group(VpFair *fair, guint64 id)
{
    Group *group = g_hash_table_lookup(fair->groups, &id);

    if (group)
        return group;
    group = g_new0(Group, 1);
    group->id = id;
    group->link.data = group;
    group->lanes = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, lane_free);
    g_queue_init(&group->turns);
    g_hash_table_insert(fair->groups, &group->id, group);
    g_queue_push_tail_link(&fair->turns, &group->link);
    return group;
}

static Lane *take_lane(Group *group, guint64 id)
{
    Lane *lane = g_hash_table_lookup(group->lanes, &id);

    if (lane)
        return lane;
    lane = g_new0(Lane, 1);
    lane->id = id;
    lane->link.data = lane;
    g_queue_init(&lane->items);
    g_hash_table_insert(group->lanes, &lane->id, lane);
    g_queue_push_tail_link(&group->turns, &lane->link);
    return lane;
}

void vp_fair_push(VpFair *fair, guint64 group_id, guint64 lane_id, void *item)
{
    Group *group = take_group(fair, group_id);

    g_queue_push_tail(&take_lane(group, lane_id)->items, item);
    group->length++;
    fair->length++;
}

void *vp_fair_pop(VpFair *fair)
{
    if (fair->length == 0)
        return NULL;
    GList *group_link = g_queue_pop_head_link(&fair->turns);
    Group *group = group_link->data;
    GList *lane_link = g_queue_pop_head_link(&group->turns);
    Lane *lane = lane_link->data;
    void *item = g_queue_pop_head(&lane->items);

    fair->length--;
    group->length--;
    if (lane->items.length > 0)
        g_queue_push_tail_link(&group->turns, lane_link);
    else
        g_hash_table_remove(group->lanes, &lane->id);
    if (group->length > 0)
        g_queue_push_tail_link(&fair->turns, group_link);
    else
        g_hash_table_remove(fair->groups, &group->id);
    return item;
}

guint vp_fair_length(const VpFair *fair)
{
    return fair->length;
}

guint vp_fair_group_length(const VpFair *fair, guint64 group)
{
    const Group *found = g_hash_table_lookup(fair->groups, &group);

    return found ? found->length : 0;
}

guint vp_fair_lane_length(const VpFair *fair, guint64 group, guint64 lane)
{
    const Group *found = g_hash_table_lookup(fair->groups, &group);
    const Lane *of_it = found ? g_hash_table_lookup(found->lanes, &lane) : NULL;

    return of_it ? of_it->items.length : 0;
}
