/* Event filters: every field that is set must match, one of its values suffices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/pb.h"
#include "server/services/event_hub.h"

static PbEvent *event(void)
{
    PbEvent *event = vp_pb_new(&pb_event__descriptor);

    event->type = PB_EVENT_TYPE_DOMAIN_STARTED;
    vp_pb_set(&event->resource_type, "domain");
    vp_pb_set(&event->name, "web");
    vp_pb_set(&event->uid, "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55");
    vp_pb_set(&event->driver, "test");
    return event;
}

static void add(size_t *n, char ***values, const char *value)
{
    vp_pb_append(n, values, g_strdup(value));
}

static void add_type(PbEventFilter *filter, PbEventType type)
{
    filter->types = g_realloc_n(filter->types, filter->n_types + 1, sizeof(filter->types[0]));
    filter->types[filter->n_types++] = type;
}

static void nothing_set_lets_all_pass(void **state)
{
    vp_pb_auto PbEvent *started = event();
    vp_pb_auto PbEvent *empty = vp_pb_new(&pb_event__descriptor);
    vp_pb_auto PbEventFilter *filter = vp_pb_new(&pb_event_filter__descriptor);

    (void)state;
    assert_true(vp_event_matches(NULL, started));
    assert_true(vp_event_matches(filter, started));
    assert_true(vp_event_matches(filter, empty));
}

/* Each field by itself: another value, then the event's beside it. */
static void one_value_of_a_field_suffices(void **state)
{
    vp_pb_auto PbEvent *started = event();

    (void)state;
    for (guint field = 0; field < 5; field++) {
        vp_pb_auto PbEventFilter *filter = vp_pb_new(&pb_event_filter__descriptor);

        for (guint right = 0; right < 2; right++) {
            switch (field) {
            case 0:
                add_type(filter, right ? PB_EVENT_TYPE_DOMAIN_STARTED : PB_EVENT_TYPE_DOMAIN_CREATED);
                break;
            case 1:
                add(&filter->n_resource_types, &filter->resource_types, right ? "domain" : "image");
                break;
            case 2:
                add(&filter->n_names, &filter->names, right ? "web" : "we");
                break;
            case 3:
                add(&filter->n_uids, &filter->uids, right ? started->uid : "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e56");
                break;
            default:
                add(&filter->n_drivers, &filter->drivers, right ? "test" : "qemu");
                break;
            }
            assert_int_equal(vp_event_matches(filter, started), right == 1);
        }
    }
}

static void all_fields_must_match(void **state)
{
    vp_pb_auto PbEvent *started = event();
    vp_pb_auto PbEvent *other = event();
    vp_pb_auto PbEventFilter *filter = vp_pb_new(&pb_event_filter__descriptor);

    (void)state;
    add_type(filter, PB_EVENT_TYPE_DOMAIN_STARTED);
    add(&filter->n_names, &filter->names, "web");
    add(&filter->n_drivers, &filter->drivers, "test");
    vp_pb_set(&other->name, "db");
    assert_true(vp_event_matches(filter, started));
    assert_false(vp_event_matches(filter, other));
    /* A filter for a driver is one for domains: the daemon's own events have none. */
    vp_pb_set(&other->name, "web");
    vp_pb_set(&other->driver, "");
    assert_false(vp_event_matches(filter, other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_set_lets_all_pass),
        cmocka_unit_test(one_value_of_a_field_suffices),
        cmocka_unit_test(all_fields_must_match),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
