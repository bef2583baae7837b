/* Whose database a file is, the version of its tables, and the steps from each earlier version to the present one. db.c calls it at the start. */
#pragma once

#include "server/store/db.h"

/* The version that this program writes: `PRAGMA user_version`. */
#define VP_SCHEMA_VERSION 2

/* "vpst", `PRAGMA application_id`: file(1) and we tell by it whose database a file is. */
#define VP_SCHEMA_APPLICATION_ID 0x76707374

/* Gives a new database its tables, brings an old one up to date; each step is one transaction, so that a crash leaves one version or the next.
 * STORE_CORRUPT (not ours), STORE_TOO_NEW. */
VpError *vp_schema_prepare(VpDb *db);

/* The same look without a change, for a database that is not to be written: also STORE_TOO_OLD. */
VpError *vp_schema_check(VpDb *db);
