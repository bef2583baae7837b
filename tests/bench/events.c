/*
 * The event figures: how many subscribers hear of how many changes, how soon, and what those cost the daemon who do not listen.
 *
 * The changes are made through the API, as anyone makes them: UpdateDomain on domains of the test driver, over a few connections with many calls
 * under way. Nearly all subscribers count every event and check that its revision is the next one; the rest read nothing after their first message.
 */
#include <glib/gstdio.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/pb.h"
#include "base/thread.h"
#include "tests/bench/bench.h"
#include "tests/bench/soak.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"

#define DOMAINS 200
#define WRITERS 4
#define CREATE "/virtplane.v1.DomainService/CreateDomain"
#define UPDATE "/virtplane.v1.DomainService/UpdateDomain"
#define MOST_IN_FLIGHT 512
#define READERS 2
#define WAIT_S 60
#define SAMPLE_MS 100
#define MIB 1048576.0
/* Latencies are counted in classes of about 3 %: 32 to each doubling. */
#define CLASS_BITS 5
#define CLASSES (40 << CLASS_BITS)

/* What the command line may change. */
static gint seconds = 60;
static gint subscribers = 1000;
static gint connections = 50;
static gint stalled = 100;
static gint rate = 2000;
static gint batch = 256;
static gint soak = SOAK_EVENTS;

typedef struct Subscriber {
    struct Reader *reader;
    grpc_call *call;
    grpc_metadata_array initial;
    grpc_byte_buffer *message;
    gint64 revision; /* the last one seen */
    gboolean stalls;
    gboolean greeted;
} Subscriber;

/* A thread that receives for its share of the subscribers. */
typedef struct Reader {
    grpc_completion_queue *cq;
    pthread_t thread;
    guint64 classes[CLASSES];
} Reader;

typedef struct Change {
    grpc_call *call;
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_byte_buffer *answer;
    grpc_status_code status;
    grpc_slice details;
} Change;

typedef struct Bench {
    char *dir;
    char *address;
    pid_t daemon;
    grpc_channel **channels;
    Subscriber *subscribers;
    Reader readers[READERS];
    atomic_int_fast64_t greeted;
    atomic_int_fast64_t delivered;
    atomic_int_fast64_t last_us; /* of the last delivery */
    atomic_bool ending;
} Bench;

static Bench bench;

static gpr_timespec deadline_in(gint64 wait_s)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(wait_s, GPR_TIMESPAN));
}

static grpc_channel *open_channel(void)
{
    /* Without it channels to one address share one connection. */
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)"grpc.use_local_subchannel_pool", .value.integer = 1};
    const grpc_channel_args args = {.num_args = 1, .args = &arg};
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(bench.address, credentials, &args);

    grpc_channel_credentials_release(credentials);
    return channel;
}

static grpc_byte_buffer *buffer_of(GBytes *bytes)
{
    gsize size;
    const void *data = g_bytes_get_data(bytes, &size);
    grpc_slice slice = grpc_slice_from_copied_buffer(data, size);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

    grpc_slice_unref(slice);
    return buffer;
}

/* ---- what is received: read off the wire, since unpacking it all would be most of the work ---- */

typedef struct Wire {
    const guint8 *at;
    const guint8 *end;
} Wire;

static guint64 wire_varint(Wire *wire)
{
    guint64 value = 0;

    for (guint shift = 0; shift < 64 && wire->at < wire->end; shift += 7) {
        const guint8 byte = *wire->at++;

        value |= (guint64)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
    bench_die("a message is cut short");
}

/* The next field: its number, and its value or what it holds. FALSE at the end. */
static gboolean wire_field(Wire *wire, guint *ret_number, guint64 *ret_value, Wire *ret_inner)
{
    if (wire->at == wire->end)
        return FALSE;
    const guint64 tag = wire_varint(wire);

    *ret_number = (guint)(tag >> 3);
    *ret_value = wire_varint(wire);
    if ((tag & 7) == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
        if (*ret_value > (guint64)(wire->end - wire->at))
            bench_die("a message is cut short");
        *ret_inner = (Wire){wire->at, wire->at + *ret_value};
        wire->at += *ret_value;
    }
    return TRUE;
}

static guint class_of(gint64 us)
{
    const guint64 value = (guint64)MAX(us, 1);
    const guint bits = (guint)g_bit_storage((gulong)value);
    const guint shift = bits > CLASS_BITS + 1 ? bits - CLASS_BITS - 1 : 0;

    return MIN((guint)((guint64)shift << CLASS_BITS) + (guint)(value >> shift), CLASSES - 1);
}

static gdouble class_us(guint class)
{
    const guint shift = class >= 2u << CLASS_BITS ? (class >> CLASS_BITS) - 1 : 0;

    return (gdouble)((guint64)(class - (shift << CLASS_BITS)) << shift);
}

static void take_event(Subscriber *subscriber, Wire event, gint64 now_us)
{
    guint number;
    guint64 value;
    Wire inner = {0};
    gint64 revision = 0;
    gint64 time_us = 0;

    /* The first two fields. */
    while (time_us == 0 && wire_field(&event, &number, &value, &inner)) {
        if (number == 1)
            revision = (gint64)value;
        if (number != 2)
            continue;
        Wire time = inner;
        while (wire_field(&time, &number, &value, &inner))
            time_us += (gint64)(number == 1 ? value * G_USEC_PER_SEC : value / 1000);
    }
    if (revision != subscriber->revision + 1)
        bench_die("after revision %" G_GINT64_FORMAT " came %" G_GINT64_FORMAT, subscriber->revision, revision);
    subscriber->revision = revision;
    subscriber->reader->classes[class_of(now_us - time_us)]++;
}

static guint take_message(Subscriber *subscriber, Wire message)
{
    const gint64 now_us = vp_wall_us();
    guint number;
    guint64 value;
    Wire inner = {0};
    guint events = 0;

    if (!wire_field(&message, &number, &value, &inner))
        bench_die("an empty message");
    if (number == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT) {
        take_event(subscriber, inner, now_us);
        return 1;
    }
    if (number == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_BOOKMARK) {
        Wire bookmark = inner;

        while (wire_field(&bookmark, &number, &value, &inner))
            subscriber->revision = number == 1 ? (gint64)value : subscriber->revision;
        return 0;
    }
    for (Wire all = inner; wire_field(&all, &number, &value, &inner); events++)
        take_event(subscriber, inner, now_us);
    return events;
}

/* ---- subscribers ---- */

static void receive(Subscriber *subscriber)
{
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &subscriber->message};

    if (grpc_call_start_batch(subscriber->call, &op, 1, subscriber, NULL) != GRPC_CALL_OK)
        bench_die("the core refused a batch");
}

static void received(Subscriber *subscriber)
{
    grpc_byte_buffer_reader reader;

    if (!subscriber->message) {
        if (atomic_load(&bench.ending))
            return;
        bench_die("a stream has ended");
    }
    if (!grpc_byte_buffer_reader_init(&reader, subscriber->message))
        bench_die("a message cannot be read");
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    const guint events = take_message(subscriber, (Wire){GRPC_SLICE_START_PTR(slice), GRPC_SLICE_END_PTR(slice)});

    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(subscriber->message);
    subscriber->message = NULL;
    if (!subscriber->greeted) {
        subscriber->greeted = TRUE;
        atomic_fetch_add(&bench.greeted, 1);
    }
    if (events) {
        atomic_fetch_add(&bench.delivered, events);
        atomic_store(&bench.last_us, vp_now_us());
    }
    if (!subscriber->stalls)
        receive(subscriber);
}

static void *read_run(void *data)
{
    Reader *reader = data;

    for (;;) {
        const grpc_event event = grpc_completion_queue_next(reader->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        received(event.tag);
    }
}

static void subscribe(Subscriber *subscriber, grpc_channel *channel, GBytes *request)
{
    grpc_op ops[5] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_MESSAGE}, {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA}, {.op = GRPC_OP_RECV_MESSAGE},
    };
    grpc_byte_buffer *buffer = buffer_of(request);

    subscriber->call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, subscriber->reader->cq,
                                                grpc_slice_from_static_string("/virtplane.v1.EventService/WatchEvents"),
                                                NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_metadata_array_init(&subscriber->initial);
    ops[1].data.send_message.send_message = buffer;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &subscriber->initial;
    ops[4].data.recv_message.recv_message = &subscriber->message;
    if (grpc_call_start_batch(subscriber->call, ops, G_N_ELEMENTS(ops), subscriber, NULL) != GRPC_CALL_OK)
        bench_die("the core refused a stream");
    grpc_byte_buffer_destroy(buffer);
}

static void wait_until(gboolean (*condition)(gint64 goal), gint64 goal, gint64 wait_s, const char *what)
{
    const gint64 deadline_us = vp_now_us() + wait_s * G_USEC_PER_SEC;

    while (!condition(goal)) {
        if (vp_now_us() > deadline_us)
            bench_die("%s: not within %d s (%" G_GINT64_FORMAT " events delivered of %" G_GINT64_FORMAT ")", what,
                      (int)wait_s, (gint64)atomic_load(&bench.delivered), goal);
        g_usleep(2000);
    }
}

static gboolean have_greeted(gint64 goal)
{
    return atomic_load(&bench.greeted) >= goal;
}

static gboolean have_delivered(gint64 goal)
{
    return atomic_load(&bench.delivered) >= goal;
}

static void subscribe_all(void)
{
    PbWatchEventsRequest watch = PB_WATCH_EVENTS_REQUEST__INIT;

    watch.max_batch = (guint32)batch;
    g_autoptr(GBytes) request = vp_pb_pack(&watch);
    bench.channels = g_new0(grpc_channel *, connections);
    bench.subscribers = g_new0(Subscriber, subscribers);
    for (gint i = 0; i < connections; i++)
        bench.channels[i] = open_channel();
    for (guint i = 0; i < READERS; i++) {
        bench.readers[i].cq = grpc_completion_queue_create_for_next(NULL);
        vp_error_free(vp_thread_start(&bench.readers[i].thread, "reader", read_run, &bench.readers[i]));
    }
    for (gint i = 0; i < subscribers; i++) {
        Subscriber *subscriber = &bench.subscribers[i];

        subscriber->reader = &bench.readers[i % connections % READERS];
        /* Spread over all connections. */
        subscriber->stalls = (gint64)(i + 1) * stalled / subscribers != (gint64)i * stalled / subscribers;
        subscribe(subscriber, bench.channels[i % connections], request);
    }
    wait_until(have_greeted, subscribers, WAIT_S, "the streams");
}

static void unsubscribe_all(void)
{
    atomic_store(&bench.ending, TRUE);
    for (gint i = 0; i < subscribers; i++)
        grpc_call_cancel(bench.subscribers[i].call, NULL);
    for (guint i = 0; i < READERS; i++)
        grpc_completion_queue_shutdown(bench.readers[i].cq);
    for (guint i = 0; i < READERS; i++) {
        pthread_join(bench.readers[i].thread, NULL);
        grpc_completion_queue_destroy(bench.readers[i].cq);
    }
    for (gint i = 0; i < subscribers; i++) {
        grpc_metadata_array_destroy(&bench.subscribers[i].initial);
        grpc_call_unref(bench.subscribers[i].call);
    }
    for (gint i = 0; i < connections; i++)
        grpc_channel_destroy(bench.channels[i]);
    g_free(bench.channels);
    g_free(bench.subscribers);
}

/* ---- the changes ---- */

static GBytes *create_request(guint i)
{
    vp_pb_auto PbCreateDomainRequest *request = vp_pb_new(&pb_create_domain_request__descriptor);

    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_printf(&request->domain->name, "bench-%u", i);
    vp_pb_set(&request->domain->spec->driver, "test");
    return vp_pb_pack(request);
}

static GBytes *update_request(guint i)
{
    vp_pb_auto PbUpdateDomainRequest *request = vp_pb_new(&pb_update_domain_request__descriptor);

    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_printf(&request->domain->name, "bench-%u", i % DOMAINS);
    vp_pb_printf(&request->domain->spec->description, "change %u", i);
    request->update_mask = vp_pb_new(&google__protobuf__field_mask__descriptor);
    vp_pb_append(&request->update_mask->n_paths, &request->update_mask->paths, g_strdup("spec.description"));
    return vp_pb_pack(request);
}

/* `request` is consumed. */
static void start_change(Change *change, grpc_channel *channel, grpc_completion_queue *cq, const char *method,
                         GBytes *request)
{
    grpc_op ops[6] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_MESSAGE}, {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA}, {.op = GRPC_OP_RECV_MESSAGE}, {.op = GRPC_OP_RECV_STATUS_ON_CLIENT},
    };
    grpc_byte_buffer *buffer = buffer_of(request);

    g_bytes_unref(request);
    change->call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, cq,
                                            grpc_slice_from_static_string(method), NULL, deadline_in(WAIT_S), NULL);
    grpc_metadata_array_init(&change->initial);
    grpc_metadata_array_init(&change->trailing);
    ops[1].data.send_message.send_message = buffer;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &change->initial;
    ops[4].data.recv_message.recv_message = &change->answer;
    ops[5].data.recv_status_on_client.trailing_metadata = &change->trailing;
    ops[5].data.recv_status_on_client.status = &change->status;
    ops[5].data.recv_status_on_client.status_details = &change->details;
    if (grpc_call_start_batch(change->call, ops, G_N_ELEMENTS(ops), change, NULL) != GRPC_CALL_OK)
        bench_die("the core refused a batch");
    grpc_byte_buffer_destroy(buffer);
}

static void end_change(Change *change)
{
    if (change->status != GRPC_STATUS_OK) {
        g_autofree char *why =
            g_strndup((const char *)GRPC_SLICE_START_PTR(change->details), GRPC_SLICE_LENGTH(change->details));
        bench_die("a change failed: %d %s", (int)change->status, why);
    }
    grpc_byte_buffer_destroy(change->answer);
    grpc_slice_unref(change->details);
    grpc_metadata_array_destroy(&change->initial);
    grpc_metadata_array_destroy(&change->trailing);
    grpc_call_unref(change->call);
    g_free(change);
}

static void end_queue(grpc_completion_queue *cq)
{
    grpc_completion_queue_shutdown(cq);
    while (grpc_completion_queue_next(cq, deadline_in(5), NULL).type == GRPC_OP_COMPLETE)
        ;
    grpc_completion_queue_destroy(cq);
}

static void create_domains(void)
{
    grpc_completion_queue *cq = grpc_completion_queue_create_for_next(NULL);
    grpc_channel *channel = open_channel();

    for (guint i = 0; i < DOMAINS; i++)
        start_change(g_new0(Change, 1), channel, cq, CREATE, create_request(i));
    for (guint i = 0; i < DOMAINS; i++)
        end_change(grpc_completion_queue_next(cq, deadline_in(WAIT_S), NULL).tag);
    grpc_channel_destroy(channel);
    end_queue(cq);
}

/* Makes changes at the rate, for the time; answers how many. Samples the daemon's memory meanwhile. */
static guint make_changes(gsize *most_rss)
{
    grpc_completion_queue *cq = grpc_completion_queue_create_for_next(NULL);
    grpc_channel *channels[WRITERS];
    const gint64 start_us = vp_now_us();
    const gint64 end_us = start_us + (gint64)seconds * G_USEC_PER_SEC;
    gint64 sample_us = start_us;
    guint made = 0;
    guint in_flight = 0;

    for (guint i = 0; i < WRITERS; i++)
        channels[i] = open_channel();
    for (gint64 now_us = start_us; now_us < end_us || in_flight > 0; now_us = vp_now_us()) {
        const guint due = now_us < end_us ? (guint)((now_us - start_us) * rate / G_USEC_PER_SEC) : made;

        for (; made < due && in_flight < MOST_IN_FLIGHT; made++, in_flight++)
            start_change(g_new0(Change, 1), channels[made % WRITERS], cq, UPDATE, update_request(made));
        const grpc_event event = grpc_completion_queue_next(cq,
                                                            gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                                                         gpr_time_from_micros(500, GPR_TIMESPAN)),
                                                            NULL);
        if (event.type == GRPC_OP_COMPLETE) {
            end_change(event.tag);
            in_flight--;
        }
        if (now_us >= sample_us) {
            *most_rss = MAX(*most_rss, bench_rss(bench.daemon));
            sample_us = now_us + SAMPLE_MS * 1000;
        }
    }
    for (guint i = 0; i < WRITERS; i++)
        grpc_channel_destroy(channels[i]);
    end_queue(cq);
    return made;
}

/* ---- figures ---- */

static gdouble percentile(guint percent)
{
    guint64 all = 0;
    guint64 below = 0;

    for (guint i = 0; i < READERS; i++) {
        for (guint k = 0; k < CLASSES; k++)
            all += bench.readers[i].classes[k];
    }
    for (guint k = 0; k < CLASSES; k++) {
        for (guint i = 0; i < READERS; i++)
            below += bench.readers[i].classes[k];
        if (below * 100 >= all * percent)
            return class_us(k);
    }
    return 0;
}

static void measure(void)
{
    subscribe_all();
    const gsize idle = bench_rss(bench.daemon);
    gsize most = idle;
    const gint64 start_us = vp_now_us();
    const guint made = make_changes(&most);
    const gint64 made_us = vp_now_us();
    const gint64 goal = (gint64)made * (subscribers - stalled);

    /* None is lost: each of the subscribers that read gets each change, in order, or this never ends. */
    wait_until(have_delivered, goal, WAIT_S + 3 * seconds, "the deliveries");
    most = MAX(most, bench_rss(bench.daemon));
    bench_figure("fanout_1000", (gdouble)goal * G_USEC_PER_SEC / (gdouble)(atomic_load(&bench.last_us) - start_us),
                 "deliveries/s", 0, NULL);
    bench_figure("fanout_1000_p50", percentile(50), "us", 0, NULL);
    bench_figure("fanout_1000_p99", percentile(99), "us", 0, NULL);
    bench_figure("fanout_changes", (gdouble)made * G_USEC_PER_SEC / (gdouble)(made_us - start_us), "events/s", 0, NULL);
    bench_figure("fanout_stalled_rss_growth", ((gdouble)most - (gdouble)idle) / MIB, "MiB", 0, NULL);
    unsubscribe_all();
}

static void start_daemon(void)
{
    g_autofree char *program = bench_runfile("server/virtplaned");
    g_autofree char *state = g_build_filename(bench.dir, "state", NULL);
    g_autofree char *log = g_build_filename(bench.dir, "daemon.log", NULL);
    char *const argv[] = {program, (char *)"--state-dir", state, (char *)"--listen", bench.address, NULL};

    bench.daemon = bench_spawn(argv, log);
    bench_wait_line(log, "ready");
}

static void read_options(int argc, char **argv)
{
    const GOptionEntry entries[] = {
        {"seconds", 0, 0, G_OPTION_ARG_INT, &seconds, "How long changes are made (60)", "N"},
        {"subscribers", 0, 0, G_OPTION_ARG_INT, &subscribers, "Streams (1000)", "N"},
        {"connections", 0, 0, G_OPTION_ARG_INT, &connections, "Connections that they share (50)", "N"},
        {"stalled", 0, 0, G_OPTION_ARG_INT, &stalled, "How many of the streams are not read (100)", "N"},
        {"rate", 0, 0, G_OPTION_ARG_INT, &rate, "Changes offered a second (2000)", "N"},
        {"batch", 0, 0, G_OPTION_ARG_INT, &batch, "max_batch of the streams; 0: one event a message (256)", "N"},
        {"soak", 0, 0, G_OPTION_ARG_INT, &soak, "The long run's events (1,000,000); 0 leaves it out", "N"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    GOptionContext *context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error))
        bench_die("%s", error->message);
    g_option_context_free(context);
    if (seconds < 1 || connections < 1 || stalled < 0 || subscribers <= stalled || rate < 1 || batch < 0)
        bench_die("these numbers make no sense");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    bench.dir = g_dir_make_tmp("vpbench-XXXXXX", NULL);
    if (!bench.dir)
        bench_die("no temporary folder");
    bench.address = g_strdup_printf("unix:%s/d.sock", bench.dir);
    grpc_init();
    start_daemon();
    create_domains();
    measure();

    bench_stop(bench.daemon);
    if (soak > 0)
        soak_run(bench.dir, (guint)soak);
    g_free(bench.address);
    grpc_shutdown_blocking();
    bench_remove(bench.dir);
    g_free(bench.dir);
    return 0;
}
