/* The machinery of guest.h: works, their commands, and what becomes of them. */
#include "guest.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "guest_read.h"

/* Commands that make something in the guest are given this time at least, even if nobody waits for them any more: their answer names what is to be put
 * away. */
#define MAKING_US (30 * G_USEC_PER_SEC)

static const struct Method {
    const ProtobufCMessageDescriptor *request;
    VpGuestStep begin;
    gboolean while_frozen;
} methods[] = {
    {&pb_ping_guest_request__descriptor, vp_guest_ping, TRUE},
    {&pb_get_guest_info_request__descriptor, vp_guest_info, FALSE},
    {&pb_list_guest_interfaces_request__descriptor, vp_guest_interfaces, FALSE},
    {&pb_list_guest_users_request__descriptor, vp_guest_users, FALSE},
    {&pb_get_guest_time_request__descriptor, vp_guest_get_time, FALSE},
    {&pb_set_guest_time_request__descriptor, vp_guest_set_time, FALSE},
    {&pb_set_guest_password_request__descriptor, vp_guest_set_password, FALSE},
    {&pb_freeze_guest_filesystems_request__descriptor, vp_guest_freeze, FALSE},
    {&pb_thaw_guest_filesystems_request__descriptor, vp_guest_thaw, TRUE},
    {&pb_trim_guest_filesystems_request__descriptor, vp_guest_trim, FALSE},
    {&pb_exec_guest_request__descriptor, vp_guest_exec, FALSE},
    {&pb_read_guest_file_request__descriptor, vp_guest_read_file, FALSE},
    {&pb_write_guest_file_request__descriptor, vp_guest_write_file, FALSE},
    {&pb_run_guest_command_request__descriptor, vp_guest_run, FALSE},
};

/* ---- life ---- */

static VpGuestWork *work_ref(VpGuestWork *work)
{
    work->refs++;
    return work;
}

static void work_unref(VpGuestWork *work)
{
    if (--work->refs > 0)
        return;
    if (work->free_state)
        work->free_state(work->state);
    vp_pb_free(work->answer);
    g_array_unref(work->handles);
    vp_task_unref(work->task);
    vp_qemu_domain_unref(work->domain);
    g_free(work);
}

/* The operation has ended, whoever has ended it. */
static void on_ended(void *data)
{
    VpGuestWork *work = data;
    VpGuestCleanup *cleanup = work->domain->guest ? work->domain->guest->cleanup : NULL;

    if (vp_task_stream(work->task))
        vp_task_stream_set_hook(vp_task_stream(work->task), NULL, NULL);
    if (work->ended)
        work->ended(work);
    for (guint i = 0; cleanup && i < work->handles->len; i++)
        vp_guest_cleanup_close(cleanup, g_array_index(work->handles, gint64, i));
    if (cleanup && work->pid)
        vp_guest_cleanup_reap(cleanup, work->pid);
    if (vp_timer_cancel(g_steal_pointer(&work->timer)))
        work_unref(work);
    vp_qemu_op_unref(g_steal_pointer(&work->op));
    work_unref(work);
}

void vp_guest_finish(VpGuestWork *work, VpError *error)
{
    if (!work->op) {
        vp_error_free(error);
        return;
    }
    vp_qemu_op_finish(work->op, error ? vp_error_prefix(error, "domain %s", work->domain->name) : NULL);
}

void vp_guest_reply(VpGuestWork *work, void *answer)
{
    if (work->op)
        vp_task_set_answer(work->task, answer);
    else
        vp_pb_free(answer);
    vp_guest_finish(work, NULL);
}

VpError *vp_guest_garbage_error(const char *command)
{
    return vp_error_with(vp_error_new(VP_UNAVAILABLE, "AGENT_GARBAGE",
                                      "what the guest's agent answered to %s is no answer to that", command),
                         "command", command);
}

void vp_guest_garbage(VpGuestWork *work, const char *command)
{
    vp_guest_finish(work, vp_guest_garbage_error(command));
}

void vp_guest_reply_read(VpGuestWork *work, void *response, const char *command)
{
    if (response)
        vp_guest_reply(work, response);
    else
        vp_guest_garbage(work, command);
}

void vp_guest_opened(VpGuestWork *work, gint64 handle)
{
    g_array_append_val(work->handles, handle);
}

void vp_guest_closed(VpGuestWork *work, gint64 handle)
{
    for (guint i = 0; i < work->handles->len; i++) {
        if (g_array_index(work->handles, gint64, i) == handle) {
            g_array_remove_index_fast(work->handles, i);
            return;
        }
    }
}

/* ---- commands ---- */

typedef struct Sent {
    VpGuestWork *work;
    char *command;
    VpGuestAnswer answer;
    VpGuestEnd end;
} Sent;

static gboolean makes_something(const char *command)
{
    return strcmp(command, "guest-exec") == 0 || strcmp(command, "guest-file-open") == 0 ||
           g_str_has_prefix(command, "guest-fsfreeze-freeze");
}

/* Nobody waits for what was made. */
static void put_away(VpGuestWork *work, const char *command, json_t *result)
{
    VpGuestCleanup *cleanup = work->domain->guest ? work->domain->guest->cleanup : NULL;
    gint64 number;

    if (!cleanup)
        return;
    if (work->late)
        work->late(work, command, result);
    else if (strcmp(command, "guest-exec") == 0 && vp_guest_read_pid(result, &number))
        vp_guest_cleanup_reap(cleanup, number);
    if (strcmp(command, "guest-file-open") == 0 && vp_guest_read_handle(result, &number))
        vp_guest_cleanup_close(cleanup, number);
}

static void on_done(void *data, json_t *result, VpError *error)
{
    g_autofree Sent *sent = data;
    g_autofree char *command = sent->command;
    VpGuestWork *work = sent->work;

    if (error && work->heard && g_strcmp0(error->reason, "AGENT_NOT_CONNECTED") == 0) {
        vp_error_free(error);
        error = vp_error_new(VP_UNAVAILABLE, "AGENT_DISCONNECTED", "the guest's agent went away before it answered %s",
                             command);
    }
    work->heard |= !error;
    if (!work->op) {
        if (!error)
            put_away(work, command, result);
        vp_error_free(error);
    } else if (sent->end) {
        sent->end(work, result, error);
    } else if (error) {
        vp_guest_finish(work, error);
    } else {
        sent->answer(work, result);
    }
    work_unref(work);
}

static void send_command(VpGuestWork *work, const char *command, json_t *arguments, VpGuestAnswer answer,
                         VpGuestEnd end)
{
    gint64 deadline_us = vp_task_deadline_us(work->task);

    if (!work->op) {
        json_decref(arguments);
        return;
    }
    Sent *sent = g_new(Sent, 1);
    *sent = (Sent){.work = work_ref(work), .command = g_strdup(command), .answer = answer, .end = end};
    if (makes_something(command))
        deadline_us = MAX(deadline_us, vp_now_us() + MAKING_US);
    vp_qemu_agent_execute(work->domain, command, arguments, deadline_us, on_done, sent);
}

void vp_guest_send(VpGuestWork *work, const char *command, json_t *arguments, VpGuestAnswer answer)
{
    send_command(work, command, arguments, answer, NULL);
}

void vp_guest_try(VpGuestWork *work, const char *command, json_t *arguments, VpGuestEnd end)
{
    send_command(work, command, arguments, NULL, end);
}

/* ---- waiting ---- */

static void on_timer(void *data)
{
    VpGuestWork *work = data;

    vp_timer_cancel(g_steal_pointer(&work->timer));
    if (work->op)
        work->then(work);
    work_unref(work);
}

void vp_guest_wait(VpGuestWork *work, guint ms, VpGuestStep then)
{
    if (!work->op)
        return;
    if (vp_timer_cancel(g_steal_pointer(&work->timer)))
        work_unref(work);
    work->then = then;
    work->timer = vp_timer_start(work->domain->driver->host->loop, ms, on_timer, work_ref(work));
}

static void stir_on_loop(void *data)
{
    VpQemuOp *op = data;

    /* Once it has ended, what it was of has too. */
    if (op->task) {
        VpGuestWork *work = op->ended_data;

        if (work->stirred)
            work->stirred(work);
    }
    vp_qemu_op_unref(op);
}

static void on_stir(void *data)
{
    VpQemuOp *op = data;

    vp_loop_post(op->driver->host->loop, stir_on_loop, vp_qemu_op_ref(op));
}

/* ---- beginning ---- */

static VpError *check(const VpQemuDomain *domain, const struct Method *method)
{
    if (!domain->live->guest_agent)
        return vp_error_new(VP_FAILED_PRECONDITION, "AGENT_NOT_CONFIGURED",
                            "domain %s has no port for an agent; set spec.guest_agent, start it anew, and install "
                            "qemu-guest-agent in its guest",
                            domain->name);
    return method->while_frozen ? NULL : vp_guest_check_thawed(domain);
}

static const struct Method *find_method(const ProtobufCMessage *request)
{
    for (gsize i = 0; i < G_N_ELEMENTS(methods); i++) {
        if (methods[i].request == request->descriptor)
            return &methods[i];
    }
    return NULL;
}

void vp_guest_begin(VpQemuDomain *domain, VpQemuOp *op)
{
    const void *request = vp_task_request(op->task);
    const struct Method *method = find_method(request);
    if (!method) {
        vp_qemu_op_finish(op, vp_error_new(VP_UNIMPLEMENTED, "NOT_BUILT", "the driver does not know this question"));
        return;
    }
    VpError *error = check(domain, method);
    if (error) {
        vp_qemu_op_finish(op, error);
        return;
    }
    VpGuestWork *work = g_new0(VpGuestWork, 1);
    work->refs = 1; /* until it ends */
    work->domain = vp_qemu_domain_ref(domain);
    work->op = vp_qemu_op_ref(op);
    work->task = vp_task_ref(op->task);
    work->request = request;
    work->handles = g_array_new(FALSE, FALSE, sizeof(gint64));
    op->ended = on_ended;
    op->ended_data = work;
    if (vp_task_stream(work->task))
        vp_task_stream_set_hook(vp_task_stream(work->task), on_stir, op);
    work_ref(work);
    method->begin(work);
    work_unref(work);
}

/* ---- the domain's ---- */

void vp_guest_init(VpQemuDomain *domain)
{
    domain->guest = g_new0(VpQemuGuest, 1);
    domain->guest->cleanup = vp_guest_cleanup_new(domain);
}

void vp_guest_free(VpQemuDomain *domain)
{
    VpQemuGuest *guest = g_steal_pointer(&domain->guest);

    if (!guest)
        return;
    if (vp_timer_cancel(guest->thaw_timer))
        vp_qemu_domain_unref(domain);
    vp_guest_cleanup_free(guest->cleanup);
    g_free(guest);
}

void vp_guest_answers(VpQemuDomain *domain)
{
    vp_guest_check_frozen(domain);
}

void vp_guest_agent_gone(VpQemuDomain *domain)
{
    vp_guest_cleanup_forget(domain->guest->cleanup);
}

void vp_guest_adopt(VpQemuDomain *domain, const PbGuestAgentStatus *status)
{
    domain->agent_told.connected = status->connected;
    domain->agent_told.frozen = status->frozen;
    domain->agent_told.frozen_file_systems = status->frozen_file_systems;
    domain->agent_told.thaw_time = vp_pb_dup(status->thaw_time);
}
