/*
 * What each identity uses of the server at this moment, and what it may use: so that one takes no more than its part. Calls, streams and connections are
 * counted; calls a second are metered by a bucket of one second's worth. Identities that use nothing are forgotten when there are many: the table has a bound.
 */
#pragma once

#include "base/error.h"
#include "server/rpc/limits.h"

typedef struct VpAccounts VpAccounts;
typedef struct VpAccount VpAccount;

/* `calls_per_second` of all identities together; 0: no such limit. */
VpAccounts *vp_accounts_new(guint calls_per_second);
/* After the last account was put back. NULL is let pass. */
void vp_accounts_free(VpAccounts *accounts);

/* The account of an identity, to be put back. `ask(data, limits)` tells what it may use, if that is not known or vp_accounts_refresh() was called since: with
 * the table's lock held. Beyond 4,096 identities that all use something, further ones share one account. Any thread. */
VpAccount *vp_accounts_get(VpAccounts *accounts, const char *identity, void (*ask)(void *data, VpLimits *ret_limits),
                           void *data);
VpAccount *vp_account_ref(VpAccount *account);
/* NULL is let pass. */
void vp_account_unref(VpAccount *account);

/* The limits are asked for anew, as each identity comes. */
void vp_accounts_refresh(VpAccounts *accounts);

/* How many identities are known. */
guint vp_accounts_count(VpAccounts *accounts);

/* What it may use. */
VpLimits vp_account_limits(VpAccount *account);

/* Counts a call in: NULL, or RESOURCE_EXHAUSTED (reason TOO_MANY_CALLS or CALLS_TOO_FAST) with the time after which to try again; then it is not counted. */
VpError *vp_account_enter(VpAccounts *accounts, VpAccount *account, gint64 now_us);
void vp_account_leave(VpAccount *account);

/* The same for a stream: reason TOO_MANY_STREAMS. */
VpError *vp_account_enter_stream(VpAccount *account);
void vp_account_leave_stream(VpAccount *account);

/* Counts a connection in; FALSE: it has as many as it may. */
gboolean vp_account_enter_connection(VpAccount *account);
void vp_account_leave_connection(VpAccount *account);
VpError *vp_account_too_many_connections(VpAccount *account);
