/*
 * The store: revisioned keys, transactions with compare, a journal of events, and a wake-up when it grows. etcd's semantics on purpose,
 * so that an etcd cluster can stand behind the same calls. Every change of the daemon's state goes through vp_store_commit().
 *
 * A transaction that changes anything gets one revision: a 64-bit counter that only grows and is never reused. Its puts, deletes and
 * events become visible together or not at all, and are on disk before anyone is told that they were made.
 */
#pragma once

#include "base/error.h"
#include "virtplane/v1/event.pb-c.h"

typedef struct VpStore VpStore;

typedef struct VpStoreOptions {
    const char *dir; /* exists; the store keeps its files and its lock in it */
    /* Older entries are compacted away in the background; a few more may stay for a while. 0: 1,000,000. */
    guint64 journal_max_events;
    /* Likewise by the bytes of the events, and by age. 0: no such limit. */
    guint64 journal_max_bytes;
    gint64 journal_max_age_s;
    /* The floor: so many of the newest events, and those younger than this, stay whatever the limits say. */
    guint64 journal_keep_events;
    gint64 journal_keep_age_s;
    /* How much of the journal's end is kept in memory for live readers. 0: 4 MiB. */
    gsize tail_max_bytes;
} VpStoreOptions;

/* Opens or creates the SQLite store in options->dir. FAILED_PRECONDITION, reason STORE_LOCKED, if another process has it open (the message
 * names its pid); STORE_CORRUPT (DATA_LOSS), STORE_TOO_NEW (FAILED_PRECONDITION), STORE_FULL, or the file system's error (STORE_UNUSABLE). */
VpStore *vp_store_open_sqlite(const VpStoreOptions *options, VpError **error);

/* Commits what is queued, closes. No call may be under way. NULL is let pass. */
void vp_store_close(VpStore *store);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpStore, vp_store_close)

/* Figures for administrators and benchmarks. */
typedef struct VpStoreStats {
    gint64 journal_events;
    gint64 journal_bytes; /* of the events; the file needs some more */
    gint64 compactions;   /* steps since the store was opened */
    gint64 compact_longest_us;
    gint64 commit_longest_us; /* a group's transaction with its fsync */
    gint64 upkeep_longest_us; /* copying the write-ahead log into the database */
} VpStoreStats;

/* Never blocks. */
void vp_store_stats(VpStore *store, VpStoreStats *ret_stats);

/* ---- transactions ---- */

/* What one transaction compares and changes. Not shared between threads. */
typedef struct VpTxn VpTxn;

VpTxn *vp_txn_new(void);

/* The transaction is done only if `key` was last changed at `mod_revision`; 0: only if it does not exist. */
void vp_txn_compare(VpTxn *txn, const char *key, gint64 mod_revision);

/* Keys are UTF-8 paths of at most 1,024 bytes, "/domains/<uid>"; values have at most 4 MiB, events 64 KiB, a transaction 4,096 parts and 32 MiB. What is
 * beyond fails the commit: INVALID_ARGUMENT, reason KEY_INVALID, VALUE_TOO_LARGE, EVENT_TOO_LARGE or TRANSACTION_TOO_LARGE. */
void vp_txn_put(VpTxn *txn, const char *key, GBytes *value);
void vp_txn_delete(VpTxn *txn, const char *key);

/* Appends an event; its revision and time are set at the commit, whatever the message says. Copies. */
void vp_txn_event(VpTxn *txn, const PbEvent *event);

void vp_txn_free(VpTxn *txn);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpTxn, vp_txn_free)

/* Told once per commit, on the store's writer thread, in the order of the revisions. Must not block. `error` is NULL if it is done
 * (borrowed otherwise): ABORTED, reason REVISION_CONFLICT, metadata `key` and `revision` (the present one, 0: none) if a compare failed;
 * RESOURCE_EXHAUSTED, reason STORE_FULL, if the disk is full, or STORE_BUSY, if too much is queued; UNAVAILABLE, reason STORE_FAILED, for other I/O
 * errors. After an error nothing of the transaction is there and `revision` is 0. `revision` is that of the transaction; for one that changes nothing,
 * the store's. The journal can be read up to it already, but vp_store_revision() counts it only once all of its group were told: whoever brings
 * memory up to date here, and marks what is read from there with vp_store_revision(), never marks it with a revision that it does not show yet. */
typedef void (*VpCommitDone)(void *data, gint64 revision, const VpError *error);

/* Queues `txn` (consumed) for the writer thread, which commits all that is queued with one fsync. Never blocks. Any thread. An empty
 * transaction is a barrier: it is told when all before it are done. */
void vp_store_commit(VpStore *store, VpTxn *txn, VpCommitDone done, void *data);

/* The same and waits; returns the revision (counted by vp_store_revision()), or 0 with `error` set. Not from the writer thread or an RPC thread. */
gint64 vp_store_commit_wait(VpStore *store, VpTxn *txn, VpError **error);

/* ---- reading keys; may block on the disk ---- */

typedef struct VpKeyValue {
    char *key;
    GBytes *value;
    gint64 create_revision;
    gint64 mod_revision;
} VpKeyValue;

void vp_key_value_free(VpKeyValue *kv);

/* One key, owned by the caller; NULL without error if there is none. */
VpKeyValue *vp_store_get(VpStore *store, const char *key, VpError **error);

/* The keys that start with `prefix` and come after `after` (NULL: from the first), in order, at most `limit` (0: all): a GPtrArray of
 * VpKeyValue that frees them. */
GPtrArray *vp_store_list(VpStore *store, const char *prefix, const char *after, guint limit, VpError **error);

/* All keys that start with `prefix`, as of one moment: the store at `ret_revision`, which is committed, though vp_store_revision() may count it a moment
 * later. A reader of the journal goes on after it with nothing missed and nothing twice. Owned by the caller, as that of vp_store_list(). */
GPtrArray *vp_store_snapshot(VpStore *store, const char *prefix, gint64 *ret_revision, VpError **error);

/* ---- the journal ---- */

/* One entry; immutable and counted, so that many streams can share it. */
typedef struct VpJournalEntry {
    gint64 revision;
    PbEvent *event; /* revision and time set */
    GBytes *packed; /* the same event on the wire */
} VpJournalEntry;

VpJournalEntry *vp_journal_entry_ref(VpJournalEntry *entry);
void vp_journal_entry_unref(VpJournalEntry *entry);

/* The revision of the last commit, and the oldest revision from which the journal can still be read on (1 if nothing was ever
 * compacted). Never block. */
gint64 vp_store_revision(VpStore *store);
gint64 vp_store_oldest_revision(VpStore *store);

/* The last revision whose events can be read. Who was told of a revision finds it here at once, and by vp_store_revision() perhaps a moment later: readers
 * of events go by this one, lists of what is kept in memory by the other. Any thread. */
gint64 vp_store_journal_end(VpStore *store);

/* Reads entries from `from_revision` on: whole transactions, until at least `max_entries` or 1 MiB of them were read or the journal ends. Appends them
 * (references) to `entries`, whose free function is vp_journal_entry_unref, and sets `ret_next_revision` to where to go on; for a revision that
 * is still to come that is the revision itself, with no entry.
 * OUT_OF_RANGE, reason REVISION_COMPACTED, metadata oldest_revision. May block on the disk. */
VpError *vp_store_read_journal(VpStore *store, gint64 from_revision, guint max_entries, GPtrArray *entries,
                               gint64 *ret_next_revision);

/* The same from memory alone, never blocking: FALSE if `from_revision` is no longer in the tail (then read the journal). */
gboolean vp_store_read_tail(VpStore *store, gint64 from_revision, guint max_entries, GPtrArray *entries,
                            gint64 *ret_next_revision);

/* Calls `wake(data)` on the writer thread after each group of commits that changed anything. Must not block or call back into the store. */
typedef struct VpStoreWatch VpStoreWatch;
VpStoreWatch *vp_store_watch(VpStore *store, void (*wake)(void *data), void *data);
/* After this returns `wake` is not called any more. Not from within `wake`. */
void vp_store_unwatch(VpStore *store, VpStoreWatch *watch);

/* Drops journal entries before `revision`: they cannot be read any more once this returns, and are deleted in small steps on the writer
 * thread. OUT_OF_RANGE, reason REVISION_FUTURE, beyond the next revision; an older one than the oldest changes nothing. May block on the disk. */
VpError *vp_store_compact(VpStore *store, gint64 revision);

/* ---- backup and check, while others read and write; see also offline.h ---- */

/* Copies the store, as of one moment (`ret_revision`), to a file without a name in its directory: a database that vp_store_restore() takes. Answers
 * a descriptor at its start, owned by the caller; -1: `error`. One at a time: ABORTED, reason BACKUP_RUNNING; STORE_FULL where the copy would leave too little
 * room for the store itself. `stop(data)` (may be NULL) is asked in between and ends it with CANCELLED. Blocks on the disk. */
int vp_store_backup(VpStore *store, gboolean (*stop)(void *data), void *data, gint64 *ret_revision, VpError **error);

/* What a check found. */
typedef struct VpStoreReport {
    gint64 revision; /* the moment that was looked at */
    gint64 keys;
    gint64 domains;
    gint64 events;
    GPtrArray *problems; /* of char *, at most 100; empty: all is well */
} VpStoreReport;

void vp_store_report_clear(VpStoreReport *report);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpStoreReport, vp_store_report_clear)

/* Reads all of the store, as of one moment: the database's own integrity, and what must hold of the rows (check.c says what). An error: it could not be
 * looked at. Problems are no error. `stop` as for a backup. Blocks on the disk. */
VpError *vp_store_check(VpStore *store, gboolean (*stop)(void *data), void *data, VpStoreReport *ret_report);
