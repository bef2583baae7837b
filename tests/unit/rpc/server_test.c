/* The runtime itself, with handlers of the test's own and real connections: answers, drops, limits, streams and their ends, the drain, addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/c/client.h"
#include "server/rpc/rpc.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"

#define SOON_US (20 * G_USEC_PER_SEC)
#define SOON_MS 20000

/* One server, and what its handlers are told to do. */
typedef struct Bench {
    char *dir;
    char *address;
    VpLoop *loop;
    VpPool *pool;
    VpPool *slow_pool; /* one thread, and room for one call that waits */
    VpRpcServer *server;
    VpClient *client;

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    VpCall *held;  /* by a handler that does not answer at once */
    guint closed;  /* times that on_close was called */
    guint drained; /* and on_drain */
    gboolean drained_after_close;
    guint written;
    guint not_written;
} Bench;

static int setup(void **state)
{
    Bench *bench = g_new0(Bench, 1);
    VpError *error = NULL;

    pthread_mutex_init(&bench->mutex, NULL);
    vp_cond_init(&bench->changed);
    bench->dir = g_dir_make_tmp("vp-rpc-XXXXXX", NULL);
    bench->address = g_strdup_printf("unix:%s/socket", bench->dir);
    bench->loop = vp_loop_new("loop", &error);
    bench->pool = vp_pool_new("worker", 2, 100, &error);
    bench->slow_pool = vp_pool_new("slow", 1, 1, &error);
    vp_client_library_init();
    *state = bench;
    return error ? -1 : 0;
}

static void stop(Bench *bench)
{
    vp_client_free(g_steal_pointer(&bench->client));
    if (bench->server)
        vp_rpc_server_drain(bench->server, vp_now_us() + SOON_US);
    vp_rpc_server_free(g_steal_pointer(&bench->server));
}

static int teardown(void **state)
{
    Bench *bench = *state;

    stop(bench);
    vp_client_library_shutdown();
    vp_pool_free(bench->pool);
    vp_pool_free(bench->slow_pool);
    vp_loop_free(bench->loop);
    g_autofree char *path = g_build_filename(bench->dir, "socket", NULL);
    g_unlink(path);
    assert_int_equal(g_rmdir(bench->dir), 0);
    pthread_cond_destroy(&bench->changed);
    pthread_mutex_destroy(&bench->mutex);
    g_free(bench->address);
    g_free(bench->dir);
    g_free(bench);
    return 0;
}

static void wait_for(Bench *bench, const guint *number, guint value)
{
    const gint64 deadline_us = vp_now_us() + SOON_US;
    gboolean in_time = TRUE;

    pthread_mutex_lock(&bench->mutex);
    while (*number < value && in_time)
        in_time = vp_cond_wait_until(&bench->changed, &bench->mutex, deadline_us);
    pthread_mutex_unlock(&bench->mutex);
    assert_true(in_time);
}

/* ---- handlers ---- */

static void answer_name(VpCall *call, const void *message, void *context)
{
    const PbGetDomainRequest *request = message;
    PbDomain domain = PB_DOMAIN__INIT;
    PbGetDomainResponse response = PB_GET_DOMAIN_RESPONSE__INIT;

    (void)context;
    domain.name = request->name;
    response.domain = &domain;
    vp_call_reply(call, &response);
}

static void drop(VpCall *call, const void *message, void *context)
{
    (void)call;
    (void)message;
    (void)context;
}

static void fail_twice(VpCall *call, const void *message, void *context)
{
    (void)message;
    (void)context;
    vp_call_fail(call, vp_error_with(vp_error_new(VP_ABORTED, "FIRST", "the first end counts"), "k", "v"));
    vp_call_fail(call, vp_error_new(VP_INTERNAL, "SECOND", "a second one does not"));
    vp_call_finish(call);
}

static void hold(VpCall *call, const void *message, void *context)
{
    Bench *bench = context;

    (void)message;
    VP_LOCK(&bench->mutex);
    bench->held = vp_call_ref(call);
    pthread_cond_broadcast(&bench->changed);
}

static VpCall *take_held(Bench *bench)
{
    const gint64 deadline_us = vp_now_us() + SOON_US;
    gboolean in_time = TRUE;

    pthread_mutex_lock(&bench->mutex);
    while (!bench->held && in_time)
        in_time = vp_cond_wait_until(&bench->changed, &bench->mutex, deadline_us);
    VpCall *call = g_steal_pointer(&bench->held);
    pthread_mutex_unlock(&bench->mutex);
    assert_non_null(call);
    return call;
}

static void on_closed(VpCall *call, void *data)
{
    Bench *bench = data;

    (void)call;
    VP_LOCK(&bench->mutex);
    bench->closed++;
    pthread_cond_broadcast(&bench->changed);
}

static void on_drained(VpCall *call, void *data)
{
    Bench *bench = data;

    pthread_mutex_lock(&bench->mutex);
    bench->drained++;
    bench->drained_after_close = bench->closed > 0;
    pthread_mutex_unlock(&bench->mutex);
    vp_call_fail(call, vp_error_new(VP_UNAVAILABLE, "TEST_DRAIN", "drained by the handler's own"));
}

static void hold_stream(VpCall *call, const void *message, void *context)
{
    vp_call_on_drain(call, on_drained, context);
    vp_call_on_close(call, on_closed, context);
    hold(call, message, context);
}

static void note_written(VpCall *call, void *data, gboolean ok)
{
    Bench *bench = data;

    (void)call;
    VP_LOCK(&bench->mutex);
    if (ok)
        bench->written++;
    else
        bench->not_written++;
    pthread_cond_broadcast(&bench->changed);
}

static gboolean write_revision(Bench *bench, VpCall *call, gint64 revision)
{
    PbBookmark bookmark = PB_BOOKMARK__INIT;
    PbWatchEventsResponse response = PB_WATCH_EVENTS_RESPONSE__INIT;

    bookmark.revision = revision;
    response.payload_case = PB_WATCH_EVENTS_RESPONSE__PAYLOAD_BOOKMARK;
    response.bookmark = &bookmark;
    return vp_call_write(call, &response, revision % 3 == 0, note_written, bench);
}

static void write_many(VpCall *call, const void *message, void *context)
{
    (void)message;
    for (gint64 i = 1; i <= 500; i++)
        write_revision(context, call, i);
    vp_call_finish(call);
}

/* On a worker: more than may be under way at a time. */
static void write_and_wait(VpCall *call, const void *message, void *context)
{
    (void)message;
    (void)context;
    for (gint64 i = 1; i <= 5000; i++) {
        PbBookmark bookmark = PB_BOOKMARK__INIT;
        PbWatchEventsResponse response = PB_WATCH_EVENTS_RESPONSE__INIT;

        bookmark.revision = i;
        response.payload_case = PB_WATCH_EVENTS_RESPONSE__PAYLOAD_BOOKMARK;
        response.bookmark = &bookmark;
        if (!vp_call_write_wait(call, &response))
            return;
    }
    vp_call_finish(call);
}

/* ---- the server and its client ---- */

static VpError *start_on(Bench *bench, const char *const *addresses, VpHandler unary, VpHandler stream,
                         VpRpcFlags flags, guint max_calls)
{
    const VpMethodHandler handlers[] = {
        {"virtplane.v1.DomainService/GetDomain", unary, flags & VP_RPC_SLOW ? VP_RPC_WORKER : VP_RPC_INLINE},
        {"virtplane.v1.EventService/WatchEvents", stream, flags},
        {0},
    };
    const VpHandlerTable tables[] = {{handlers, bench}, {0}};
    const VpRpcOptions options = {
        .listen = addresses,
        .threads = 1,
        .max_calls = max_calls,
        .pool = bench->pool,
        .slow_pool = bench->slow_pool,
        .loop = bench->loop,
        .stalled_write_ms = 300,
        .tables = tables,
        .insecure_tcp = TRUE,
    };
    VpError *error = NULL;

    bench->server = vp_rpc_server_new(&options, &error);
    return error;
}

static void start(Bench *bench, VpHandler unary, VpHandler stream)
{
    const char *const addresses[] = {bench->address, NULL};
    VpError *error = start_on(bench, addresses, unary, stream, VP_RPC_INLINE, 0);

    if (error)
        fail_msg("%s", error->message);
    bench->client = vp_client_new(bench->address, &error);
    assert_null(error);
}

static PbGetDomainResponse *get(Bench *bench, const char *name, gint64 timeout_ms, VpError **error)
{
    PbGetDomainRequest request = PB_GET_DOMAIN_REQUEST__INIT;

    request.name = (char *)name;
    return vp_client_call(bench->client, &pb_domain_service__descriptor, "GetDomain", &request, timeout_ms, error);
}

static VpClientStream *watch(Bench *bench)
{
    PbWatchEventsRequest request = PB_WATCH_EVENTS_REQUEST__INIT;
    VpError *error = NULL;
    VpClientStream *stream =
        vp_client_stream_new(bench->client, &pb_event_service__descriptor, "WatchEvents", &request, 0, &error);

    assert_null(error);
    return stream;
}

static void get_fails(Bench *bench, VpCode code, const char *reason)
{
    g_autoptr(VpError) error = NULL;

    assert_null(get(bench, "web", SOON_MS, &error));
    assert_int_equal(error->code, code);
    assert_string_equal(error->reason, reason);
}

static void reads(VpClientStream *stream, gint64 from, gint64 to)
{
    for (gint64 i = from; i <= to; i++) {
        VpError *error = NULL;
        vp_pb_auto PbWatchEventsResponse *response = vp_client_stream_read(stream, SOON_MS, &error);

        assert_null(error);
        assert_non_null(response);
        assert_int_equal(response->bookmark->revision, i);
    }
}

static void ends(VpClientStream *stream, VpCode code, const char *reason)
{
    g_autoptr(VpError) error = NULL;

    assert_null(vp_client_stream_read(stream, SOON_MS, &error));
    if (code == VP_OK) {
        assert_null(error);
        return;
    }
    assert_non_null(error);
    assert_int_equal(error->code, code);
    if (reason)
        assert_string_equal(error->reason, reason);
}

/* ---- unary calls ---- */

static void a_call_is_answered(void **state)
{
    Bench *bench = *state;
    VpError *error = NULL;

    start(bench, answer_name, drop);
    for (guint i = 0; i < 100; i++) {
        vp_pb_auto PbGetDomainResponse *response = get(bench, "web", SOON_MS, &error);

        assert_null(error);
        assert_string_equal(response->domain->name, "web");
    }
    g_autoptr(VpError) refused = NULL;
    assert_null(get(bench, "no name", SOON_MS, &refused));
    assert_int_equal(refused->code, VP_INVALID_ARGUMENT);
    assert_string_equal(g_array_index(refused->violations, VpErrorPair, 0).key, "name");
}

static void a_dropped_call_is_ended(void **state)
{
    Bench *bench = *state;

    start(bench, drop, drop);
    get_fails(bench, VP_INTERNAL, "CALL_DROPPED");
    g_autoptr(VpClientStream) stream = watch(bench);
    ends(stream, VP_INTERNAL, "CALL_DROPPED");
}

static void the_first_end_counts(void **state)
{
    Bench *bench = *state;
    g_autoptr(VpError) error = NULL;

    start(bench, fail_twice, drop);
    assert_null(get(bench, "web", SOON_MS, &error));
    assert_string_equal(error->reason, "FIRST");
    assert_string_equal(vp_error_get(error, "k"), "v");
}

static void what_has_no_handler_is_unimplemented(void **state)
{
    Bench *bench = *state;
    PbListDomainsRequest request = PB_LIST_DOMAINS_REQUEST__INIT;
    g_autoptr(VpError) error = NULL;

    start(bench, drop, drop);
    assert_null(
        vp_client_call(bench->client, &pb_domain_service__descriptor, "ListDomains", &request, SOON_MS, &error));
    assert_int_equal(error->code, VP_UNIMPLEMENTED);
    assert_string_equal(error->reason, "NOT_BUILT_YET");
}

static void beyond_the_limit_calls_are_shed(void **state)
{
    Bench *bench = *state;
    const char *const addresses[] = {bench->address, NULL};

    assert_null(start_on(bench, addresses, answer_name, hold_stream, VP_RPC_INLINE, 1));
    VpError *error = NULL;
    bench->client = vp_client_new(bench->address, &error);
    g_autoptr(VpClientStream) stream = watch(bench);
    g_autoptr(VpCall) call = take_held(bench);
    get_fails(bench, VP_RESOURCE_EXHAUSTED, "TOO_MANY_CALLS");
    vp_call_finish(call);
    ends(stream, VP_OK, NULL);
    wait_for(bench, &bench->closed, 1);
    vp_pb_auto PbGetDomainResponse *response = NULL;
    for (guint i = 0; !response && i < 1000; i++) {
        g_autoptr(VpError) shed = NULL;
        response = get(bench, "web", SOON_MS, &shed);
    }
    assert_non_null(response);
}

static void a_client_that_goes_is_noticed(void **state)
{
    Bench *bench = *state;
    g_autoptr(VpError) error = NULL;

    start(bench, hold, drop);
    assert_null(get(bench, "web", 500, &error));
    assert_int_equal(error->code, VP_DEADLINE_EXCEEDED);
    g_autoptr(VpCall) call = take_held(bench);
    vp_call_on_close(call, on_closed, bench);
    wait_for(bench, &bench->closed, 1);
    assert_true(vp_call_cancelled(call));
    vp_call_fail(call, vp_error_new(VP_INTERNAL, "X", "nobody hears this"));
}

/* ---- streams ---- */

static void writes_keep_their_order(void **state)
{
    Bench *bench = *state;

    start(bench, drop, write_many);
    for (guint i = 0; i < 5; i++) {
        g_autoptr(VpClientStream) stream = watch(bench);

        reads(stream, 1, 500);
        ends(stream, VP_OK, NULL);
    }
    wait_for(bench, &bench->written, 2500);
    assert_int_equal(bench->not_written, 0);
}

static void a_worker_waits_for_its_reader(void **state)
{
    Bench *bench = *state;
    const char *const addresses[] = {bench->address, NULL};
    VpError *error = start_on(bench, addresses, drop, write_and_wait, VP_RPC_SLOW, 0);

    assert_null(error);
    bench->client = vp_client_new(bench->address, &error);
    g_autoptr(VpClientStream) stream = watch(bench);
    reads(stream, 1, 5000);
    ends(stream, VP_OK, NULL);
}

static void too_many_writes_are_refused(void **state)
{
    Bench *bench = *state;
    guint taken = 0;

    start(bench, drop, hold_stream);
    g_autoptr(VpClientStream) stream = watch(bench);
    g_autoptr(VpCall) call = take_held(bench);
    /* Each write is told once, whether it was taken by the transport or not. */
    for (gint64 i = 1; i <= 200000; i++) {
        if (write_revision(bench, call, taken + 1))
            taken++;
    }
    assert_true(taken >= 1024);
    vp_client_stream_cancel(stream);
    wait_for(bench, &bench->closed, 1);
    assert_false(write_revision(bench, call, 1));
    vp_call_finish(call);
    pthread_mutex_lock(&bench->mutex);
    while (bench->written + bench->not_written < taken)
        pthread_cond_wait(&bench->changed, &bench->mutex);
    pthread_mutex_unlock(&bench->mutex);
    assert_int_equal(bench->written + bench->not_written, taken);
}

static void hold_thread(VpCall *call, const void *message, void *context)
{
    Bench *bench = context;

    (void)message;
    pthread_mutex_lock(&bench->mutex);
    bench->written++;
    pthread_cond_broadcast(&bench->changed);
    while (bench->drained == 0)
        pthread_cond_wait(&bench->changed, &bench->mutex);
    pthread_mutex_unlock(&bench->mutex);
    vp_call_finish(call);
}

/* One that has taken its pool's thread, one that waits for it: a third is refused, and calls of another kind are answered. */
static void slow_calls_take_no_workers(void **state)
{
    Bench *bench = *state;
    const char *const addresses[] = {bench->address, NULL};
    VpError *error = start_on(bench, addresses, answer_name, hold_thread, VP_RPC_SLOW, 0);

    assert_null(error);
    bench->client = vp_client_new(bench->address, &error);
    g_autoptr(VpClientStream) first = watch(bench);
    wait_for(bench, &bench->written, 1);
    g_autoptr(VpClientStream) second = watch(bench);
    g_autoptr(VpClientStream) third = watch(bench);
    ends(third, VP_RESOURCE_EXHAUSTED, "TOO_BUSY");
    vp_pb_auto PbGetDomainResponse *response = get(bench, "web", SOON_MS, &error);
    assert_null(error);
    pthread_mutex_lock(&bench->mutex);
    bench->drained = 1;
    pthread_cond_broadcast(&bench->changed);
    pthread_mutex_unlock(&bench->mutex);
    ends(first, VP_OK, NULL);
    ends(second, VP_OK, NULL);
}

/* Its reader takes nothing: after a while the stream is ended, and its source told. */
static void a_stalled_stream_is_ended(void **state)
{
    Bench *bench = *state;
    g_autofree char *large = g_strnfill(60000, 'x');
    PbEvent event = PB_EVENT__INIT;

    start(bench, drop, hold_stream);
    g_autoptr(VpClientStream) stream = watch(bench);
    g_autoptr(VpCall) call = take_held(bench);
    event.detail = large;
    g_autoptr(GBytes) packed = vp_pb_pack(&event);
    for (guint i = 0; i < 1000; i++)
        vp_call_write_wrapped(call, PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT, packed, FALSE, note_written, bench);
    wait_for(bench, &bench->closed, 1);
    assert_true(vp_call_cancelled(call));
    wait_for(bench, &bench->not_written, 1);
    vp_call_finish(call);
}

/* ---- the drain ---- */

static void closed_and_let_go(VpCall *call, void *data)
{
    on_closed(call, data);
    vp_call_unref(call);
}

static void keep_stream(VpCall *call, const void *message, void *context)
{
    Bench *bench = context;

    (void)message;
    vp_call_ref(call);
    vp_call_on_drain(call, on_drained, bench);
    vp_call_on_close(call, closed_and_let_go, bench);
    write_revision(bench, call, 1);
}

static void a_drain_ends_streams(void **state)
{
    Bench *bench = *state;

    start(bench, answer_name, keep_stream);
    g_autoptr(VpClientStream) stream = watch(bench);
    reads(stream, 1, 1);
    vp_rpc_server_drain(bench->server, vp_now_us() + SOON_US);
    assert_int_equal(bench->drained, 1);
    ends(stream, VP_UNAVAILABLE, "TEST_DRAIN");
    vp_client_stream_free(g_steal_pointer(&stream));
    vp_client_free(g_steal_pointer(&bench->client));
    vp_rpc_server_free(g_steal_pointer(&bench->server));
}

static void *finish_later(void *data)
{
    VpCall *call = data;

    usleep(100000);
    vp_call_finish(call);
    vp_call_unref(call);
    return NULL;
}

/* A stream's source frees what it has when the stream is closed: the drain must not call it after that. */
static void a_closed_stream_is_not_drained(void **state)
{
    Bench *bench = *state;
    pthread_t thread;

    start(bench, answer_name, hold_stream);
    g_autoptr(VpClientStream) stream = watch(bench);
    VpCall *call = take_held(bench);
    vp_client_stream_cancel(stream);
    wait_for(bench, &bench->closed, 1);
    assert_null(vp_thread_start(&thread, "later", finish_later, call));
    vp_rpc_server_drain(bench->server, vp_now_us() + SOON_US);
    pthread_join(thread, NULL);
    assert_false(bench->drained_after_close);
    assert_int_equal(bench->drained, 0);
    vp_client_stream_free(g_steal_pointer(&stream));
    vp_client_free(g_steal_pointer(&bench->client));
    vp_rpc_server_free(g_steal_pointer(&bench->server));
}

static void a_drain_waits_for_answers_and_then_cancels(void **state)
{
    Bench *bench = *state;
    g_autoptr(VpError) error = NULL;
    pthread_t thread;

    start(bench, hold, drop);
    assert_null(get(bench, "web", 500, &error));
    /* Its client has gone, its handler still works on it. */
    assert_null(vp_thread_start(&thread, "later", finish_later, take_held(bench)));
    const gint64 start_us = vp_now_us();
    vp_rpc_server_drain(bench->server, vp_now_us() + SOON_US);
    assert_true(vp_now_us() - start_us < SOON_US);
    pthread_join(thread, NULL);
    vp_client_free(g_steal_pointer(&bench->client));
    vp_rpc_server_free(g_steal_pointer(&bench->server));
}

/* Has written, and takes its time to find out that nobody listens any more. */
static void write_and_linger(VpCall *call, const void *message, void *context)
{
    Bench *bench = context;

    (void)message;
    for (gint64 i = 1; write_revision(bench, call, i); i++)
        usleep(10000);
    usleep(300000);
    vp_call_fail(call, vp_error_new(VP_CANCELLED, "TEST", "nobody listens"));
    VP_LOCK(&bench->mutex);
    bench->closed++;
}

/* What handlers work with is freed after the drain. */
static void a_drain_waits_for_handlers_whose_streams_have_ended(void **state)
{
    Bench *bench = *state;
    const char *const addresses[] = {bench->address, NULL};
    VpError *error = start_on(bench, addresses, answer_name, write_and_linger, VP_RPC_SLOW, 0);

    assert_null(error);
    bench->client = vp_client_new(bench->address, &error);
    g_autoptr(VpClientStream) stream = watch(bench);
    reads(stream, 1, 1);
    assert_true(vp_rpc_server_drain(bench->server, vp_now_us() + SOON_US));
    assert_int_equal(bench->closed, 1);
    vp_client_stream_free(g_steal_pointer(&stream));
    vp_client_free(g_steal_pointer(&bench->client));
    vp_rpc_server_free(g_steal_pointer(&bench->server));
}

/* ---- addresses ---- */

static void fails_to_start(Bench *bench, const char *first, const char *second, VpCode code, const char *reason)
{
    const char *const addresses[] = {first, second, NULL};
    g_autoptr(VpError) error = start_on(bench, addresses, drop, drop, VP_RPC_INLINE, 0);

    assert_null(bench->server);
    assert_non_null(error);
    assert_int_equal(error->code, code);
    assert_string_equal(error->reason, reason);
}

/* What was bound before the address that cannot be is let go, port and socket file. */
static void a_bad_address_beside_good_ones(void **state)
{
    Bench *bench = *state;
    g_autofree char *path = g_build_filename(bench->dir, "socket", NULL);

    fails_to_start(bench, "127.0.0.1:0", "unix:/nonexistent/folder/socket", VP_NOT_FOUND, "LISTEN_FAILED");
    fails_to_start(bench, bench->address, "unix:/nonexistent/folder/socket", VP_NOT_FOUND, "LISTEN_FAILED");
    assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    fails_to_start(bench, bench->address, "0.0.0.0:0", VP_FAILED_PRECONDITION, "TLS_NOT_SET_UP");
    fails_to_start(bench, "nonsense", NULL, VP_INVALID_ARGUMENT, "LISTEN_FAILED");
    start(bench, answer_name, drop);
}

static void sockets(void **state)
{
    Bench *bench = *state;
    g_autofree char *path = g_build_filename(bench->dir, "socket", NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    /* A file that is no socket is not touched. */
    assert_true(g_file_set_contents(path, "mine", -1, NULL));
    fails_to_start(bench, bench->address, NULL, VP_FAILED_PRECONDITION, "LISTEN_FAILED");
    assert_true(g_file_test(path, G_FILE_TEST_IS_REGULAR));
    g_unlink(path);
    /* A socket on which nobody answers is replaced. */
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    start(bench, answer_name, drop);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_string_equal(vp_rpc_server_addresses(bench->server)[0], bench->address);
    VpError *error = NULL;
    vp_pb_auto PbGetDomainResponse *response = get(bench, "web", SOON_MS, &error);
    assert_null(error);
    /* One on which somebody answers is not. */
    VpRpcServer *first = g_steal_pointer(&bench->server);
    fails_to_start(bench, bench->address, NULL, VP_FAILED_PRECONDITION, "ADDRESS_IN_USE");
    bench->server = first;
    stop(bench);
    assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_call_is_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dropped_call_is_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(the_first_end_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(what_has_no_handler_is_unimplemented, setup, teardown),
        cmocka_unit_test_setup_teardown(beyond_the_limit_calls_are_shed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_that_goes_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(writes_keep_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_waits_for_its_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_writes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(slow_calls_take_no_workers, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stalled_stream_is_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(a_drain_ends_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(a_closed_stream_is_not_drained, setup, teardown),
        cmocka_unit_test_setup_teardown(a_drain_waits_for_answers_and_then_cancels, setup, teardown),
        cmocka_unit_test_setup_teardown(a_drain_waits_for_handlers_whose_streams_have_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bad_address_beside_good_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(sockets, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
