/*
 * The store on SQLite: store.h for one host. One thread, vp-store, writes: it takes all that is queued, runs each transaction in a savepoint of one
 * SQLite transaction, and commits them with one fsync. Readers have connections of their own (reader.h); live readers are served from memory (tail.h).
 */
#include <stdatomic.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/store/apply.h"
#include "server/store/backup.h"
#include "server/store/check.h"
#include "server/store/dirlock.h"
#include "server/store/reader.h"
#include "server/store/tail.h"
#include "server/store/watchers.h"

#define DEFAULT_JOURNAL_MAX_EVENTS 1000000u
#define DEFAULT_TAIL_MAX_BYTES (4u << 20)
#define QUEUE_MAX 4096u
#define QUEUE_MAX_BYTES (64u << 20)
#define GROUP_MAX 256u
#define GROUP_MAX_BYTES (16u << 20)
/* The journal may exceed its limit by this much, so that not every commit has a deletion behind it. */
#define TRIM_SLACK_MAX 256u
#define TRIM_SLACK_BYTES_PART 16
#define TRIM_RETRY_US (10 * G_USEC_PER_SEC)
#define TRIM_PAUSE_US (10 * 1000)
/* Age is looked at in parts of the age that is kept, within these bounds. */
#define AGE_PARTS 16
#define AGE_CHECK_MIN_US (G_USEC_PER_SEC / 2)
#define AGE_CHECK_MAX_US (60 * G_USEC_PER_SEC)
/* Pages in the write-ahead log at which it is copied into the database, and how many more it takes to try again. */
#define CHECKPOINT_PAGES 1000
#define CHECKPOINT_STEP 250

/* Someone who waits for a commit. On their stack: the writer always answers. */
typedef struct Waiter {
    pthread_mutex_t lock;
    pthread_cond_t told;
    gboolean done;
    gint64 revision;
    VpError *error;
} Waiter;

/* What is queued for the writer: a transaction or a compaction. */
typedef struct Pending {
    VpTxn *txn;        /* NULL: a compaction, or refused */
    gint64 compact_to; /* 0: a transaction */
    VpCommitDone done;
    void *data;
    Waiter *waiter; /* instead of `done`: told when the journal's readers can see it */
    VpError *error;
    gint64 revision;
} Pending;

struct VpStore {
    int lock_fd;
    VpDb *db; /* the writer's */
    VpReader *keys;
    VpReader *journal;
    VpTail *tail;
    VpWatchers *watchers;
    char *dir;
    VpRetention keep;
    guint64 trim_slack;
    gint64 age_check_us;    /* how often age is looked at; 0: never */
    pthread_mutex_t backup; /* held during one */
    _Atomic gint64 revision;
    _Atomic gint64 oldest;
    struct {
        _Atomic gint64 events;
        _Atomic gint64 bytes;
        _Atomic gint64 compactions;
        _Atomic gint64 compact_us;
        _Atomic gint64 commit_us;
        _Atomic gint64 upkeep_us;
    } stats;

    pthread_t thread;
    gboolean thread_started;
    pthread_mutex_t lock;
    pthread_cond_t work;
    GQueue queue; /* of Pending */
    gsize queued_bytes;
    guint queued_txns; /* of those, not refused */
    gboolean stopping;

    /* The writer thread's own. */
    VpDbMeta meta; /* as committed */
    gboolean trimming;
    gint64 trim_at_us;
    gint64 age_at_us;
    gint64 trimmed_at; /* the revision then */
    int wal_pages;
    int checkpoint_at;
};

/* ---- the group commit, on the writer thread ---- */

static gboolean pending_is_empty(const Pending *pending)
{
    return !pending->compact_to &&
           (!pending->txn || pending->txn->compares->len + pending->txn->changes->len + pending->txn->events->len == 0);
}

static VpError *apply_compaction(gint64 compact_to, VpDbMeta *meta)
{
    if (compact_to > meta->revision + 1) {
        return vp_error_new(VP_OUT_OF_RANGE, "REVISION_FUTURE",
                            "cannot compact the journal to revision %" G_GINT64_FORMAT
                            ": the store is at %" G_GINT64_FORMAT,
                            compact_to, meta->revision);
    }
    meta->compacted = MAX(meta->compacted, compact_to);
    return NULL;
}

/* Runs each of the group; their own errors stay with them. An error that ends the whole group is returned. */
static VpError *group_apply(VpStore *store, GPtrArray *group, VpDbMeta *meta, GPtrArray *entries)
{
    const gint64 wall_us = vp_wall_us();

    for (guint i = 0; i < group->len; i++) {
        Pending *pending = group->pdata[i];

        if (pending->error) {
            continue;
        }
        if (!pending_is_empty(pending)) {
            pending->error = pending->compact_to ? apply_compaction(pending->compact_to, meta)
                                                 : vp_apply_txn(store->db, pending->txn, wall_us, meta, entries);
            if (sqlite3_get_autocommit(vp_db_handle(store->db))) {
                return vp_error_copy(pending->error);
            }
        }
        pending->revision = meta->revision;
    }
    return NULL;
}

static gboolean meta_equal(const VpDbMeta *a, const VpDbMeta *b)
{
    return a->revision == b->revision && a->compacted == b->compacted && a->events == b->events && a->bytes == b->bytes;
}

/*
 * A commit whose fsync failed is invisible, but its frames are in the write-ahead log: a crash before the next commit overwrites them
 * would bring back what its callers were told is not there. So the log is emptied at once, if the disk lets us. On a full disk that
 * makes room for the next ones as well.
 */
static void empty_log(VpStore *store)
{
    sqlite3 *handle = vp_db_handle(store->db);

    sqlite3_busy_timeout(handle, 0);
    sqlite3_wal_checkpoint_v2(handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    sqlite3_busy_timeout(handle, VP_DB_BUSY_TIMEOUT_MS);
}

static VpError *group_finish(VpStore *store, const VpDbMeta *meta)
{
    if (meta_equal(meta, &store->meta)) {
        return vp_db_run(store->db, VP_DB_ROLLBACK, "end a group of transactions that change nothing");
    }
    VpError *error = vp_db_meta_set(store->db, meta);

    return error ? error : vp_db_run(store->db, VP_DB_COMMIT, "commit");
}

static gboolean group_needs_disk(const GPtrArray *group)
{
    for (guint i = 0; i < group->len; i++) {
        const Pending *pending = group->pdata[i];

        if (!pending->error && !pending_is_empty(pending)) {
            return TRUE;
        }
    }
    return FALSE;
}

/* Commits the group or fails it: afterwards each one has its error or its revision, and store->meta is what is on the disk. */
static void group_commit(VpStore *store, GPtrArray *group, GPtrArray *entries)
{
    VpDbMeta meta = store->meta;
    g_autoptr(VpError) failure = NULL;

    if (group_needs_disk(group)) {
        failure = vp_db_set_durable(store->db, TRUE);
        if (!failure) {
            failure = vp_db_run(store->db, VP_DB_BEGIN, "begin a group of transactions");
        }
        if (!failure) {
            failure = group_apply(store, group, &meta, entries);
        }
        if (!failure) {
            failure = group_finish(store, &meta);
        }
    } else {
        for (guint i = 0; i < group->len; i++) {
            ((Pending *)group->pdata[i])->revision = meta.revision;
        }
    }
    if (!failure) {
        store->meta = meta;
        return;
    }

    if (!sqlite3_get_autocommit(vp_db_handle(store->db))) {
        vp_error_free(vp_db_run(store->db, VP_DB_ROLLBACK, "undo a group of transactions"));
    }
    empty_log(store);
    g_ptr_array_set_size(entries, 0);
    for (guint i = 0; i < group->len; i++) {
        Pending *pending = group->pdata[i];

        pending->revision = store->meta.revision;
        if (!pending->error && !pending_is_empty(pending)) {
            pending->error = vp_error_copy(failure);
        }
    }
}

static void waiter_tell(Waiter *waiter, gint64 revision, VpError *error)
{
    VP_LOCK(&waiter->lock);
    waiter->done = TRUE;
    waiter->revision = revision;
    waiter->error = error;
    pthread_cond_signal(&waiter->told);
}

static void pending_free(gpointer data)
{
    Pending *pending = data;

    vp_txn_free(pending->txn);
    vp_error_free(pending->error);
    g_free(pending);
}

/*
 * The order matters. The journal's readers see the group first, so that whoever was told of a revision finds its events. Then the callers are told,
 * and bring what they keep in memory up to date. Only then does vp_store_revision() count the group: a list taken from that memory and
 * marked with this revision lacks nothing, so that a watch from the next one on misses nothing.
 */
static void group_publish(VpStore *store, GPtrArray *group, GPtrArray *entries)
{
    const gboolean grown = store->meta.revision != atomic_load(&store->revision);

    vp_tail_append(store->tail, entries, store->meta.revision);
    vp_tail_compact(store->tail, store->meta.compacted);
    atomic_store(&store->oldest, store->meta.compacted);
    for (guint i = 0; i < group->len; i++) {
        const Pending *pending = group->pdata[i];

        if (pending->done) {
            pending->done(pending->data, pending->error ? 0 : pending->revision, pending->error);
        }
    }
    atomic_store(&store->revision, store->meta.revision);
    for (guint i = 0; i < group->len; i++) {
        Pending *pending = group->pdata[i];

        if (pending->waiter) {
            waiter_tell(pending->waiter, pending->error ? 0 : pending->revision, g_steal_pointer(&pending->error));
        }
    }
    if (grown) {
        vp_watchers_wake(store->watchers);
    }
}

/* ---- upkeep, on the writer thread ---- */

static int on_wal_grown(void *data, sqlite3 *handle, const char *name, int pages)
{
    VpStore *store = data;

    (void)handle;
    (void)name;
    if (pages < store->wal_pages) {
        store->checkpoint_at = CHECKPOINT_PAGES; /* it starts from the front again */
    }
    store->wal_pages = pages;
    return SQLITE_OK;
}

/* Only the writer thread counts. */
static void count_longest(_Atomic gint64 *longest, gint64 start_us)
{
    const gint64 took_us = vp_now_us() - start_us;

    if (took_us > atomic_load(longest)) {
        atomic_store(longest, took_us);
    }
}

/* Copies the log into the database once it is long. A failure leaves all in the log, where it is safe; the next try is some pages later. */
static void checkpoint(VpStore *store)
{
    int in_log = 0;

    if (store->wal_pages < store->checkpoint_at) {
        return;
    }
    const gint64 start_us = vp_now_us();

    sqlite3_wal_checkpoint_v2(vp_db_handle(store->db), NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, NULL);
    store->checkpoint_at = MAX(in_log, store->wal_pages) + CHECKPOINT_STEP;
    count_longest(&store->stats.upkeep_us, start_us);
}

/* When the writer is to look at the journal unasked; G_MAXINT64: never. */
static gint64 trim_at_us(const VpStore *store)
{
    if (store->trimming) {
        return store->trim_at_us;
    }
    return store->age_check_us && store->meta.events > 1 ? MAX(store->age_at_us, store->trim_at_us) : G_MAXINT64;
}

static gboolean trim_due(const VpStore *store)
{
    return vp_now_us() >= trim_at_us(store);
}

static void trim(VpStore *store)
{
    const VpRetention *keep = &store->keep;

    if (store->meta.revision != store->trimmed_at &&
        (store->meta.events > (gint64)(keep->max_events + store->trim_slack) ||
         (keep->max_bytes &&
          store->meta.bytes > (gint64)(keep->max_bytes + keep->max_bytes / TRIM_SLACK_BYTES_PART)))) {
        store->trimming = TRUE;
    }
    if (!trim_due(store)) {
        return;
    }

    const gint64 start_us = vp_now_us();
    g_autoptr(VpError) error = vp_apply_trim(store->db, keep, vp_wall_us(), &store->meta, &store->trimming);

    if (error) {
        vp_log(VP_LOG_WARNING, "the journal was not compacted, another try follows in %d s: %s",
               (int)(TRIM_RETRY_US / G_USEC_PER_SEC), error->message);
        store->trimming = TRUE;
        store->trim_at_us = vp_now_us() + TRIM_RETRY_US;
        return;
    }
    /* Where the floor holds back what a limit would take, the next look is not at once, and not before the journal has grown. */
    store->trimmed_at = store->meta.revision;
    store->trim_at_us = store->trimming ? 0 : start_us + TRIM_PAUSE_US;
    store->age_at_us = start_us + store->age_check_us;
    vp_tail_compact(store->tail, store->meta.compacted);
    atomic_store(&store->oldest, store->meta.compacted);
    atomic_fetch_add(&store->stats.compactions, 1);
    count_longest(&store->stats.compact_us, start_us);
}

/* Waits for work and takes a group of it. FALSE: the store is being closed and nothing is left. */
static gboolean take_group(VpStore *store, GPtrArray *group)
{
    gsize bytes = 0;

    VP_LOCK(&store->lock);
    while (g_queue_is_empty(&store->queue) && !store->stopping && !trim_due(store)) {
        if (trim_at_us(store) != G_MAXINT64) {
            vp_cond_wait_until(&store->work, &store->lock, trim_at_us(store));
        } else {
            pthread_cond_wait(&store->work, &store->lock);
        }
    }
    if (g_queue_is_empty(&store->queue) && store->stopping) {
        return FALSE;
    }
    while (!g_queue_is_empty(&store->queue) && group->len < GROUP_MAX && bytes < GROUP_MAX_BYTES) {
        Pending *pending = g_queue_pop_head(&store->queue);

        if (pending->txn) {
            bytes += pending->txn->bytes;
            store->queued_bytes -= pending->txn->bytes;
            store->queued_txns--;
        }
        g_ptr_array_add(group, pending);
    }
    return TRUE;
}

static void *writer_main(void *data)
{
    VpStore *store = data;

    for (;;) {
        g_autoptr(GPtrArray) group = g_ptr_array_new_with_free_func(pending_free);
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);

        if (!take_group(store, group)) {
            return NULL;
        }
        if (group->len > 0) {
            const gint64 start_us = vp_now_us();

            group_commit(store, group, entries);
            count_longest(&store->stats.commit_us, start_us);
            /* A compaction deletes its rows in steps from here on. */
            store->trimming |= store->meta.compacted != atomic_load(&store->oldest);
            group_publish(store, group, entries);
        }
        trim(store);
        checkpoint(store);
        atomic_store(&store->stats.events, store->meta.events);
        atomic_store(&store->stats.bytes, store->meta.bytes);
    }
}

/* ---- open and close ---- */

static gboolean store_open_files(VpStore *store, const VpStoreOptions *options, VpError **error)
{
    store->lock_fd = vp_dirlock_take(options->dir, error);
    if (store->lock_fd < 0) {
        return FALSE;
    }
    store->db = vp_db_open_writer(options->dir, &store->meta, error);
    if (!store->db) {
        return FALSE;
    }
    store->keys = vp_reader_open(options->dir, error);
    if (!store->keys) {
        return FALSE;
    }
    store->journal = vp_reader_open(options->dir, error);
    return store->journal != NULL;
}

static gint64 seconds_us(gint64 seconds)
{
    return CLAMP(seconds, 0, G_MAXINT64 / 4 / G_USEC_PER_SEC) * G_USEC_PER_SEC;
}

VpStore *vp_store_open_sqlite(const VpStoreOptions *options, VpError **error)
{
    g_autoptr(VpStore) store = g_new0(VpStore, 1);

    store->lock_fd = -1;
    store->dir = g_strdup(options->dir);
    pthread_mutex_init(&store->lock, NULL);
    pthread_mutex_init(&store->backup, NULL);
    vp_cond_init(&store->work);
    if (!store_open_files(store, options, error)) {
        return NULL;
    }

    store->watchers = vp_watchers_new();
    store->tail =
        vp_tail_new(options->tail_max_bytes ? options->tail_max_bytes : DEFAULT_TAIL_MAX_BYTES, store->meta.revision);
    store->keep = (VpRetention){
        .max_events =
            options->journal_max_events ? MIN(options->journal_max_events, G_MAXINT64 / 2) : DEFAULT_JOURNAL_MAX_EVENTS,
        .max_bytes = MIN(options->journal_max_bytes, G_MAXINT64 / 2),
        .max_age_us = seconds_us(options->journal_max_age_s),
        .keep_events = MIN(options->journal_keep_events, G_MAXINT64 / 2),
        .keep_age_us = seconds_us(options->journal_keep_age_s),
    };
    store->age_check_us =
        store->keep.max_age_us ? CLAMP(store->keep.max_age_us / AGE_PARTS, AGE_CHECK_MIN_US, AGE_CHECK_MAX_US) : 0;
    store->trim_slack = CLAMP(store->keep.max_events / 4, 1, TRIM_SLACK_MAX);
    atomic_init(&store->stats.events, store->meta.events);
    atomic_init(&store->stats.bytes, store->meta.bytes);
    atomic_init(&store->revision, store->meta.revision);
    atomic_init(&store->oldest, store->meta.compacted);
    store->trimming = TRUE; /* what an earlier compaction has left */
    store->checkpoint_at = CHECKPOINT_PAGES;
    sqlite3_wal_hook(vp_db_handle(store->db), on_wal_grown, store);
    *error = vp_thread_start(&store->thread, "vp-store", writer_main, store);
    if (*error) {
        return NULL;
    }
    store->thread_started = TRUE;
    return g_steal_pointer(&store);
}

void vp_store_close(VpStore *store)
{
    if (!store) {
        return;
    }
    if (store->thread_started) {
        pthread_mutex_lock(&store->lock);
        store->stopping = TRUE;
        pthread_cond_signal(&store->work);
        pthread_mutex_unlock(&store->lock);
        pthread_join(store->thread, NULL);
    }
    /* The writer's connection last: it takes the log into the database. */
    vp_reader_close(store->journal);
    vp_reader_close(store->keys);
    vp_db_close(store->db);
    vp_tail_free(store->tail);
    vp_watchers_free(store->watchers);
    if (store->lock_fd >= 0) {
        close(store->lock_fd);
    }
    pthread_cond_destroy(&store->work);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->backup);
    g_free(store->dir);
    g_free(store);
}

/* ---- what store.h offers ---- */

/* Queues `pending` (owned by the writer from now on). One that finds no room is queued without its transaction, to be refused in its turn: `done`
 * is called on the writer thread, whatever becomes of it. */
static void store_queue(VpStore *store, Pending *pending)
{
    g_autoptr(VpTxn) refused = NULL;

    VP_LOCK(&store->lock);
    if (pending->txn &&
        (store->queued_txns >= QUEUE_MAX || store->queued_bytes + pending->txn->bytes > QUEUE_MAX_BYTES)) {
        refused = g_steal_pointer(&pending->txn);
        vp_error_free(pending->error);
        pending->error =
            vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "STORE_BUSY",
                                        "%u changes wait for the disk already; try again shortly", store->queued_txns),
                           200);
    }
    if (pending->txn) {
        store->queued_txns++;
        store->queued_bytes += pending->txn->bytes;
    }
    g_queue_push_tail(&store->queue, pending);
    pthread_cond_signal(&store->work);
}

static Pending *pending_for(VpTxn *txn)
{
    Pending *pending = g_new0(Pending, 1);

    pending->txn = txn;
    pending->error = g_steal_pointer(&txn->error);
    return pending;
}

/* Queues and waits. No deadline: it ends with the disk's answer, and to give up earlier would leave the outcome unknown. */
static gint64 store_queue_wait(VpStore *store, Pending *pending, VpError **error)
{
    Waiter waiter = {.done = FALSE};

    pthread_mutex_init(&waiter.lock, NULL);
    vp_cond_init(&waiter.told);
    pending->waiter = &waiter;
    store_queue(store, pending);

    pthread_mutex_lock(&waiter.lock);
    while (!waiter.done) {
        pthread_cond_wait(&waiter.told, &waiter.lock);
    }
    pthread_mutex_unlock(&waiter.lock);
    pthread_cond_destroy(&waiter.told);
    pthread_mutex_destroy(&waiter.lock);
    if (waiter.error) {
        *error = waiter.error;
        return 0;
    }
    return waiter.revision;
}

void vp_store_commit(VpStore *store, VpTxn *txn, VpCommitDone done, void *data)
{
    Pending *pending = pending_for(txn);

    pending->done = done;
    pending->data = data;
    store_queue(store, pending);
}

gint64 vp_store_commit_wait(VpStore *store, VpTxn *txn, VpError **error)
{
    return store_queue_wait(store, pending_for(txn), error);
}

VpError *vp_store_compact(VpStore *store, gint64 revision)
{
    Pending *pending = g_new0(Pending, 1);
    VpError *error = NULL;

    pending->compact_to = MAX(revision, 1);
    store_queue_wait(store, pending, &error);
    return error;
}

VpKeyValue *vp_store_get(VpStore *store, const char *key, VpError **error)
{
    return vp_reader_get(store->keys, key, error);
}

GPtrArray *vp_store_list(VpStore *store, const char *prefix, const char *after, guint limit, VpError **error)
{
    return vp_reader_list(store->keys, prefix, after, limit, error);
}

GPtrArray *vp_store_snapshot(VpStore *store, const char *prefix, gint64 *ret_revision, VpError **error)
{
    return vp_reader_snapshot(store->keys, prefix, ret_revision, error);
}

gint64 vp_store_revision(VpStore *store)
{
    return atomic_load(&store->revision);
}

gint64 vp_store_journal_end(VpStore *store)
{
    return vp_tail_end(store->tail);
}

gint64 vp_store_oldest_revision(VpStore *store)
{
    return atomic_load(&store->oldest);
}

VpError *vp_store_read_journal(VpStore *store, gint64 from_revision, guint max_entries, GPtrArray *entries,
                               gint64 *ret_next_revision)
{
    return vp_reader_journal(store->journal, MAX(from_revision, 1), vp_tail_end(store->tail), max_entries, entries,
                             ret_next_revision);
}

gboolean vp_store_read_tail(VpStore *store, gint64 from_revision, guint max_entries, GPtrArray *entries,
                            gint64 *ret_next_revision)
{
    return vp_tail_read(store->tail, MAX(from_revision, 1), max_entries, entries, ret_next_revision);
}

VpStoreWatch *vp_store_watch(VpStore *store, void (*wake)(void *data), void *data)
{
    return vp_watchers_add(store->watchers, wake, data);
}

void vp_store_unwatch(VpStore *store, VpStoreWatch *watch)
{
    vp_watchers_remove(store->watchers, watch);
}

void vp_store_stats(VpStore *store, VpStoreStats *ret_stats)
{
    *ret_stats = (VpStoreStats){
        .journal_events = atomic_load(&store->stats.events),
        .journal_bytes = atomic_load(&store->stats.bytes),
        .compactions = atomic_load(&store->stats.compactions),
        .compact_longest_us = atomic_load(&store->stats.compact_us),
        .commit_longest_us = atomic_load(&store->stats.commit_us),
        .upkeep_longest_us = atomic_load(&store->stats.upkeep_us),
    };
}

int vp_store_backup(VpStore *store, gboolean (*stop)(void *data), void *data, gint64 *ret_revision, VpError **error)
{
    if (pthread_mutex_trylock(&store->backup) != 0) {
        *error = vp_error_retry(vp_error_new(VP_ABORTED, "BACKUP_RUNNING",
                                             "another backup of the store is being made; try again when it is done"),
                                1000);
        return -1;
    }
    const int fd = vp_backup_make(store->dir, stop, data, ret_revision, error);

    pthread_mutex_unlock(&store->backup);
    return fd;
}

VpError *vp_store_check(VpStore *store, gboolean (*stop)(void *data), void *data, VpStoreReport *ret_report)
{
    g_autofree char *path = g_build_filename(store->dir, VP_DB_FILE_NAME, NULL);

    return vp_check_file(path, stop, data, ret_report);
}
