/* What identities may use: counts, the bucket of calls, and that idle ones are forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/thread.h"
#include "server/rpc/accounts.h"

static void give(void *data, VpLimits *ret_limits)
{
    *ret_limits = *(const VpLimits *)data;
}

static void assert_refused(VpError *error, const char *reason)
{
    assert_non_null(error);
    assert_int_equal(error->code, VP_RESOURCE_EXHAUSTED);
    assert_string_equal(error->reason, reason);
    assert_true(error->retry_after_ms > 0);
    vp_error_free(error);
}

static void test_what_is_under_way(void **state)
{
    VpLimits limits = {.calls = 2, .streams = 1, .connections = 1};
    VpAccounts *accounts = vp_accounts_new(0);
    VpAccount *account = vp_accounts_get(accounts, "uid:1", give, &limits);

    (void)state;
    assert_null(vp_account_enter(accounts, account, 0));
    assert_null(vp_account_enter(accounts, account, 0));
    assert_refused(vp_account_enter(accounts, account, 0), "TOO_MANY_CALLS");
    assert_null(vp_account_enter_stream(account));
    assert_refused(vp_account_enter_stream(account), "TOO_MANY_STREAMS");
    assert_true(vp_account_enter_connection(account));
    assert_false(vp_account_enter_connection(account));
    vp_account_leave(account);
    vp_account_leave_stream(account);
    vp_account_leave_connection(account);
    assert_null(vp_account_enter(accounts, account, 0));
    assert_true(vp_account_enter_connection(account));

    /* Asked for anew, the limits count at once. */
    limits.calls = 3;
    vp_account_unref(vp_accounts_get(accounts, "uid:1", give, &limits));
    assert_refused(vp_account_enter(accounts, account, 0), "TOO_MANY_CALLS");
    vp_accounts_refresh(accounts);
    vp_account_unref(vp_accounts_get(accounts, "uid:1", give, &limits));
    assert_null(vp_account_enter(accounts, account, 0));
    vp_account_unref(account);
    vp_accounts_free(accounts);
}

/* A second's worth at once, then one each time that there is one; and of all together as well. */
static void test_calls_a_second(void **state)
{
    const VpLimits limits = {.calls_per_second = 10};
    VpAccounts *accounts = vp_accounts_new(15);
    VpAccount *first = vp_accounts_get(accounts, "uid:1", give, (void *)&limits);
    VpAccount *second = vp_accounts_get(accounts, "uid:2", give, (void *)&limits);
    const gint64 start_us = 1000 * G_USEC_PER_SEC;

    (void)state;
    for (guint i = 0; i < 10; i++)
        assert_null(vp_account_enter(accounts, first, start_us));
    assert_refused(vp_account_enter(accounts, first, start_us), "CALLS_TOO_FAST");
    assert_refused(vp_account_enter(accounts, first, start_us + 99000), "CALLS_TOO_FAST");
    assert_null(vp_account_enter(accounts, first, start_us + 100000));
    assert_refused(vp_account_enter(accounts, first, start_us + 100000), "CALLS_TOO_FAST");
    /* What the first was refused took nothing of what is for all: five are left, and what has come since. */
    guint taken = 0;
    for (VpError *error = NULL; !error && taken < 100; taken++) {
        error = vp_account_enter(accounts, second, start_us + 100000);
        vp_error_free(error);
        if (error)
            break;
    }
    assert_in_range(taken, 4, 6);
    vp_account_unref(first);
    vp_account_unref(second);
    vp_accounts_free(accounts);
}

/* However many identities come: those that use nothing are forgotten, those that do are not, and beyond that there is one for all. */
static void test_the_table_has_a_bound(void **state)
{
    const VpLimits limits = {.calls_per_second = 1000};
    VpAccounts *accounts = vp_accounts_new(0);
    VpAccount *busy = vp_accounts_get(accounts, "busy", give, (void *)&limits);
    g_autoptr(GPtrArray) held = g_ptr_array_new();
    char name[32];

    (void)state;
    assert_null(vp_account_enter(accounts, busy, 0));
    for (guint i = 0; i < 20000; i++) {
        g_snprintf(name, sizeof(name), "token:%u", i);
        vp_account_unref(vp_accounts_get(accounts, name, give, (void *)&limits));
        assert_in_range(vp_accounts_count(accounts), 1, 4096);
    }
    VpAccount *again = vp_accounts_get(accounts, "busy", give, (void *)&limits);
    assert_ptr_equal(again, busy);
    vp_account_unref(again);
    for (guint i = 0; i < 5000; i++) {
        g_snprintf(name, sizeof(name), "uid:%u", i);
        g_ptr_array_add(held, vp_accounts_get(accounts, name, give, (void *)&limits));
    }
    assert_int_equal(vp_accounts_count(accounts), 4096);
    assert_ptr_equal(held->pdata[4998], held->pdata[4999]);
    assert_ptr_not_equal(held->pdata[0], held->pdata[1]);
    for (guint i = 0; i < held->len; i++)
        vp_account_unref(held->pdata[i]);
    vp_account_unref(busy);
    vp_accounts_free(accounts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_under_way),
        cmocka_unit_test(test_calls_a_second),
        cmocka_unit_test(test_the_table_has_a_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
