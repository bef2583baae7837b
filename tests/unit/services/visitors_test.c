/* Clients that come in: each is told once, and many at once do not fill the journal. */
#include "server/services/visitors.h"

#include "tests/unit/store/fixture.h"

/* What was told by now: "name detail|name detail". */
static char *told(VpStore *store)
{
    g_autoptr(GPtrArray) entries = entries_new();
    GString *text = g_string_new(NULL);
    gint64 next = 0;

    commit(store, vp_txn_new());
    assert_null(vp_store_read_journal(store, 1, 10000, entries, &next));
    for (guint i = 0; i < entries->len; i++) {
        const PbEvent *event = ((const VpJournalEntry *)entries->pdata[i])->event;

        assert_int_equal(event->type, PB_EVENT_TYPE_CLIENT_CONNECTED);
        assert_string_equal(event->resource_type, "connection");
        g_string_append_printf(text, "%s%s %s", text->len ? "|" : "", event->name, event->detail);
    }
    return g_string_free(text, FALSE);
}

static void each_is_told_once(void **state)
{
    Fixture *fixture = *state;
    VpVisitors *visitors = vp_visitors_new(fixture->store);

    for (int i = 0; i < 3; i++) {
        vp_visitors_note(visitors, "uid:0", "uid=0 pid=1");
        vp_visitors_note(visitors, "uid:0", "uid=0 pid=2");
        vp_visitors_note(visitors, "cn:bad\xff", "cn:bad\xff ipv4:192.0.2.1:7");
    }
    g_autofree char *text = told(fixture->store);
    assert_string_equal(text,
                        "uid:0 uid=0 pid=1|uid:0 uid=0 pid=2|cn:bad\xef\xbf\xbd cn:bad\xef\xbf\xbd ipv4:192.0.2.1:7");
    vp_visitors_free(visitors);
}

static void many_at_once_are_bounded(void **state)
{
    Fixture *fixture = *state;
    VpVisitors *visitors = vp_visitors_new(fixture->store);

    for (int i = 0; i < 20000; i++) {
        g_autofree char *caller = g_strdup_printf("uid=0 pid=%d", i);

        vp_visitors_note(visitors, "uid:0", caller);
    }
    g_autofree char *text = told(fixture->store);
    g_auto(GStrv) each = g_strsplit(text, "|", -1);
    /* 50 at once; some more if the machine took seconds. */
    assert_in_range(g_strv_length(each), 50, 250);
    vp_visitors_free(visitors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_is_told_once, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(many_at_once_are_bounded, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
