/*
 * What is put away in a guest once nobody needs it: files are closed, programs are asked after until they have ended, so that the agent forgets them. One thing
 * at a time; what cannot be done now, since the agent is busy, silent or frozen, is tried again. See guest.h.
 */
#include "base/log.h"
#include "base/thread.h"
#include "guest.h"
#include "guest_read.h"

/* More than all calls together can have open. */
#define MAX_ITEMS 512
#define COMMAND_US (30 * G_USEC_PER_SEC)
#define FIRST_MS 250
#define MAX_MS 15000

typedef enum Kind {
    CLOSE,
    REAP,
    RUN,
} Kind;

typedef struct Item {
    Kind kind;
    gint64 number;     /* the handle, or the process */
    json_t *arguments; /* of RUN */
    gint64 due_us;
    guint wait_ms; /* until the next try */
} Item;

struct VpGuestCleanup {
    guint refs;           /* ours, and one of the command or the timer that is under way */
    VpQemuDomain *domain; /* borrowed; NULL once it is freed */
    GQueue items;         /* of Item */
    Item *current;        /* a command of it is under way; NULL while one of a former agent is, too */
    gboolean busy;
    VpTimer *timer;
};

static void next(VpGuestCleanup *cleanup);

static void item_free(void *data)
{
    Item *item = data;

    json_decref(item->arguments);
    g_free(item);
}

static void cleanup_unref(VpGuestCleanup *cleanup)
{
    if (--cleanup->refs == 0)
        g_free(cleanup);
}

VpGuestCleanup *vp_guest_cleanup_new(VpQemuDomain *domain)
{
    VpGuestCleanup *cleanup = g_new0(VpGuestCleanup, 1);

    cleanup->refs = 1;
    cleanup->domain = domain;
    g_queue_init(&cleanup->items);
    return cleanup;
}

void vp_guest_cleanup_forget(VpGuestCleanup *cleanup)
{
    g_queue_clear_full(&cleanup->items, item_free);
    g_clear_pointer(&cleanup->current, item_free);
    if (vp_timer_cancel(g_steal_pointer(&cleanup->timer)))
        cleanup_unref(cleanup);
}

void vp_guest_cleanup_free(VpGuestCleanup *cleanup)
{
    vp_guest_cleanup_forget(cleanup);
    cleanup->domain = NULL;
    cleanup_unref(cleanup);
}

/* ---- one item ---- */

/* Whether it is worth another try. */
static gboolean may_try_again(const VpError *error)
{
    return error->code == VP_DEADLINE_EXCEEDED || error->code == VP_RESOURCE_EXHAUSTED ||
           g_strcmp0(error->reason, "GUEST_FROZEN") == 0 || g_strcmp0(error->reason, "AGENT_GARBAGE") == 0;
}

static void try_later(VpGuestCleanup *cleanup, Item *item)
{
    item->due_us = vp_now_us() + (gint64)item->wait_ms * 1000;
    item->wait_ms = MIN(item->wait_ms * 2, MAX_MS);
    g_queue_push_tail(&cleanup->items, item);
}

static void on_done(void *data, json_t *result, VpError *error)
{
    VpGuestCleanup *cleanup = data;
    Item *item = g_steal_pointer(&cleanup->current);
    gint64 pid;

    cleanup->busy = FALSE;
    if (item && error && may_try_again(error)) {
        try_later(cleanup, g_steal_pointer(&item));
    } else if (item && !error && item->kind == REAP && json_is_false(json_object_get(result, "exited"))) {
        try_later(cleanup, g_steal_pointer(&item));
    } else if (item && !error && item->kind == RUN && vp_guest_read_pid(result, &pid)) {
        item->kind = REAP;
        item->number = pid;
        try_later(cleanup, g_steal_pointer(&item));
    }
    g_clear_pointer(&item, item_free);
    vp_error_free(error);
    next(cleanup);
    cleanup_unref(cleanup);
}

static void begin(VpGuestCleanup *cleanup, Item *item)
{
    const char *command = item->kind == CLOSE  ? "guest-file-close"
                          : item->kind == REAP ? "guest-exec-status"
                                               : "guest-exec";
    json_t *arguments = item->kind == CLOSE  ? json_pack("{s:I}", "handle", (json_int_t)item->number)
                        : item->kind == REAP ? json_pack("{s:I}", "pid", (json_int_t)item->number)
                                             : json_deep_copy(item->arguments);

    cleanup->busy = TRUE;
    cleanup->current = item;
    cleanup->refs++;
    vp_qemu_agent_execute(cleanup->domain, command, arguments, vp_now_us() + COMMAND_US, on_done, cleanup);
}

/* ---- all of them ---- */

static void on_timer(void *data)
{
    VpGuestCleanup *cleanup = data;

    vp_timer_cancel(g_steal_pointer(&cleanup->timer));
    next(cleanup);
    cleanup_unref(cleanup);
}

static void next(VpGuestCleanup *cleanup)
{
    const gint64 now_us = vp_now_us();
    gint64 earliest_us = G_MAXINT64;

    if (cleanup->busy || !cleanup->domain)
        return;
    for (GList *link = cleanup->items.head; link; link = link->next) {
        Item *item = link->data;

        if (item->due_us <= now_us) {
            g_queue_delete_link(&cleanup->items, link);
            begin(cleanup, item);
            return;
        }
        earliest_us = MIN(earliest_us, item->due_us);
    }
    if (earliest_us == G_MAXINT64)
        return;
    if (vp_timer_cancel(g_steal_pointer(&cleanup->timer)))
        cleanup_unref(cleanup);
    cleanup->refs++;
    cleanup->timer = vp_timer_start(cleanup->domain->driver->host->loop, (guint64)(earliest_us - now_us) / 1000 + 1,
                                    on_timer, cleanup);
}

static void add(VpGuestCleanup *cleanup, Kind kind, gint64 number, json_t *arguments)
{
    Item *item = g_new(Item, 1);

    *item = (Item){.kind = kind, .number = number, .arguments = arguments, .wait_ms = FIRST_MS};
    if (cleanup->items.length >= MAX_ITEMS) {
        vp_log(VP_LOG_WARNING, "domain %s: its guest's agent leaves too much open; some of it stays so",
               cleanup->domain->name);
        item_free(item);
        return;
    }
    g_queue_push_tail(&cleanup->items, item);
    next(cleanup);
}

void vp_guest_cleanup_close(VpGuestCleanup *cleanup, gint64 handle)
{
    add(cleanup, CLOSE, handle, NULL);
}

void vp_guest_cleanup_reap(VpGuestCleanup *cleanup, gint64 pid)
{
    add(cleanup, REAP, pid, NULL);
}

void vp_guest_cleanup_run(VpGuestCleanup *cleanup, json_t *arguments)
{
    add(cleanup, RUN, 0, arguments);
}
