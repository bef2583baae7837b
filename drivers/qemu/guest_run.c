/* RunGuestCommand: a program is started, and asked after until it has ended; the agent keeps its output until then. See guest.h. */
#include "guest.h"

#include <string.h>

#include "base/pb.h"
#include "guest_read.h"

/* How often an agent is asked after a program: a short one is told soon, a long one bothers nobody. */
#define FIRST_POLL_MS 10
#define MAX_POLL_MS 500
/* Of each output; see RunGuestCommandResponse. */
#define MAX_OUTPUT_BYTES ((gsize)1024 * 1024)

json_t *vp_guest_exec_arguments(const char *path, json_t *list, char *const *environment, gsize n_environment,
                                gboolean capture)
{
    json_t *arguments = json_pack("{s:s, s:o, s:b}", "path", path, "arg", list, "capture-output", (int)capture);

    if (n_environment > 0) {
        json_t *env = json_array();

        for (gsize i = 0; i < n_environment; i++)
            json_array_append_new(env, json_string(environment[i]));
        json_object_set_new(arguments, "env", env);
    }
    return arguments;
}

/* ---- waiting for a program ---- */

static void poll_program(VpGuestWork *work);

static void on_poll(VpGuestWork *work, json_t *result)
{
    gboolean exited;
    gint32 exit_code;
    gint32 killer;

    if (!vp_guest_read_status(result, &exited, &exit_code, &killer)) {
        vp_guest_garbage(work, "guest-exec-status");
        return;
    }
    if (!exited) {
        vp_guest_wait(work, work->poll_ms, poll_program);
        work->poll_ms = MIN(work->poll_ms * 3 / 2 + 1, MAX_POLL_MS);
        return;
    }
    /* The agent has forgotten it. */
    work->pid = 0;
    work->exited(work, result);
}

static void poll_program(VpGuestWork *work)
{
    vp_guest_send(work, "guest-exec-status", json_pack("{s:I}", "pid", (json_int_t)work->pid), on_poll);
}

void vp_guest_await(VpGuestWork *work, gint64 pid, VpGuestAnswer exited)
{
    work->pid = pid;
    work->poll_ms = FIRST_POLL_MS;
    work->exited = exited;
    vp_guest_wait(work, FIRST_POLL_MS, poll_program);
}

/* ---- the method ---- */

static void on_exited(VpGuestWork *work, json_t *result)
{
    PbRunGuestCommandResponse *response = vp_guest_read_run(result, MAX_OUTPUT_BYTES);

    if (response)
        vp_guest_reply(work, response);
    else
        vp_guest_garbage(work, "guest-exec-status");
}

static void on_started(VpGuestWork *work, json_t *result)
{
    gint64 pid;

    if (vp_guest_read_pid(result, &pid))
        vp_guest_await(work, pid, on_exited);
    else
        vp_guest_garbage(work, "guest-exec");
}

void vp_guest_run(VpGuestWork *work)
{
    const PbRunGuestCommandRequest *request = work->request;
    json_t *list = json_array();

    for (gsize i = 0; i < request->n_arguments; i++)
        json_array_append_new(list, json_string(request->arguments[i]));
    json_t *arguments = vp_guest_exec_arguments(request->path, list, request->environment, request->n_environment,
                                                !request->discard_output);
    if (request->input.len > 0) {
        g_autofree char *encoded = g_base64_encode(request->input.data, request->input.len);

        json_object_set_new(arguments, "input-data", json_string(encoded));
    }
    if (!request->path[0]) {
        json_decref(arguments);
        vp_guest_finish(work, vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                                              "path is missing: which program?"),
                                                 "path", "must not be empty"));
        return;
    }
    vp_guest_send(work, "guest-exec", arguments, on_started);
}
