/*
 * Who has created what, so that one identity does not fill the store: a row beside each object, in the transaction that makes or deletes it, and counts in
 * memory.
 */
#pragma once

#include "server/store/store.h"

typedef struct VpOwners VpOwners;

typedef struct VpOwnersOptions {
    VpStore *store;
    const char *prefix; /* of the rows, "/domain-owners/"; nobody else's. A literal, as the next two */
    const char *reason; /* "TOO_MANY_DOMAINS" */
    const char *what;   /* "domains" */
    guint most;         /* that there may be of all; 0: no limit */
} VpOwnersOptions;

/* Loads the rows. */
VpOwners *vp_owners_new(const VpOwnersOptions *options, VpError **error);
/* All that was committed before was told. NULL is let pass. */
void vp_owners_free(VpOwners *owners);

/* Counts one more in for `identity`, which may have `most` (0: no limit), where there are `present` of all. RESOURCE_EXHAUSTED: it is not counted. Any
 * thread. */
VpError *vp_owners_take(VpOwners *owners, const char *identity, guint most, guint present);
/* It was not made after all. */
void vp_owners_give_back(VpOwners *owners, const char *identity);

/* For the transaction that makes an object that was counted in, and once that is committed; one that is in memory alone has no row. */
void vp_owners_add(VpTxn *txn, const VpOwners *owners, const char *uid, const char *identity);
void vp_owners_added(VpOwners *owners, const char *uid, const char *identity);

/* The same for its end. Of one whose owner is not known nothing is done. */
void vp_owners_remove(VpTxn *txn, VpOwners *owners, const char *uid);
void vp_owners_removed(VpOwners *owners, const char *uid);
