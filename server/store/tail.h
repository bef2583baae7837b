/*
 * The end of the journal in memory, for live readers: filled by the writer, read by any thread, never blocking on the disk. Bounded in
 * bytes; what falls out is read from the disk again by those who are behind.
 */
#pragma once

#include "server/store/store.h"

typedef struct VpTail VpTail;

/* A tail that starts empty after `revision`. */
VpTail *vp_tail_new(gsize max_bytes, gint64 revision);

/* A new entry, one reference held by the caller; takes over `event` and `packed`. */
VpJournalEntry *vp_journal_entry_new(gint64 revision, PbEvent *event, GBytes *packed);

/* Appends the entries (references taken) of all transactions up to `revision`. */
void vp_tail_append(VpTail *tail, GPtrArray *entries, gint64 revision);

/* Forgets what is older than `revision`. */
void vp_tail_compact(VpTail *tail, gint64 revision);

/* As vp_store_read_tail(). */
gboolean vp_tail_read(VpTail *tail, gint64 from_revision, guint max_entries, GPtrArray *entries,
                      gint64 *ret_next_revision);

/* The last revision whose entries are there. */
gint64 vp_tail_end(VpTail *tail);

void vp_tail_free(VpTail *tail);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpTail, vp_tail_free)
