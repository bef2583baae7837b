/* virtplane.v1.EventService: the stream is the hub's (event_hub.h); the paged history is read here, on worker threads. */
#include <stdio.h>

#include "base/pb.h"
#include "server/services/services.h"

/* How many entries one page reads at most to find those that its filter lets pass; a token goes on from there. */
#define MAX_SCANNED 20000
#define SCAN_STEP 512
/* Backwards all of a step is in memory at once. */
#define SCAN_BACK_STEP 64

/* A place in the journal: an event of a revision. A page goes on behind it (oldest first) or before it (newest first). */
typedef struct Place {
    gint64 revision;
    gint64 index;
} Place;

static void watch_events(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;

    vp_event_hub_watch(services->events, call, message);
}

typedef struct Page {
    const VpSight *sight;
    const PbListEventsRequest *request;
    gint64 end_revision; /* these four: from the first up to, but without, the second */
    gint64 start_us;
    gint64 end_us;
    guint limit;
    guint scanned;
    gsize bytes;        /* of the events */
    GPtrArray *events;  /* of PbEvent, borrowed from `entries` */
    GPtrArray *entries; /* of VpJournalEntry */
    Place last;         /* the last one looked at */
    gboolean more;
} Page;

static gint compare_places(Place a, Place b)
{
    if (a.revision != b.revision)
        return a.revision < b.revision ? -1 : 1;
    return a.index < b.index ? -1 : a.index > b.index;
}

static gboolean is_wanted(const Page *page, const PbEvent *event)
{
    const gint64 time_us = vp_pb_timestamp_us(event->time);

    return time_us >= page->start_us && time_us < page->end_us && vp_event_matches(page->request->filter, event) &&
           vp_sight_sees_event(page->sight, event);
}

/* Looks at one entry; FALSE: the page is full. */
static gboolean page_take(Page *page, VpJournalEntry *entry, Place place)
{
    const gsize bytes = g_bytes_get_size(entry->packed);
    const gboolean wanted = is_wanted(page, entry->event);

    if (page->events->len == page->limit || page->scanned >= MAX_SCANNED ||
        (wanted && page->events->len > 0 && page->bytes + bytes > VP_PAGE_MAX_BYTES)) {
        page->more = TRUE;
        return FALSE;
    }
    page->scanned++;
    page->last = place;
    if (wanted) {
        g_ptr_array_add(page->entries, vp_journal_entry_ref(entry));
        g_ptr_array_add(page->events, entry->event);
        page->bytes += bytes;
    }
    return TRUE;
}

/* The index of each entry among those of its revision. `entries` holds whole transactions. */
static Place place_of(const GPtrArray *entries, guint i, Place before)
{
    const gint64 revision = ((const VpJournalEntry *)entries->pdata[i])->revision;

    return (Place){.revision = revision, .index = i > 0 && before.revision == revision ? before.index + 1 : 0};
}

static VpError *compacted(gint64 revision, gint64 oldest)
{
    g_autofree char *kept = g_strdup_printf("%" G_GINT64_FORMAT, oldest);

    return vp_error_with(vp_error_new(VP_OUT_OF_RANGE, "REVISION_COMPACTED",
                                      "revision %" G_GINT64_FORMAT " was compacted away; the oldest that is kept is %s",
                                      revision, kept),
                         "oldest_revision", kept);
}

static gboolean is_compacted(const VpError *error)
{
    return g_strcmp0(error->reason, "REVISION_COMPACTED") == 0;
}

/* Whether the request names the revision from which it wants all. */
static gboolean is_exact(const PbListEventsRequest *request)
{
    return request->start_revision > 1;
}

/* From behind `after`; `from` is the first revision wanted, 0: the oldest one kept. */
static VpError *read_forward(const VpServices *services, Page *page, gint64 from, Place after)
{
    gint64 next = from ? from : vp_store_oldest_revision(services->store);

    for (;;) {
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
        Place place = {0};

        VpError *error = vp_store_read_journal(services->store, next, SCAN_STEP, entries, &next);
        if (error && is_compacted(error) && !from && page->scanned == 0) {
            /* The oldest one has become another meanwhile. */
            vp_error_free(error);
            next = vp_store_oldest_revision(services->store);
            continue;
        }
        if (error || entries->len == 0)
            return error;
        for (guint i = 0; i < entries->len; i++) {
            place = place_of(entries, i, place);
            if (place.revision >= page->end_revision)
                return NULL;
            if (compare_places(place, after) > 0 && !page_take(page, entries->pdata[i], place))
                return NULL;
        }
    }
}

/* The entries of the revisions `start` to `end`, both included, and perhaps more. */
static VpError *read_window(const VpServices *services, gint64 start, gint64 end, GPtrArray *entries)
{
    for (gint64 from = start; from <= end;) {
        const guint had = entries->len;

        VpError *error = vp_store_read_journal(services->store, from, SCAN_BACK_STEP, entries, &from);
        if (error)
            return error;
        if (entries->len == had)
            break;
    }
    return NULL;
}

/* The journal is read forwards; so windows of it, each before the last one, are read and looked at from their ends. */
static VpError *read_backward(const VpServices *services, Page *page, Place before)
{
    gint64 end = before.revision;

    for (;;) {
        const gint64 oldest = MAX(vp_store_oldest_revision(services->store), page->request->start_revision);
        const gint64 start = MAX(oldest, end - SCAN_BACK_STEP + 1);
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
        g_autoptr(GArray) places = g_array_new(FALSE, FALSE, sizeof(Place));
        Place place = {0};

        if (end < oldest)
            return NULL;
        VpError *error = read_window(services, start, end, entries);
        if (error && is_compacted(error) && !is_exact(page->request)) {
            /* Compaction has just come into the window: the rest of it is looked at. */
            vp_error_free(error);
            continue;
        }
        if (error)
            return error;
        for (guint i = 0; i < entries->len; i++) {
            place = place_of(entries, i, place);
            g_array_append_val(places, place);
        }
        for (guint i = entries->len; i > 0; i--) {
            const Place here = g_array_index(places, Place, i - 1);

            if (here.revision <= end && compare_places(here, before) < 0 &&
                !page_take(page, entries->pdata[i - 1], here))
                return NULL;
        }
        end = start - 1;
        before = (Place){.revision = end, .index = G_MAXINT64};
    }
    return NULL;
}

static VpError *bad_field(const char *field, const char *what)
{
    return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "%s %s", field, what), field, "%s",
                              what);
}

/* A time of a request in microseconds. */
static VpError *read_time(const char *field, const Google__Protobuf__Timestamp *time, gint64 *us)
{
    if (!time)
        return NULL;
    if (time->seconds < -62135596800 || time->seconds > 253402300799 || time->nanos < 0 || time->nanos > 999999999)
        return bad_field(field, "must be a time from year 1 to 9999");
    *us = vp_pb_timestamp_us(time);
    return NULL;
}

static VpError *page_init(const VpServices *services, Page *page)
{
    const PbListEventsRequest *request = page->request;
    const gint64 oldest = vp_store_oldest_revision(services->store);

    page->limit = vp_page_size(request->page_size);
    page->end_revision = request->end_revision ? request->end_revision : G_MAXINT64;
    page->start_us = G_MININT64;
    page->end_us = G_MAXINT64;
    if (request->start_revision < 0)
        return bad_field("start_revision", "must not be negative");
    if (request->end_revision < 0)
        return bad_field("end_revision", "must not be negative");
    if (is_exact(request) && request->start_revision < oldest)
        return compacted(request->start_revision, oldest);
    VpError *error = read_time("start_time", request->start_time, &page->start_us);
    return error ? error : read_time("end_time", request->end_time, &page->end_us);
}

/* Reads a page from the beginning, or from behind the place of a token on. */
static VpError *read_page(const VpServices *services, Page *page, gint64 revision, const char *position)
{
    const PbListEventsRequest *request = page->request;
    const gint64 oldest = vp_store_oldest_revision(services->store);
    Place place = {0};

    if (position)
        sscanf(position, "%" G_GINT64_FORMAT ".%" G_GINT64_FORMAT, &place.revision, &place.index);
    if (!request->oldest_first) {
        const Place last = {.revision = MIN(revision, page->end_revision - 1), .index = G_MAXINT64};
        return read_backward(services, page, position ? place : last);
    }
    if (!position)
        return read_forward(services, page, is_exact(request) ? request->start_revision : 0,
                            (Place){.revision = 0, .index = -1});
    /* The rest of that revision may be gone. */
    return place.revision < oldest ? compacted(place.revision, oldest)
                                   : read_forward(services, page, place.revision, place);
}

static void list_events(VpCall *call, const void *message, void *context)
{
    const PbListEventsRequest *request = message;
    const VpServices *services = context;
    PbListEventsRequest scope = *request;
    g_autofree char *position = NULL;
    g_autofree char *token = NULL;
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
    g_autoptr(GPtrArray) events = g_ptr_array_new();
    g_auto(VpSight) sight = {0};
    Page page = {.request = request, .sight = &sight, .events = events, .entries = entries};
    const gint64 revision = vp_store_journal_end(services->store);

    vp_sight_take(call, NULL, &sight);
    scope.page_size = 0;
    scope.page_token = (char *)"";
    VpError *error = vp_page_token_read(&services->page_key, "ListEvents", &scope, request->page_token, &position);
    if (!error)
        error = page_init(services, &page);
    if (!error)
        error = read_page(services, &page, revision, position);
    if (error) {
        vp_call_fail(call, error);
        return;
    }

    PbListEventsResponse response = PB_LIST_EVENTS_RESPONSE__INIT;
    response.n_events = events->len;
    response.events = (PbEvent **)events->pdata;
    response.revision = revision;
    if (page.more) {
        g_autofree char *last =
            g_strdup_printf("%" G_GINT64_FORMAT ".%" G_GINT64_FORMAT, page.last.revision, page.last.index);

        token = vp_page_token_new(&services->page_key, "ListEvents", &scope, last);
        response.next_page_token = token;
    }
    vp_call_reply(call, &response);
}

const VpMethodHandler vp_event_handlers[] = {
    {"virtplane.v1.EventService/WatchEvents", watch_events, VP_RPC_INLINE},
    {"virtplane.v1.EventService/ListEvents", list_events, VP_RPC_WORKER},
    {0},
};
