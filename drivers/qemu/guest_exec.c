/*
 * ExecGuest: a program whose output is streamed while it runs. The agent tells a program's output only once it has ended, so the program reads and writes files
 * of the guest, in a folder that is made for it: its input is written there first, the files of its outputs are opened by the agent and read as they grow. A
 * shell in between sends the program's three streams there, removes the folder (who has the files open keeps them), and becomes the program. So nothing is left
 * of it, whatever dies. See guest.h and docs/guest-agent.md.
 */
#include "guest.h"

#include <string.h>

#include "base/pb.h"
#include "guest_read.h"

#define SHELL "/bin/sh"
#define FIRST_WAIT_MS 20
#define MAX_WAIT_MS 250
#define DEFAULT_MAX_OUTPUT_BYTES ((guint64)1 << 30)

/* $0 is the folder. Nobody else may read what the program prints. */
static const char prepare_script[] = "umask 077; mkdir -- \"$0\" && : >\"$0/0\" && : >\"$0/1\" && : >\"$0/2\"";
/* $0 is the folder, $1 where the program runs, the rest is the program. What goes wrong in here is told as the program's own. */
static const char run_script[] =
    "d=$0; w=$1; shift; exec <\"$d/0\" >\"$d/1\" 2>\"$d/2\"; PATH=/usr/bin:/bin rm -rf -- \"$d\"; "
    "[ -z \"$w\" ] || cd -- \"$w\" || exit 126; exec \"$@\"";
static const char remove_script[] = "PATH=/usr/bin:/bin rm -rf -- \"$0\"";
/* $0 is the process. */
static const char kill_script[] =
    "kill -TERM \"$0\"; i=0; while [ $i -lt 50 ] && kill -0 \"$0\"; do sleep 0.1 || sleep 1; "
    "i=$((i + 1)); done; kill -KILL \"$0\"; :";

typedef struct Exec {
    const PbExecGuestStart *start;
    char *folder;
    gint64 input; /* -1: not open */
    gint64 outputs[2];
    guint turn; /* which of them is read next */
    guint dry;  /* how many of them had nothing, one after the other */

    PbExecGuestRequest *message; /* whose input is being written, and how much of it was */
    gsize at;

    gboolean made;    /* the folder is there, as far as is known */
    gboolean running; /* the program is: pid */
    gint64 pid;
    gboolean exited;
    gint32 exit_code;
    gint32 killer;
    gboolean busy; /* a command is under way, or the next one is waited for */
    guint wait_ms;
    guint64 printed;
} Exec;

static void exec_free(void *data)
{
    Exec *exec = data;

    vp_pb_free(exec->message);
    g_free(exec->folder);
    g_free(exec);
}

/* guest-exec's arguments for a script; $0 is `first`. */
static json_t *script(const char *text, const char *first)
{
    return vp_guest_exec_arguments(SHELL, json_pack("[s, s, s]", "-c", text, first), NULL, 0, /* capture= */ TRUE);
}

/* ---- the end ---- */

static void end_program(VpGuestCleanup *cleanup, const Exec *exec, gint64 pid)
{
    g_autofree char *number = g_strdup_printf("%" G_GINT64_FORMAT, pid);

    if (!exec->start->keep_running)
        vp_guest_cleanup_run(cleanup, script(kill_script, number));
    vp_guest_cleanup_reap(cleanup, pid);
}

static void on_ended(VpGuestWork *work)
{
    const Exec *exec = work->state;
    VpGuestCleanup *cleanup = work->domain->guest ? work->domain->guest->cleanup : NULL;

    if (!cleanup)
        return;
    if (exec->running && !exec->exited)
        end_program(cleanup, exec, exec->pid);
    else if (exec->made && !exec->exited)
        vp_guest_cleanup_run(cleanup, script(remove_script, exec->folder));
}

/* The call has ended while a shell was being started: the one that makes the folder, or the program's. */
static void on_late(VpGuestWork *work, const char *command, json_t *result)
{
    const Exec *exec = work->state;
    VpGuestCleanup *cleanup = work->domain->guest->cleanup;
    gint64 pid;

    if (strcmp(command, "guest-exec") == 0 && vp_guest_read_pid(result, &pid))
        end_program(cleanup, exec, pid);
    if (strcmp(command, "guest-exec") == 0)
        vp_guest_cleanup_run(cleanup, script(remove_script, exec->folder));
}

/* ---- the outputs, and the program's end ---- */

static void pump(VpGuestWork *work);

static void again(VpGuestWork *work)
{
    Exec *exec = work->state;

    exec->busy = FALSE;
    pump(work);
}

static void finish_exec(VpGuestWork *work)
{
    const Exec *exec = work->state;
    PbExecGuestResponse response = PB_EXEC_GUEST_RESPONSE__INIT;
    PbExecGuestExited exited = PB_EXEC_GUEST_EXITED__INIT;

    exited.exit_code = exec->exit_code;
    exited.signal = exec->killer;
    response.payload_case = PB_EXEC_GUEST_RESPONSE__PAYLOAD_EXITED;
    response.exited = &exited;
    vp_task_stream_emit(vp_task_stream(work->task), &response);
    vp_guest_finish(work, NULL);
}

static void on_status(VpGuestWork *work, json_t *result)
{
    Exec *exec = work->state;

    if (!vp_guest_read_status(result, &exec->exited, &exec->exit_code, &exec->killer)) {
        vp_guest_garbage(work, "guest-exec-status");
        return;
    }
    if (exec->exited) {
        /* What it has printed since the files were looked at. */
        exec->dry = 0;
        again(work);
        return;
    }
    vp_guest_wait(work, exec->wait_ms, again);
    exec->dry = 0;
    exec->wait_ms = MIN(exec->wait_ms * 3 / 2, MAX_WAIT_MS);
}

static void emit_output(VpGuestWork *work, guint8 *bytes, gsize size)
{
    const Exec *exec = work->state;
    PbExecGuestResponse response = PB_EXEC_GUEST_RESPONSE__INIT;
    const ProtobufCBinaryData data = {.data = bytes, .len = size};

    if (exec->turn == 0) {
        response.payload_case = PB_EXEC_GUEST_RESPONSE__PAYLOAD_OUTPUT;
        response.output = data;
    } else {
        response.payload_case = PB_EXEC_GUEST_RESPONSE__PAYLOAD_ERROR_OUTPUT;
        response.error_output = data;
    }
    vp_task_stream_emit(vp_task_stream(work->task), &response);
}

static void on_output(VpGuestWork *work, json_t *result)
{
    Exec *exec = work->state;
    const guint64 most = exec->start->max_output_bytes ? exec->start->max_output_bytes : DEFAULT_MAX_OUTPUT_BYTES;
    g_autofree guint8 *bytes = NULL;
    gsize size;
    gboolean at_end;

    if (!vp_guest_read_chunk(result, VP_GUEST_CHUNK_BYTES, &bytes, &size, &at_end)) {
        vp_guest_garbage(work, "guest-file-read");
        return;
    }
    if (size > 0) {
        emit_output(work, bytes, size);
        exec->printed += size;
        exec->dry = 0;
        exec->wait_ms = FIRST_WAIT_MS;
    } else {
        exec->dry++;
    }
    if (exec->printed > most) {
        vp_guest_finish(work, vp_error_new(VP_RESOURCE_EXHAUSTED, "GUEST_OUTPUT_TOO_LARGE",
                                           "the program has printed more than %" G_GUINT64_FORMAT
                                           " bytes (max_output_bytes), and was ended",
                                           most));
        return;
    }
    exec->turn = 1 - exec->turn;
    again(work);
}

/* The next step of a program that runs. */
static void pump(VpGuestWork *work)
{
    Exec *exec = work->state;

    if (!exec->running || exec->busy || !vp_task_stream_has_room(vp_task_stream(work->task)))
        return;
    exec->busy = TRUE;
    if (exec->dry < 2)
        vp_guest_send(work, "guest-file-read", vp_guest_read_arguments(exec->outputs[exec->turn], VP_GUEST_CHUNK_BYTES),
                      on_output);
    else if (!exec->exited)
        vp_guest_send(work, "guest-exec-status", json_pack("{s:I}", "pid", (json_int_t)exec->pid), on_status);
    else
        finish_exec(work);
}

/* ---- the start ---- */

static void on_started(VpGuestWork *work, json_t *result)
{
    Exec *exec = work->state;
    PbExecGuestResponse response = PB_EXEC_GUEST_RESPONSE__INIT;
    PbExecGuestStarted started = PB_EXEC_GUEST_STARTED__INIT;

    if (!vp_guest_read_pid(result, &exec->pid)) {
        vp_guest_garbage(work, "guest-exec");
        return;
    }
    exec->running = TRUE;
    exec->wait_ms = FIRST_WAIT_MS;
    started.pid = exec->pid;
    response.payload_case = PB_EXEC_GUEST_RESPONSE__PAYLOAD_STARTED;
    response.started = &started;
    vp_task_stream_emit(vp_task_stream(work->task), &response);
    pump(work);
}

static void start_program(VpGuestWork *work)
{
    const Exec *exec = work->state;
    const PbExecGuestStart *start = exec->start;
    json_t *list = json_pack("[s, s, s, s, s]", "-c", run_script, exec->folder, start->working_directory, start->path);

    for (gsize i = 0; i < start->n_arguments; i++)
        json_array_append_new(list, json_string(start->arguments[i]));
    vp_guest_send(work, "guest-exec",
                  vp_guest_exec_arguments(SHELL, list, start->environment, start->n_environment, /* capture= */ FALSE),
                  on_started);
}

/* ---- its input ---- */

static void write_on(VpGuestWork *work);

static void on_input_closed(VpGuestWork *work, json_t *result)
{
    Exec *exec = work->state;

    (void)result;
    vp_guest_closed(work, exec->input);
    start_program(work);
}

static void on_input_flushed(VpGuestWork *work, json_t *result)
{
    const Exec *exec = work->state;

    (void)result;
    vp_guest_send(work, "guest-file-close", json_pack("{s:I}", "handle", (json_int_t)exec->input), on_input_closed);
}

static void end_input(VpGuestWork *work)
{
    const Exec *exec = work->state;

    if (exec->input < 0)
        start_program(work);
    else
        vp_guest_send(work, "guest-file-flush", json_pack("{s:I}", "handle", (json_int_t)exec->input),
                      on_input_flushed);
}

static void on_written(VpGuestWork *work, json_t *result)
{
    Exec *exec = work->state;
    gsize written;

    if (!vp_guest_read_written(result, MIN(exec->message->input.len - exec->at, VP_GUEST_CHUNK_BYTES), &written)) {
        vp_guest_garbage(work, "guest-file-write");
        return;
    }
    exec->at += written;
    write_on(work);
}

static void on_input_opened(VpGuestWork *work, json_t *result)
{
    Exec *exec = work->state;

    if (!vp_guest_read_handle(result, &exec->input)) {
        vp_guest_garbage(work, "guest-file-open");
        return;
    }
    vp_guest_opened(work, exec->input);
    write_on(work);
}

static void open_file(VpGuestWork *work, const char *name, const char *mode, VpGuestAnswer answer)
{
    const Exec *exec = work->state;
    g_autofree char *path = g_build_filename(exec->folder, name, NULL);

    vp_guest_send(work, "guest-file-open", json_pack("{s:s, s:s}", "path", path, "mode", mode), answer);
}

/* The rest of the message, or else the next one. */
static void write_on(VpGuestWork *work)
{
    Exec *exec = work->state;
    const ProtobufCBinaryData *input = exec->message ? &exec->message->input : NULL;

    if (input && exec->at < input->len && exec->input < 0) {
        open_file(work, "0", "w", on_input_opened);
    } else if (input && exec->at < input->len) {
        vp_guest_send(work, "guest-file-write",
                      vp_guest_write_arguments(exec->input, input->data + exec->at,
                                               MIN(input->len - exec->at, VP_GUEST_CHUNK_BYTES)),
                      on_written);
    } else {
        g_clear_pointer(&exec->message, vp_pb_free);
        vp_task_stream_want(vp_task_stream(work->task));
    }
}

static void on_fed(VpGuestWork *work, PbExecGuestRequest *message)
{
    Exec *exec = work->state;

    exec->message = message;
    exec->at = 0;
    if (!message || (message->payload_case == PB_EXEC_GUEST_REQUEST__PAYLOAD_END_INPUT && message->end_input))
        end_input(work);
    else if (message->payload_case == PB_EXEC_GUEST_REQUEST__PAYLOAD_INPUT)
        write_on(work);
    else
        vp_guest_finish(work, vp_error_new(VP_INVALID_ARGUMENT, "NOT_INPUT",
                                           "after the first message comes input or its end, and this is neither"));
}

static void on_stirred(VpGuestWork *work)
{
    void *message;

    if (vp_task_stream_next(vp_task_stream(work->task), &message))
        on_fed(work, message);
    else
        pump(work);
}

/* ---- the folder ---- */

static void on_output_opened(VpGuestWork *work, json_t *result)
{
    Exec *exec = work->state;
    gint64 *handle = &exec->outputs[exec->turn];

    if (!vp_guest_read_handle(result, handle)) {
        vp_guest_garbage(work, "guest-file-open");
        return;
    }
    vp_guest_opened(work, *handle);
    exec->turn = 1 - exec->turn;
    if (exec->turn == 1)
        open_file(work, "2", "r", on_output_opened);
    else
        write_on(work);
}

static void on_prepared(VpGuestWork *work, json_t *result)
{
    const Exec *exec = work->state;
    vp_pb_auto PbRunGuestCommandResponse *made = vp_guest_read_run(result, VP_GUEST_MAX_TEXT);

    if (!made) {
        vp_guest_garbage(work, "guest-exec-status");
        return;
    }
    if (made->exit_code == 0 && made->signal == 0) {
        open_file(work, "1", "r", on_output_opened);
        return;
    }
    g_autofree char *words = g_utf8_make_valid((const char *)made->error_output.data, (gssize)made->error_output.len);
    vp_guest_finish(work, vp_error_new(VP_FAILED_PRECONDITION, "GUEST_SCRATCH_FAILED",
                                       "the guest cannot make %s for the program's input and output; name another "
                                       "scratch_directory: %s",
                                       exec->folder, g_strchomp(words)));
}

static void on_preparing(VpGuestWork *work, json_t *result, VpError *error)
{
    Exec *exec = work->state;
    gint64 pid;

    if (error && g_strcmp0(error->reason, "AGENT_ERROR") == 0) {
        VpError *told =
            vp_error_new(VP_FAILED_PRECONDITION, "GUEST_NO_SHELL",
                         "a program's output is streamed with the help of " SHELL ", which the guest's agent "
                         "cannot run; RunGuestCommand needs none: %s",
                         error->message);

        vp_error_free(error);
        error = told;
    }
    if (!error && !vp_guest_read_pid(result, &pid))
        error = vp_guest_garbage_error("guest-exec");
    if (error) {
        vp_guest_finish(work, error);
        return;
    }
    exec->made = TRUE;
    vp_guest_await(work, pid, on_prepared);
}

void vp_guest_exec(VpGuestWork *work)
{
    const PbExecGuestStart *start = ((const PbExecGuestRequest *)work->request)->start;
    g_autofree char *id = g_uuid_string_random();
    g_autofree char *name = g_strdup_printf("virtplane-%s", id);
    Exec *exec = g_new0(Exec, 1);

    exec->start = start;
    exec->folder = g_build_filename(start->scratch_directory[0] ? start->scratch_directory : "/tmp", name, NULL);
    exec->input = -1;
    work->state = exec;
    work->free_state = exec_free;
    work->stirred = on_stirred;
    work->ended = on_ended;
    work->late = on_late;
    if (start->path[0])
        vp_guest_try(work, "guest-exec", script(prepare_script, exec->folder), on_preparing);
    else
        vp_guest_finish(work, vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                                              "path is missing: which program?"),
                                                 "start.path", "must not be empty"));
}
