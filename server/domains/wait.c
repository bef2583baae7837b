/* Waiting for a domain's end, which is no job: nothing else waits behind it. See domains.h. */
#include "base/thread.h"
#include "server/domains/internal.h"

/* Held by its owner, by the list until it is told, and by the timer. */
struct VpOffWait {
    gint refs;
    VpDomains *domains;
    char *uid;
    void (*done)(void *data, const VpError *error);
    void *data;
    VpTimer *timer; /* under the mutex, as the rest */
    gboolean told;  /* or let go */
};

static void wait_unref(VpOffWait *wait)
{
    if (!g_atomic_int_dec_and_test(&wait->refs))
        return;
    g_free(wait->uid);
    g_free(wait);
}

/* Takes it out of the list; FALSE: somebody else has. The caller has the list's reference then. */
static gboolean take(VpOffWait *wait)
{
    VpDomains *domains = wait->domains;

    pthread_mutex_lock(&domains->mutex);
    const gboolean mine = !wait->told;
    VpTimer *timer = g_steal_pointer(&wait->timer);
    wait->told = TRUE;
    if (mine)
        g_ptr_array_remove_fast(domains->off_waits, wait);
    pthread_mutex_unlock(&domains->mutex);
    /* One that fires now drops its reference itself. */
    if (vp_timer_cancel(timer))
        wait_unref(wait);
    return mine;
}

static void end(VpOffWait *wait, const VpError *error)
{
    if (!take(wait))
        return;
    wait->done(wait->data, error);
    wait_unref(wait);
}

/* Under the mutex. */
static gboolean is_over(VpDomains *domains, const char *uid)
{
    const VpRecord *record = g_hash_table_lookup(domains->by_uid, uid);

    return !record || !record->committed || !vp_domain_runs(record->committed);
}

static void on_timer(void *data)
{
    VpOffWait *wait = data;
    g_autoptr(VpError) error = NULL;

    pthread_mutex_lock(&wait->domains->mutex);
    const gboolean over = is_over(wait->domains, wait->uid);
    pthread_mutex_unlock(&wait->domains->mutex);
    if (!over)
        error = vp_error_new(VP_DEADLINE_EXCEEDED, "STILL_RUNNING",
                             "the domain %s still runs: its guest was asked to shut down, and may do it yet; powering "
                             "it off works",
                             wait->uid);
    end(wait, error);
    wait_unref(wait);
}

/* Those of one domain if it is over, or of all (NULL), each with a reference. */
static GPtrArray *collect(VpDomains *domains, const char *uid)
{
    GPtrArray *found = g_ptr_array_new_with_free_func((GDestroyNotify)wait_unref);

    VP_LOCK(&domains->mutex);
    if (domains->off_waits->len == 0 || (uid && !is_over(domains, uid)))
        return found;
    for (guint i = 0; i < domains->off_waits->len; i++) {
        VpOffWait *wait = g_ptr_array_index(domains->off_waits, i);

        if (uid && !g_str_equal(wait->uid, uid))
            continue;
        g_atomic_int_inc(&wait->refs);
        g_ptr_array_add(found, wait);
    }
    return found;
}

void vp_domains_wake_waits(VpRecord *record)
{
    VpDomains *domains = record->domains;
    g_autoptr(GPtrArray) waits = collect(domains, record->uid);

    for (guint i = 0; i < waits->len; i++)
        end(waits->pdata[i], NULL);
}

void vp_domains_end_waits(VpDomains *domains)
{
    g_autoptr(GPtrArray) waits = collect(domains, NULL);
    g_autoptr(VpError) error = vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon stops");

    for (guint i = 0; i < waits->len; i++)
        end(waits->pdata[i], error);
}

VpOffWait *vp_domains_wait_off(VpDomains *domains, const char *uid, gint64 deadline_us,
                               void (*done)(void *data, const VpError *error), void *data)
{
    VpOffWait *wait = g_new0(VpOffWait, 1);

    wait->refs = 3;
    wait->domains = domains;
    wait->uid = g_strdup(uid);
    wait->done = done;
    wait->data = data;
    VP_LOCK(&domains->mutex);
    /* What has ended before is told by the timer as well. */
    const guint64 left_ms = is_over(domains, uid) ? 0 : (guint64)MAX(0, deadline_us - vp_now_us()) / 1000;
    g_ptr_array_add(domains->off_waits, wait);
    wait->timer = vp_timer_start(domains->loop, left_ms, on_timer, wait);
    return wait;
}

gboolean vp_off_wait_end(VpOffWait *wait)
{
    if (!wait)
        return FALSE;
    const gboolean mine = take(wait);
    if (mine)
        wait_unref(wait);
    wait_unref(wait);
    return mine;
}
