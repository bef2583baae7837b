/* A viewer's connection by TLS, as a client of a line: see internal.h. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "server/screens/internal.h"
#include "virtplane/v1/domain_console.pb-c.h"

#define METHOD "DomainService/OpenScreen"
/* A record of TLS has no more. */
#define READ_BYTES (16 * 1024)
#define READS_AT_ONCE 4
#define LOOK_MS 5000

typedef enum Stage {
    SHAKING, /* hands */
    OPEN,    /* a client of a line */
    PARTING, /* what waits goes out, then our end is closed */
    LEAVING, /* until the other end is closed too */
} Stage;

typedef enum Counted {
    AS_NOTHING,
    AS_STRANGER,
    AS_OPEN,
} Counted;

struct VpViewer {
    gint refs; /* of its handles, and of its client */
    VpScreenListener *listener;
    SSL *ssl;
    int fd;
    char *peer;
    uv_poll_t poll;
    uv_timer_t timer;
    guint handles;
    Stage stage;
    Counted counted;
    gboolean need_certificate;
    gboolean listed;     /* in the listener's list */
    gboolean wants_read; /* TLS itself */
    gboolean wants_write;

    VpVisit visit;
    char *certificate;
    char *chain;
    gboolean visiting; /* what comes of it is to be written down */

    VpLineClient *client; /* NULL: not yet, or not any more */
    gboolean reading;     /* there is room for more */
    gboolean stepping;
    GByteArray *out;
    GArray *sizes; /* of gsize: of the pieces that are in `out` */
    gsize sent;    /* of the first of them */
    gint64 moved_us;
    gint64 wrote_us;
};

static void step(VpViewer *viewer, gboolean readable);
static void part(VpViewer *viewer);

/* ---- its life ---- */

static void viewer_unref(VpViewer *viewer)
{
    VpScreens *screens = viewer->listener->screens;

    if (!g_atomic_int_dec_and_test(&viewer->refs))
        return;
    vp_screen_listener_unref(viewer->listener);
    vp_visit_clear(&viewer->visit);
    g_byte_array_unref(viewer->out);
    g_array_unref(viewer->sizes);
    g_free(viewer->certificate);
    g_free(viewer->chain);
    g_free(viewer->peer);
    g_free(viewer);
    vp_screens_count(screens, -1);
}

static void handle_closed(uv_handle_t *handle)
{
    VpViewer *viewer = handle->data;

    if (--viewer->handles > 0)
        return;
    SSL_free(viewer->ssl);
    close(viewer->fd);
    viewer_unref(viewer);
}

static void unlist(VpViewer *viewer)
{
    if (viewer->listed)
        g_ptr_array_remove(viewer->listener->connections, viewer);
    viewer->listed = FALSE;
}

/* Counted with those who were let in, or with the others, or (when it is dropped) with neither. */
static void count_as(VpViewer *viewer, Counted counted)
{
    VpScreens *screens = viewer->listener->screens;

    if (viewer->counted == counted)
        return;
    if (viewer->counted == AS_OPEN)
        screens->open--;
    else if (viewer->counted == AS_STRANGER)
        vp_strangers_remove(screens, viewer);
    viewer->counted = counted;
    if (counted == AS_OPEN)
        screens->open++;
    else if (counted == AS_STRANGER)
        vp_strangers_add(screens, viewer);
}

/* Writes down what came of it, once. */
static void tell_end(VpViewer *viewer, gboolean refused, const VpError *error)
{
    VpScreens *screens = viewer->listener->screens;

    if (!viewer->visiting)
        return;
    viewer->visiting = FALSE;
    viewer->visit.left_out = screens->left_out;
    screens->left_out = 0;
    vp_access_visit_ended(screens->options.access, &viewer->visit, viewer->peer, refused, error);
}

/* Without another word. */
static void drop(VpViewer *viewer)
{
    g_autoptr(VpLineClient) client = g_steal_pointer(&viewer->client);

    if (uv_is_closing((uv_handle_t *)&viewer->poll))
        return;
    unlist(viewer);
    count_as(viewer, AS_NOTHING);
    viewer->stage = LEAVING;
    if (client)
        vp_line_client_leave(client);
    tell_end(viewer, FALSE, NULL);
    uv_close((uv_handle_t *)&viewer->poll, handle_closed);
    uv_close((uv_handle_t *)&viewer->timer, handle_closed);
}

/* ---- waiting ---- */

static void on_poll(uv_poll_t *poll, int status, int events)
{
    VpViewer *viewer = poll->data;

    if (status < 0)
        drop(viewer);
    else
        step(viewer, (events & UV_READABLE) != 0);
}

static void update_poll(VpViewer *viewer)
{
    int events = 0;

    if (uv_is_closing((uv_handle_t *)&viewer->poll))
        return;
    if (viewer->reading || viewer->wants_read || viewer->stage == LEAVING)
        events |= UV_READABLE;
    if (viewer->out->len > 0 || viewer->wants_write)
        events |= UV_WRITABLE;
    if (viewer->stage == LEAVING)
        events = UV_READABLE;
    if (events)
        uv_poll_start(&viewer->poll, events, on_poll);
    else
        uv_poll_stop(&viewer->poll);
}

static gboolean has_passed(gint64 since_us, gint64 ms)
{
    return vp_now_us() - since_us > ms * 1000;
}

/* While nothing is waited for nobody tells. */
static gboolean is_gone(const VpViewer *viewer)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof(info);

    return getsockopt(viewer->fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_CLOSE;
}

/* Hands that are not shaken in time, a viewer that takes nothing, one that has gone without a word. */
static void on_timer(uv_timer_t *timer)
{
    VpViewer *viewer = timer->data;

    if (viewer->stage != OPEN || is_gone(viewer))
        drop(viewer);
    else if (viewer->out->len > 0 && has_passed(viewer->wrote_us, VP_SCREEN_STALLED_MS))
        vp_viewer_end(viewer, vp_error_new(VP_RESOURCE_EXHAUSTED, "READER_TOO_SLOW",
                                           "the viewer has taken nothing for %d s", VP_SCREEN_STALLED_MS / 1000));
    else if (has_passed(viewer->moved_us, VP_SCREEN_IDLE_MS))
        vp_viewer_end(viewer, vp_error_new(VP_DEADLINE_EXCEEDED, "IDLE", "nothing has come or gone for %d h",
                                           VP_SCREEN_IDLE_MS / 3600000));
}

/* ---- TLS ---- */

/* What TLS waits for after a step that returned `r`. FALSE: it is over, or broken. */
static gboolean waits(VpViewer *viewer, int r)
{
    const int why = SSL_get_error(viewer->ssl, r);

    viewer->wants_read = viewer->wants_read || why == SSL_ERROR_WANT_READ;
    viewer->wants_write = viewer->wants_write || why == SSL_ERROR_WANT_WRITE;
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
}

/* FALSE: the connection is broken. */
static gboolean flush(VpViewer *viewer)
{
    while (viewer->out->len > 0) {
        ERR_clear_error();
        const int n = SSL_write(viewer->ssl, viewer->out->data, (int)viewer->out->len);

        if (n <= 0)
            return waits(viewer, n);
        g_byte_array_remove_range(viewer->out, 0, (guint)n);
        viewer->moved_us = viewer->wrote_us = vp_now_us();
        viewer->sent += (gsize)n;
        while (viewer->sizes->len > 0 && viewer->sent >= g_array_index(viewer->sizes, gsize, 0)) {
            const gsize size = g_array_index(viewer->sizes, gsize, 0);

            viewer->sent -= size;
            g_array_remove_index(viewer->sizes, 0);
            if (viewer->client)
                vp_line_client_written(viewer->client, size);
        }
    }
    return TRUE;
}

/* FALSE: the connection is broken. */
static gboolean take(VpViewer *viewer)
{
    g_autoptr(VpLineClient) client = viewer->client ? vp_line_client_ref(viewer->client) : NULL;
    guint8 bytes[READ_BYTES];

    for (guint i = 0; i < READS_AT_ONCE && viewer->reading && viewer->client; i++) {
        ERR_clear_error();
        const int n = SSL_read(viewer->ssl, bytes, sizeof(bytes));

        if (n <= 0 && SSL_get_error(viewer->ssl, n) == SSL_ERROR_ZERO_RETURN) {
            viewer->reading = FALSE;
            vp_line_client_half_close(client);
            return TRUE;
        }
        if (n <= 0)
            return waits(viewer, n);
        viewer->moved_us = vp_now_us();
        viewer->reading = FALSE;
        vp_line_client_got(client, bytes, (gsize)n);
    }
    return TRUE;
}

/* ---- as the end of a line's client ---- */

static gboolean end_opened(void *end, const char *device, guint32 scrollback)
{
    (void)end;
    (void)device;
    (void)scrollback;
    return FALSE;
}

static gboolean end_write(void *end, const guint8 *bytes, gsize size)
{
    VpViewer *viewer = end;

    if (viewer->stage != OPEN)
        return FALSE;
    if (viewer->out->len == 0)
        viewer->wrote_us = vp_now_us();
    g_byte_array_append(viewer->out, bytes, (guint)size);
    g_array_append_val(viewer->sizes, size);
    update_poll(viewer);
    return TRUE;
}

static void end_read_next(void *end)
{
    VpViewer *viewer = end;

    viewer->reading = viewer->stage == OPEN;
    update_poll(viewer);
}

static void end_finish(void *end, VpError *error)
{
    VpViewer *viewer = end;
    g_autoptr(VpLineClient) client = g_steal_pointer(&viewer->client);

    tell_end(viewer, error && (error->code == VP_PERMISSION_DENIED || error->code == VP_UNAUTHENTICATED), error);
    vp_error_free(error);
    if (client && viewer->stage == OPEN)
        part(viewer);
}

static gboolean end_gone(void *end)
{
    const VpViewer *viewer = end;

    return viewer->stage != OPEN;
}

static char *end_caller(void *end)
{
    const VpViewer *viewer = end;

    return vp_visit_caller(&viewer->visit, viewer->peer);
}

static void end_unref(void *end)
{
    viewer_unref(end);
}

static const VpLineEnd tls_end = {
    .opened = end_opened,
    .write = end_write,
    .read_next = end_read_next,
    .finish = end_finish,
    .gone = end_gone,
    .caller = end_caller,
    .unref = end_unref,
};

/* ---- the stages ---- */

static void end_begins(VpViewer *viewer, Stage stage)
{
    unlist(viewer);
    viewer->stage = stage;
    count_as(viewer, AS_STRANGER);
    viewer->reading = FALSE;
    viewer->wants_read = viewer->wants_write = FALSE;
    uv_timer_start(&viewer->timer, on_timer, VP_SCREEN_LINGER_MS, 0);
}

/* Nothing more comes from the line: what waits goes out within the time, and the rest of what the viewer sends is let go. */
static void part(VpViewer *viewer)
{
    end_begins(viewer, PARTING);
    if (!viewer->stepping)
        step(viewer, FALSE);
}

static void leave(VpViewer *viewer)
{
    ERR_clear_error();
    SSL_shutdown(viewer->ssl);
    shutdown(viewer->fd, SHUT_WR);
    viewer->stage = LEAVING;
}

static VpError *ask(VpViewer *viewer, VpVisit *ret_visit)
{
    VpScreens *screens = viewer->listener->screens;
    PbOpenScreenRequest request = PB_OPEN_SCREEN_REQUEST__INIT;
    PbScreenOpen open = PB_SCREEN_OPEN__INIT;
    const VpCredentials credentials = {
        .tls = TRUE,
        .certificate = viewer->certificate,
        .certificate_length = viewer->certificate ? strlen(viewer->certificate) : 0,
        .chain = viewer->chain,
        .chain_length = viewer->chain ? strlen(viewer->chain) : 0,
    };
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(screens->options.domains, "", viewer->listener->uid, &error);

    request.payload_case = PB_OPEN_SCREEN_REQUEST__PAYLOAD_OPEN;
    request.open = &open;
    open.uid = viewer->listener->uid;
    /* For the log; one that is not there is found to be missing by its uid. */
    if (view)
        open.name = view->domain->name;
    return vp_access_visit(screens->options.access, &credentials, METHOD, &request, ret_visit);
}

static gboolean is_unknown(const VpViewer *viewer)
{
    return !viewer->visit.identity || g_str_equal(viewer->visit.identity->name, VP_ANONYMOUS);
}

static void refuse(VpViewer *viewer, gboolean refused, VpError *error)
{
    viewer->visiting = !is_unknown(viewer) || vp_refusal_is_told(viewer->listener->screens);
    tell_end(viewer, refused, error);
    vp_error_free(error);
}

/* Hands are shaken: who is it, and may he? */
static void judge(VpViewer *viewer)
{
    VpScreens *screens = viewer->listener->screens;
    const VpLineOptions options = {.screen = TRUE};
    g_auto(VpLineTarget) target = {0};

    vp_screen_tls_shown(viewer->ssl, &viewer->certificate, &viewer->chain);
    vp_visit_clear(&viewer->visit);
    VpError *error = ask(viewer, &viewer->visit);
    const gboolean refused = error != NULL;
    if (!error)
        error = vp_line_target_find(screens->options.domains, "", viewer->listener->uid, viewer->listener->device, TRUE,
                                    &target);
    if (!error)
        error = vp_strangers_check_open(viewer->listener);
    if (!error)
        error = vp_access_visit_enter(screens->options.access, screens->accounts, &viewer->visit);
    if (error) {
        refuse(viewer, refused, error);
        part(viewer);
        return;
    }
    viewer->stage = OPEN;
    count_as(viewer, AS_OPEN);
    viewer->visiting = TRUE;
    viewer->moved_us = viewer->wrote_us = vp_now_us();
    vp_access_visit_began(screens->options.access, &viewer->visit, viewer->peer);
    uv_timer_start(&viewer->timer, on_timer, LOOK_MS, LOOK_MS);
    g_atomic_int_inc(&viewer->refs);
    viewer->client = vp_line_client_new(screens->lines, &tls_end, viewer);
    vp_line_client_open(viewer->client, &options, &target);
}

/* A client that was not let in by its certificate, or for want of one, was refused; what speaks no TLS was just no client. */
static void shaking_failed(VpViewer *viewer)
{
    const unsigned long oldest = ERR_peek_error();
    const long verified = SSL_get_verify_result(viewer->ssl);
    const gboolean without =
        ERR_GET_LIB(oldest) == ERR_LIB_SSL && ERR_GET_REASON(oldest) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;

    if (without || verified != X509_V_OK) {
        vp_visit_clear(&viewer->visit);
        VpError *error = ask(viewer, &viewer->visit);

        if (!without) {
            vp_error_free(error);
            error = vp_error_new(VP_UNAUTHENTICATED, "CERTIFICATE_REFUSED", "the client's certificate is refused: %s",
                                 X509_verify_cert_error_string(verified));
        } else if (!error) {
            error = vp_error_new(VP_UNAUTHENTICATED, "CERTIFICATE_NEEDED",
                                 "the client shows no certificate; without one it is let in only where the policy of "
                                 "[auth] says so of anonymous");
        }
        refuse(viewer, TRUE, error);
    } else {
        vp_log(VP_LOG_DEBUG, "%s: no handshake by TLS", viewer->peer);
    }
    ERR_clear_error();
    /* The client is to see the alert that tells why. */
    end_begins(viewer, LEAVING);
    shutdown(viewer->fd, SHUT_WR);
}

static void shake(VpViewer *viewer)
{
    ERR_clear_error();
    const int r = SSL_accept(viewer->ssl);

    if (r == 1)
        judge(viewer);
    else if (!waits(viewer, r))
        shaking_failed(viewer);
}

/* What still comes is let go until the other end is closed. */
static void wait_for_end(VpViewer *viewer)
{
    guint8 bytes[READ_BYTES];
    const ssize_t n = recv(viewer->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        drop(viewer);
}

static void step(VpViewer *viewer, gboolean readable)
{
    const gboolean tls_waited = viewer->wants_read || viewer->wants_write;

    viewer->stepping = TRUE;
    viewer->wants_read = viewer->wants_write = FALSE;
    if (viewer->stage == SHAKING)
        shake(viewer);
    if (viewer->stage == OPEN && !flush(viewer))
        drop(viewer);
    if (viewer->stage == OPEN && (readable || tls_waited) && !take(viewer))
        drop(viewer);
    if (viewer->stage == PARTING && !flush(viewer))
        drop(viewer);
    if (viewer->stage == PARTING && viewer->out->len == 0)
        leave(viewer);
    else if (viewer->stage == LEAVING && readable && !uv_is_closing((uv_handle_t *)&viewer->poll))
        wait_for_end(viewer);
    viewer->stepping = FALSE;
    update_poll(viewer);
}

/* ---- from the listener ---- */

/* A peer that has gone without a word is found by the kernel within two minutes. */
static void set_keepalive(int fd)
{
    const int yes = 1;
    const int idle_s = 60;
    const int interval_s = 15;
    const int count = 4;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
}

/* Whether one who shows no certificate is to be asked who he is at all. */
static gboolean needs_certificate(VpViewer *viewer)
{
    g_auto(VpVisit) visit = {0};
    g_autoptr(VpError) error = ask(viewer, &visit);

    return error || !viewer->listener->screens->options.anonymous;
}

void vp_viewer_new(VpScreenListener *listener, int fd, const char *peer)
{
    VpScreens *screens = listener->screens;
    VpViewer *viewer = g_new0(VpViewer, 1);

    viewer->listener = listener;
    viewer->fd = fd;
    viewer->need_certificate = needs_certificate(viewer);
    viewer->ssl = vp_screen_tls_accept(screens->certificates, fd, viewer->need_certificate);
    if (!viewer->ssl) {
        close(fd);
        g_free(viewer);
        return;
    }
    set_keepalive(fd);
    viewer->refs = 1;
    vp_screen_listener_ref(listener);
    viewer->peer = g_strdup(peer);
    viewer->out = g_byte_array_new();
    viewer->sizes = g_array_new(FALSE, FALSE, sizeof(gsize));
    viewer->poll.data = viewer->timer.data = viewer;
    viewer->handles = 2;
    viewer->wants_read = TRUE;
    viewer->listed = TRUE;
    vp_screens_count(screens, 1);
    uv_poll_init(vp_loop_uv(screens->loop), &viewer->poll, fd);
    uv_timer_init(vp_loop_uv(screens->loop), &viewer->timer);
    uv_timer_start(&viewer->timer, on_timer, VP_SCREEN_HANDSHAKE_MS, 0);
    g_ptr_array_add(listener->connections, viewer);
    count_as(viewer, AS_STRANGER);
    update_poll(viewer);
}

gboolean vp_viewer_is_shaking(const VpViewer *viewer)
{
    return viewer->stage == SHAKING;
}

void vp_viewer_end(VpViewer *viewer, VpError *why)
{
    g_autoptr(VpLineClient) client = viewer->client ? vp_line_client_ref(viewer->client) : NULL;

    if (client && vp_line_client_is_open(client)) {
        vp_line_client_end(client, why);
        return;
    }
    tell_end(viewer, FALSE, why);
    vp_error_free(why);
    drop(viewer);
}

void vp_viewer_recheck(VpViewer *viewer)
{
    g_auto(VpVisit) visit = {0};
    VpError *error = viewer->stage == OPEN ? ask(viewer, &visit) : NULL;

    if (error)
        vp_viewer_end(viewer, error);
}
