/*
 * Event streams: see event_hub.h. Here are the hub's thread and the beginning and end of each stream; event_pump.c has what happens in between, and
 * event_state.c the list that a stream may begin with.
 */
#include "server/services/event_hub.h"

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/services/event_stream.h"

#define MIN_BOOKMARK_MS 100
/* At the end a worker may still be reading for a stream whose client has gone. */
#define STREAMS_END_US (10 * G_USEC_PER_SEC)
/* Workers that read history. Two: the store reads one stretch at a time, and the other one is written meanwhile. */
#define MAX_WORKERS 2

VpEventStream *vp_event_stream_ref(VpEventStream *stream)
{
    g_atomic_int_inc(&stream->refs);
    return stream;
}

void vp_event_stream_unref(VpEventStream *stream)
{
    VpEventHub *hub = stream->hub;

    if (!g_atomic_int_dec_and_test(&stream->refs))
        return;
    vp_state_list_unref(stream->state);
    vp_call_unref(stream->call);
    pthread_mutex_destroy(&stream->mutex);
    g_free(stream);

    VP_LOCK(&hub->mutex);
    if (--hub->streams == 0)
        pthread_cond_broadcast(&hub->empty);
}

void vp_event_stream_fail(VpEventStream *stream, VpError *error)
{
    pthread_mutex_lock(&stream->mutex);
    stream->phase = VP_STREAM_ENDED;
    pthread_mutex_unlock(&stream->mutex);
    vp_call_fail(stream->call, error);
}

/* ---- the hub's thread ---- */

static void wake(void *data)
{
    VpEventHub *hub = data;

    VP_LOCK(&hub->mutex);
    hub->wake = TRUE;
    pthread_cond_signal(&hub->woken);
}

void vp_event_hub_rest(VpEventHub *hub, VpEventStream *stream)
{
    VP_LOCK(&hub->mutex);
    if (stream->listed)
        return;
    stream->listed = TRUE;
    g_queue_push_tail_link(&hub->resting, &vp_event_stream_ref(stream)->link);
}

/* Takes a stream from those that rest, with the reference that they held; under the mutex. */
static VpEventStream *unlist(VpEventHub *hub, VpEventStream *stream)
{
    g_queue_unlink(&hub->resting, &stream->link);
    stream->listed = FALSE;
    return stream;
}

static void *hub_run(void *data)
{
    VpEventHub *hub = data;

    for (;;) {
        g_autoptr(GPtrArray) streams = g_ptr_array_new_with_free_func((GDestroyNotify)vp_event_stream_unref);

        pthread_mutex_lock(&hub->mutex);
        while (!hub->wake && !hub->stopping)
            pthread_cond_wait(&hub->woken, &hub->mutex);
        hub->wake = FALSE;
        const gboolean stopping = hub->stopping;
        while (!stopping && hub->resting.head)
            g_ptr_array_add(streams, unlist(hub, hub->resting.head->data));
        pthread_mutex_unlock(&hub->mutex);

        if (stopping)
            return NULL;
        for (guint i = 0; i < streams->len; i++) {
            if (vp_event_stream_take(streams->pdata[i]))
                vp_event_stream_pump(streams->pdata[i]);
        }
    }
}

/* ---- streams that are behind ---- */

/* The next one that waits, a reference; NULL: none, and this worker's work is done. */
static VpEventStream *next_behind(VpEventHub *hub)
{
    VP_LOCK(&hub->mutex);
    VpEventStream *stream = g_queue_pop_head(&hub->behind);

    if (!stream && --hub->workers == 0)
        pthread_cond_broadcast(&hub->empty);
    return stream;
}

/* A step for each in turn: those that are not done with it queue up again. */
static void work(void *data)
{
    VpEventStream *stream;

    while ((stream = next_behind(data))) {
        vp_event_stream_work(stream);
        vp_event_stream_unref(stream);
    }
}

void vp_event_hub_work_later(VpEventHub *hub, VpEventStream *stream)
{
    pthread_mutex_lock(&hub->mutex);
    g_queue_push_tail(&hub->behind, vp_event_stream_ref(stream));
    const gboolean more = hub->workers < MAX_WORKERS;
    hub->workers += more;
    pthread_mutex_unlock(&hub->mutex);
    if (!more || vp_pool_submit(hub->pool, work, hub))
        return;

    /* Another worker may be there still, and takes it. */
    pthread_mutex_lock(&hub->mutex);
    g_autoptr(GPtrArray) refused = g_ptr_array_new_with_free_func((GDestroyNotify)vp_event_stream_unref);
    while (hub->workers == 1 && !g_queue_is_empty(&hub->behind))
        g_ptr_array_add(refused, g_queue_pop_head(&hub->behind));
    if (--hub->workers == 0)
        pthread_cond_broadcast(&hub->empty);
    pthread_mutex_unlock(&hub->mutex);
    for (guint i = 0; i < refused->len; i++)
        vp_event_stream_fail(refused->pdata[i],
                             vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY",
                                                         "the daemon has too much to do; resume the stream"),
                                            1000));
}

VpEventHub *vp_event_hub_new(VpStore *store, VpPool *pool, VpLoop *loop, VpError **error)
{
    VpEventHub *hub = g_new0(VpEventHub, 1);

    hub->store = store;
    hub->pool = pool;
    hub->loop = loop;
    pthread_mutex_init(&hub->mutex, NULL);
    vp_cond_init(&hub->woken);
    vp_cond_init(&hub->empty);
    g_queue_init(&hub->resting);
    g_queue_init(&hub->listeners);
    g_queue_init(&hub->behind);
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

static gboolean wait_for_streams(VpEventHub *hub)
{
    const gint64 deadline_us = vp_now_us() + STREAMS_END_US;
    gboolean in_time = TRUE;

    VP_LOCK(&hub->mutex);
    while ((hub->streams > 0 || hub->listing || hub->workers > 0) && in_time)
        in_time = vp_cond_wait_until(&hub->empty, &hub->mutex, deadline_us);
    return in_time;
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
    if (!wait_for_streams(hub)) {
        vp_log(VP_LOG_ERROR, "%u event streams have not ended in time; their memory is left as it is", hub->streams);
        return;
    }
    pthread_cond_destroy(&hub->empty);
    pthread_cond_destroy(&hub->woken);
    pthread_mutex_destroy(&hub->mutex);
    g_free(hub);
}

/* ---- a stream's beginning and end ---- */

static void bookmark_fired(void *data);

static void bookmark_again(VpEventStream *stream)
{
    VP_LOCK(&stream->mutex);
    if (stream->phase != VP_STREAM_ENDED)
        stream->bookmark =
            vp_timer_start(stream->hub->loop, stream->bookmark_ms, bookmark_fired, vp_event_stream_ref(stream));
}

static void bookmark_fired(void *data)
{
    VpEventStream *stream = data;

    pthread_mutex_lock(&stream->mutex);
    VpTimer *timer = g_steal_pointer(&stream->bookmark);
    /* One that is sending will come to rest, and tells then. */
    stream->bookmark_due = TRUE;
    pthread_mutex_unlock(&stream->mutex);
    vp_timer_cancel(timer);
    if (vp_event_stream_take(stream))
        vp_event_stream_pump(stream);
    bookmark_again(stream);
    vp_event_stream_unref(stream);
}

static void closed(VpCall *call, void *data)
{
    VpEventStream *stream = data;
    VpEventHub *hub = stream->hub;

    pthread_mutex_lock(&stream->mutex);
    stream->phase = VP_STREAM_ENDED;
    VpTimer *timer = g_steal_pointer(&stream->bookmark);
    pthread_mutex_unlock(&stream->mutex);
    if (vp_timer_cancel(timer))
        vp_event_stream_unref(stream);

    pthread_mutex_lock(&hub->mutex);
    const gboolean listed = stream->listed;
    if (listed)
        unlist(hub, stream);
    pthread_mutex_unlock(&hub->mutex);
    if (listed)
        vp_event_stream_unref(stream);
    vp_call_finish(call);
    vp_event_stream_unref(stream);
}

static void drained(VpCall *call, void *data)
{
    VpEventStream *stream = data;

    pthread_mutex_lock(&stream->mutex);
    const gint64 next_revision = stream->written_revision;
    pthread_mutex_unlock(&stream->mutex);
    VpError *error = vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING",
                                  "the daemon is stopping; connect again and resume after the last revision seen");

    (void)call;
    /* Who has not got all of the initial state asks for it anew. */
    if (next_revision > 0) {
        g_autofree char *resume = g_strdup_printf("%" G_GINT64_FORMAT, next_revision);
        error = vp_error_with(error, "resume_revision", resume);
    }
    vp_event_stream_fail(stream, error);
}

static VpError *start_revision(VpEventHub *hub, gint64 asked, gint64 *ret_revision)
{
    const gint64 present = vp_store_journal_end(hub->store);
    const gint64 oldest = vp_store_oldest_revision(hub->store);

    if (asked < 0)
        return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "start_revision is negative"),
                                  "start_revision", "must not be negative");
    if (asked > present + 1) {
        g_autofree char *next = g_strdup_printf("%" G_GINT64_FORMAT, present + 1);

        return vp_error_with(vp_error_new(VP_OUT_OF_RANGE, "REVISION_IN_FUTURE",
                                          "revision %" G_GINT64_FORMAT " is not there yet; the next one will be %s",
                                          asked, next),
                             "next_revision", next);
    }
    if (asked > 1 && asked < oldest) {
        g_autofree char *kept = g_strdup_printf("%" G_GINT64_FORMAT, oldest);

        return vp_error_with(
            vp_error_new(VP_OUT_OF_RANGE, "REVISION_COMPACTED",
                         "revision %" G_GINT64_FORMAT
                         " was compacted away; the oldest that is kept is %s: list, then watch from there",
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

/* Where the stream begins; 0: behind the state that is yet to be listed. */
static VpError *first_revision(VpEventHub *hub, const PbWatchEventsRequest *request, gint64 *ret_revision)
{
    if (!request->send_initial_state)
        return start_revision(hub, request->start_revision, ret_revision);
    if (request->start_revision == 0)
        return NULL;
    return vp_error_violation(
        vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                     "start_revision and send_initial_state exclude each other: the events go on after the state"),
        "start_revision", "must be 0 with send_initial_state");
}

void vp_event_hub_watch(VpEventHub *hub, VpCall *call, const PbWatchEventsRequest *request)
{
    gint64 next_revision = 0;
    VpError *error = first_revision(hub, request, &next_revision);

    if (error) {
        vp_call_fail(call, error);
        return;
    }
    VpEventStream *stream = g_new0(VpEventStream, 1);
    stream->refs = 2; /* the call's, given back when it is closed, and ours */
    stream->hub = hub;
    stream->call = vp_call_ref(call);
    stream->filter = request->filter;
    stream->max_batch = request->max_batch;
    stream->bookmark_ms = bookmark_ms(request);
    stream->next_revision = next_revision;
    stream->written_revision = next_revision;
    stream->phase = VP_STREAM_PUMPED;
    stream->link.data = stream;
    pthread_mutex_init(&stream->mutex, NULL);

    pthread_mutex_lock(&hub->mutex);
    hub->streams++;
    pthread_mutex_unlock(&hub->mutex);
    vp_call_on_drain(call, drained, stream);
    if (request->send_initial_state)
        vp_event_state_begin(stream);
    else
        vp_event_stream_write_bookmark(stream, next_revision - 1, FALSE);
    if (stream->bookmark_ms)
        bookmark_again(stream);
    vp_call_on_close(call, closed, stream);
    vp_event_stream_unref(stream);
}
