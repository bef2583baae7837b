/* Turns among groups and lanes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/fair.h"

/* Pops all; the items are texts of one letter. */
static char *pop_all(VpFair *fair)
{
    GString *order = g_string_new(NULL);

    for (const char *item = vp_fair_pop(fair); item; item = vp_fair_pop(fair))
        g_string_append(order, item);
    assert_int_equal(vp_fair_length(fair), 0);
    return g_string_free(order, FALSE);
}

static void assert_order(VpFair *fair, const char *expected)
{
    g_autofree char *order = pop_all(fair);

    assert_string_equal(order, expected);
}

static void test_groups_take_turns(void **state)
{
    VpFair *fair = vp_fair_new();

    (void)state;
    for (guint i = 0; i < 4; i++)
        vp_fair_push(fair, 1, 1, (char *)"a");
    vp_fair_push(fair, 2, 1, (char *)"b");
    vp_fair_push(fair, 2, 1, (char *)"c");
    vp_fair_push(fair, 3, 1, (char *)"d");
    assert_int_equal(vp_fair_length(fair), 7);
    assert_int_equal(vp_fair_group_length(fair, 1), 4);
    assert_int_equal(vp_fair_group_length(fair, 9), 0);
    assert_order(fair, "abdacaa");
    vp_fair_free(fair);
}

/* Two lanes of one group have together as much as the one lane of another. */
static void test_lanes_share_their_groups_turns(void **state)
{
    VpFair *fair = vp_fair_new();

    (void)state;
    for (guint i = 0; i < 3; i++) {
        vp_fair_push(fair, 1, 1, (char *)"a");
        vp_fair_push(fair, 1, 2, (char *)"b");
        vp_fair_push(fair, 2, 7, (char *)"x");
    }
    assert_int_equal(vp_fair_lane_length(fair, 1, 2), 3);
    assert_int_equal(vp_fair_lane_length(fair, 2, 1), 0);
    assert_order(fair, "axbxaxbab");
    vp_fair_free(fair);
}

/* Who comes late to a long queue is next but one, and a group that was empty comes anew. */
static void test_late_ones_do_not_wait_for_all(void **state)
{
    VpFair *fair = vp_fair_new();

    (void)state;
    assert_null(vp_fair_pop(fair));
    for (guint i = 0; i < 1000; i++)
        vp_fair_push(fair, 1, i % 10, (char *)"g");
    assert_string_equal(vp_fair_pop(fair), "g");
    vp_fair_push(fair, 2, 1, (char *)"v");
    assert_string_equal(vp_fair_pop(fair), "g");
    assert_string_equal(vp_fair_pop(fair), "v");
    assert_string_equal(vp_fair_pop(fair), "g");
    vp_fair_push(fair, 2, 1, (char *)"v");
    assert_string_equal(vp_fair_pop(fair), "g");
    assert_string_equal(vp_fair_pop(fair), "v");
    /* What is left is let go of. */
    vp_fair_free(fair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_take_turns),
        cmocka_unit_test(test_lanes_share_their_groups_turns),
        cmocka_unit_test(test_late_ones_do_not_wait_for_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
