/* Reading and writing a guest's files: see guest.h. A file that is open in the guest is closed however the call ends. */
#include "guest.h"

#include <string.h>

#include "base/pb.h"
#include "guest_read.h"

typedef struct File {
    gint64 handle; /* -1: not open */
    guint64 left;  /* of what is to be read */
    gboolean reading;
    PbWriteGuestFileRequest *message; /* that is being written, and how much of it was */
    gsize at;
    guint64 written;
} File;

json_t *vp_guest_read_arguments(gint64 handle, gsize bytes)
{
    return json_pack("{s:I, s:I}", "handle", (json_int_t)handle, "count", (json_int_t)bytes);
}

json_t *vp_guest_write_arguments(gint64 handle, const guint8 *bytes, gsize size)
{
    g_autofree char *encoded = g_base64_encode(bytes, size);

    return json_pack("{s:I, s:s}", "handle", (json_int_t)handle, "buf-b64", encoded);
}

static void file_free(void *data)
{
    File *file = data;

    vp_pb_free(file->message);
    g_free(file);
}

static File *file_new(VpGuestWork *work)
{
    File *file = g_new0(File, 1);

    file->handle = -1;
    work->state = file;
    work->free_state = file_free;
    return file;
}

/* The agent's words for ENOENT and EACCES are what there is of them. */
static VpError *open_error(VpError *error, const char *path)
{
    if (g_strcmp0(error->reason, "AGENT_ERROR") != 0)
        return error;
    const gboolean missing = strstr(error->message, "No such file") != NULL;
    VpError *told = vp_error_new(missing ? VP_NOT_FOUND : VP_FAILED_PRECONDITION,
                                 missing ? "GUEST_FILE_NOT_FOUND" : "GUEST_FILE_FAILED", "%s cannot be opened: %s",
                                 path, error->message);

    vp_error_free(error);
    return told;
}

static VpError *no_path(void)
{
    return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "path is missing: which file?"),
                              "path", "must not be empty");
}

/* Takes the handle; FALSE: the work has ended. */
static gboolean take_handle(VpGuestWork *work, json_t *result)
{
    File *file = work->state;

    if (!vp_guest_read_handle(result, &file->handle)) {
        vp_guest_garbage(work, "guest-file-open");
        return FALSE;
    }
    vp_guest_opened(work, file->handle);
    return TRUE;
}

static void open_file(VpGuestWork *work, const char *path, const char *mode, VpGuestEnd end)
{
    vp_guest_try(work, "guest-file-open", json_pack("{s:s, s:s}", "path", path, "mode", mode), end);
}

static void seek(VpGuestWork *work, guint64 offset, VpGuestAnswer answer)
{
    const File *file = work->state;

    vp_guest_send(work, "guest-file-seek",
                  json_pack("{s:I, s:I, s:i}", "handle", (json_int_t)file->handle, "offset", (json_int_t)offset,
                            "whence", 0),
                  answer);
}

/* ---- reading ---- */

static void read_on(VpGuestWork *work);

static void on_read_closed(VpGuestWork *work, json_t *result)
{
    const File *file = work->state;

    (void)result;
    vp_guest_closed(work, file->handle);
    vp_guest_finish(work, NULL);
}

static void on_chunk(VpGuestWork *work, json_t *result)
{
    File *file = work->state;
    g_autofree guint8 *bytes = NULL;
    gsize size;
    gboolean at_end;

    file->reading = FALSE;
    if (!vp_guest_read_chunk(result, (gsize)MIN(file->left, VP_GUEST_CHUNK_BYTES), &bytes, &size, &at_end) ||
        (size == 0 && !at_end)) {
        vp_guest_garbage(work, "guest-file-read");
        return;
    }
    if (size > 0) {
        PbReadGuestFileResponse response = PB_READ_GUEST_FILE_RESPONSE__INIT;

        response.data = (ProtobufCBinaryData){.data = bytes, .len = size};
        vp_task_stream_emit(vp_task_stream(work->task), &response);
        file->left -= size;
    }
    if (at_end)
        file->left = 0;
    read_on(work);
}

/* The next chunk, if the reader has room for it. */
static void read_on(VpGuestWork *work)
{
    File *file = work->state;

    if (file->handle < 0 || file->reading)
        return;
    if (file->left > 0 && !vp_task_stream_has_room(vp_task_stream(work->task)))
        return;
    file->reading = TRUE;
    if (file->left > 0)
        vp_guest_send(work, "guest-file-read",
                      vp_guest_read_arguments(file->handle, (gsize)MIN(file->left, VP_GUEST_CHUNK_BYTES)), on_chunk);
    else
        vp_guest_send(work, "guest-file-close", json_pack("{s:I}", "handle", (json_int_t)file->handle), on_read_closed);
}

static void on_sought_to_read(VpGuestWork *work, json_t *result)
{
    File *file = work->state;

    (void)result;
    file->reading = FALSE;
    read_on(work);
}

static void on_open_to_read(VpGuestWork *work, json_t *result, VpError *error)
{
    const PbReadGuestFileRequest *request = work->request;
    File *file = work->state;

    if (error) {
        vp_guest_finish(work, open_error(error, request->path));
        return;
    }
    if (!take_handle(work, result))
        return;
    if (request->offset > 0) {
        file->reading = TRUE;
        seek(work, request->offset, on_sought_to_read);
    } else {
        read_on(work);
    }
}

void vp_guest_read_file(VpGuestWork *work)
{
    const PbReadGuestFileRequest *request = work->request;
    File *file = file_new(work);

    if (!request->path[0]) {
        vp_guest_finish(work, no_path());
        return;
    }
    file->left = request->length ? request->length : G_MAXUINT64;
    work->stirred = read_on;
    open_file(work, request->path, "r", on_open_to_read);
}

/* ---- writing ---- */

static void write_on(VpGuestWork *work);

static void on_write_closed(VpGuestWork *work, json_t *result)
{
    const File *file = work->state;
    PbWriteGuestFileResponse *response = vp_pb_new(&pb_write_guest_file_response__descriptor);

    (void)result;
    vp_guest_closed(work, file->handle);
    response->written_bytes = file->written;
    vp_guest_reply(work, response);
}

/* What the agent has buffered may fail to be written now, for lack of space: its close would not tell. */
static void on_flushed(VpGuestWork *work, json_t *result)
{
    const File *file = work->state;

    (void)result;
    vp_guest_send(work, "guest-file-close", json_pack("{s:I}", "handle", (json_int_t)file->handle), on_write_closed);
}

static void on_written(VpGuestWork *work, json_t *result)
{
    File *file = work->state;
    const gsize sent = MIN(file->message->data.len - file->at, VP_GUEST_CHUNK_BYTES);
    gsize written;

    if (!vp_guest_read_written(result, sent, &written)) {
        vp_guest_garbage(work, "guest-file-write");
        return;
    }
    file->at += written;
    file->written += written;
    write_on(work);
}

/* The rest of the message, or else the next one. */
static void write_on(VpGuestWork *work)
{
    File *file = work->state;

    if (file->message && file->at < file->message->data.len) {
        vp_guest_send(work, "guest-file-write",
                      vp_guest_write_arguments(file->handle, file->message->data.data + file->at,
                                               MIN(file->message->data.len - file->at, VP_GUEST_CHUNK_BYTES)),
                      on_written);
        return;
    }
    g_clear_pointer(&file->message, vp_pb_free);
    vp_task_stream_want(vp_task_stream(work->task));
}

static void on_fed(VpGuestWork *work)
{
    File *file = work->state;
    void *message;

    if (!vp_task_stream_next(vp_task_stream(work->task), &message))
        return;
    file->message = message;
    file->at = 0;
    if (!message)
        vp_guest_send(work, "guest-file-flush", json_pack("{s:I}", "handle", (json_int_t)file->handle), on_flushed);
    else if (file->message->payload_case == PB_WRITE_GUEST_FILE_REQUEST__PAYLOAD_DATA)
        write_on(work);
    else
        vp_guest_finish(work, vp_error_new(VP_INVALID_ARGUMENT, "NOT_DATA",
                                           "after the first message comes data, and this is none"));
}

static void on_sought_to_write(VpGuestWork *work, json_t *result)
{
    (void)result;
    write_on(work);
}

static void on_open_to_write(VpGuestWork *work, json_t *result, VpError *error)
{
    const PbWriteGuestFileOpen *request = ((const PbWriteGuestFileRequest *)work->request)->open;

    if (error)
        vp_guest_finish(work, open_error(error, request->path));
    else if (!take_handle(work, result))
        return;
    else if (request->offset > 0)
        seek(work, request->offset, on_sought_to_write);
    else
        write_on(work);
}

void vp_guest_write_file(VpGuestWork *work)
{
    const PbWriteGuestFileOpen *request = ((const PbWriteGuestFileRequest *)work->request)->open;
    const char *mode = request->mode == PB_GUEST_FILE_MODE_APPEND      ? "a"
                       : request->mode == PB_GUEST_FILE_MODE_OVERWRITE ? "r+"
                                                                       : "w";

    file_new(work);
    work->stirred = on_fed;
    if (!request->path[0])
        vp_guest_finish(work, no_path());
    else if (request->offset > 0 && request->mode != PB_GUEST_FILE_MODE_OVERWRITE)
        vp_guest_finish(work, vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                                              "open.offset goes with GUEST_FILE_MODE_OVERWRITE alone"),
                                                 "open.offset", "goes with GUEST_FILE_MODE_OVERWRITE alone"));
    else
        open_file(work, request->path, mode, on_open_to_write);
}
