/* Rich errors: what is in google.rpc.Status, in which order, and that it stays within its bound without losing what programs need. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/pb.h"
#include "google_rpc.pb-c.h"
#include "server/rpc/status.h"

static Google__Rpc__Status *status_of(const VpError *error, gsize max_bytes)
{
    g_autoptr(GBytes) packed = vp_status_details(error, max_bytes);
    Google__Rpc__Status *status = vp_pb_unpack(&google__rpc__status__descriptor, packed);

    assert_true(g_bytes_get_size(packed) <= max_bytes);
    assert_non_null(status);
    return status;
}

/* The detail of this type, owned by the caller, or NULL. */
static void *detail(const Google__Rpc__Status *status, const ProtobufCMessageDescriptor *descriptor)
{
    g_autofree char *url = g_strconcat("type.googleapis.com/", descriptor->name, NULL);

    for (size_t i = 0; i < status->n_details; i++) {
        const Google__Protobuf__Any *any = status->details[i];

        if (g_str_equal(any->type_url, url)) {
            void *message = protobuf_c_message_unpack(descriptor, NULL, any->value.len, any->value.data);

            assert_non_null(message);
            return message;
        }
    }
    return NULL;
}

static void all_of_an_error_is_there(void **state)
{
    g_autoptr(VpError) error = vp_error_new(VP_INVALID_ARGUMENT, "INVALID_SPEC", "two things are wrong");

    (void)state;
    vp_error_with(vp_error_with(error, "second", "2"), "first", "1");
    vp_error_violation(error, "domain.name", "must be set");
    vp_error_violation(error, "domain.spec", "must be set too");
    vp_error_retry(error, 1250);
    vp_pb_auto Google__Rpc__Status *status = status_of(error, 4096);
    vp_pb_auto Google__Rpc__ErrorInfo *info = detail(status, &google__rpc__error_info__descriptor);
    vp_pb_auto Google__Rpc__BadRequest *bad = detail(status, &google__rpc__bad_request__descriptor);
    vp_pb_auto Google__Rpc__RetryInfo *retry = detail(status, &google__rpc__retry_info__descriptor);

    assert_int_equal(status->code, 3);
    assert_string_equal(status->message, "two things are wrong");
    assert_int_equal(status->n_details, 3);
    assert_string_equal(info->reason, "INVALID_SPEC");
    assert_string_equal(info->domain, "virtplane");
    assert_int_equal(info->n_metadata, 2);
    assert_string_equal(info->metadata[0]->key, "second");
    assert_string_equal(info->metadata[1]->key, "first");
    assert_string_equal(info->metadata[1]->value, "1");
    assert_int_equal(bad->n_field_violations, 2);
    assert_string_equal(bad->field_violations[0]->field, "domain.name");
    assert_string_equal(bad->field_violations[1]->description, "must be set too");
    assert_int_equal(retry->retry_delay->seconds, 1);
    assert_int_equal(retry->retry_delay->nanos, 250000000);
}

static void what_is_not_there_is_left_out(void **state)
{
    g_autoptr(VpError) error = vp_error_new(VP_INTERNAL, NULL, "no reason");
    g_autoptr(VpError) with_reason = vp_error_new(VP_INTERNAL, "X", "a reason");

    (void)state;
    vp_pb_auto Google__Rpc__Status *status = status_of(error, 4096);
    vp_pb_auto Google__Rpc__Status *second = status_of(with_reason, 4096);
    assert_int_equal(status->n_details, 0);
    assert_int_equal(second->n_details, 1);
}

static VpError *large_error(gsize size)
{
    g_autofree char *text = g_strnfill(size, 'x');
    VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "FORMAT_NOT_DECLARED", "%s", text);

    vp_error_with(error, "disk", "vda");
    vp_error_with(error, "path", text);
    for (guint i = 0; i < 10; i++)
        vp_error_violation(error, "a", "%s", text);
    return vp_error_retry(error, 1000);
}

/* A program needs the reason before all else, whatever the sizes of the rest. */
static void the_reason_is_never_lost(void **state)
{
    static const gsize sizes[] = {1, 100, 300, 1000, 3000, 4000, 5000, 100000};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autoptr(VpError) error = large_error(sizes[i]);
        vp_pb_auto Google__Rpc__Status *status = status_of(error, 4096);
        vp_pb_auto Google__Rpc__ErrorInfo *info = detail(status, &google__rpc__error_info__descriptor);

        assert_int_equal(status->code, 9);
        assert_non_null(info);
        assert_string_equal(info->reason, "FORMAT_NOT_DECLARED");
        /* The short value stays where the long one does not fit. */
        assert_true(info->n_metadata >= 1);
        assert_string_equal(info->metadata[0]->key, "disk");
        assert_string_equal(info->metadata[0]->value, "vda");
        assert_true(strlen(status->message) >= MIN(sizes[i], 500));
    }
}

static void every_bound_is_kept(void **state)
{
    g_autoptr(VpError) error = large_error(700);

    (void)state;
    /* A message cannot be shorter than its code. */
    for (gsize max_bytes = 2; max_bytes < 9000; max_bytes += 7) {
        vp_pb_auto Google__Rpc__Status *status = status_of(error, max_bytes);

        assert_int_equal(status->code, 9);
    }
}

/* A client's decoder refuses the whole status if one string of it is no UTF-8: words of a hypervisor, names of files. */
static void what_is_no_utf8_is_made_so(void **state)
{
    g_autoptr(VpError) error = vp_error_new(VP_INTERNAL, "X", "cannot open /\xff%s", "/a");

    (void)state;
    vp_error_with(error, "path", "/\xff/a");
    vp_error_violation(error, "a", "b\xc3");
    vp_pb_auto Google__Rpc__Status *status = status_of(error, 4096);
    vp_pb_auto Google__Rpc__ErrorInfo *info = detail(status, &google__rpc__error_info__descriptor);
    vp_pb_auto Google__Rpc__BadRequest *bad = detail(status, &google__rpc__bad_request__descriptor);
    assert_true(g_utf8_validate(status->message, -1, NULL));
    assert_non_null(strstr(status->message, "/a"));
    assert_true(g_utf8_validate(info->metadata[0]->value, -1, NULL));
    assert_true(g_utf8_validate(bad->field_violations[0]->description, -1, NULL));
}

/* And so if it was cut in the middle of a character. */
static void a_cut_keeps_characters_whole(void **state)
{
    (void)state;
    for (guint lead = 0; lead < 4; lead++) {
        g_autoptr(GString) text = g_string_new(NULL);

        for (guint i = 0; i < lead; i++)
            g_string_append_c(text, 'x');
        for (guint i = 0; i < 3000; i++)
            g_string_append(text, "\xf0\x9f\x92\xbe");
        g_autoptr(VpError) error = vp_error_new(VP_INTERNAL, "X", "%s", text->str);
        vp_error_with(error, "k", text->str);
        vp_pb_auto Google__Rpc__Status *status = status_of(error, 4096);
        assert_true(g_utf8_validate(status->message, -1, NULL));
        assert_true(strlen(status->message) > 500);
    }
}

/* What a person reads is the same, whether the client shows the header or what is in the details. */
static void the_message_is_the_same_in_both(void **state)
{
    static const gsize sizes[] = {0, 1, 1023, 1024, 1025, 3000, 100000};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree char *text = g_strnfill(sizes[i], '\xff');
        g_autoptr(VpError) error = vp_error_new(VP_INTERNAL, "X", "/%s", text);
        g_autofree char *sent = vp_status_message(error);
        vp_pb_auto Google__Rpc__Status *status = status_of(error, VP_STATUS_DETAILS_BYTES);

        assert_string_equal(sent, status->message);
        assert_true(g_utf8_validate(sent, -1, NULL));
        assert_true(strlen(sent) <= VP_STATUS_MESSAGE_BYTES &&
                    strlen(sent) + 3 >= MIN(sizes[i], VP_STATUS_MESSAGE_BYTES));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_an_error_is_there),        cmocka_unit_test(what_is_not_there_is_left_out),
        cmocka_unit_test(the_reason_is_never_lost),        cmocka_unit_test(every_bound_is_kept),
        cmocka_unit_test(what_is_no_utf8_is_made_so),      cmocka_unit_test(a_cut_keeps_characters_whole),
        cmocka_unit_test(the_message_is_the_same_in_both),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
