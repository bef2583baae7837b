/* Clients that come in: see visitors.h. */
#include "server/services/visitors.h"

#include "base/log.h"
#include "base/thread.h"

/* Who has been silent for so long comes in anew. */
#define SILENT_US (G_GINT64_CONSTANT(3600) * G_USEC_PER_SEC)
/* So many are known; one more, and all are forgotten. */
#define MAX_KNOWN 4096
/* So many are told at once, and so many a second after that: no client fills the journal by connecting. */
#define TELL_AT_ONCE 50
#define TELL_A_SECOND 10

struct VpVisitors {
    VpStore *store;
    pthread_mutex_t mutex;
    GHashTable *last_us; /* the caller's text to when it called last */
    gint64 tell_us;      /* the allowance: what of the time up to now was not used for telling */
    guint64 untold;
};

VpVisitors *vp_visitors_new(VpStore *store)
{
    VpVisitors *visitors = g_new0(VpVisitors, 1);

    visitors->store = store;
    pthread_mutex_init(&visitors->mutex, NULL);
    visitors->last_us = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    return visitors;
}

void vp_visitors_free(VpVisitors *visitors)
{
    if (!visitors)
        return;
    g_hash_table_unref(visitors->last_us);
    pthread_mutex_destroy(&visitors->mutex);
    g_free(visitors);
}

/* Under the mutex. */
static gboolean may_tell(VpVisitors *visitors, gint64 now_us)
{
    const gint64 each_us = G_USEC_PER_SEC / TELL_A_SECOND;

    visitors->tell_us = MAX(visitors->tell_us, now_us - TELL_AT_ONCE * each_us);
    if (visitors->tell_us + each_us > now_us) {
        visitors->untold++;
        return FALSE;
    }
    visitors->tell_us += each_us;
    return TRUE;
}

/* Whether it is to be told that this one came; `ret_untold` is how many were not since the last one that was. */
static gboolean comes_in(VpVisitors *visitors, const char *caller, guint64 *ret_untold)
{
    const gint64 now_us = vp_now_us();

    VP_LOCK(&visitors->mutex);
    gint64 *last_us = g_hash_table_lookup(visitors->last_us, caller);
    const gboolean known = last_us && now_us - *last_us < SILENT_US;
    if (last_us) {
        *last_us = now_us;
    } else {
        if (g_hash_table_size(visitors->last_us) >= MAX_KNOWN)
            g_hash_table_remove_all(visitors->last_us);
        g_hash_table_insert(visitors->last_us, g_strdup(caller), g_memdup2(&now_us, sizeof(now_us)));
    }
    if (known || !may_tell(visitors, now_us))
        return FALSE;
    *ret_untold = visitors->untold;
    visitors->untold = 0;
    return TRUE;
}

static void committed(void *data, gint64 revision, const VpError *error)
{
    (void)data;
    (void)revision;
    if (error)
        vp_log(VP_LOG_WARNING, "a client that came in is not in the journal: %s", error->message);
}

void vp_visitors_note(VpVisitors *visitors, const char *identity, const char *caller)
{
    guint64 untold = 0;

    if (!comes_in(visitors, caller, &untold))
        return;
    g_autofree char *safe = g_utf8_make_valid(caller, -1);
    g_autofree char *detail =
        untold ? g_strdup_printf("%s (%" G_GUINT64_FORMAT " more before it were not told)", safe, untold)
               : g_strdup(safe);
    g_autofree char *name = g_utf8_make_valid(identity, -1);
    PbEvent event = PB_EVENT__INIT;
    VpTxn *txn = vp_txn_new();

    event.type = PB_EVENT_TYPE_CLIENT_CONNECTED;
    event.resource_type = (char *)"connection";
    event.name = name;
    event.reason = (char *)"FIRST_CALL";
    event.detail = detail;
    vp_txn_event(txn, &event);
    vp_store_commit(visitors->store, txn, committed, NULL);
}
