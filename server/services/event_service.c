/* virtplane.v1.EventService: the stream is the hub's (event_hub.h); the paged history is read here, on worker threads. */
#include <stdio.h>

#include "base/pb.h"
#include "server/services/services.h"

/* How many entries one page reads at most to find those that its filter lets pass; a token goes on from there. */
#define MAX_SCANNED 20000
#define SCAN_STEP 512

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
    const PbListEventsRequest *request;
    guint limit;
    guint scanned;
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

/* Looks at one entry; FALSE: the page is full. */
static gboolean page_take(Page *page, VpJournalEntry *entry, Place place)
{
    if (page->events->len == page->limit || page->scanned >= MAX_SCANNED) {
        page->more = TRUE;
        return FALSE;
    }
    page->scanned++;
    page->last = place;
    if (vp_event_matches(page->request->filter, entry->event)) {
        g_ptr_array_add(page->entries, vp_journal_entry_ref(entry));
        g_ptr_array_add(page->events, entry->event);
    }
    return TRUE;
}

/* The index of each entry among those of its revision. `entries` holds whole transactions. */
static Place place_of(const GPtrArray *entries, guint i, Place before)
{
    const gint64 revision = ((const VpJournalEntry *)entries->pdata[i])->revision;

    return (Place){.revision = revision, .index = i > 0 && before.revision == revision ? before.index + 1 : 0};
}

static VpError *read_forward(const VpServices *services, Page *page, Place after)
{
    gint64 from = MAX(after.revision, vp_store_oldest_revision(services->store));

    for (;;) {
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
        Place place = {0};

        VpError *error = vp_store_read_journal(services->store, from, SCAN_STEP, entries, &from);
        if (error || entries->len == 0)
            return error;
        for (guint i = 0; i < entries->len; i++) {
            place = place_of(entries, i, place);
            if (compare_places(place, after) > 0 && !page_take(page, entries->pdata[i], place))
                return NULL;
        }
    }
}

/* The journal is read forwards; so windows of it, each before the last one, are read and looked at from their ends. */
static VpError *read_backward(const VpServices *services, Page *page, Place before)
{
    const gint64 oldest = vp_store_oldest_revision(services->store);
    gint64 end = before.revision;

    while (end >= oldest) {
        const gint64 start = MAX(oldest, end - SCAN_STEP + 1);
        g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
        g_autoptr(GArray) places = g_array_new(FALSE, FALSE, sizeof(Place));
        Place place = {0};

        for (gint64 from = start; from <= end;) {
            const guint had = entries->len;

            VpError *error = vp_store_read_journal(services->store, from, SCAN_STEP, entries, &from);
            if (error)
                return error;
            if (entries->len == had)
                break;
        }
        for (guint i = 0; i < entries->len; i++) {
            place = place_of(entries, i, place);
            g_array_append_val(places, place);
        }
        for (guint i = entries->len; i > 0; i--) {
            const Place here = g_array_index(places, Place, i - 1);

            if (here.revision <= end && compare_places(here, before) < 0 && !page_take(page, entries->pdata[i - 1], here))
                return NULL;
        }
        end = start - 1;
    }
    return NULL;
}

static void list_events(VpCall *call, const void *message, void *context)
{
    const PbListEventsRequest *request = message;
    const VpServices *services = context;
    PbListEventsRequest scope = PB_LIST_EVENTS_REQUEST__INIT;
    g_autofree char *position = NULL;
    g_autofree char *token = NULL;

    scope.filter = request->filter;
    scope.oldest_first = request->oldest_first;
    VpError *error = vp_page_token_read(&services->page_key, "ListEvents", &scope, request->page_token, &position);
    if (error) {
        vp_call_fail(call, error);
        return;
    }

    const gint64 revision = vp_store_revision(services->store);
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
    g_autoptr(GPtrArray) events = g_ptr_array_new();
    Page page = {.request = request, .limit = vp_page_size(request->page_size), .events = events, .entries = entries};
    Place start = request->oldest_first ? (Place){.revision = 0, .index = -1} : (Place){.revision = revision, .index = G_MAXINT64};
    if (position)
        sscanf(position, "%" G_GINT64_FORMAT ".%" G_GINT64_FORMAT, &start.revision, &start.index);
    error = request->oldest_first ? read_forward(services, &page, start) : read_backward(services, &page, start);
    if (error) {
        vp_call_fail(call, error);
        return;
    }

    PbListEventsResponse response = PB_LIST_EVENTS_RESPONSE__INIT;
    response.n_events = events->len;
    response.events = (PbEvent **)events->pdata;
    response.revision = revision;
    if (page.more) {
        g_autofree char *last = g_strdup_printf("%" G_GINT64_FORMAT ".%" G_GINT64_FORMAT, page.last.revision, page.last.index);

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
