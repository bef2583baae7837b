/*
 * The pump of event streams. A stream is a cursor into the journal. It is pumped by one thread at a time: reads some entries (from memory, or, if it lags,
 * from the disk on a worker thread), writes what its filter lets pass, and is pumped again when the transport has taken the last of it. When there is
 * nothing to read it rests, and the hub's thread looks after it. What a stream has under way is bounded, however slow its reader is.
 */
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/services/event_stream.h"

/* Entries read, and so messages written, at a time by a stream without batches; and by one with batches at most. */
#define STEP 64
#define BATCH_STEP 192
/* And the bytes of them after which it stops; also what one message with a batch has at most, but for one event that is larger. */
#define STEP_BYTES (16u << 10)
/* What is looked at in one go while the filter lets nothing pass: more would keep the thread, which has others to serve. */
#define STATE_LOOKS 256
#define ENTRY_LOOKS 2048

gboolean vp_event_stream_take(VpEventStream *stream)
{
    VP_LOCK(&stream->mutex);
    if (stream->phase != VP_STREAM_IDLE)
        return FALSE;
    stream->phase = VP_STREAM_PUMPED;
    return TRUE;
}

static void taken_by_transport(VpCall *call, void *data, gboolean ok)
{
    VpEventStream *stream = data;

    (void)call;
    /* A broken stream is ended when its call is closed. */
    if (ok)
        vp_event_stream_pump(stream);
    vp_event_stream_unref(stream);
}

/* The completion of a write may pump, and come here, before the one who wrote does. */
static void note_written(VpEventStream *stream, gint64 next_revision)
{
    VP_LOCK(&stream->mutex);
    stream->written_revision = MAX(stream->written_revision, next_revision);
}

void vp_event_stream_write_bookmark(VpEventStream *stream, gint64 revision, gboolean state_end)
{
    PbBookmark bookmark = PB_BOOKMARK__INIT;
    PbWatchEventsResponse response = PB_WATCH_EVENTS_RESPONSE__INIT;

    bookmark.revision = revision;
    bookmark.initial_state_end = state_end;
    response.payload_case = PB_WATCH_EVENTS_RESPONSE__PAYLOAD_BOOKMARK;
    response.bookmark = &bookmark;
    if (vp_call_write(stream->call, &response, FALSE, taken_by_transport, vp_event_stream_ref(stream)))
        note_written(stream, revision + 1);
    else
        vp_event_stream_unref(stream);
}

/* ---- the state that comes first ---- */

static gboolean state_matches(const PbEventFilter *filter, const VpSight *sight, GBytes *packed)
{
    if (!filter && !sight->policy)
        return TRUE;
    vp_pb_auto PbResourceState *state = vp_pb_unpack(&pb_resource_state__descriptor, packed);
    return state && vp_event_filter_matches_domain(filter, state->domain) && vp_sight_sees_domain(sight, state->domain);
}

/* Writes the next of it, or the bookmark at its end; the completion pumps again. */
static void write_state(VpEventStream *stream)
{
    VpStateList *list = stream->state;
    const guint end = (guint)MIN((guint64)stream->state_at + STATE_LOOKS, list->states->len);
    GBytes *held = NULL;
    gsize bytes = 0;
    guint written = 0;
    g_auto(VpSight) sight = {0};

    vp_sight_take(stream->call, NULL, &sight);
    while (stream->state_at < end && written < STEP && bytes < STEP_BYTES) {
        GBytes *packed = list->states->pdata[stream->state_at++];

        if (!state_matches(stream->filter, &sight, packed))
            continue;
        if (held)
            vp_call_write_wrapped(stream->call, PB_WATCH_EVENTS_RESPONSE__PAYLOAD_STATE, held, TRUE, NULL, NULL);
        held = packed;
        bytes += g_bytes_get_size(packed);
        written++;
    }
    if (held) {
        if (!vp_call_write_wrapped(stream->call, PB_WATCH_EVENTS_RESPONSE__PAYLOAD_STATE, held, FALSE,
                                   taken_by_transport, vp_event_stream_ref(stream)))
            vp_event_stream_unref(stream);
        return;
    }
    if (stream->state_at < list->states->len) {
        vp_event_hub_work_later(stream->hub, stream);
        return;
    }
    stream->state = NULL;
    vp_event_stream_write_bookmark(stream, list->revision, TRUE);
    vp_state_list_unref(list);
}

/* ---- events ---- */

/* The entries that are written in one go: those of `entries` that pass the filter and were not sent yet, up to a bound. Moves the stream behind them. */
static GPtrArray *pick(VpEventStream *stream, const GPtrArray *entries, gint64 next_revision)
{
    GPtrArray *picked = g_ptr_array_sized_new(entries->len);
    const guint most = stream->max_batch ? stream->max_batch : STEP;
    gint64 revision = stream->next_revision;
    guint of_revision = 0;
    gsize bytes = 0;
    g_auto(VpSight) sight = {0};

    /* The policy may have changed since the stream began. */
    vp_sight_take(stream->call, NULL, &sight);
    for (guint i = 0; i < entries->len; i++) {
        VpJournalEntry *entry = entries->pdata[i];

        if (entry->revision != revision) {
            revision = entry->revision;
            of_revision = 0;
        }
        if (revision == stream->next_revision && of_revision < stream->sent_of_next) {
            of_revision++;
            continue;
        }
        const gsize size = g_bytes_get_size(entry->packed);
        const gboolean wanted =
            vp_event_matches(stream->filter, entry->event) && vp_sight_sees_event(&sight, entry->event);
        if (wanted && picked->len > 0 && (picked->len == most || bytes + size > STEP_BYTES)) {
            stream->next_revision = revision;
            stream->sent_of_next = of_revision;
            return picked;
        }
        of_revision++;
        if (wanted) {
            g_ptr_array_add(picked, entry);
            bytes += size;
        }
    }
    stream->next_revision = next_revision;
    stream->sent_of_next = 0;
    return picked;
}

/* An EventBatch, on the wire. */
static GBytes *pack_batch(const GPtrArray *picked)
{
    gsize size = 0;

    for (guint i = 0; i < picked->len; i++)
        size += VP_PB_PREFIX_MAX + g_bytes_get_size(((const VpJournalEntry *)picked->pdata[i])->packed);
    guint8 *batch = g_malloc(size);
    gsize at = 0;
    for (guint i = 0; i < picked->len; i++) {
        gsize length;
        const void *event = g_bytes_get_data(((const VpJournalEntry *)picked->pdata[i])->packed, &length);

        at += vp_pb_put_prefix(batch + at, /* events */ 1, length);
        memcpy(batch + at, event, length);
        at += length;
    }
    return g_bytes_new_take(batch, at);
}

/* Writes what passes the filter; TRUE: the completion of the last write pumps again. */
static gboolean write_entries(VpEventStream *stream, const GPtrArray *entries, gint64 next_revision)
{
    g_autoptr(GPtrArray) picked = pick(stream, entries, next_revision);
    g_autoptr(GBytes) batch = NULL;
    guint field = PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT;
    /* Once the last is written, the stream may be pumped by another thread. */
    const gint64 written = stream->next_revision;

    if (picked->len == 0) {
        note_written(stream, written);
        return FALSE;
    }
    GBytes *last = ((const VpJournalEntry *)picked->pdata[picked->len - 1])->packed;
    if (stream->max_batch) {
        batch = pack_batch(picked);
        field = PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENTS;
        last = batch;
    } else {
        for (guint i = 0; i + 1 < picked->len; i++)
            vp_call_write_wrapped(stream->call, field, ((const VpJournalEntry *)picked->pdata[i])->packed, TRUE, NULL,
                                  NULL);
    }
    if (vp_call_write_wrapped(stream->call, field, last, FALSE, taken_by_transport, vp_event_stream_ref(stream)))
        note_written(stream, written);
    else
        vp_event_stream_unref(stream);
    return TRUE;
}

/* Nothing to read: the hub's thread takes over. FALSE: something has come in between, go on. */
static gboolean rest(VpEventStream *stream)
{
    const gint64 next_revision = stream->next_revision;

    pthread_mutex_lock(&stream->mutex);
    const gboolean bookmark = stream->bookmark_due;
    const gboolean rests = !bookmark && stream->phase == VP_STREAM_PUMPED;
    stream->bookmark_due = FALSE;
    if (rests)
        stream->phase = VP_STREAM_IDLE;
    pthread_mutex_unlock(&stream->mutex);
    /* The transport pumps again when it has taken the bookmark. */
    if (bookmark) {
        vp_event_stream_write_bookmark(stream, next_revision - 1, FALSE);
        return TRUE;
    }
    if (!rests)
        return TRUE;
    vp_event_hub_rest(stream->hub, stream);
    /* A commit since the read has woken the hub while we were not among those that rest. */
    return vp_store_revision(stream->hub->store) < next_revision || !vp_event_stream_take(stream);
}

static guint step(const VpEventStream *stream)
{
    return CLAMP(stream->max_batch, STEP, BATCH_STEP);
}

static gboolean has_ended(VpEventStream *stream)
{
    VP_LOCK(&stream->mutex);
    return stream->phase == VP_STREAM_ENDED;
}

void vp_event_stream_work(VpEventStream *stream)
{
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
    gint64 next = stream->next_revision;

    /* Its client has gone while it waited. */
    if (has_ended(stream))
        return;
    if (stream->state) {
        write_state(stream);
        return;
    }
    VpError *error = vp_store_read_journal(stream->hub->store, stream->next_revision, step(stream), entries, &next);
    if (error)
        vp_event_stream_fail(stream, error);
    else if (!write_entries(stream, entries, next))
        vp_event_stream_pump(stream);
}

void vp_event_stream_pump(VpEventStream *stream)
{
    VpEventHub *hub = stream->hub;
    guint looked_at = 0;

    if (stream->state) {
        write_state(stream);
        return;
    }
    for (;;) {
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
        gint64 next = stream->next_revision;

        if (looked_at >= ENTRY_LOOKS ||
            !vp_store_read_tail(hub->store, stream->next_revision, step(stream), entries, &next)) {
            vp_event_hub_work_later(hub, stream);
            return;
        }
        looked_at += entries->len;
        if (write_entries(stream, entries, next))
            return;
        if (entries->len == 0 && rest(stream))
            return;
    }
}
