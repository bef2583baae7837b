/*
 * Request ids: what makes a create safe to retry. The id is stored in the transaction of the change it made, with a fingerprint of the request; a retry is
 * answered from it. Kept for a day, at most 100,000 of them.
 */
#pragma once

#include "server/store/store.h"

typedef struct VpRequests VpRequests;

/* How long they are kept. */
#define VP_REQUESTS_KEEP_SECONDS (24 * 60 * 60)

/* Loads those that are kept below `prefix` ("/requests/"), which nobody else uses. What is older than `keep_seconds` is dropped bit by bit, when others are
 * added. */
VpRequests *vp_requests_new(VpStore *store, const char *prefix, gint64 keep_seconds, VpError **error);
/* All that was committed before was told. */
void vp_requests_free(VpRequests *requests);

/* The fingerprint of a request message, owned by the caller. */
char *vp_request_fingerprint(const void *message);

/* What became of request `id` of `identity`: FALSE if it is unknown (or `id` is empty). TRUE: `ret_uid` (owned by the caller) is the resource's,
 * `ret_revision` that of the change. With another fingerprint: TRUE and `error` set, INVALID_ARGUMENT, reason REQUEST_ID_REUSED. */
gboolean vp_requests_find(VpRequests *requests, const char *identity, const char *id, const char *fingerprint,
                          char **ret_uid, gint64 *ret_revision, VpError **error);

/* Adds it to the transaction of its change. Nothing if `id` is empty. */
void vp_requests_add(VpRequests *requests, VpTxn *txn, const char *identity, const char *id, const char *fingerprint,
                     const char *uid);

/* The transaction is committed: from now on retries find it. */
void vp_requests_done(VpRequests *requests, const char *identity, const char *id, const char *fingerprint,
                      const char *uid, gint64 revision);
