/*
 * libFuzzer on what a QEMU says: the client of QMP at one end of a socket pair, the input at the other. A command that was sent always ends, and with
 * the peer's end the connection does.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/thread.h"
#include "drivers/qemu/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Talk {
    VpQmp *qmp;
    guint ended; /* commands */
    gboolean closed;
} Talk;

static void on_ready(void *data)
{
    (void)data;
}

static void on_event(void *data, const char *name, json_t *arguments)
{
    (void)data;
    if (!name || (arguments && !json_is_object(arguments)))
        abort();
}

static void on_closed(void *data, const VpError *error)
{
    Talk *talk = data;

    if (!error || talk->closed)
        abort();
    talk->closed = TRUE;
    vp_qmp_close(g_steal_pointer(&talk->qmp));
}

static void on_done(void *data, json_t *result, VpError *error)
{
    Talk *talk = data;

    if (!result == !error)
        abort();
    talk->ended++;
    vp_error_free(error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const VpQmpHandler handler = {.ready = on_ready, .event = on_event, .closed = on_closed};
    uv_loop_t uv;
    Talk talk = {0};
    VpError *error = NULL;
    int fds[2];

    if (size > 100000 || uv_loop_init(&uv) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return 0;
    talk.qmp = vp_qmp_new(&uv, fds[0], &handler, &talk, &error);
    if (!talk.qmp)
        abort();
    vp_qmp_execute(talk.qmp, "query-status", NULL, 0, on_done, &talk);
    vp_qmp_execute(talk.qmp, "query-name", NULL, 0, on_done, &talk);
    if (write(fds[1], data, size) != (ssize_t)size)
        abort();
    shutdown(fds[1], SHUT_WR);
    uv_run(&uv, UV_RUN_DEFAULT);
    if (!talk.closed || talk.ended != 2)
        abort();
    close(fds[1]);
    if (uv_loop_close(&uv) != 0)
        abort();
    return 0;
}
