/*
 * The check of a store's file, in use or not: SQLite's integrity_check, and what must hold of the rows. Of the journal: each entry can be read and
 * carries its own revision, entries of one revision are numbered from 0, none is beyond the store's revision, and they are as many and as large as the
 * store believes. Of the keys: made before they were changed, and not after the store's revision; under /domains/ a Domain whose uid is in the key, with a
 * spec, a status, and a name that no other has.
 */
#pragma once

#include "server/store/store.h"

VpError *vp_check_file(const char *path, gboolean (*stop)(void *data), void *data, VpStoreReport *ret_report);
