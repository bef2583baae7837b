/* Accounts of identities: see accounts.h. One lock for the table; what an account counts is under its own. */
#include "server/rpc/accounts.h"

#include "base/thread.h"

#define MOST 4096
#define RETRY_MS 1000

/* So much at once, and as much in a second: kept as the time at which the bucket is full again. */
typedef struct Bucket {
    gint64 full_ns;
} Bucket;

struct VpAccount {
    gint refs; /* the table's is one */
    char *identity;
    guint generation; /* of the limits; under the table's mutex */

    pthread_mutex_t mutex; /* guards what follows */
    VpLimits limits;
    guint calls;
    guint streams;
    guint connections;
    Bucket bucket;
};

struct VpAccounts {
    guint calls_per_second;
    pthread_mutex_t mutex; /* guards what follows */
    GHashTable *by_identity;
    VpAccount *others;
    guint generation;

    pthread_mutex_t bucket_mutex; /* taken with an account's held, as the other is not */
    Bucket bucket;
};

/* ---- the bucket ---- */

/* Takes one of a bucket of `per_second`. 0, or the milliseconds until there is one. */
static gint64 take(Bucket *bucket, guint per_second, gint64 now_us)
{
    const gint64 second_ns = G_GINT64_CONSTANT(1000000000);
    const gint64 each_ns = MAX(1, second_ns / per_second);
    const gint64 now_ns = now_us * 1000;
    const gint64 full_ns = MAX(bucket->full_ns, now_ns) + each_ns;

    if (full_ns - now_ns > MAX(second_ns, each_ns))
        return (full_ns - now_ns - MAX(second_ns, each_ns)) / 1000000 + 1;
    bucket->full_ns = full_ns;
    return 0;
}

static VpError *too_fast(const char *who, guint per_second, gint64 wait_ms)
{
    return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "CALLS_TOO_FAST",
                                       "%s may make %u calls a second; try again in %" G_GINT64_FORMAT " ms", who,
                                       per_second, wait_ms),
                          wait_ms);
}

/* ---- the table ---- */

static VpAccount *account_new(const char *identity)
{
    VpAccount *account = g_new0(VpAccount, 1);

    account->refs = 1;
    account->identity = g_strdup(identity);
    pthread_mutex_init(&account->mutex, NULL);
    return account;
}

VpAccount *vp_account_ref(VpAccount *account)
{
    g_atomic_int_inc(&account->refs);
    return account;
}

void vp_account_unref(VpAccount *account)
{
    if (!account || !g_atomic_int_dec_and_test(&account->refs))
        return;
    g_free(account->identity);
    pthread_mutex_destroy(&account->mutex);
    g_free(account);
}

static void unref(gpointer account)
{
    vp_account_unref(account);
}

VpAccounts *vp_accounts_new(guint calls_per_second)
{
    VpAccounts *accounts = g_new0(VpAccounts, 1);

    accounts->calls_per_second = calls_per_second;
    accounts->by_identity = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, unref);
    pthread_mutex_init(&accounts->mutex, NULL);
    pthread_mutex_init(&accounts->bucket_mutex, NULL);
    return accounts;
}

void vp_accounts_free(VpAccounts *accounts)
{
    if (!accounts)
        return;
    g_hash_table_unref(accounts->by_identity);
    vp_account_unref(accounts->others);
    pthread_mutex_destroy(&accounts->bucket_mutex);
    pthread_mutex_destroy(&accounts->mutex);
    g_free(accounts);
}

/* Nobody has it, and its bucket is full: nothing is lost with it. */
static gboolean is_idle(gpointer key, gpointer value, gpointer data)
{
    VpAccount *account = value;
    const gint64 *now_us = data;

    (void)key;
    if (g_atomic_int_get(&account->refs) > 1)
        return FALSE;
    VP_LOCK(&account->mutex);
    return account->bucket.full_ns <= *now_us * 1000;
}

/* Under the mutex: the account, or the one that those share for whom there is no room; borrowed. */
static VpAccount *find(VpAccounts *accounts, const char *identity)
{
    VpAccount *account = g_hash_table_lookup(accounts->by_identity, identity);

    if (account)
        return account;
    if (g_hash_table_size(accounts->by_identity) >= MOST) {
        gint64 now_us = vp_now_us();

        g_hash_table_foreach_remove(accounts->by_identity, is_idle, &now_us);
    }
    if (g_hash_table_size(accounts->by_identity) >= MOST) {
        if (!accounts->others)
            accounts->others = account_new("one of many identities");
        return accounts->others;
    }
    account = account_new(identity);
    account->generation = accounts->generation - 1;
    g_hash_table_insert(accounts->by_identity, account->identity, account);
    return account;
}

VpAccount *vp_accounts_get(VpAccounts *accounts, const char *identity, void (*ask)(void *data, VpLimits *ret_limits),
                           void *data)
{
    VP_LOCK(&accounts->mutex);
    VpAccount *account = find(accounts, identity);

    if (account->generation != accounts->generation || account == accounts->others) {
        VpLimits limits = {0};

        ask(data, &limits);
        VP_LOCK(&account->mutex);
        account->limits = limits;
        account->generation = accounts->generation;
    }
    return vp_account_ref(account);
}

void vp_accounts_refresh(VpAccounts *accounts)
{
    VP_LOCK(&accounts->mutex);
    accounts->generation++;
}

guint vp_accounts_count(VpAccounts *accounts)
{
    VP_LOCK(&accounts->mutex);
    return g_hash_table_size(accounts->by_identity);
}

VpLimits vp_account_limits(VpAccount *account)
{
    VP_LOCK(&account->mutex);
    return account->limits;
}

/* ---- counting ---- */

static VpError *too_many(const VpAccount *account, const char *reason, guint most, const char *what)
{
    return vp_error_retry(vp_error_with(vp_error_new(VP_RESOURCE_EXHAUSTED, reason,
                                                     "%s has %u %s, which is the limit; end some, or try again later",
                                                     account->identity, most, what),
                                        "identity", account->identity),
                          RETRY_MS);
}

/* Of all together; asked last, so that what an account's own limit refuses takes nothing of what is everyone's. */
static VpError *take_of_all(VpAccounts *accounts, gint64 now_us)
{
    if (!accounts->calls_per_second)
        return NULL;
    VP_LOCK(&accounts->bucket_mutex);
    const gint64 wait_ms = take(&accounts->bucket, accounts->calls_per_second, now_us);
    return wait_ms ? too_fast("all clients together", accounts->calls_per_second, wait_ms) : NULL;
}

VpError *vp_account_enter(VpAccounts *accounts, VpAccount *account, gint64 now_us)
{
    VP_LOCK(&account->mutex);
    if (account->limits.calls && account->calls >= account->limits.calls)
        return too_many(account, "TOO_MANY_CALLS", account->limits.calls, "calls in flight");
    if (account->limits.calls_per_second) {
        const gint64 wait_ms = take(&account->bucket, account->limits.calls_per_second, now_us);

        if (wait_ms)
            return too_fast(account->identity, account->limits.calls_per_second, wait_ms);
    }
    VpError *error = take_of_all(accounts, now_us);
    if (!error)
        account->calls++;
    return error;
}

void vp_account_leave(VpAccount *account)
{
    VP_LOCK(&account->mutex);
    account->calls--;
}

VpError *vp_account_enter_stream(VpAccount *account)
{
    VP_LOCK(&account->mutex);
    if (account->limits.streams && account->streams >= account->limits.streams)
        return too_many(account, "TOO_MANY_STREAMS", account->limits.streams, "streams open");
    account->streams++;
    return NULL;
}

void vp_account_leave_stream(VpAccount *account)
{
    VP_LOCK(&account->mutex);
    account->streams--;
}

gboolean vp_account_enter_connection(VpAccount *account)
{
    VP_LOCK(&account->mutex);
    if (account->limits.connections && account->connections >= account->limits.connections)
        return FALSE;
    account->connections++;
    return TRUE;
}

void vp_account_leave_connection(VpAccount *account)
{
    VP_LOCK(&account->mutex);
    account->connections--;
}

VpError *vp_account_too_many_connections(VpAccount *account)
{
    VP_LOCK(&account->mutex);
    return too_many(account, "TOO_MANY_CONNECTIONS", account->limits.connections, "connections open");
}
