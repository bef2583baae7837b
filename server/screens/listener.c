/* A screen's listener: see internal.h. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "server/screens/internal.h"

/* When an address that was not to be had is tried again, or a connection for which there was no descriptor. */
#define AGAIN_MS 2000

/* ---- counts ---- */

VpScreenListener *vp_screen_listener_ref(VpScreenListener *listener)
{
    g_atomic_int_inc(&listener->refs);
    return listener;
}

void vp_screen_listener_unref(VpScreenListener *listener)
{
    if (!listener || !g_atomic_int_dec_and_test(&listener->refs))
        return;
    VpScreens *screens = listener->screens;
    const gboolean counted = listener->counted;

    if (listener->fd >= 0)
        close(listener->fd);
    g_ptr_array_unref(listener->connections);
    g_free(listener->key);
    g_free(listener->uid);
    g_free(listener->device);
    g_free(listener->address);
    g_free(listener);
    if (counted)
        vp_screens_count(screens, -1);
}

VpScreenListener *vp_screen_listener_new(VpScreens *screens, const char *uid, const char *device, const char *address,
                                         guint port, int fd)
{
    VpScreenListener *listener = g_new0(VpScreenListener, 1);

    listener->refs = 1;
    listener->screens = screens;
    listener->key = g_strdup_printf("%s %s", uid, device);
    listener->uid = g_strdup(uid);
    listener->device = g_strdup(device);
    listener->address = g_strdup(address);
    listener->port = port;
    listener->fd = fd;
    listener->connections = g_ptr_array_new();
    return listener;
}

/* ---- taking connections ---- */

/* Room for one more stranger: the oldest of those who have not shaken hands yet has had its time. */
static void make_room(VpScreenListener *listener)
{
    VpViewer *oldest = NULL;
    guint shaking = 0;

    for (guint i = 0; i < listener->connections->len; i++) {
        VpViewer *viewer = listener->connections->pdata[i];

        if (!vp_viewer_is_shaking(viewer))
            continue;
        if (!oldest)
            oldest = viewer;
        shaking++;
    }
    if (shaking >= VP_SCREEN_MOST_SHAKING)
        vp_viewer_end(oldest, NULL);
    vp_strangers_make_room(listener->screens);
}

static void serve_again(uv_timer_t *timer)
{
    vp_screen_listener_serve(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    VpScreenListener *listener = poll->data;
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);

    (void)status;
    (void)events;
    const int fd = accept4(listener->fd, (struct sockaddr *)&address, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
        uv_poll_stop(poll);
        uv_timer_start(&listener->timer, serve_again, AGAIN_MS, 0);
    }
    if (fd < 0)
        return;
    make_room(listener);
    g_autofree char *peer = vp_screen_address_text((struct sockaddr *)&address, length);
    vp_viewer_new(listener, fd, peer);
}

/* The one that was told to clients, whoever has it meanwhile. */
static gboolean take_address(VpScreenListener *listener)
{
    guint port = 0;
    g_autoptr(VpError) error = NULL;

    pthread_mutex_lock(&listener->screens->mutex);
    if (listener->fd < 0 && !g_atomic_int_get(&listener->closed))
        error = vp_screen_address_listen(listener->address, listener->port, &listener->fd, &port);
    const gboolean there = listener->fd >= 0;
    pthread_mutex_unlock(&listener->screens->mutex);
    if (error && !listener->told)
        vp_log(VP_LOG_ERROR, "the screen %s of the domain %s cannot be served for now: %s", listener->device,
               listener->uid, error->message);
    listener->told = error != NULL;
    return there;
}

void vp_screen_listener_serve(VpScreenListener *listener)
{
    if (!listener->screens->serving || g_atomic_int_get(&listener->closed) || listener->handles == 0)
        return;
    if (!take_address(listener)) {
        uv_timer_start(&listener->timer, serve_again, AGAIN_MS, 0);
        return;
    }
    if (!listener->poll.data) {
        uv_poll_init(vp_loop_uv(listener->screens->loop), &listener->poll, listener->fd);
        listener->poll.data = listener;
        listener->handles++;
    }
    uv_poll_start(&listener->poll, UV_READABLE, on_poll);
}

/* ---- its life ---- */

static void open_on_loop(void *data)
{
    VpScreenListener *listener = data; /* with a reference, the handles' from now on */

    uv_timer_init(vp_loop_uv(listener->screens->loop), &listener->timer);
    listener->timer.data = listener;
    listener->handles = 1;
    vp_screen_listener_serve(listener);
}

void vp_screen_listener_open(VpScreenListener *listener)
{
    vp_loop_post(listener->screens->loop, open_on_loop, vp_screen_listener_ref(listener));
}

static void handle_closed(uv_handle_t *handle)
{
    VpScreenListener *listener = handle->data;

    if (--listener->handles == 0)
        vp_screen_listener_unref(listener);
}

static void close_on_loop(void *data)
{
    VpScreenListener *listener = data;

    while (listener->connections->len > 0)
        vp_viewer_end(listener->connections->pdata[0], NULL);
    if (listener->poll.data)
        uv_close((uv_handle_t *)&listener->poll, handle_closed);
    uv_close((uv_handle_t *)&listener->timer, handle_closed);
    vp_screen_listener_unref(listener);
}

void vp_screen_listener_close(VpScreenListener *listener)
{
    /* At once, and not when the loop comes to it: the port may be wanted for the next start. */
    pthread_mutex_lock(&listener->screens->mutex);
    g_atomic_int_set(&listener->closed, TRUE);
    if (listener->fd >= 0)
        shutdown(listener->fd, SHUT_RDWR);
    pthread_mutex_unlock(&listener->screens->mutex);
    vp_loop_post(listener->screens->loop, close_on_loop, vp_screen_listener_ref(listener));
}
