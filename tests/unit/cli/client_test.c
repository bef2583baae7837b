/* The client where there is no daemon, or one that does not answer. What it does with a real one is tested by
 * vpctl's integration tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/c/client.h"
#include "virtplane/v1/event_service.pb-c.h"
#include "virtplane/v1/host_service.pb-c.h"

typedef struct Place {
    char *folder;
    char *path;
    char *address;
    int fd;
} Place;

static int setup(void **state)
{
    Place *place = g_new0(Place, 1);
    struct sockaddr_un name = {.sun_family = AF_UNIX};

    place->folder = g_dir_make_tmp("vpclient-XXXXXX", NULL);
    place->path = g_build_filename(place->folder, "socket", NULL);
    place->address = g_strconcat("unix:", place->path, NULL);
    place->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_strlcpy(name.sun_path, place->path, sizeof(name.sun_path));
    *state = place;
    return bind(place->fd, (const struct sockaddr *)&name, sizeof(name));
}

static int teardown(void **state)
{
    Place *place = *state;

    close(place->fd);
    g_unlink(place->path);
    g_rmdir(place->folder);
    g_free(place->path);
    g_free(place->folder);
    g_free(place->address);
    g_free(place);
    return 0;
}

static VpError *call(VpClient *client, gint64 timeout_ms)
{
    vp_pb_auto PbGetHostRequest *request = vp_pb_new(&pb_get_host_request__descriptor);
    VpError *error = NULL;

    assert_null(vp_client_call(client, &pb_host_service__descriptor, "GetHost", request, timeout_ms, &error));
    assert_non_null(error);
    return error;
}

static void tells_bad_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {"",           "foo",    ":1",    "host:",     "host:0",
                                      "host:65536", "host:x", "unix:", "::1:50051", "xds:a:1"};
    static const char *const good[] = {"unix:/x", "/x", "unix:rel", "localhost:1", "[::1]:50051"};
    g_autofree char *path = g_strnfill(108, 'a');
    g_autofree char *longest = g_strconcat("unix:", path, NULL);

    for (gsize i = 0; i < G_N_ELEMENTS(bad) + 1; i++) {
        g_autoptr(VpError) error = NULL;
        const char *address = i < G_N_ELEMENTS(bad) ? bad[i] : longest;

        if (vp_client_new(address, &error))
            fail_msg("taken: %s", address);
        assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    }
    for (gsize i = 0; i < G_N_ELEMENTS(good); i++) {
        VpError *error = NULL;
        g_autoptr(VpClient) client = vp_client_new(good[i], &error);

        assert_null(error);
    }
}

static void tells_that_nobody_listens(void **state)
{
    Place *place = *state;
    VpError *failure = NULL;
    g_autoptr(VpClient) client = vp_client_new(place->address, &failure);

    /* Bound and not listening: what a daemon leaves behind that was killed. */
    g_autoptr(VpError) left = call(client, 5000);
    assert_true(vp_client_no_answer(left));
    assert_int_equal(left->code, VP_UNAVAILABLE);
    assert_non_null(strstr(left->message, place->path));
    assert_non_null(strstr(left->message, "left over"));

    g_unlink(place->path);
    g_autoptr(VpClient) other = vp_client_new(place->address, &failure);
    g_autoptr(VpError) gone = call(other, 5000);
    assert_true(vp_client_no_answer(gone));
    assert_non_null(strstr(gone->message, "no such socket"));
}

static void gives_up_at_the_deadline(void **state)
{
    Place *place = *state;
    VpError *failure = NULL;

    assert_int_equal(listen(place->fd, 4), 0);
    g_autoptr(VpClient) client = vp_client_new(place->address, &failure);
    const gint64 start = vp_now_us();
    g_autoptr(VpError) late = call(client, 200);
    assert_int_equal(late->code, VP_DEADLINE_EXCEEDED);
    assert_false(vp_client_no_answer(late));
    assert_true(vp_now_us() - start >= 190 * 1000);
}

static void ends_silent_streams(void **state)
{
    Place *place = *state;
    VpError *error = NULL;

    assert_int_equal(listen(place->fd, 4), 0);
    g_autoptr(VpClient) client = vp_client_new(place->address, &error);
    vp_pb_auto PbWatchEventsRequest *request = vp_pb_new(&pb_watch_events_request__descriptor);
    g_autoptr(VpClientStream) stream =
        vp_client_stream_new(client, &pb_event_service__descriptor, "WatchEvents", request, 0, &error);
    assert_null(vp_client_stream_read(stream, 200, &error));
    assert_int_equal(error->code, VP_DEADLINE_EXCEEDED);
    assert_string_equal(error->reason, "STREAM_IDLE");
    g_clear_pointer(&error, vp_error_free);

    /* A read after the end says so again, and does not hang. */
    assert_null(vp_client_stream_read(stream, 200, &error));
    assert_int_equal(error->code, VP_CANCELLED);
    vp_error_free(error);
}

static void *cancel(void *data)
{
    vp_client_stream_cancel(data);
    return NULL;
}

static void cancels_from_another_thread(void **state)
{
    Place *place = *state;
    VpError *error = NULL;
    pthread_t thread;

    assert_int_equal(listen(place->fd, 4), 0);
    g_autoptr(VpClient) client = vp_client_new(place->address, &error);
    vp_pb_auto PbWatchEventsRequest *request = vp_pb_new(&pb_watch_events_request__descriptor);
    g_autoptr(VpClientStream) stream =
        vp_client_stream_new(client, &pb_event_service__descriptor, "WatchEvents", request, 0, &error);
    assert_null(vp_thread_start(&thread, "canceller", cancel, stream));
    assert_null(vp_client_stream_read(stream, 0, &error));
    assert_int_equal(error->code, VP_CANCELLED);
    vp_error_free(error);
    pthread_join(thread, NULL);

    /* One that nobody read is freed as well. */
    g_autoptr(VpClientStream) unread =
        vp_client_stream_new(client, &pb_event_service__descriptor, "WatchEvents", request, 0, &error);
    assert_non_null(unread);
}

static void refuses_wrong_use(void **state)
{
    Place *place = *state;
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpError) request_error = NULL;
    VpError *failure = NULL;
    g_autoptr(VpClient) client = vp_client_new(place->address, &failure);
    vp_pb_auto PbGetHostRequest *request = vp_pb_new(&pb_get_host_request__descriptor);

    assert_null(vp_client_call(client, &pb_host_service__descriptor, "NoSuch", request, 100, &error));
    assert_string_equal(error->reason, "NO_SUCH_METHOD");
    assert_null(vp_client_call(client, &pb_host_service__descriptor, "GetCapabilities", request, 100, &request_error));
    assert_string_equal(request_error->reason, "WRONG_REQUEST");
}

static int start(void **state)
{
    (void)state;
    vp_client_library_init();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    vp_client_library_shutdown();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_bad_addresses),
        cmocka_unit_test_setup_teardown(tells_that_nobody_listens, setup, teardown),
        cmocka_unit_test_setup_teardown(gives_up_at_the_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_silent_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(cancels_from_another_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_wrong_use, setup, teardown),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
