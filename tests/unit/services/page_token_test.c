/* Page tokens: only what this daemon gave out for this method and this filter is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/pb.h"
#include "server/services/page_token.h"
#include "virtplane/v1/domain.pb-c.h"

static VpPageKey key;

static int setup(void **state)
{
    (void)state;
    return vp_page_key_init(&key) ? -1 : 0;
}

static void is_refused(const VpPageKey *with, const char *method, const void *filter, const char *token)
{
    char *position = (char *)"untouched";
    g_autoptr(VpError) error = vp_page_token_read(with, method, filter, token, &position);

    if (!error)
        fail_msg("\"%s\" was taken", token);
    assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    assert_string_equal(error->reason, "INVALID_PAGE_TOKEN");
    assert_string_equal(g_array_index(error->violations, VpErrorPair, 0).key, "page_token");
    assert_string_equal(position, "untouched");
}

static void is_taken(const char *method, const void *filter, const char *token, const char *expected)
{
    g_autofree char *position = NULL;
    g_autoptr(VpError) error = vp_page_token_read(&key, method, filter, token, &position);

    assert_null(error);
    if (expected)
        assert_string_equal(position, expected);
    else
        assert_null(position);
}

static PbDomainFilter *filter_of(const char *name)
{
    PbDomainFilter *filter = vp_pb_new(&pb_domain_filter__descriptor);

    vp_pb_append(&filter->n_names, &filter->names, g_strdup(name));
    return filter;
}

static void a_token_comes_back(void **state)
{
    static const char *const positions[] = {"web", "", "4711.3", "\xc3\xa4 b"};
    vp_pb_auto PbDomainFilter *filter = filter_of("w*");

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(positions); i++) {
        g_autofree char *token = vp_page_token_new(&key, "ListDomains", NULL, positions[i]);
        g_autofree char *filtered = vp_page_token_new(&key, "ListDomains", filter, positions[i]);

        is_taken("ListDomains", NULL, token, positions[i]);
        is_taken("ListDomains", filter, filtered, positions[i]);
        /* It fits into a request. */
        assert_true(strlen(token) < 4096);
    }
}

static void no_token_is_the_first_page(void **state)
{
    (void)state;
    is_taken("ListDomains", NULL, "", NULL);
}

static void another_list(void **state)
{
    vp_pb_auto PbDomainFilter *filter = filter_of("w*");
    vp_pb_auto PbDomainFilter *other = filter_of("x*");
    g_autofree char *token = vp_page_token_new(&key, "ListDomains", filter, "web");
    VpPageKey later;

    (void)state;
    is_refused(&key, "ListEvents", filter, token);
    is_refused(&key, "ListDomains", other, token);
    is_refused(&key, "ListDomains", NULL, token);
    assert_null(vp_page_key_init(&later));
    is_refused(&later, "ListDomains", filter, token);
}

static void forged(void **state)
{
    g_autofree char *token = vp_page_token_new(&key, "ListDomains", NULL, "web");
    gsize size = 0;
    g_autofree guchar *bytes = g_base64_decode(token, &size);

    (void)state;
    for (gsize i = 0; i < size; i++) {
        for (guint bit = 0; bit < 8; bit++) {
            bytes[i] ^= (guchar)(1u << bit);
            g_autofree char *changed = g_base64_encode(bytes, size);
            bytes[i] ^= (guchar)(1u << bit);
            is_refused(&key, "ListDomains", NULL, changed);
        }
    }
    for (gsize length = 1; length < size; length++) {
        g_autofree char *shorter = g_base64_encode(bytes, length);
        is_refused(&key, "ListDomains", NULL, shorter);
    }
    is_refused(&key, "ListDomains", NULL, "web");
    is_refused(&key, "ListDomains", NULL, "!!!");
    is_refused(&key, "ListDomains", NULL, "AAAA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_comes_back),
        cmocka_unit_test(no_token_is_the_first_page),
        cmocka_unit_test(another_list),
        cmocka_unit_test(forged),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
