/* See soak.h. Each step prints what changed of the latencies and the files' sizes; they are to stay as they are. */
#include "tests/bench/soak.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/thread.h"
#include "server/store/store.h"
#include "tests/bench/bench.h"

#define SOAK_STEP 100000
#define SOAK_KEPT 100000
#define SOAK_KEYS 1000
#define SOAK_IN_FLIGHT 256
#define SOAK_PROBES 200
/* The size of what a domain's row has. */
#define ROW_BYTES 330

typedef struct Soak {
    VpStore *store;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    guint in_flight;
    gint64 woken_us;
    gint64 longest_us; /* from a commit to its answer */
} Soak;

typedef struct SoakCommit {
    Soak *soak;
    gint64 start_us;
} SoakCommit;

static void soak_done(void *data, gint64 revision, const VpError *error)
{
    g_autofree SoakCommit *commit = data;
    Soak *soak = commit->soak;

    if (error)
        bench_die("commit at %" G_GINT64_FORMAT ": %s", revision, error->message);
    VP_LOCK(&soak->lock);
    soak->in_flight--;
    soak->longest_us = MAX(soak->longest_us, vp_now_us() - commit->start_us);
    pthread_cond_signal(&soak->changed);
}

static void soak_woken(void *data)
{
    Soak *soak = data;

    VP_LOCK(&soak->lock);
    soak->woken_us = vp_now_us();
}

static VpTxn *soak_txn(guint number)
{
    VpTxn *txn = vp_txn_new();
    g_autofree char *key = g_strdup_printf("/domains/%u", number % SOAK_KEYS);
    char *value = g_strnfill(ROW_BYTES, 'x');
    g_autoptr(GBytes) bytes = g_bytes_new_take(value, ROW_BYTES);
    PbEvent event = PB_EVENT__INIT;

    event.type = PB_EVENT_TYPE_DOMAIN_UPDATED;
    event.resource_type = (char *)"domain";
    event.name = key;
    event.uid = (char *)"00000000-0000-4000-8000-000000000000";
    event.reason = (char *)"REQUESTED";
    vp_txn_put(txn, key, bytes);
    vp_txn_event(txn, &event);
    return txn;
}

static void soak_commit(Soak *soak, guint number)
{
    SoakCommit *commit = g_new(SoakCommit, 1);

    pthread_mutex_lock(&soak->lock);
    while (soak->in_flight >= SOAK_IN_FLIGHT)
        pthread_cond_wait(&soak->changed, &soak->lock);
    soak->in_flight++;
    pthread_mutex_unlock(&soak->lock);
    *commit = (SoakCommit){.soak = soak, .start_us = vp_now_us()};
    vp_store_commit(soak->store, soak_txn(number), soak_done, commit);
}

static gdouble soak_list_ms(Soak *soak)
{
    VpError *error = NULL;
    const gint64 start_us = vp_now_us();
    g_autoptr(GPtrArray) list = vp_store_list(soak->store, "/domains/", NULL, 0, &error);

    if (!list || list->len != SOAK_KEYS)
        bench_die("the list is not whole");
    return (gdouble)(vp_now_us() - start_us) / 1000.0;
}

/* From the commit of one event until a watcher was woken and has read it: the median. */
static gdouble soak_watch_us(Soak *soak, guint number)
{
    g_autoptr(GArray) times = g_array_new(FALSE, FALSE, sizeof(gint64));

    for (guint i = 0; i < SOAK_PROBES; i++) {
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
        const gint64 start_us = vp_now_us();
        VpError *error = NULL;
        const gint64 revision = vp_store_commit_wait(soak->store, soak_txn(number + i), &error);
        gint64 next = 0;

        if (!vp_store_read_tail(soak->store, revision, 1, entries, &next) || entries->len != 1)
            bench_die("the event of revision %" G_GINT64_FORMAT " is not there", revision);
        const gint64 took_us = vp_now_us() - start_us;
        guint at = 0;

        while (at < times->len && g_array_index(times, gint64, at) < took_us)
            at++;
        g_array_insert_val(times, at, took_us);
    }
    return (gdouble)g_array_index(times, gint64, times->len / 2);
}

static gdouble files_mib(const char *dir)
{
    static const char *const names[] = {"store.db", "store.db-wal"};
    gdouble bytes = 0;

    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(dir, names[i], NULL);
        GStatBuf st;

        if (g_stat(path, &st) == 0)
            bytes += (gdouble)st.st_size;
    }
    return bytes / 1048576.0;
}

static void soak_step(Soak *soak, const char *dir, guint done)
{
    VpStoreStats stats;

    pthread_mutex_lock(&soak->lock);
    while (soak->in_flight > 0)
        pthread_cond_wait(&soak->changed, &soak->lock);
    pthread_mutex_unlock(&soak->lock);
    const gdouble list_ms = soak_list_ms(soak);
    const gdouble watch_us = soak_watch_us(soak, done);

    vp_store_stats(soak->store, &stats);
    printf("soak %8u events: files %6.1f MiB, kept %" G_GINT64_FORMAT
           ", list of %u %5.2f ms, commit to watcher %5.0f us,"
           " longest so far: wait %.1f ms, group %.1f ms, compaction step %.2f ms, log upkeep %.1f ms\n",
           done, files_mib(dir), stats.journal_events, SOAK_KEYS, list_ms, watch_us, (gdouble)soak->longest_us / 1000.0,
           (gdouble)stats.commit_longest_us / 1000.0, (gdouble)stats.compact_longest_us / 1000.0,
           (gdouble)stats.upkeep_longest_us / 1000.0);
    fflush(stdout);
}

void soak_run(const char *folder, guint events)
{
    g_autofree char *dir = g_build_filename(folder, "soak", NULL);
    const VpStoreOptions options = {.dir = dir, .journal_max_events = SOAK_KEPT, .journal_keep_events = SOAK_KEPT / 10};
    VpError *error = NULL;
    VpStoreStats stats;
    Soak soak = {0};

    g_mkdir(dir, 0700);
    pthread_mutex_init(&soak.lock, NULL);
    vp_cond_init(&soak.changed);
    soak.store = vp_store_open_sqlite(&options, &error);
    if (!soak.store)
        bench_die("%s", error->message);
    VpStoreWatch *watch = vp_store_watch(soak.store, soak_woken, &soak);
    const gint64 start_us = vp_now_us();

    for (guint i = 0; i < events; i++) {
        soak_commit(&soak, i);
        if ((i + 1) % SOAK_STEP == 0 || i + 1 == events)
            soak_step(&soak, dir, i + 1);
    }
    vp_store_stats(soak.store, &stats);
    g_autofree char *name = g_strdup_printf("soak_%u", events);
    g_autofree char *size = g_strconcat(name, "_files", NULL);
    g_autofree char *stall = g_strconcat(name, "_compaction_longest", NULL);

    bench_figure(name, events / ((gdouble)(vp_now_us() - start_us) / G_USEC_PER_SEC), "events/s", 0, NULL);
    bench_figure(size, files_mib(dir), "MiB", 0, NULL);
    bench_figure(stall, (gdouble)stats.compact_longest_us / 1000.0, "ms", 0, NULL);
    vp_store_unwatch(soak.store, watch);
    vp_store_close(soak.store);
}
