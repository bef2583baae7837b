/* The error type: what is put in comes out, in order, and in a copy that shares nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "base/error.h"

static void holds_what_it_was_given(void **state)
{
    g_autoptr(VpError) error = vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "there is no domain %s", "a%sb");

    (void)state;
    assert_int_equal(error->code, VP_NOT_FOUND);
    assert_string_equal(error->reason, "DOMAIN_NOT_FOUND");
    assert_string_equal(error->message, "there is no domain a%sb");
    assert_null(error->metadata);
    assert_null(error->violations);
    assert_int_equal(error->retry_after_ms, 0);
}

static void errno_gives_code_and_words(void **state)
{
    static const struct {
        int errnum;
        VpCode code;
    } codes[] = {
        {ENOENT, VP_NOT_FOUND},          {EACCES, VP_PERMISSION_DENIED},  {EPERM, VP_PERMISSION_DENIED},
        {ENOSPC, VP_RESOURCE_EXHAUSTED}, {EDQUOT, VP_RESOURCE_EXHAUSTED}, {EMFILE, VP_RESOURCE_EXHAUSTED},
        {ENFILE, VP_RESOURCE_EXHAUSTED}, {ENOMEM, VP_RESOURCE_EXHAUSTED}, {EIO, VP_INTERNAL},
    };

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(codes); i++) {
        g_autoptr(VpError) error = vp_error_errno(codes[i].errnum, "X", "cannot open %s", "/a");
        g_autofree char *message = g_strdup_printf("cannot open /a: %s", g_strerror(codes[i].errnum));

        assert_int_equal(error->code, codes[i].code);
        assert_string_equal(error->message, message);
    }
}

static void metadata_keep_their_order_and_the_first_of_a_key(void **state)
{
    g_autoptr(VpError) error = vp_error_new(VP_INTERNAL, "X", "x");

    (void)state;
    assert_null(vp_error_get(error, "a"));
    assert_ptr_equal(vp_error_with(error, "b", "1"), error);
    vp_error_with(vp_error_with(error, "a", "2"), "b", "3");
    assert_int_equal(error->metadata->len, 3);
    assert_string_equal(g_array_index(error->metadata, VpErrorPair, 1).key, "a");
    assert_string_equal(vp_error_get(error, "b"), "1");
    assert_null(vp_error_get(error, "c"));
}

static void a_prefix_goes_before_the_message(void **state)
{
    g_autoptr(VpError) error = vp_error_new(VP_INTERNAL, "X", "no room");

    (void)state;
    assert_ptr_equal(vp_error_prefix(error, "disk %d", 3), error);
    vp_error_prefix(error, "domain %s", "a");
    assert_string_equal(error->message, "domain a: disk 3: no room");
}

static void a_copy_is_whole_and_shares_nothing(void **state)
{
    VpError *error = vp_error_new(VP_ABORTED, "X", "first");

    (void)state;
    vp_error_with(error, "k", "v");
    vp_error_violation(error, "domain.name", "is %s", "taken");
    vp_error_retry(error, 1500);
    g_autoptr(VpError) copy = vp_error_copy(error);
    vp_error_prefix(error, "changed");
    vp_error_with(error, "k2", "v2");
    vp_error_free(error);

    assert_int_equal(copy->code, VP_ABORTED);
    assert_string_equal(copy->reason, "X");
    assert_string_equal(copy->message, "first");
    assert_int_equal(copy->metadata->len, 1);
    assert_string_equal(vp_error_get(copy, "k"), "v");
    assert_int_equal(copy->violations->len, 1);
    assert_string_equal(g_array_index(copy->violations, VpErrorPair, 0).key, "domain.name");
    assert_string_equal(g_array_index(copy->violations, VpErrorPair, 0).value, "is taken");
    assert_int_equal(copy->retry_after_ms, 1500);
}

static void nothing_is_let_pass(void **state)
{
    (void)state;
    vp_error_free(NULL);
    assert_null(vp_error_copy(NULL));
    g_autoptr(VpError) without = vp_error_new(VP_UNKNOWN, NULL, "no reason");
    g_autoptr(VpError) copy = vp_error_copy(without);
    assert_null(copy->reason);
}

static void every_code_has_its_name(void **state)
{
    static const char *const names[] =
        {"OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
         "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
         "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
         "DATA_LOSS", "UNAUTHENTICATED"};

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(names); i++)
        assert_string_equal(vp_code_name((VpCode)i), names[i]);
    assert_string_equal(vp_code_name((VpCode)17), "UNKNOWN");
    assert_string_equal(vp_code_name((VpCode)-1), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_what_it_was_given),
        cmocka_unit_test(errno_gives_code_and_words),
        cmocka_unit_test(metadata_keep_their_order_and_the_first_of_a_key),
        cmocka_unit_test(a_prefix_goes_before_the_message),
        cmocka_unit_test(a_copy_is_whole_and_shares_nothing),
        cmocka_unit_test(nothing_is_let_pass),
        cmocka_unit_test(every_code_has_its_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
