/* Copies of a store that is in use: SQLite's online backup, held to one moment by a read transaction, so that writers go on and never make it start anew. */
#pragma once

#include "server/store/store.h"

/* See vp_store_backup(). Not for two at a time in one directory. */
int vp_backup_make(const char *dir, gboolean (*stop)(void *data), void *data, gint64 *ret_revision, VpError **error);
