/* A connection for reading that threads share, one at a time. The store has one for keys and one for the journal, so that a consumer that
 * reads a long stretch of history delays no look-up. */
#pragma once

#include "server/store/store.h"

typedef struct VpReader VpReader;

VpReader *vp_reader_open(const char *dir, VpError **error);

/* As the functions of store.h. `end`: entries after this revision are not read. */
VpKeyValue *vp_reader_get(VpReader *reader, const char *key, VpError **error);
GPtrArray *vp_reader_list(VpReader *reader, const char *prefix, const char *after, guint limit, VpError **error);
GPtrArray *vp_reader_snapshot(VpReader *reader, const char *prefix, gint64 *ret_revision, VpError **error);
VpError *vp_reader_journal(VpReader *reader, gint64 from_revision, gint64 end, guint max_entries, GPtrArray *entries,
                           gint64 *ret_next_revision);

void vp_reader_close(VpReader *reader);
