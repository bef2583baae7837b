/* Event lines, filters, the place in the journal, and the cursor file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>
#include <glib/gstdio.h>

#include "base/pb.h"
#include "clients/cli/event_line.h"

static void writes_lines(void **state)
{
    (void)state;
    vp_pb_auto PbEvent *event = vp_pb_new(&pb_event__descriptor);

    event->revision = 42;
    event->time = vp_pb_timestamp(G_GINT64_CONSTANT(1767323045678000));
    event->type = PB_EVENT_TYPE_DOMAIN_CRASHED;
    vp_pb_set(&event->resource_type, "domain");
    vp_pb_set(&event->name, "we\033b");
    g_autofree char *bare = vp_event_line(event, FALSE);
    assert_string_equal(bare, "    42  2026-01-02 03:04:05.678  domain-crashed          domain/we\\x1bb");

    vp_pb_set(&event->reason, "PROCESS_EXITED");
    vp_pb_set(&event->detail, "line 1\nline 2");
    g_autofree char *full = vp_event_line(event, TRUE);
    assert_string_equal(
        full,
        "    42  2026-01-02 03:04:05.678  \033[1;31mdomain-crashed        \033[0m  domain/we\\x1bb  PROCESS_EXITED  "
        "line 1\\nline 2");

    vp_pb_set(&event->name, "/i/a.qcow2");
    g_autofree char *path = vp_event_line(event, FALSE);
    assert_non_null(strstr(path, "domain /i/a.qcow2  PROCESS"));

    event->type = (PbEventType)999;
    g_autofree char *newer = vp_event_line(event, FALSE);
    assert_non_null(g_strstr_len(newer, -1, "  999  "));
}

static void reads_filters(void **state)
{
    (void)state;
    vp_pb_auto PbEventFilter *filter = vp_pb_new(&pb_event_filter__descriptor);

    assert_null(vp_event_filter_add(filter, "type=domain-started"));
    assert_null(vp_event_filter_add(filter, "type=EVENT_TYPE_DOMAIN_CRASHED"));
    assert_null(vp_event_filter_add(filter, "name=a=b"));
    assert_null(vp_event_filter_add(filter, "resource=domain"));
    assert_null(vp_event_filter_add(filter, "uid=u"));
    assert_null(vp_event_filter_add(filter, "driver=test"));
    assert_null(vp_event_filter_add(filter, "label=tier=a=b"));
    assert_null(vp_event_filter_add(filter, "label=zone="));
    assert_int_equal(filter->n_labels, 2);
    assert_string_equal(filter->labels[0]->key, "tier");
    assert_string_equal(filter->labels[0]->value, "a=b");
    assert_string_equal(filter->labels[1]->value, "");
    assert_int_equal(filter->n_types, 2);
    assert_int_equal(filter->types[1], PB_EVENT_TYPE_DOMAIN_CRASHED);
    assert_string_equal(filter->names[0], "a=b");
    assert_string_equal(filter->resource_types[0], "domain");

    g_autoptr(VpError) type = vp_event_filter_add(filter, "type=x");
    g_autoptr(VpError) key = vp_event_filter_add(filter, "colour=red");
    g_autoptr(VpError) value = vp_event_filter_add(filter, "name");
    g_autoptr(VpError) resource = vp_event_filter_add(filter, "resource=typo");
    assert_non_null(strstr(resource->message, "operation"));
    assert_non_null(type);
    assert_non_null(key);
    assert_non_null(value);
}

static void goes_on_where_it_was(void **state)
{
    (void)state;
    VpEventPlace place;

    vp_event_place_init(&place, 1);
    assert_int_equal(vp_event_place_open(&place), 1);
    vp_event_place_bookmark(&place, 900); /* a greeting: what comes is what counts */
    assert_int_equal(place.complete, 0);
    assert_true(vp_event_place_event(&place, 5));
    assert_int_equal(place.complete, 4);
    assert_true(vp_event_place_event(&place, 7));
    assert_true(vp_event_place_event(&place, 7));
    assert_int_equal(place.complete, 6);

    /* Broken in the middle of revision 7: the two that were handled come again, the third is new. */
    assert_int_equal(vp_event_place_open(&place), 7);
    vp_event_place_bookmark(&place, 6);
    assert_false(vp_event_place_event(&place, 7));
    assert_false(vp_event_place_event(&place, 7));
    assert_true(vp_event_place_event(&place, 7));

    /* And broken again before all of them had come. */
    assert_int_equal(vp_event_place_open(&place), 7);
    assert_false(vp_event_place_event(&place, 7));
    assert_int_equal(vp_event_place_open(&place), 7);
    for (int i = 0; i < 3; i++)
        assert_false(vp_event_place_event(&place, 7));
    vp_event_place_bookmark(&place, 7);
    assert_int_equal(place.complete, 7);
    assert_int_equal(vp_event_place_open(&place), 8);
    assert_true(vp_event_place_event(&place, 8));
}

static void starts_from_now_on(void **state)
{
    (void)state;
    VpEventPlace place;

    vp_event_place_init(&place, 0);
    assert_int_equal(vp_event_place_open(&place), 0);
    assert_int_equal(vp_event_place_open(&place), 0); /* nothing has come: still from now on */
    vp_event_place_bookmark(&place, 41);
    assert_int_equal(vp_event_place_open(&place), 42);
    vp_event_place_bookmark(&place, 40); /* never back */
    assert_int_equal(place.complete, 41);
}

static void keeps_a_cursor(void **state)
{
    (void)state;
    g_autofree char *folder = g_dir_make_tmp("vpctl-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "cursor", NULL);
    g_autofree char *nowhere = g_build_filename(folder, "none", "cursor", NULL);
    VpEventPlace place = {.complete = 42};
    VpEventPlace loaded = {0};
    gboolean found = TRUE;

    assert_null(vp_event_cursor_load(path, &loaded, &found));
    assert_false(found);
    assert_null(vp_event_cursor_save(path, &place));
    assert_null(vp_event_cursor_load(path, &loaded, &found));
    assert_true(found);
    assert_int_equal(loaded.complete, 42);
    assert_int_equal(vp_event_place_open(&loaded), 43);
    assert_true(vp_event_place_event(&loaded, 43));
    assert_true(vp_event_place_event(&loaded, 43));

    /* Between two events of one revision: the ones that were handled do not come again. */
    assert_null(vp_event_cursor_save(path, &loaded));
    assert_null(vp_event_cursor_load(path, &place, &found));
    assert_int_equal(vp_event_place_open(&place), 43);
    assert_false(vp_event_place_event(&place, 43));
    assert_false(vp_event_place_event(&place, 43));
    assert_true(vp_event_place_event(&place, 43));

    g_autoptr(VpError) unwritable = vp_event_cursor_save(nowhere, &place);
    assert_non_null(unwritable);
    static const char *const broken[] = {"", "garbage", "-1", "1 2", "5 5 1", "5 6 0", "5 6 1 7", "5  6 1"};
    for (gsize i = 0; i < G_N_ELEMENTS(broken); i++) {
        assert_true(g_file_set_contents(path, broken[i], -1, NULL));
        g_autoptr(VpError) error = vp_event_cursor_load(path, &loaded, &found);
        if (!error)
            fail_msg("taken: \"%s\"", broken[i]);
    }

    /* Saving leaves nothing else behind. */
    assert_int_equal(g_unlink(path), 0);
    assert_int_equal(g_rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_lines),       cmocka_unit_test(reads_filters),  cmocka_unit_test(goes_on_where_it_was),
        cmocka_unit_test(starts_from_now_on), cmocka_unit_test(keeps_a_cursor),
    };

    g_setenv("TZ", "UTC", TRUE);
    tzset();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
