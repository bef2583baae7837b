/* Event streams over a real server and a real store, where the daemon's API has no hand in it: compaction, transactions of several events, many streams. */
#include "base/pb.h"
#include "base/thread.h"
#include "clients/c/client.h"
#include "server/services/services.h"
#include "tests/unit/store/fixture.h"

#define SOON_MS 20000
#define SOON_US (20 * G_USEC_PER_SEC)

typedef struct World {
    Fixture *fixture;
    VpPool *pool;
    VpLoop *loop;
    VpServices services;
    VpRpcServer *server;
    VpHandlerTable tables[2];
    char *address;
    VpClient *client;
} World;

static int set_up(void **state, gsize tail_bytes)
{
    World *world = g_new0(World, 1);
    VpError *error = NULL;

    vp_client_library_init();
    fixture_setup((void **)&world->fixture);
    fixture_close(world->fixture);
    fixture_open(world->fixture, 0, tail_bytes);
    world->pool = vp_pool_new("worker", 4, 16, &error);
    world->loop = vp_loop_new("loop", &error);
    world->services = (VpServices){.store = world->fixture->store, .pool = world->pool, .loop = world->loop};
    assert_null(vp_page_key_init(&world->services.page_key));
    world->services.events = vp_event_hub_new(world->fixture->store, world->pool, world->loop, &error);
    world->tables[0] = (VpHandlerTable){.handlers = vp_event_handlers, .context = &world->services};
    world->address = g_strdup_printf("unix:%s/s", world->fixture->dir);
    const char *const listen[] = {world->address, NULL};
    const VpRpcOptions options = {.listen = listen,
                                  .threads = 1,
                                  .pool = world->pool,
                                  .loop = world->loop,
                                  .tables = world->tables};
    world->server = vp_rpc_server_new(&options, &error);
    assert_null(error);
    world->client = vp_client_new(world->address, &error);
    assert_null(error);
    *state = world;
    return 0;
}

/* With a short tail: those who lag read from the disk. */
static int setup(void **state)
{
    return set_up(state, 64 << 10);
}

static int setup_large_tail(void **state)
{
    return set_up(state, 16 << 20);
}

static int teardown(void **state)
{
    World *world = *state;

    vp_client_free(world->client);
    vp_rpc_server_drain(world->server, vp_now_us() + SOON_US);
    vp_event_hub_free(world->services.events);
    vp_rpc_server_free(world->server);
    vp_pool_free(world->pool);
    vp_loop_free(world->loop);
    g_free(world->address);
    fixture_teardown((void **)&world->fixture);
    g_free(world);
    vp_client_library_shutdown();
    return 0;
}

static VpClientStream *watch(VpClient *client, gint64 start, guint batch)
{
    PbWatchEventsRequest request = PB_WATCH_EVENTS_REQUEST__INIT;
    VpError *error = NULL;

    request.start_revision = start;
    request.max_batch = batch;
    VpClientStream *stream =
        vp_client_stream_new(client, &pb_event_service__descriptor, "WatchEvents", &request, 0, &error);
    assert_null(error);
    return stream;
}

static PbWatchEventsResponse *next(VpClientStream *stream)
{
    VpError *error = NULL;
    PbWatchEventsResponse *message = vp_client_stream_read(stream, SOON_MS, &error);

    if (!message)
        fail_msg("the stream ended: %s", error ? error->message : "well");
    return message;
}

/* Reads until the stream fails. */
static VpError *end_of(VpClientStream *stream)
{
    VpError *error = NULL;

    for (;;) {
        vp_pb_auto PbWatchEventsResponse *message = vp_client_stream_read(stream, SOON_MS, &error);

        if (!message)
            break;
    }
    assert_non_null(error);
    return error;
}

static void assert_refused(World *world, gint64 start, const char *reason, const char *key, gint64 value)
{
    g_autoptr(VpClientStream) stream = watch(world->client, start, 0);
    g_autoptr(VpError) error = end_of(stream);
    g_autofree char *text = g_strdup_printf("%" G_GINT64_FORMAT, value);

    assert_int_equal(error->code, VP_OUT_OF_RANGE);
    assert_string_equal(error->reason, reason);
    assert_string_equal(vp_error_get(error, key), text);
}

/* "1:a 1:b 2:c": all events up to `last` of a stream that starts at `start`. */
static char *events_from(World *world, gint64 start, guint batch, gint64 last, guint of_last)
{
    g_autoptr(VpClientStream) stream = watch(world->client, start, batch);
    GString *text = g_string_new(NULL);
    guint seen = 0;

    while (seen < of_last) {
        vp_pb_auto PbWatchEventsResponse *message = next(stream);
        PbEvent **events = message->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENTS ? message->events->events
                                                                                             : &message->event;
        const gsize n = message->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENTS  ? message->events->n_events
                        : message->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT ? 1
                                                                                           : 0;
        for (gsize i = 0; i < n; i++) {
            g_string_append_printf(text, "%s%" G_GINT64_FORMAT ":%.1s", text->len ? " " : "", events[i]->revision,
                                   events[i]->name);
            seen += events[i]->revision == last;
        }
    }
    return g_string_free(text, FALSE);
}

static void add_event(VpTxn *txn, int letter, gsize bytes)
{
    g_autofree char *name = g_strnfill(bytes, (char)letter);

    txn_event(txn, name);
}

static void resumes_at_each_boundary(void **state)
{
    World *world = *state;
    VpStore *store = world->fixture->store;

    for (int letter = 'a'; letter < 'e'; letter++) {
        VpTxn *txn = vp_txn_new();

        add_event(txn, letter, 1);
        add_event(txn, letter, 1);
        commit(store, txn);
    }
    assert_null(vp_store_compact(store, 2));
    for (guint batch = 0; batch < 4; batch++) {
        g_autofree char *all = events_from(world, 1, batch, 4, 2);
        g_autofree char *oldest = events_from(world, 2, batch, 4, 2);
        g_autofree char *last = events_from(world, 4, batch, 4, 2);

        assert_string_equal(all, "2:b 2:b 3:c 3:c 4:d 4:d");
        assert_string_equal(oldest, all);
        assert_string_equal(last, "4:d 4:d");
    }
    g_autoptr(VpClientStream) coming = watch(world->client, 5, 0);
    vp_pb_auto PbWatchEventsResponse *greeting = next(coming);
    assert_int_equal(greeting->bookmark->revision, 4);
    assert_refused(world, 6, "REVISION_IN_FUTURE", "next_revision", 5);
    assert_null(vp_store_compact(store, 4));
    assert_refused(world, 3, "REVISION_COMPACTED", "oldest_revision", 4);
}

/* The events of one transaction are more than what is written at a time: it is cut, and nothing is lost or sent twice. */
static void cuts_large_transactions(void **state)
{
    World *world = *state;
    static const gsize sizes[] = {1, 5000, 20000, 60000, 3000, 3000, 3000, 3000, 3000, 3000, 40000, 1};
    GString *expected = g_string_new(NULL);

    for (gint64 revision = 1; revision <= 3; revision++) {
        VpTxn *txn = vp_txn_new();

        for (gsize i = 0; i < G_N_ELEMENTS(sizes); i++) {
            add_event(txn, (char)('a' + i), sizes[i]);
            g_string_append_printf(expected, "%s%" G_GINT64_FORMAT ":%c", expected->len ? " " : "", revision,
                                   (char)('a' + i));
        }
        assert_int_equal(commit(world->fixture->store, txn), revision);
    }
    for (guint batch = 0; batch <= 5; batch++) {
        g_autofree char *found = events_from(world, 1, batch, 3, G_N_ELEMENTS(sizes));

        assert_string_equal(found, expected->str);
    }
    g_string_free(expected, TRUE);
}

/* A consumer that lags is told when compaction has overtaken it, after what was sent before. */
static void is_overtaken_by_compaction(void **state)
{
    World *world = *state;
    VpStore *store = world->fixture->store;
    g_autoptr(VpClientStream) stream = watch(world->client, 1, 0);
    gint64 last = 0;

    vp_pb_free(next(stream));
    for (guint i = 0; i < 400; i++) {
        VpTxn *txn = vp_txn_new();

        add_event(txn, 'x', 50000);
        last = commit(store, txn);
    }
    assert_null(vp_store_compact(store, last));
    g_autofree char *oldest = g_strdup_printf("%" G_GINT64_FORMAT, last);
    g_autoptr(VpError) error = end_of(stream);

    assert_int_equal(error->code, VP_OUT_OF_RANGE);
    assert_string_equal(error->reason, "REVISION_COMPACTED");
    assert_string_equal(vp_error_get(error, "oldest_revision"), oldest);
}

static PbListEventsResponse *list(World *world, const char *token, guint page_size, gboolean oldest_first,
                                  VpError **error)
{
    PbListEventsRequest request = PB_LIST_EVENTS_REQUEST__INIT;

    request.page_size = page_size;
    request.page_token = (char *)token;
    request.oldest_first = oldest_first;
    return vp_client_call(world->client, &pb_event_service__descriptor, "ListEvents", &request, SOON_MS, error);
}

static void tells_when_a_page_is_gone(void **state)
{
    World *world = *state;
    VpStore *store = world->fixture->store;
    g_autoptr(VpError) error = NULL;

    for (int letter = 'a'; letter < 'h'; letter++) {
        VpTxn *txn = vp_txn_new();

        add_event(txn, letter, 1);
        commit(store, txn);
    }
    vp_pb_auto PbListEventsResponse *oldest = list(world, "", 2, TRUE, &error);
    vp_pb_auto PbListEventsResponse *newest = list(world, "", 2, FALSE, &error);
    assert_null(error);
    assert_null(vp_store_compact(store, 5));
    /* 3 and 4 were to come. */
    assert_null(list(world, oldest->next_page_token, 2, TRUE, &error));
    assert_string_equal(error->reason, "REVISION_COMPACTED");
    g_clear_pointer(&error, vp_error_free);
    /* The end has come nearer. */
    vp_pb_auto PbListEventsResponse *rest = list(world, newest->next_page_token, 2, FALSE, &error);
    assert_null(error);
    assert_int_equal(rest->n_events, 1);
    assert_int_equal(rest->events[0]->revision, 5);
    assert_string_equal(rest->next_page_token, "");
}

/* Entries as large as they can be: a page stops before it is more than a client takes. */
static void pages_are_bounded_in_bytes(void **state)
{
    World *world = *state;
    const guint events = 150;

    for (guint i = 0; i < events; i++) {
        VpTxn *txn = vp_txn_new();

        add_event(txn, 'x', 60000);
        commit(world->fixture->store, txn);
    }
    for (gboolean oldest_first = FALSE; oldest_first <= TRUE; oldest_first++) {
        g_autofree char *token = g_strdup("");
        guint found = 0;
        guint pages = 0;

        do {
            g_autoptr(VpError) error = NULL;
            vp_pb_auto PbListEventsResponse *page = list(world, token, 1000, oldest_first, &error);

            assert_null(error);
            assert_in_range(pb_list_events_response__get_packed_size(page), 1, VP_PAGE_MAX_BYTES + 1000);
            for (gsize i = 0; i < page->n_events; i++, found++)
                assert_int_equal(page->events[i]->revision, oldest_first ? found + 1 : events - found);
            pages++;
            g_free(token);
            token = g_strdup(page->next_page_token);
        } while (token[0]);
        assert_int_equal(found, events);
        assert_int_equal(pages, 3);
    }
}

/* ---- many streams ---- */

#define READERS 12
#define CHANGES 3000

typedef struct Consumer {
    World *world;
    pthread_t thread;
    guint number;
    gint64 last; /* the revision that it saw last */
    gboolean in_order;
} Consumer;

/* Reads to the end: a third of them break off and come back all the time, a third are slow. */
static void *consume(void *data)
{
    Consumer *consumer = data;
    VpError *error = NULL;
    VpClient *client = vp_client_new(consumer->world->address, &error);
    guint messages = 0;

    consumer->in_order = TRUE;
    while (consumer->last < CHANGES && consumer->in_order) {
        g_autoptr(VpClientStream) stream = watch(client, consumer->last + 1, consumer->number % 2 ? 50 : 0);
        gboolean going = TRUE;

        while (going && consumer->last < CHANGES) {
            vp_pb_auto PbWatchEventsResponse *message = vp_client_stream_read(stream, SOON_MS, &error);

            if (!message) {
                vp_error_free(error);
                consumer->in_order = FALSE;
                break;
            }
            if (message->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT) {
                consumer->in_order &= message->event->revision == consumer->last + 1;
                consumer->last = message->event->revision;
            }
            for (gsize i = 0;
                 message->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENTS && i < message->events->n_events;
                 i++) {
                consumer->in_order &= message->events->events[i]->revision == consumer->last + 1;
                consumer->last = message->events->events[i]->revision;
            }
            messages++;
            going = consumer->number % 3 != 1 || messages % 7 != 0;
            if (consumer->number % 3 == 2 && messages % 100 == 0)
                g_usleep(2000);
        }
    }
    vp_client_free(client);
    return NULL;
}

static void many_streams_see_all(void **state)
{
    World *world = *state;
    Consumer consumers[READERS] = {0};

    for (guint i = 0; i < READERS; i++) {
        consumers[i] = (Consumer){.world = world, .number = i};
        assert_null(vp_thread_start(&consumers[i].thread, "consumer", consume, &consumers[i]));
    }
    /* Streams that never read, to be dropped in whatever they are at. */
    g_autoptr(VpClientStream) stalled = watch(world->client, 1, 0);
    g_autoptr(VpClientStream) also_stalled = watch(world->client, 1, 1000);
    for (guint i = 0; i < CHANGES; i++) {
        VpTxn *txn = vp_txn_new();

        add_event(txn, 'x', 60);
        if (i % 10 == 0)
            commit(world->fixture->store, txn);
        else
            vp_store_commit(world->fixture->store, txn, NULL, NULL);
    }
    for (guint i = 0; i < READERS; i++) {
        pthread_join(consumers[i].thread, NULL);
        assert_true(consumers[i].in_order);
        assert_int_equal(consumers[i].last, CHANGES);
    }
}

/* More streams than there are workers and places in their queue, all of them far behind: they take turns. */
static void streams_that_are_behind_take_turns(void **state)
{
    World *world = *state;
    VpClientStream *streams[100];
    const guint changes = 500;

    for (guint i = 0; i < changes; i++) {
        VpTxn *txn = vp_txn_new();

        add_event(txn, 'x', 500);
        if (i + 1 < changes)
            vp_store_commit(world->fixture->store, txn, NULL, NULL);
        else
            commit(world->fixture->store, txn);
    }
    for (guint i = 0; i < G_N_ELEMENTS(streams); i++)
        streams[i] = watch(world->client, 1, i % 2 ? 1000 : 0);
    for (guint i = 0; i < G_N_ELEMENTS(streams); i++) {
        gint64 seen = 0;

        while (seen < changes) {
            vp_pb_auto PbWatchEventsResponse *message = next(streams[i]);

            if (message->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT)
                assert_int_equal(message->event->revision, ++seen);
            else if (message->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENTS)
                for (gsize k = 0; k < message->events->n_events; k++)
                    assert_int_equal(message->events->events[k]->revision, ++seen);
        }
        vp_client_stream_free(streams[i]);
    }
}

/* A filter that lets nothing pass for long: the stream is looked at in parts, and what it waits for comes. */
static void finds_a_needle(void **state)
{
    World *world = *state;
    PbWatchEventsRequest request = PB_WATCH_EVENTS_REQUEST__INIT;
    PbEventFilter filter = PB_EVENT_FILTER__INIT;
    char *names[] = {(char *)"zz"};
    VpError *error = NULL;
    gint64 last = 0;

    for (guint i = 0; i < 10000; i++) {
        VpTxn *txn = vp_txn_new();

        add_event(txn, i == 9000 ? 'z' : 'x', 2);
        if (i % 1000 < 999)
            vp_store_commit(world->fixture->store, txn, NULL, NULL);
        else
            last = commit(world->fixture->store, txn);
    }
    assert_int_equal(last, 10000);
    filter.n_names = 1;
    filter.names = names;
    request.start_revision = 1;
    request.filter = &filter;
    g_autoptr(VpClientStream) stream =
        vp_client_stream_new(world->client, &pb_event_service__descriptor, "WatchEvents", &request, 0, &error);
    vp_pb_free(next(stream));
    vp_pb_auto PbWatchEventsResponse *found = next(stream);
    assert_int_equal(found->event->revision, 9001);
    VpTxn *txn = vp_txn_new();
    add_event(txn, 'z', 2);
    commit(world->fixture->store, txn);
    vp_pb_auto PbWatchEventsResponse *live = next(stream);
    assert_int_equal(live->event->revision, 10001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(resumes_at_each_boundary, setup, teardown),
        cmocka_unit_test_setup_teardown(cuts_large_transactions, setup, teardown),
        cmocka_unit_test_setup_teardown(is_overtaken_by_compaction, setup, teardown),
        cmocka_unit_test_setup_teardown(tells_when_a_page_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(pages_are_bounded_in_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(many_streams_see_all, setup, teardown),
        cmocka_unit_test_setup_teardown(streams_that_are_behind_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(finds_a_needle, setup, teardown),
        cmocka_unit_test_setup_teardown(finds_a_needle, setup_large_tail, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
