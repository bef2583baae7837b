/* The journal's end in memory, a ring that grows as it fills: see tail.h. */
#include "server/store/tail.h"

#include <stdatomic.h>

#include "base/pb.h"
#include "base/thread.h"

#define FIRST_CAPACITY 64u

typedef struct CountedEntry {
    VpJournalEntry entry;
    atomic_uint refs; /* not GLib's: ThreadSanitizer does not see into it */
} CountedEntry;

struct VpTail {
    pthread_mutex_t lock;
    gsize max_bytes;
    gsize bytes;
    gint64 start; /* all entries from this revision on are here */
    gint64 end;   /* up to this one */
    VpJournalEntry **ring;
    gsize capacity; /* a power of two */
    gsize head;
    gsize count;
};

VpJournalEntry *vp_journal_entry_new(gint64 revision, PbEvent *event, GBytes *packed)
{
    CountedEntry *counted = g_new0(CountedEntry, 1);

    counted->entry.revision = revision;
    counted->entry.event = event;
    counted->entry.packed = packed;
    atomic_init(&counted->refs, 1);
    return &counted->entry;
}

VpJournalEntry *vp_journal_entry_ref(VpJournalEntry *entry)
{
    atomic_fetch_add_explicit(&((CountedEntry *)entry)->refs, 1, memory_order_relaxed);
    return entry;
}

void vp_journal_entry_unref(VpJournalEntry *entry)
{
    CountedEntry *counted = (CountedEntry *)entry;

    if (!entry || atomic_fetch_sub(&counted->refs, 1) > 1) {
        return;
    }
    vp_pb_free(entry->event);
    g_bytes_unref(entry->packed);
    g_free(counted);
}

/* The packed bytes, the same once more as a message, and the bookkeeping of both. */
static gsize entry_bytes(const VpJournalEntry *entry)
{
    return sizeof(CountedEntry) + sizeof(PbEvent) + sizeof(void *) + 256 + 2 * g_bytes_get_size(entry->packed);
}

static VpJournalEntry *tail_at(const VpTail *tail, gsize index)
{
    return tail->ring[(tail->head + index) & (tail->capacity - 1)];
}

VpTail *vp_tail_new(gsize max_bytes, gint64 revision)
{
    VpTail *tail = g_new0(VpTail, 1);

    pthread_mutex_init(&tail->lock, NULL);
    tail->max_bytes = max_bytes;
    tail->start = revision + 1;
    tail->end = revision;
    return tail;
}

/* Drops the oldest transaction. */
static void tail_drop_first(VpTail *tail)
{
    const gint64 revision = tail_at(tail, 0)->revision;

    while (tail->count > 0 && tail_at(tail, 0)->revision == revision) {
        VpJournalEntry *entry = tail_at(tail, 0);

        tail->bytes -= entry_bytes(entry);
        tail->head = (tail->head + 1) & (tail->capacity - 1);
        tail->count--;
        vp_journal_entry_unref(entry);
    }
    tail->start = revision + 1;
}

static void tail_grow(VpTail *tail)
{
    const gsize capacity = tail->capacity ? tail->capacity * 2 : FIRST_CAPACITY;
    VpJournalEntry **ring = g_new(VpJournalEntry *, capacity);

    for (gsize i = 0; i < tail->count; i++) {
        ring[i] = tail_at(tail, i);
    }
    g_free(tail->ring);
    tail->ring = ring;
    tail->capacity = capacity;
    tail->head = 0;
}

void vp_tail_append(VpTail *tail, GPtrArray *entries, gint64 revision)
{
    VP_LOCK(&tail->lock);
    for (guint i = 0; i < entries->len; i++) {
        VpJournalEntry *entry = entries->pdata[i];

        if (tail->count == tail->capacity) {
            tail_grow(tail);
        }
        tail->ring[(tail->head + tail->count) & (tail->capacity - 1)] = vp_journal_entry_ref(entry);
        tail->count++;
        tail->bytes += entry_bytes(entry);
    }
    tail->end = revision;
    while (tail->bytes > tail->max_bytes && tail->count > 0) {
        tail_drop_first(tail);
    }
}

void vp_tail_compact(VpTail *tail, gint64 revision)
{
    VP_LOCK(&tail->lock);
    while (tail->count > 0 && tail_at(tail, 0)->revision < revision) {
        tail_drop_first(tail);
    }
    tail->start = MAX(tail->start, revision);
}

gboolean vp_tail_read(VpTail *tail, gint64 from_revision, guint max_entries, GPtrArray *entries,
                      gint64 *ret_next_revision)
{
    VP_LOCK(&tail->lock);
    if (from_revision < tail->start) {
        return FALSE;
    }
    if (from_revision > tail->end) {
        *ret_next_revision = from_revision;
        return TRUE;
    }

    gsize low = 0;
    gsize high = tail->count;

    while (low < high) {
        const gsize middle = low + (high - low) / 2;

        if (tail_at(tail, middle)->revision < from_revision) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (guint taken = 0; low < tail->count; low++, taken++) {
        VpJournalEntry *entry = tail_at(tail, low);

        if (taken >= max_entries && (low == 0 || entry->revision != tail_at(tail, low - 1)->revision)) {
            *ret_next_revision = entry->revision;
            return TRUE;
        }
        g_ptr_array_add(entries, vp_journal_entry_ref(entry));
    }
    *ret_next_revision = tail->end + 1;
    return TRUE;
}

gint64 vp_tail_end(VpTail *tail)
{
    VP_LOCK(&tail->lock);
    return tail->end;
}

void vp_tail_free(VpTail *tail)
{
    if (!tail) {
        return;
    }
    for (gsize i = 0; i < tail->count; i++) {
        vp_journal_entry_unref(tail_at(tail, i));
    }
    g_free(tail->ring);
    pthread_mutex_destroy(&tail->lock);
    g_free(tail);
}
