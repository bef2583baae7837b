/* What is done to a store while no daemon has it: vpctl admin restore, and check --state-dir. Both take the directory's lock (STORE_LOCKED). */
#pragma once

#include "server/store/store.h"

/* As vp_store_check(). */
VpError *vp_store_check_dir(const char *dir, VpStoreReport *ret_report);

/*
 * Puts a copy of `file`, a backup, in the place of the store in `dir` (made with mode 0700 if it is not there). It is copied, brought up to the present schema
 * and checked first: STORE_CORRUPT, and the old store stays as it is. The old one is kept as store.db.before-restore. `ret_report` is of the new one.
 */
VpError *vp_store_restore(const char *dir, const char *file, VpStoreReport *ret_report);
