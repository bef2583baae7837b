/*
 * Counters of domains: see stats_hub.h. A stream takes a round of samples at each tick of its interval: of those domains that run then, match its filter and
 * are seen by its caller. What comes in is written as the reader takes it; while something waits for the reader no new round begins. So a stream holds one
 * round at most, however slow its reader is.
 */
#include "server/services/stats_hub.h"

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/services/stats_sampler.h"

#define DEFAULT_INTERVAL_MS 1000
#define MIN_INTERVAL_MS 100
#define MAX_INTERVAL_S (24 * 60 * 60)
/* Domains that one step of a round looks at. */
#define ROUND_STEP 500
/* Messages of one stream that the transport may hold. */
#define MAX_WRITING 64
/* At the end a stream may still be told of its close. */
#define STREAMS_END_US (10 * G_USEC_PER_SEC)

struct VpStatsHub {
    VpDomains *domains;
    VpLoop *loop;
    VpSampler *sampler;
    pthread_mutex_t mutex;
    pthread_cond_t empty;
    guint streams; /* all there are */
};

typedef struct Stream {
    gint refs;
    VpStatsHub *hub;
    VpCall *call; /* a reference */
    const PbDomainFilter *filter;
    guint64 interval_ms;

    pthread_mutex_t mutex; /* guards what follows */
    gboolean ended;
    VpTimer *timer;
    GHashTable *asked; /* uids of the domains whose samples are under way */
    GQueue ready;      /* of GBytes: samples that wait for the reader */
    guint writing;     /* messages in the transport's hands */
} Stream;

/* One domain's sample of a stream. */
typedef struct Wanted {
    Stream *stream; /* a reference */
    char *uid;
} Wanted;

/* ---- life ---- */

VpStatsHub *vp_stats_hub_new(VpDomains *domains, VpLoop *loop)
{
    VpStatsHub *hub = g_new0(VpStatsHub, 1);

    hub->domains = domains;
    hub->loop = loop;
    hub->sampler = vp_sampler_new(domains);
    pthread_mutex_init(&hub->mutex, NULL);
    vp_cond_init(&hub->empty);
    return hub;
}

static gboolean wait_for_streams(VpStatsHub *hub)
{
    const gint64 deadline_us = vp_now_us() + STREAMS_END_US;
    gboolean in_time = TRUE;

    VP_LOCK(&hub->mutex);
    while (hub->streams > 0 && in_time)
        in_time = vp_cond_wait_until(&hub->empty, &hub->mutex, deadline_us);
    return in_time;
}

void vp_stats_hub_free(VpStatsHub *hub)
{
    if (!hub)
        return;
    if (!wait_for_streams(hub)) {
        vp_log(VP_LOG_ERROR, "%u streams of counters have not ended in time; their memory is left as it is",
               hub->streams);
        return;
    }
    vp_sampler_free(hub->sampler);
    pthread_cond_destroy(&hub->empty);
    pthread_mutex_destroy(&hub->mutex);
    g_free(hub);
}

static Stream *stream_ref(Stream *stream)
{
    g_atomic_int_inc(&stream->refs);
    return stream;
}

static void stream_unref(Stream *stream)
{
    VpStatsHub *hub = stream->hub;

    if (!g_atomic_int_dec_and_test(&stream->refs))
        return;
    g_queue_clear_full(&stream->ready, (GDestroyNotify)g_bytes_unref);
    g_hash_table_unref(stream->asked);
    vp_call_unref(stream->call);
    pthread_mutex_destroy(&stream->mutex);
    g_free(stream);

    VP_LOCK(&hub->mutex);
    if (--hub->streams == 0)
        pthread_cond_broadcast(&hub->empty);
}

/* ---- writing ---- */

static void pump(Stream *stream);

static void written(VpCall *call, void *data, gboolean ok)
{
    Stream *stream = data;

    (void)call;
    pthread_mutex_lock(&stream->mutex);
    stream->writing--;
    if (!ok)
        stream->ended = TRUE;
    pthread_mutex_unlock(&stream->mutex);
    pump(stream);
    stream_unref(stream);
}

/* The next message, if there is one and room for it. `ret_more`: others follow at once. */
static GBytes *next_message(Stream *stream, gboolean *ret_more)
{
    VP_LOCK(&stream->mutex);
    if (stream->ended || stream->writing >= MAX_WRITING)
        return NULL;
    GBytes *message = g_queue_pop_head(&stream->ready);

    stream->writing += message != NULL;
    *ret_more = !g_queue_is_empty(&stream->ready) && stream->writing < MAX_WRITING;
    return message;
}

static void pump(Stream *stream)
{
    for (;;) {
        gboolean more = FALSE;
        g_autoptr(GBytes) message = next_message(stream, &more);

        if (!message)
            return;
        if (!vp_call_write_wrapped(stream->call, 1, message, more, written, stream_ref(stream))) {
            /* The call is over, or about to be. */
            pthread_mutex_lock(&stream->mutex);
            stream->writing--;
            stream->ended = TRUE;
            pthread_mutex_unlock(&stream->mutex);
            stream_unref(stream);
        }
    }
}

/* ---- rounds ---- */

static void sampled(void *data, const VpError *error, GBytes *stats)
{
    Wanted *wanted = data;
    Stream *stream = wanted->stream;

    /* One that has ended meanwhile, or cannot be read, is left out. */
    pthread_mutex_lock(&stream->mutex);
    g_hash_table_remove(stream->asked, wanted->uid);
    if (!error && !stream->ended)
        g_queue_push_tail(&stream->ready, g_bytes_ref(stats));
    pthread_mutex_unlock(&stream->mutex);
    pump(stream);
    stream_unref(stream);
    g_free(wanted->uid);
    g_free(wanted);
}

/* FALSE: its last sample is still under way. */
static gboolean note_asked(Stream *stream, const char *uid)
{
    VP_LOCK(&stream->mutex);
    return !stream->ended && g_hash_table_add(stream->asked, g_strdup(uid));
}

static void sample_one(Stream *stream, const VpDomainView *view)
{
    if (!note_asked(stream, view->domain->uid))
        return;
    Wanted *wanted = g_new(Wanted, 1);
    *wanted = (Wanted){.stream = stream_ref(stream), .uid = g_strdup(view->domain->uid)};
    vp_sampler_take(stream->hub->sampler, view, sampled, wanted);
}

static void sample_all(Stream *stream)
{
    VpStatsHub *hub = stream->hub;
    g_autofree char *after = NULL;
    gboolean more = TRUE;
    g_auto(VpSight) sight = {0};

    /* Anew each time: what a caller may see can change. */
    vp_sight_take(stream->call, NULL, &sight);
    while (more) {
        g_autoptr(GPtrArray) views = vp_domains_list(hub->domains, stream->filter, after, ROUND_STEP, &more);

        for (guint i = 0; i < views->len; i++) {
            const VpDomainView *view = views->pdata[i];

            if (vp_domain_is_up(view->domain) && vp_sight_sees_domain(&sight, view->domain))
                sample_one(stream, view);
        }
        if (views->len == 0)
            return;
        g_free(after);
        after = g_strdup(((const VpDomainView *)views->pdata[views->len - 1])->domain->name);
    }
}

/* Whether a round may begin: what the last one brought has been taken. */
static gboolean may_begin(Stream *stream)
{
    VP_LOCK(&stream->mutex);
    return !stream->ended && g_queue_is_empty(&stream->ready) && stream->writing == 0;
}

static void on_tick(void *data);

/* Those of the same interval tick together, so that they share samples. */
static void tick_later(Stream *stream)
{
    const guint64 now_ms = (guint64)vp_now_us() / 1000;

    VP_LOCK(&stream->mutex);
    if (!stream->ended)
        stream->timer = vp_timer_start(stream->hub->loop, stream->interval_ms - now_ms % stream->interval_ms, on_tick,
                                       stream_ref(stream));
}

static void on_tick(void *data)
{
    Stream *stream = data;

    pthread_mutex_lock(&stream->mutex);
    VpTimer *timer = g_steal_pointer(&stream->timer);
    pthread_mutex_unlock(&stream->mutex);
    vp_timer_cancel(timer);
    if (may_begin(stream))
        sample_all(stream);
    tick_later(stream);
    stream_unref(stream);
}

/* ---- the calls ---- */

static void closed(VpCall *call, void *data)
{
    Stream *stream = data;

    pthread_mutex_lock(&stream->mutex);
    stream->ended = TRUE;
    VpTimer *timer = g_steal_pointer(&stream->timer);
    pthread_mutex_unlock(&stream->mutex);
    if (vp_timer_cancel(timer))
        stream_unref(stream);
    vp_call_finish(call);
    stream_unref(stream);
}

static VpError *read_interval(const Google__Protobuf__Duration *interval, guint64 *ret_ms)
{
    if (!interval) {
        *ret_ms = DEFAULT_INTERVAL_MS;
        return NULL;
    }
    const gboolean sane = interval->seconds >= 0 && interval->seconds <= MAX_INTERVAL_S && interval->nanos >= 0;
    const guint64 ms = sane ? (guint64)interval->seconds * 1000 + (guint64)interval->nanos / 1000000 : 0;

    *ret_ms = ms;
    if (ms >= MIN_INTERVAL_MS && ms <= MAX_INTERVAL_S * 1000ULL)
        return NULL;
    return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                           "interval is not between %d ms and a day", MIN_INTERVAL_MS),
                              "interval", "must be between %d ms and a day", MIN_INTERVAL_MS);
}

void vp_stats_hub_watch(VpStatsHub *hub, VpCall *call, const PbWatchDomainStatsRequest *request)
{
    guint64 interval_ms;
    VpError *error = read_interval(request->interval, &interval_ms);

    if (error) {
        vp_call_fail(call, error);
        return;
    }
    Stream *stream = g_new0(Stream, 1);
    stream->refs = 2; /* the call's, given back when it is closed, and ours */
    stream->hub = hub;
    stream->call = vp_call_ref(call);
    stream->filter = request->filter;
    stream->interval_ms = interval_ms;
    stream->asked = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_queue_init(&stream->ready);
    pthread_mutex_init(&stream->mutex, NULL);
    pthread_mutex_lock(&hub->mutex);
    hub->streams++;
    pthread_mutex_unlock(&hub->mutex);
    sample_all(stream);
    tick_later(stream);
    vp_call_on_close(call, closed, stream);
    stream_unref(stream);
}

static void reply(VpCall *call, PbDomainStats *stats)
{
    PbGetDomainStatsResponse response = PB_GET_DOMAIN_STATS_RESPONSE__INIT;

    response.stats = stats;
    vp_call_reply(call, &response);
}

static void got(void *data, const VpError *error, GBytes *packed)
{
    g_autoptr(VpCall) call = data;

    if (error) {
        vp_call_fail(call, vp_error_copy(error));
        return;
    }
    vp_pb_auto PbDomainStats *stats = vp_pb_unpack(&pb_domain_stats__descriptor, packed);
    reply(call, stats);
}

/* There is no hypervisor that could be asked. */
static void reply_state(VpCall *call, const PbDomain *domain)
{
    vp_pb_auto PbDomainStats *stats = vp_pb_new(&pb_domain_stats__descriptor);

    vp_pb_set(&stats->name, domain->name);
    vp_pb_set(&stats->uid, domain->uid);
    stats->time = vp_pb_timestamp(vp_wall_us());
    stats->state = domain->status->state;
    reply(call, stats);
}

void vp_stats_hub_get(VpStatsHub *hub, VpCall *call, const PbGetDomainStatsRequest *request)
{
    VpError *error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(hub->domains, request->name, request->uid, &error);

    if (!view)
        vp_call_fail(call, error);
    else if (vp_domain_is_up(view->domain))
        vp_sampler_take(hub->sampler, view, got, vp_call_ref(call));
    else
        reply_state(call, view->domain);
}
