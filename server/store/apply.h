/* What the writer does to the database: one transaction's changes, and the compaction of the journal in steps. Within a transaction of
 * SQLite that the writer has begun, but for the step of the compaction, which is one of its own. */
#pragma once

#include "server/store/db.h"
#include "server/store/txn.h"

/* Carries out `txn` within a savepoint, as the revision after meta->revision, and counts it in `meta`; appends its journal entries to `entries`.
 * After an error (REVISION_CONFLICT, or the disk's) neither the database nor `meta` nor `entries` has changed, unless SQLite gave the whole
 * transaction up: then sqlite3_get_autocommit() says so. */
VpError *vp_apply_txn(VpDb *db, const VpTxn *txn, gint64 wall_us, VpDbMeta *meta, GPtrArray *entries);

/* How many rows one step of the compaction deletes at most, whole transactions apart: so few that nobody waits for it. */
#define VP_TRIM_ROWS 256

/* How much of the journal is kept. 0: no limit, but for max_events. */
typedef struct VpRetention {
    guint64 max_events;
    guint64 max_bytes;
    gint64 max_age_us;
    /* The floor: what no limit takes away. */
    guint64 keep_events;
    gint64 keep_age_us;
} VpRetention;

/* One step of the compaction: deletes what is compacted already and, from the oldest on, whole transactions that `keep` does not hold, at most about
 * VP_TRIM_ROWS rows, and commits. `ret_more`: there is more to do. After an error nothing has changed. Leaves the connection not durable
 * (vp_db_set_durable()): whoever commits next sets that. */
VpError *vp_apply_trim(VpDb *db, const VpRetention *keep, gint64 wall_us, VpDbMeta *meta, gboolean *ret_more);
