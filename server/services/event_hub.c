/*
 * Event streams: see event_hub.h. A stream is a cursor into the journal. It is pumped by one thread at a time: reads a batch (from memory, or, if it lags,
 * from the disk on a worker thread), writes what its filter lets pass, and is pumped again when the transport has taken the last of it. When there is
 * nothing to read it is idle, and the hub's thread looks after it.
 */
#include "server/services/event_hub.h"

#include "base/pb.h"
#include "base/thread.h"

/* Entries read, and so messages written, at a time. */
#define BATCH 64
#define MIN_BOOKMARK_MS 100

typedef enum StreamState {
    STREAM_IDLE,   /* waits for the hub */
    STREAM_PUMPED, /* some thread, write or disk read is at work on it */
    STREAM_ENDED,
} StreamState;

typedef struct Stream {
    gint refs;
    VpEventHub *hub;
    VpCall *call; /* a reference */
    const PbEventFilter *filter;
    guint64 bookmark_ms; /* 0: none but the first */

    /* Touched by the one who pumps. */
    gint64 next_revision; /* the first that has not been read */

    pthread_mutex_t mutex; /* guards what follows */
    StreamState state;
    gint64 written_revision; /* all before it was handed to the transport, which sends it before the stream's end */
    gboolean bookmark_due;
    VpTimer *bookmark;

    /* Under the hub's mutex. */
    struct Stream *prev;
    struct Stream *next;
} Stream;

struct VpEventHub {
    VpStore *store;
    VpPool *pool;
    VpLoop *loop;
    VpStoreWatch *watch;
    pthread_t thread;
    gboolean running;

    pthread_mutex_t mutex;
    pthread_cond_t woken;
    gboolean wake;
    gboolean stopping;
    Stream *streams;
};

static void stream_pump(Stream *stream);

static Stream *stream_ref(Stream *stream)
{
    g_atomic_int_inc(&stream->refs);
    return stream;
}

static void stream_unref(Stream *stream)
{
    if (!g_atomic_int_dec_and_test(&stream->refs))
        return;
    vp_call_unref(stream->call);
    pthread_mutex_destroy(&stream->mutex);
    g_free(stream);
}

static void stream_end(Stream *stream, VpError *error)
{
    pthread_mutex_lock(&stream->mutex);
    stream->state = STREAM_ENDED;
    pthread_mutex_unlock(&stream->mutex);
    vp_call_fail(stream->call, error);
}

/* ---- the pump ---- */

/* Takes the right to pump. */
static gboolean take(Stream *stream)
{
    VP_LOCK(&stream->mutex);
    if (stream->state != STREAM_IDLE)
        return FALSE;
    stream->state = STREAM_PUMPED;
    return TRUE;
}

static void taken_by_transport(VpCall *call, void *data, gboolean ok)
{
    Stream *stream = data;

    (void)call;
    /* A broken stream is ended when its call is closed. */
    if (ok)
        stream_pump(stream);
    stream_unref(stream);
}

static void write_bookmark(Stream *stream, gint64 revision)
{
    PbBookmark bookmark = PB_BOOKMARK__INIT;
    PbWatchEventsResponse response = PB_WATCH_EVENTS_RESPONSE__INIT;

    bookmark.revision = revision;
    response.payload_case = PB_WATCH_EVENTS_RESPONSE__PAYLOAD_BOOKMARK;
    response.bookmark = &bookmark;
    if (!vp_call_write(stream->call, &response, FALSE, taken_by_transport, stream_ref(stream)))
        stream_unref(stream);
}

/* The completion of a write may pump, and come here, before the one who wrote does. */
static void note_written(Stream *stream, gint64 next_revision)
{
    VP_LOCK(&stream->mutex);
    stream->written_revision = MAX(stream->written_revision, next_revision);
}

/* Writes those that pass the filter, all before `next_revision`; TRUE: the completion of the last one pumps again. */
static gboolean write_entries(Stream *stream, const GPtrArray *entries, gint64 next_revision)
{
    guint last = entries->len;

    for (guint i = entries->len; i > 0 && last == entries->len; i--) {
        if (vp_event_matches(stream->filter, ((const VpJournalEntry *)entries->pdata[i - 1])->event))
            last = i - 1;
    }
    if (last == entries->len) {
        note_written(stream, next_revision);
        return FALSE;
    }
    for (guint i = 0; i < last; i++) {
        const VpJournalEntry *entry = entries->pdata[i];

        if (vp_event_matches(stream->filter, entry->event))
            vp_call_write_wrapped(stream->call, PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT, entry->packed, TRUE, NULL, NULL);
    }
    const VpJournalEntry *entry = entries->pdata[last];
    if (vp_call_write_wrapped(stream->call, PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT, entry->packed, FALSE, taken_by_transport,
                              stream_ref(stream)))
        note_written(stream, next_revision);
    else
        stream_unref(stream);
    return TRUE;
}

/* Nothing to read: the hub's thread takes over. FALSE: something has come in between, go on. */
static gboolean rest(Stream *stream)
{
    /* Once idle, the stream may be pumped by another thread. */
    const gint64 next_revision = stream->next_revision;

    pthread_mutex_lock(&stream->mutex);
    const gboolean bookmark = stream->bookmark_due;
    stream->bookmark_due = FALSE;
    if (!bookmark && stream->state == STREAM_PUMPED)
        stream->state = STREAM_IDLE;
    pthread_mutex_unlock(&stream->mutex);
    /* The transport pumps again when it has taken the bookmark. */
    if (bookmark) {
        write_bookmark(stream, next_revision - 1);
        return TRUE;
    }
    /* A commit since the read has woken the hub while we were not idle. */
    return vp_store_revision(stream->hub->store) < next_revision || !take(stream);
}

static void read_from_disk(void *data)
{
    Stream *stream = data;
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
    gint64 next = stream->next_revision;

    VpError *error = vp_store_read_journal(stream->hub->store, stream->next_revision, BATCH, entries, &next);
    if (error) {
        stream_end(stream, error);
    } else {
        stream->next_revision = next;
        if (!write_entries(stream, entries, next))
            stream_pump(stream);
    }
    stream_unref(stream);
}

/* By the one who has the right to. Never blocks. */
static void stream_pump(Stream *stream)
{
    VpEventHub *hub = stream->hub;

    for (;;) {
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
        gint64 next = stream->next_revision;

        if (!vp_store_read_tail(hub->store, stream->next_revision, BATCH, entries, &next)) {
            if (vp_pool_submit(hub->pool, read_from_disk, stream_ref(stream)))
                return;
            stream_unref(stream);
            stream_end(stream, vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY", "the daemon has too much to do; resume the stream"),
                                              1000));
            return;
        }
        stream->next_revision = next;
        if (write_entries(stream, entries, next))
            return;
        if (entries->len == 0 && rest(stream))
            return;
    }
}

/* ---- the hub's thread ---- */

static void wake(void *data)
{
    VpEventHub *hub = data;

    VP_LOCK(&hub->mutex);
    hub->wake = TRUE;
    pthread_cond_signal(&hub->woken);
}

static GPtrArray *hold_streams(VpEventHub *hub)
{
    GPtrArray *streams = g_ptr_array_new_with_free_func((GDestroyNotify)stream_unref);

    for (Stream *stream = hub->streams; stream; stream = stream->next)
        g_ptr_array_add(streams, stream_ref(stream));
    return streams;
}

static void *hub_run(void *data)
{
    VpEventHub *hub = data;

    for (;;) {
        pthread_mutex_lock(&hub->mutex);
        while (!hub->wake && !hub->stopping)
            pthread_cond_wait(&hub->woken, &hub->mutex);
        hub->wake = FALSE;
        const gboolean stopping = hub->stopping;
        g_autoptr(GPtrArray) streams = hold_streams(hub);
        pthread_mutex_unlock(&hub->mutex);

        if (stopping)
            return NULL;
        for (guint i = 0; i < streams->len; i++) {
            if (take(streams->pdata[i]))
                stream_pump(streams->pdata[i]);
        }
    }
}

VpEventHub *vp_event_hub_new(VpStore *store, VpPool *pool, VpLoop *loop, VpError **error)
{
    VpEventHub *hub = g_new0(VpEventHub, 1);

    hub->store = store;
    hub->pool = pool;
    hub->loop = loop;
    pthread_mutex_init(&hub->mutex, NULL);
    vp_cond_init(&hub->woken);
    VpError *failure = vp_thread_start(&hub->thread, "vp-events", hub_run, hub);
    if (failure) {
        *error = failure;
        vp_event_hub_free(hub);
        return NULL;
    }
    hub->running = TRUE;
    hub->watch = vp_store_watch(store, wake, hub);
    return hub;
}

void vp_event_hub_free(VpEventHub *hub)
{
    if (!hub)
        return;
    if (hub->watch)
        vp_store_unwatch(hub->store, hub->watch);
    if (hub->running) {
        pthread_mutex_lock(&hub->mutex);
        hub->stopping = TRUE;
        pthread_cond_signal(&hub->woken);
        pthread_mutex_unlock(&hub->mutex);
        pthread_join(hub->thread, NULL);
    }
    pthread_cond_destroy(&hub->woken);
    pthread_mutex_destroy(&hub->mutex);
    g_free(hub);
}

/* ---- a stream's beginning and end ---- */

static void bookmark_fired(void *data);

static void bookmark_again(Stream *stream)
{
    VP_LOCK(&stream->mutex);
    if (stream->state != STREAM_ENDED)
        stream->bookmark = vp_timer_start(stream->hub->loop, stream->bookmark_ms, bookmark_fired, stream_ref(stream));
}

static void bookmark_fired(void *data)
{
    Stream *stream = data;

    pthread_mutex_lock(&stream->mutex);
    VpTimer *timer = g_steal_pointer(&stream->bookmark);
    /* One that is sending will come to rest, and tells then. */
    stream->bookmark_due = TRUE;
    pthread_mutex_unlock(&stream->mutex);
    vp_timer_cancel(timer);
    if (take(stream))
        stream_pump(stream);
    bookmark_again(stream);
    stream_unref(stream);
}

static void closed(VpCall *call, void *data)
{
    Stream *stream = data;
    VpEventHub *hub = stream->hub;

    pthread_mutex_lock(&hub->mutex);
    if (stream->prev)
        stream->prev->next = stream->next;
    else
        hub->streams = stream->next;
    if (stream->next)
        stream->next->prev = stream->prev;
    pthread_mutex_unlock(&hub->mutex);

    pthread_mutex_lock(&stream->mutex);
    stream->state = STREAM_ENDED;
    VpTimer *timer = g_steal_pointer(&stream->bookmark);
    pthread_mutex_unlock(&stream->mutex);
    if (vp_timer_cancel(timer))
        stream_unref(stream);
    vp_call_finish(call);
    stream_unref(stream);
}

static void drained(VpCall *call, void *data)
{
    Stream *stream = data;

    pthread_mutex_lock(&stream->mutex);
    const gint64 next_revision = stream->written_revision;
    pthread_mutex_unlock(&stream->mutex);
    g_autofree char *resume = g_strdup_printf("%" G_GINT64_FORMAT, next_revision);
    VpError *error = vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon is stopping; connect again and resume after the last revision seen");

    (void)call;
    stream_end(stream, vp_error_with(error, "resume_revision", resume));
}

/* Whether the journal has `revision`. vp_store_revision() may count it a moment later than the one who made it was told. */
static gboolean is_committed(VpStore *store, gint64 revision)
{
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
    gint64 next = 0;

    return !vp_store_read_tail(store, revision, 1, entries, &next) || next > revision;
}

static VpError *start_revision(VpEventHub *hub, gint64 asked, gint64 *ret_revision)
{
    const gint64 present = vp_store_revision(hub->store);
    const gint64 oldest = vp_store_oldest_revision(hub->store);

    if (asked < 0)
        return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "start_revision is negative"), "start_revision",
                                  "must not be negative");
    if (asked > present + 1 && !is_committed(hub->store, asked - 1)) {
        g_autofree char *next = g_strdup_printf("%" G_GINT64_FORMAT, present + 1);

        return vp_error_with(vp_error_new(VP_OUT_OF_RANGE, "REVISION_IN_FUTURE",
                                          "revision %" G_GINT64_FORMAT " is not there yet; the next one will be %s", asked, next),
                             "next_revision", next);
    }
    if (asked > 1 && asked < oldest) {
        g_autofree char *kept = g_strdup_printf("%" G_GINT64_FORMAT, oldest);

        return vp_error_with(vp_error_new(VP_OUT_OF_RANGE, "REVISION_COMPACTED",
                                          "revision %" G_GINT64_FORMAT " was compacted away; the oldest that is kept is %s: list, then watch from there",
                                          asked, kept),
                             "oldest_revision", kept);
    }
    *ret_revision = asked == 0 ? present + 1 : asked == 1 ? oldest : asked;
    return NULL;
}

static guint64 bookmark_ms(const PbWatchEventsRequest *request)
{
    const Google__Protobuf__Duration *interval = request->bookmark_interval;

    if (!interval || interval->seconds < 0 || interval->seconds > 24 * 60 * 60 || interval->nanos < 0)
        return 0;
    return MAX(MIN_BOOKMARK_MS, (guint64)interval->seconds * 1000 + (guint64)interval->nanos / 1000000);
}

void vp_event_hub_watch(VpEventHub *hub, VpCall *call, const PbWatchEventsRequest *request)
{
    gint64 next_revision = 0;
    VpError *error = start_revision(hub, request->start_revision, &next_revision);

    if (error) {
        vp_call_fail(call, error);
        return;
    }
    Stream *stream = g_new0(Stream, 1);
    stream->refs = 2; /* the call's, given back when it is closed, and ours */
    stream->hub = hub;
    stream->call = vp_call_ref(call);
    stream->filter = request->filter;
    stream->bookmark_ms = bookmark_ms(request);
    stream->next_revision = next_revision;
    stream->written_revision = next_revision;
    stream->state = STREAM_PUMPED;
    pthread_mutex_init(&stream->mutex, NULL);

    pthread_mutex_lock(&hub->mutex);
    stream->next = hub->streams;
    if (stream->next)
        stream->next->prev = stream;
    hub->streams = stream;
    pthread_mutex_unlock(&hub->mutex);
    vp_call_on_drain(call, drained, stream);
    write_bookmark(stream, next_revision - 1);
    if (stream->bookmark_ms)
        bookmark_again(stream);
    vp_call_on_close(call, closed, stream);
    stream_unref(stream);
}
