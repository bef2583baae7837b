/* What the writer does to the database: one transaction's changes, and the compaction of the journal in steps. Within a transaction of
 * SQLite that the writer has begun, but for the step of the compaction, which is one of its own. */
#pragma once

#include "server/store/db.h"
#include "server/store/txn.h"

/* Carries out `txn` within a savepoint, as the revision after meta->revision, and counts it in `meta`; appends its journal entries to `entries`.
 * After an error (REVISION_CONFLICT, or the disk's) neither the database nor `meta` nor `entries` has changed, unless SQLite gave the whole
 * transaction up: then sqlite3_get_autocommit() says so. */
VpError *vp_apply_txn(VpDb *db, const VpTxn *txn, gint64 wall_us, VpDbMeta *meta, GPtrArray *entries);

/* One step of the compaction: deletes at most about 256 rows (whole transactions) of what is compacted or beyond `max_events`, and commits.
 * `ret_more`: there is more to do. */
VpError *vp_apply_trim(VpDb *db, guint64 max_events, VpDbMeta *meta, gboolean *ret_more);
