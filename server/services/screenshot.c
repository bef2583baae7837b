/* See screenshot.h. Nothing here blocks but the compression, which is done on the worker pool. */
#include "server/services/screenshot.h"

#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/services/picture.h"

#define CHUNK_BYTES (128 * 1024)
/* Pictures that are being compressed or sent. One that is waited for takes no room: a hypervisor that does not answer is in nobody's way. */
#define MAX_PICTURES 8
#define TIMEOUT_MS 10000

/* One call, which it has a reference to. In one hand at a time: the question's, the pool's, the write's under way. */
typedef struct Shot {
    VpServices *services;
    VpCall *call;
    gboolean counted;
    PbScreenshotFormat format; /* wanted */
    int ppm_fd;
    int file_fd; /* what is sent: the one above, or a PNG */
    gsize sent;
    gsize size;
    VpPpm ppm;
} Shot;

static void shot_free(Shot *shot)
{
    if (shot->file_fd >= 0 && shot->file_fd != shot->ppm_fd)
        close(shot->file_fd);
    if (shot->ppm_fd >= 0)
        close(shot->ppm_fd);
    if (shot->counted)
        vp_slow_leave(&shot->services->pictures);
    vp_call_unref(shot->call);
    g_free(shot);
}

/* Ends the call, if it has not ended; `error` is consumed. */
static void end(Shot *shot, VpError *error)
{
    if (error)
        vp_call_fail(shot->call, error);
    else
        vp_call_finish(shot->call);
    shot_free(shot);
}

/* ---- sending ---- */

static void on_written(VpCall *call, void *data, gboolean ok);

static void send_message(Shot *shot, const PbTakeScreenshotResponse *response)
{
    /* Who has gone gets no answer. */
    if (!vp_call_write(shot->call, response, /* more= */ FALSE, on_written, shot))
        end(shot, NULL);
}

static void send_next(Shot *shot)
{
    g_autofree guint8 *bytes = g_malloc(CHUNK_BYTES);
    const ssize_t n = pread(shot->file_fd, bytes, MIN(CHUNK_BYTES, shot->size - shot->sent), (off_t)shot->sent);
    PbTakeScreenshotResponse response = PB_TAKE_SCREENSHOT_RESPONSE__INIT;

    if (n <= 0) {
        end(shot, vp_error_new(VP_INTERNAL, "SCREENSHOT_FAILED", "the picture cannot be read"));
        return;
    }
    shot->sent += (gsize)n;
    response.payload_case = PB_TAKE_SCREENSHOT_RESPONSE__PAYLOAD_DATA;
    response.data = (ProtobufCBinaryData){.len = (gsize)n, .data = bytes};
    send_message(shot, &response);
}

static void on_written(VpCall *call, void *data, gboolean ok)
{
    Shot *shot = data;

    (void)call;
    if (!ok || shot->sent == shot->size)
        end(shot, NULL);
    else
        send_next(shot);
}

static void send_header(Shot *shot)
{
    PbScreenshotHeader header = PB_SCREENSHOT_HEADER__INIT;
    PbTakeScreenshotResponse response = PB_TAKE_SCREENSHOT_RESPONSE__INIT;

    header.format = shot->format;
    header.width = shot->ppm.width;
    header.height = shot->ppm.height;
    header.size_bytes = shot->size;
    response.payload_case = PB_TAKE_SCREENSHOT_RESPONSE__PAYLOAD_HEADER;
    response.header = &header;
    send_message(shot, &response);
}

/* ---- the picture ---- */

static VpError *make_file(Shot *shot)
{
    VpError *error = vp_ppm_read(shot->ppm_fd, &shot->ppm);

    if (error)
        return error;
    if (shot->format == PB_SCREENSHOT_FORMAT_PPM) {
        shot->file_fd = shot->ppm_fd;
        shot->size = shot->ppm.size;
        return NULL;
    }
    shot->file_fd = vp_picture_file(&error);
    if (error)
        return error;
    error = vp_ppm_to_png(shot->ppm_fd, &shot->ppm, shot->file_fd, &shot->size);
    /* Its room is free while the reader takes his time. */
    close(shot->ppm_fd);
    shot->ppm_fd = -1;
    return error;
}

static void run(void *data)
{
    Shot *shot = data;
    VpError *error = vp_call_cancelled(shot->call) ? NULL : make_file(shot);

    if (error || shot->size == 0)
        end(shot, error);
    else
        send_header(shot);
}

static void on_answer(void *data, const VpError *error, const void *answer)
{
    Shot *shot = data;

    (void)answer; /* drivers write PPM; its size is read from the picture itself */
    VpError *refusal = error ? vp_error_copy(error)
                             : vp_slow_enter(&shot->services->pictures, MAX_PICTURES, "pictures are being sent");
    shot->counted = refusal == NULL;
    if (refusal)
        end(shot, refusal);
    else if (!vp_pool_submit(shot->services->pool, run, shot))
        end(shot,
            vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY", "the daemon has too much to do"), 1000));
}

void vp_screenshot_take(VpServices *services, VpCall *call, const PbTakeScreenshotRequest *request)
{
    Shot *shot = g_new0(Shot, 1);
    VpError *error = NULL;

    shot->services = services;
    shot->call = vp_call_ref(call);
    shot->format = request->format == PB_SCREENSHOT_FORMAT_PPM ? PB_SCREENSHOT_FORMAT_PPM : PB_SCREENSHOT_FORMAT_PNG;
    shot->file_fd = -1;
    shot->ppm_fd = vp_picture_file(&error);
    if (error) {
        end(shot, error);
        return;
    }
    const gint64 left_ms = (vp_call_deadline_us(call) - vp_now_us()) / 1000;
    const VpAsk question = {
        .question = VP_QUESTION_SCREENSHOT,
        .name = request->name,
        .uid = request->uid,
        .request = request,
        .timeout_ms = (guint64)CLAMP(left_ms, 1, TIMEOUT_MS),
        .has_output = TRUE,
        .output = shot->ppm_fd,
    };
    vp_task_unref(vp_domains_ask(services->domains, &question, on_answer, shot));
}
