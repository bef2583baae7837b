/*
 * Domains that are started with the host: once in each boot, some at a time, in their order, and beside everything else. A marker in the state folder holds the
 * boot that it was done in, so that a domain that somebody has stopped stays off when the daemon is restarted. Called by the daemon when it answers.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"

#define ADOPTING_MS 200

typedef struct Item {
    guint32 order;
    char *name;
    char *uid;
} Item;

/* A boot's starts. Held by whoever pumps, and by each start under way. */
typedef struct Autostart {
    gint refs;
    VpDomains *domains;
    guint parallel;
    char *boot;
    gint64
        since_us; /* those whose state has changed since then had their turn: an earlier daemon has begun at that time */
    GPtrArray *items;

    pthread_mutex_t mutex; /* guards what follows */
    guint next;
    guint running;
    gboolean pumping;
    gboolean stopped; /* the daemon stops: the next one goes on */
} Autostart;

static void item_free(void *data)
{
    Item *item = data;

    g_free(item->name);
    g_free(item->uid);
    g_free(item);
}

static void autostart_unref(Autostart *autostart)
{
    if (!g_atomic_int_dec_and_test(&autostart->refs))
        return;
    g_ptr_array_unref(autostart->items);
    pthread_mutex_destroy(&autostart->mutex);
    g_free(autostart->boot);
    g_free(autostart);
}

/* ---- the marker: "BOOT begun MICROSECONDS" or "BOOT done" ---- */

/* Which boot of the host this is; NULL: it cannot be told. */
static char *read_boot(void)
{
    char *boot = NULL;

    return g_file_get_contents("/proc/sys/kernel/random/boot_id", &boot, NULL, NULL) ? g_strstrip(boot) : NULL;
}

/* FALSE: it was done in this boot. */
static gboolean read_marker(const char *path, const char *boot, gint64 *ret_since_us)
{
    g_autofree char *text = NULL;
    char marked[64] = "";
    char word[16] = "";
    gint64 since_us = 0;

    *ret_since_us = vp_wall_us();
    if (!g_file_get_contents(path, &text, NULL, NULL) ||
        sscanf(text, "%63s %15s %" G_GINT64_FORMAT, marked, word, &since_us) < 2 || strcmp(marked, boot) != 0)
        return TRUE;
    if (strcmp(word, "done") == 0)
        return FALSE;
    *ret_since_us = since_us;
    return TRUE;
}

static void write_marker(const Autostart *autostart, gboolean done)
{
    g_autofree char *text =
        done ? g_strdup_printf("%s done\n", autostart->boot)
             : g_strdup_printf("%s begun %" G_GINT64_FORMAT "\n", autostart->boot, autostart->since_us);
    g_autoptr(GError) error = NULL;

    if (!g_file_set_contents_full(autostart->domains->autostart_path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600,
                                  &error))
        vp_log(VP_LOG_WARNING,
               "the marker of this boot cannot be written, so that the next daemon starts domains again: %s",
               error->message);
}

/* Runs `work` on the pool; the daemon's end waits for it, which calls vp_domains_leave(). Takes the reference. */
static void hand_over(Autostart *autostart, void (*work)(void *data))
{
    VpDomains *domains = autostart->domains;

    pthread_mutex_lock(&domains->mutex);
    const gboolean enters = !domains->stopping;
    if (enters)
        domains->inside++;
    pthread_mutex_unlock(&domains->mutex);
    if (enters && vp_pool_submit(domains->pool, work, autostart))
        return;
    autostart_unref(autostart);
    if (enters)
        vp_domains_leave(domains);
}

/* ---- what is told ---- */

static VpError *apply_failed(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const VpError *error = data;
    g_autofree char *detail = vp_event_text(error->message);

    (void)record;
    vp_domain_event(txn, draft, PB_EVENT_TYPE_DOMAIN_AUTOSTART_FAILED, error->reason ? error->reason : "", detail);
    return NULL;
}

static void failure_free(void *data)
{
    vp_error_free(data);
}

static void tell_failed(const Autostart *autostart, const Item *item, const VpError *error)
{
    g_autoptr(VpRecord) record = vp_registry_find_uid(autostart->domains, item->uid);

    vp_log(VP_LOG_ERROR, "the domain %s could not be started with the host: %s", item->name, error->message);
    if (!record)
        return;
    const VpMutation mutation = {
        .apply = apply_failed,
        .destroy = failure_free,
        .data = vp_error_copy(error),
        .observed = TRUE,
        .event_only = TRUE,
    };
    vp_record_mutate(record, &mutation);
}

/* ---- the starts ---- */

typedef struct Turn {
    Autostart *autostart;
    const Item *item;
} Turn;

static void pump(Autostart *autostart);

static void mark_done(void *data)
{
    Autostart *autostart = data;
    VpDomains *domains = autostart->domains;

    write_marker(autostart, /* done= */ TRUE);
    vp_log(VP_LOG_INFO, "%u domains had their turn to be started with the host", autostart->items->len);
    autostart_unref(autostart);
    vp_domains_leave(domains);
}

/* Whether somebody else has started it, or it was deleted. */
static gboolean is_no_failure(const VpError *error)
{
    return g_strcmp0(error->reason, "WRONG_STATE") == 0 || g_strcmp0(error->reason, "DOMAIN_NOT_FOUND") == 0;
}

static void started(void *data, const VpDomainResult *result)
{
    g_autofree Turn *turn = data;
    Autostart *autostart = turn->autostart;
    const VpError *error = result->error;
    const gboolean stops = error && g_strcmp0(error->reason, "DAEMON_STOPPING") == 0;

    if (error && !stops && !is_no_failure(error))
        tell_failed(autostart, turn->item, error);
    pthread_mutex_lock(&autostart->mutex);
    autostart->running--;
    autostart->stopped = autostart->stopped || stops;
    pthread_mutex_unlock(&autostart->mutex);
    pump(autostart);
    autostart_unref(autostart);
}

static void start_one(Autostart *autostart, const Item *item)
{
    const VpDomainCaller caller = {.identity = "daemon", .text = "the daemon (autostart)", .request_id = ""};
    const VpVerbRequest request = {.verb = VP_VERB_START, .uid = item->uid, .reason = "AUTOSTART"};
    Turn *turn = g_new(Turn, 1);

    g_atomic_int_inc(&autostart->refs);
    *turn = (Turn){.autostart = autostart, .item = item};
    vp_domains_verb(autostart->domains, &request, &caller, started, turn);
}

/* Gives turns to as many as may run beside each other. */
static void pump(Autostart *autostart)
{
    pthread_mutex_lock(&autostart->mutex);
    if (autostart->pumping) {
        pthread_mutex_unlock(&autostart->mutex);
        return;
    }
    autostart->pumping = TRUE;
    while (!autostart->stopped && autostart->running < autostart->parallel && autostart->next < autostart->items->len) {
        const Item *item = g_ptr_array_index(autostart->items, autostart->next++);

        autostart->running++;
        pthread_mutex_unlock(&autostart->mutex);
        start_one(autostart, item);
        pthread_mutex_lock(&autostart->mutex);
    }
    const gboolean through = autostart->running == 0 && autostart->next == autostart->items->len && !autostart->stopped;
    /* Once it is through nobody pumps again. */
    autostart->pumping = through;
    pthread_mutex_unlock(&autostart->mutex);
    if (!through)
        return;
    g_atomic_int_inc(&autostart->refs);
    hand_over(autostart, mark_done);
}

/* ---- whose turn it is ---- */

static gint compare_items(gconstpointer a, gconstpointer b)
{
    const Item *x = *(Item *const *)a;
    const Item *y = *(Item *const *)b;

    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return strcmp(x->name, y->name);
}

static gboolean collect(gpointer key, gpointer value, gpointer data)
{
    Autostart *autostart = data;
    const VpRecord *record = value;
    const PbDomain *domain = record->committed;

    (void)key;
    if (!domain || !domain->autostart || vp_domain_runs(domain) ||
        vp_pb_timestamp_us(domain->status->state_time) > autostart->since_us)
        return FALSE;
    Item *item = g_new0(Item, 1);
    item->order = domain->autostart_order;
    item->name = g_strdup(domain->name);
    item->uid = g_strdup(domain->uid);
    g_ptr_array_add(autostart->items, item);
    return FALSE;
}

static void begin(void *data)
{
    Autostart *autostart = data;
    VpDomains *domains = autostart->domains;

    pthread_mutex_lock(&domains->mutex);
    g_tree_foreach(domains->by_name, collect, autostart);
    pthread_mutex_unlock(&domains->mutex);
    g_ptr_array_sort(autostart->items, compare_items);
    write_marker(autostart, /* done= */ FALSE);
    pump(autostart);
    autostart_unref(autostart);
    vp_domains_leave(domains);
}

/* On the loop: which domains run is known once all that run were taken up. */
static void look(void *data)
{
    Autostart *autostart = data;
    VpDomains *domains = autostart->domains;

    pthread_mutex_lock(&domains->mutex);
    VpTimer *timer = g_steal_pointer(&domains->autostart_timer);
    const gboolean wait = domains->adopting > 0 && !domains->stopping;
    if (wait)
        domains->autostart_timer = vp_timer_start(domains->loop, ADOPTING_MS, look, autostart);
    pthread_mutex_unlock(&domains->mutex);
    vp_timer_cancel(timer);
    if (!wait)
        hand_over(autostart, begin);
}

void vp_domains_autostart(VpDomains *domains, guint parallel)
{
    g_autofree char *boot = read_boot();
    gint64 since_us = 0;

    if (parallel == 0 || !boot || !read_marker(domains->autostart_path, boot, &since_us))
        return;
    Autostart *autostart = g_new0(Autostart, 1);
    autostart->refs = 1;
    autostart->domains = domains;
    autostart->parallel = parallel;
    autostart->boot = g_steal_pointer(&boot);
    autostart->since_us = since_us;
    autostart->items = g_ptr_array_new_with_free_func(item_free);
    pthread_mutex_init(&autostart->mutex, NULL);
    VP_LOCK(&domains->mutex);
    domains->autostart_data = autostart;
    domains->autostart_timer = vp_timer_start(domains->loop, 0, look, autostart);
}

void vp_domains_end_autostart(VpDomains *domains)
{
    pthread_mutex_lock(&domains->mutex);
    VpTimer *timer = g_steal_pointer(&domains->autostart_timer);
    pthread_mutex_unlock(&domains->mutex);
    if (vp_timer_cancel(timer))
        autostart_unref(domains->autostart_data);
}
