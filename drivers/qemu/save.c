/* See save.h. A step that waits for QEMU holds a reference to the save; one that comes too late finds that the phase is another. */
#include "save.h"

#include <signal.h>
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "domain_parts.h"
#include "save_write.h"

#define POLL_MS 200
/* For QEMU to go on after the deadline; then the caller is told, and QEMU may take its time. */
#define GRACE_MS 3000
/* As good as none: what QEMU has by itself is for networks. */
#define MAX_BANDWIDTH_BYTES G_GINT64_CONSTANT(9223372036853727232)
#define FD_NAME "save"
#define MIB (1024.0 * 1024.0)

typedef enum Phase {
    PHASE_ASKING,    /* what QEMU has against it */
    PHASE_PREPARING, /* a thread proves the disks and makes the file */
    PHASE_WRITING,   /* the CPUs are halted, or about to be */
    PHASE_FINISHING, /* a thread completes the file */
    PHASE_ENDING,    /* it is done; QEMU is being ended */
    PHASE_TAKING_BACK,
    PHASE_DROPPING, /* a thread removes what was made */
} Phase;

struct VpQemuSave {
    gint refs;
    VpQemuDriver *driver;
    VpQemuDomain *domain; /* a reference; NULL: it has gone */
    VpQemuOp *op;         /* a reference; NULL: of an earlier daemon */
    Phase phase;
    VpError *error; /* why it is being taken back */
    gboolean was_running;
    gboolean let_go; /* the domain runs on without us: the next daemon takes it back */
    VpTimer *poll;
    VpTimer *grace;
    gboolean asking; /* a query-migrate is under way */
    void (*ended)(void *domain);
    PbSavedState *saved; /* once it is done */

    /* Of the thread that is at work. */
    gint abort; /* atomic */
    VpSaveWriter writer;
    VpError *work_error;
};

static void take_back(VpQemuSave *save);
static void drop(VpQemuSave *save);

/* ---- life ---- */

static VpQemuSave *save_new(VpQemuDomain *domain)
{
    VpQemuSave *save = g_new0(VpQemuSave, 1);

    save->refs = 1;
    save->driver = domain->driver;
    save->domain = vp_qemu_domain_ref(domain);
    save->writer.host = domain->driver->host;
    save->writer.dir = g_strdup(domain->dir);
    save->writer.folder_fd = save->writer.fd = -1;
    save->writer.abort = &save->abort;
    vp_qemu_driver_live(save->driver, 1);
    return save;
}

static VpQemuSave *save_ref(VpQemuSave *save)
{
    g_atomic_int_inc(&save->refs);
    return save;
}

static void save_unref(VpQemuSave *save)
{
    if (!g_atomic_int_dec_and_test(&save->refs))
        return;
    VpQemuDriver *driver = save->driver;

    vp_save_writer_clear(&save->writer);
    vp_pb_free(save->saved);
    vp_error_free(save->error);
    vp_error_free(save->work_error);
    g_free(save);
    vp_qemu_driver_live(driver, -1);
}

static void stop_timers(VpQemuSave *save)
{
    if (vp_timer_cancel(g_steal_pointer(&save->poll)))
        save_unref(save);
    if (vp_timer_cancel(g_steal_pointer(&save->grace)))
        save_unref(save);
}

/* Ends the operation, if it has not ended yet; `error` is consumed. */
static void tell_caller(VpQemuSave *save, VpError *error)
{
    VpQemuOp *op = g_steal_pointer(&save->op);

    if (!op) {
        vp_error_free(error);
        return;
    }
    vp_qemu_op_finish(op, error);
    vp_qemu_op_unref(op);
}

/* The domain has nothing to do with it any more. */
static void detach(VpQemuSave *save)
{
    VpQemuDomain *domain = g_steal_pointer(&save->domain);

    stop_timers(save);
    if (!domain)
        return;
    domain->save = NULL;
    tell_caller(save, g_steal_pointer(&save->error));
    vp_qemu_domain_unref(domain);
    save_unref(save);
}

/* Runs `work` on the slow pool, which posts `done`. */
static void hand_over(VpQemuSave *save, void (*work)(void *data), void (*done)(void *data))
{
    if (vp_pool_submit(save->driver->host->slow_pool, work, save_ref(save)))
        return;
    save->work_error =
        vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "WORKERS_BUSY", "too much waits for the disk; try again"),
                       1000);
    vp_loop_post(save->driver->host->loop, done, save);
}

/* ---- failing ---- */

static VpError *named(const VpQemuSave *save, VpError *error)
{
    return vp_error_with(vp_error_prefix(error, "domain %s was not saved", save->domain->name), "domain",
                         save->domain->name);
}

/* It is given up, and the domain goes on. */
static void fail(VpQemuSave *save, VpError *error)
{
    if (save->error)
        vp_error_free(error);
    else
        save->error = error;
    g_atomic_int_set(&save->abort, 1);
    if (save->phase == PHASE_ASKING)
        detach(save);
    else if (save->phase == PHASE_WRITING)
        take_back(save);
    /* Else a thread is at work, and sees it; or it is too late. */
}

/* Whether a step goes on: the save is where the step belongs, and QEMU did not refuse. `error` is consumed. */
static gboolean goes_on(VpQemuSave *save, Phase phase, VpError *error)
{
    if (!save->domain || save->phase != phase) {
        vp_error_free(error);
        return FALSE;
    }
    if (!error)
        return TRUE;
    /* With the connection gone the process will be gone in a moment; else there is a new one soon, or the deadline. */
    if (error->code == VP_UNAVAILABLE || error->code == VP_CANCELLED) {
        vp_error_free(error);
        return FALSE;
    }
    fail(save, named(save, error));
    return FALSE;
}

/* ---- asking QEMU ---- */

static void execute_fd(VpQemuSave *save, const char *command, json_t *arguments, int fd, VpQmpDone done)
{
    if (save->domain->qmp)
        vp_qmp_execute_with_fd(save->domain->qmp, command, arguments, fd, 0, done, save_ref(save));
    else
        json_decref(arguments);
}

static void execute(VpQemuSave *save, const char *command, json_t *arguments, VpQmpDone done)
{
    execute_fd(save, command, arguments, -1, done);
}

/* ---- taking back ---- */

static void on_dropped(void *data)
{
    VpQemuSave *save = data;

    if (save->domain)
        detach(save);
    save_unref(save);
}

static void drop_work(void *data)
{
    VpQemuSave *save = data;

    vp_save_writer_drop(&save->writer);
    vp_loop_post(save->driver->host->loop, on_dropped, save);
}

static void drop(VpQemuSave *save)
{
    save->phase = PHASE_DROPPING;
    /* What is not removed now is by the next start. */
    hand_over(save, drop_work, on_dropped);
}

static void on_going_on(void *data, json_t *result, VpError *error)
{
    VpQemuSave *save = data;
    VpQemuDomain *domain = save->domain;

    (void)result;
    if (domain && save->phase == PHASE_TAKING_BACK && (!error || error->code == VP_FAILED_PRECONDITION)) {
        if (error && save->error)
            vp_error_prefix(save->error, "QEMU does not let it go on (%s)", error->message);
        if (!error && save->was_running)
            vp_qemu_domain_resumed(domain);
        drop(save);
    }
    vp_error_free(error);
    save_unref(save);
}

static void on_take_back_poll(void *data);

static gboolean is_under_way(const char *status)
{
    static const char *const words[] = {"setup",          "active",      "cancelling", "device",
                                        "pre-switchover", "wait-unplug", NULL};

    return status && g_strv_contains(words, status);
}

static void on_take_back_status(void *data, json_t *result, VpError *error)
{
    VpQemuSave *save = data;
    const char *status = json_string_value(json_object_get(result, "status"));

    if (save->domain && save->phase == PHASE_TAKING_BACK && !error) {
        if (is_under_way(status))
            save->poll = vp_timer_start(save->driver->host->loop, POLL_MS, on_take_back_poll, save_ref(save));
        else
            execute(save, save->was_running ? "cont" : "query-status", NULL, on_going_on);
    }
    vp_error_free(error);
    save_unref(save);
}

static void ask_take_back(VpQemuSave *save)
{
    execute(save, "query-migrate", NULL, on_take_back_status);
}

static void on_take_back_poll(void *data)
{
    VpQemuSave *save = data;

    vp_timer_cancel(g_steal_pointer(&save->poll));
    if (save->domain && save->phase == PHASE_TAKING_BACK)
        ask_take_back(save);
    save_unref(save);
}

static void on_ignored(void *data, json_t *result, VpError *error)
{
    (void)result;
    vp_error_free(error);
    save_unref(data);
}

/* If there is no connection now, this goes on with the next. */
static void take_back(VpQemuSave *save)
{
    save->phase = PHASE_TAKING_BACK;
    if (vp_timer_cancel(g_steal_pointer(&save->poll)))
        save_unref(save);
    execute(save, "migrate_cancel", NULL, on_ignored);
    ask_take_back(save);
}

void vp_qemu_save_on_ready(VpQemuDomain *domain)
{
    VpQemuSave *save = domain->save;

    if (!save)
        return;
    if (save->phase == PHASE_ENDING) {
        vp_error_free(vp_process_kill(&domain->process, SIGKILL));
        return;
    }
    /* What was asked for on the former connection has no answer. */
    if (save->phase == PHASE_ASKING || save->phase == PHASE_WRITING)
        fail(save, named(save, vp_error_new(VP_UNAVAILABLE, "QMP_CLOSED", "QEMU closed its QMP socket")));
    else if (save->phase == PHASE_TAKING_BACK)
        take_back(save);
}

/* ---- done ---- */

static void tell_ended(VpQemuSave *save)
{
    void (*ended)(void *domain) = save->ended;

    save->ended = NULL;
    if (ended)
        ended(save->domain);
}

static void on_finished(void *data)
{
    VpQemuSave *save = data;
    VpError *error = g_steal_pointer(&save->work_error);
    VpQemuDomain *domain = save->domain;

    if (!domain) {
        /* Let go meanwhile: the next daemon finds it as it is. */
        vp_error_free(error);
    } else if (!error) {
        save->phase = PHASE_ENDING;
        save->saved = g_steal_pointer(&save->writer.saved);
        if (save->ended)
            tell_ended(save);
        else
            vp_error_free(vp_process_kill(&domain->process, SIGKILL));
    } else if (save->ended) {
        save->phase = PHASE_TAKING_BACK;
        save->error = save->error ? save->error : named(save, error);
        tell_ended(save);
    } else {
        save->phase = PHASE_WRITING;
        fail(save, named(save, error));
    }
    save_unref(save);
}

static void finish_work(void *data)
{
    VpQemuSave *save = data;

    save->work_error = vp_save_writer_finish(&save->writer);
    vp_loop_post(save->driver->host->loop, on_finished, save);
}

static void on_completed(VpQemuSave *save)
{
    stop_timers(save);
    save->phase = PHASE_FINISHING;
    hand_over(save, finish_work, on_finished);
}

/* ---- writing ---- */

static void on_poll(void *data);

static void poll_later(VpQemuSave *save)
{
    if (!save->poll)
        save->poll = vp_timer_start(save->driver->host->loop, POLL_MS, on_poll, save_ref(save));
}

static VpError *migration_error(const VpQemuSave *save, json_t *result)
{
    const char *why = json_string_value(json_object_get(result, "error-desc"));

    /* It says so of whatever it could not write. */
    if (why && strstr(why, g_strerror(ENOSPC)))
        return vp_error_with(vp_error_new(VP_RESOURCE_EXHAUSTED, "SAVE_NO_SPACE",
                                          "there is no room for %s: %s; make some, or save to another disk",
                                          save->writer.path, why),
                             "path", save->writer.path);
    return vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FAILED", "QEMU could not write its memory: %s",
                        why ? why : "it does not say why");
}

/* How much of the guest's memory is through: what has no bytes in it counts as well. */
static void tell_progress(const VpQemuSave *save, json_t *result)
{
    json_t *ram = json_object_get(result, "ram");
    const double total = json_number_value(json_object_get(ram, "total"));
    const double remaining = json_number_value(json_object_get(ram, "remaining"));
    const double written = json_number_value(json_object_get(ram, "transferred"));

    if (!save->op || !save->op->task || total <= 0)
        return;
    g_autofree char *text = g_strdup_printf("%.0f of %.0f MiB of memory saved, %.0f MiB written",
                                            (total - remaining) / MIB, total / MIB, written / MIB);
    vp_task_progress(save->op->task, (guint)CLAMP((total - remaining) * 100 / total, 0, 99), text);
}

static void on_status(void *data, json_t *result, VpError *error)
{
    VpQemuSave *save = data;

    save->asking = FALSE;
    if (goes_on(save, PHASE_WRITING, error)) {
        const char *status = json_string_value(json_object_get(result, "status"));

        if (g_strcmp0(status, "completed") == 0)
            on_completed(save);
        else if (g_strcmp0(status, "failed") == 0 || g_strcmp0(status, "cancelled") == 0)
            fail(save, named(save, migration_error(save, result)));
        else
            poll_later(save);
        if (save->domain && save->phase == PHASE_WRITING)
            tell_progress(save, result);
    }
    save_unref(save);
}

static void ask(VpQemuSave *save)
{
    if (save->asking)
        return;
    save->asking = TRUE;
    execute(save, "query-migrate", NULL, on_status);
}

static void on_poll(void *data)
{
    VpQemuSave *save = data;

    vp_timer_cancel(g_steal_pointer(&save->poll));
    if (save->domain && save->phase == PHASE_WRITING)
        ask(save);
    save_unref(save);
}

void vp_qemu_save_on_migration(VpQemuDomain *domain, json_t *arguments)
{
    const char *status = json_string_value(json_object_get(arguments, "status"));

    if (domain->save && domain->save->phase == PHASE_WRITING && !is_under_way(status))
        ask(domain->save);
}

static void on_writing(void *data, json_t *result, VpError *error)
{
    VpQemuSave *save = data;

    (void)result;
    if (goes_on(save, PHASE_WRITING, error))
        poll_later(save);
    save_unref(save);
}

/* The steps before it, which only have to be no refusal. */
static void on_step(void *data, json_t *result, VpError *error)
{
    VpQemuSave *save = data;

    (void)result;
    goes_on(save, PHASE_WRITING, error);
    save_unref(save);
}

static json_t *bandwidth(const VpQemuSave *save)
{
    const guint64 limit = save->driver->save_bytes_per_second;

    return json_integer(limit > 0 ? (json_int_t)MIN(limit, (guint64)MAX_BANDWIDTH_BYTES) : MAX_BANDWIDTH_BYTES);
}

static void on_stopped(void *data, json_t *result, VpError *error)
{
    VpQemuSave *save = data;

    (void)result;
    if (goes_on(save, PHASE_WRITING, error)) {
        if (save->was_running)
            vp_qemu_domain_stopped(save->domain);
        execute(save, "migrate-set-capabilities",
                json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "events", "state", 1), on_step);
        execute(save, "migrate-set-parameters", json_pack("{s:o}", "max-bandwidth", bandwidth(save)), on_step);
        execute_fd(save, "getfd", json_pack("{s:s}", "fdname", FD_NAME), save->writer.fd, on_step);
        execute(save, "migrate", json_pack("{s:s}", "uri", "fd:" FD_NAME), on_writing);
    }
    save_unref(save);
}

/* ---- the beginning ---- */

static void on_prepared(void *data)
{
    VpQemuSave *save = data;
    VpError *error = g_steal_pointer(&save->work_error);

    if (!save->domain || save->error || error) {
        if (save->domain && error && !save->error)
            save->error = named(save, g_steal_pointer(&error));
        vp_error_free(error);
        drop(save);
    } else {
        save->phase = PHASE_WRITING;
        execute(save, save->was_running ? "stop" : "query-status", NULL, on_stopped);
    }
    save_unref(save);
}

static void prepare_work(void *data)
{
    VpQemuSave *save = data;

    save->work_error = vp_save_writer_open(&save->writer);
    vp_loop_post(save->driver->host->loop, on_prepared, save);
}

static VpError *blocked(json_t *reasons)
{
    g_autoptr(GString) text = g_string_new(NULL);
    size_t i;
    json_t *reason;

    json_array_foreach(reasons, i, reason)
        g_string_append_printf(text, "%s%s", i > 0 ? "; " : "", json_string_value(reason));
    return vp_error_new(VP_FAILED_PRECONDITION, "CANNOT_BE_SAVED", "QEMU cannot save it: %s", text->str);
}

static void on_blockers(void *data, json_t *result, VpError *error)
{
    VpQemuSave *save = data;

    if (goes_on(save, PHASE_ASKING, error)) {
        json_t *reasons = json_object_get(result, "blocked-reasons");

        if (json_array_size(reasons) > 0) {
            fail(save, named(save, blocked(reasons)));
        } else {
            save->phase = PHASE_PREPARING;
            hand_over(save, prepare_work, on_prepared);
        }
    }
    save_unref(save);
}

static void on_version(void *data, json_t *result, VpError *error)
{
    VpQemuSave *save = data;
    json_t *version = json_object_get(result, "qemu");
    int major = 0, minor = 0, micro = 0;

    if (goes_on(save, PHASE_ASKING, error) &&
        json_unpack(version, "{s:i, s:i, s:i}", "major", &major, "minor", &minor, "micro", &micro) == 0)
        vp_pb_printf(&save->writer.head->hypervisor_version, "%d.%d.%d", major, minor, micro);
    save_unref(save);
}

static PbSaveFileHead *make_head(const VpQemuDomain *domain, const PbDomain *model, gboolean paused)
{
    PbSaveFileHead *head = vp_pb_new(&pb_save_file_head__descriptor);
    g_autofree char *id = g_uuid_string_random();

    vp_pb_set(&head->id, id);
    vp_pb_set(&head->domain_uid, domain->uid);
    vp_pb_set(&head->domain_name, domain->name);
    head->save_time = vp_pb_timestamp(vp_wall_us());
    head->spec = vp_pb_dup(model->spec);
    head->live_spec = vp_pb_dup(domain->live);
    vp_qemu_probe_set_machine(domain->driver->probe, head->live_spec);
    head->accelerator = domain->accelerator;
    head->paused = paused;
    return head;
}

static VpError *refusal(const VpQemuDomain *domain)
{
    if (domain->save)
        return vp_error_retry(vp_error_new(VP_UNAVAILABLE, "SAVE_UNDER_WAY",
                                           "domain %s: an earlier save is still being taken back; try again",
                                           domain->name),
                              1000);
    if (!domain->qmp || !domain->responsive)
        return vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE",
                            "domain %s: QEMU does not answer; it may come back, and powering off works", domain->name);
    VpError *error = vp_save_check(domain->live);
    return error ? vp_error_prefix(error, "domain %s cannot be saved", domain->name) : NULL;
}

void vp_qemu_save_begin(VpQemuDomain *domain, VpQemuOp *op)
{
    const PbSaveDomainRequest *request = vp_task_request(op->task);
    VpError *error = refusal(domain);

    if (error) {
        vp_qemu_op_finish(op, error);
        return;
    }
    VpQemuSave *save = save_new(domain);
    domain->save = save;
    save->op = vp_qemu_op_ref(op);
    save->was_running = domain->state != PB_DOMAIN_STATE_PAUSED;
    save->writer.was_running = save->was_running;
    save->writer.pid = domain->process.pid;
    if (request && request->path[0])
        save->writer.path = g_strdup(request->path);
    save->writer.head = make_head(domain, vp_task_domain(op->task), (request && request->paused) || !save->was_running);
    execute(save, "query-version", NULL, on_version);
    execute(save, "query-migrate", NULL, on_blockers);
}

static void on_grace(void *data)
{
    VpQemuSave *save = data;

    vp_timer_cancel(g_steal_pointer(&save->grace));
    if (save->domain && save->error)
        tell_caller(save, vp_error_copy(save->error));
    save_unref(save);
}

void vp_qemu_save_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error)
{
    VpQemuSave *save = domain->save;

    if (!save || save->op != op) {
        vp_qemu_op_finish(op, error);
        return;
    }
    if (save->phase == PHASE_ENDING) {
        /* It is saved; its end comes in a moment. */
        vp_error_free(error);
        return;
    }
    if (!save->grace)
        save->grace = vp_timer_start(save->driver->host->loop, GRACE_MS, on_grace, save_ref(save));
    fail(save, error);
}

/* ---- the end of the domain ---- */

gboolean vp_qemu_save_is_done(const VpQemuDomain *domain)
{
    return domain->save && domain->save->phase == PHASE_ENDING;
}

gboolean vp_qemu_save_defers_end(VpQemuDomain *domain, void (*told)(void *domain))
{
    if (!domain->save || domain->save->phase != PHASE_FINISHING)
        return FALSE;
    domain->save->ended = told;
    return TRUE;
}

gboolean vp_qemu_save_tell(VpQemuDomain *domain)
{
    if (!vp_qemu_save_is_done(domain))
        return FALSE;
    const VpObservation observation = {
        .event = PB_EVENT_TYPE_DOMAIN_SAVED,
        .state = PB_DOMAIN_STATE_SAVED,
        .reason = domain->save->op ? "REQUESTED" : "WHILE_DAEMON_DOWN",
        .detail = domain->save->saved->path,
        .saved = domain->save->saved,
    };

    domain->driver->host->report(domain->driver->host->data, domain->uid, &observation);
    return TRUE;
}

void vp_qemu_save_gone(VpQemuDomain *domain)
{
    VpQemuSave *save = domain->save;

    if (!save)
        return;
    const gboolean runs_on = domain->has_process && !domain->exit_how;
    const Phase phase = save->phase;
    save_ref(save);
    g_atomic_int_set(&save->abort, 1);
    /* Its operation was ended with the domain's others. */
    vp_error_free(g_steal_pointer(&save->error));
    detach(save);
    if (!runs_on && (phase == PHASE_WRITING || phase == PHASE_TAKING_BACK))
        drop(save);
    save_unref(save);
}

/* ---- of an earlier daemon ---- */

void vp_qemu_save_adopt(VpQemuDomain *domain, VpSaveNote *note, PbSavedState *saved)
{
    VpQemuSave *save = save_new(domain);

    domain->save = save;
    save->phase = saved ? PHASE_ENDING : PHASE_TAKING_BACK;
    save->saved = saved;
    save->was_running = note->was_running;
    vp_save_note_clear(note);
}
