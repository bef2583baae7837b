/* What the store's tests share: a directory of their own, an open store, short ways to commit and read. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/store/store.h"

typedef struct Fixture {
    char *dir;
    VpStore *store;
} Fixture;

/* cmocka's setup and teardown: an empty directory, a store in it. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Opens (again) with these options; fails the test on an error. */
void fixture_open(Fixture *fixture, guint64 journal_max_events, gsize tail_max_bytes);
void fixture_close(Fixture *fixture);

/* Removes a directory and the files in it. */
void remove_dir(const char *dir);

/* Commits `txn`, which must succeed. */
gint64 commit(VpStore *store, VpTxn *txn);
/* Commits `txn`, which must fail; the error is the caller's. */
VpError *commit_fails(VpStore *store, VpTxn *txn);

void txn_put(VpTxn *txn, const char *key, const char *value);
/* An event of type DOMAIN_CREATED with this name. */
void txn_event(VpTxn *txn, const char *name);

/* Puts key = value with one event named like the key. */
gint64 put(VpStore *store, const char *key, const char *value);

/* Fails unless `key` has `value` (NULL: is not there). */
void assert_value(VpStore *store, const char *key, const char *value);

/* An array for journal entries. */
GPtrArray *entries_new(void);

/* "1:a 1:b 2:c": revision and name of each entry. The caller frees it. */
char *entries_text(const GPtrArray *entries);
