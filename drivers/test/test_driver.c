/*
 * Domains in memory: every verb of a hypervisor, none of the weight. All state belongs to the loop's thread; the operations post
 * themselves there. For tests, and for those who try the API. Faults come from the domain's labels (faults.h).
 */
#include "test_driver.h"

#include "base/pb.h"
#include "base/thread.h"
#include "change.h"
#include "drivers/screen.h"
#include "drivers/spec_change.h"
#include "faults.h"
#include "picture.h"
#include "shutdown.h"
#include "virtplane/v1/domain_console.pb-c.h"
#include "virtplane/v1/domain_stats.pb-c.h"

/* Of an operation that tells how far it is. */
#define PERCENT_STEP 5

typedef struct TestDriver {
    VpDriver base;
    const VpDriverHost *host;
    GHashTable *domains; /* uid to TestDomain: those that are not shut off; the loop's */
    GPtrArray *ops;      /* of TestOp: those under way; the loop's */
    pthread_mutex_t mutex;
    pthread_cond_t closed_cond;
    gboolean closed; /* under the mutex */
} TestDriver;

typedef struct TestOp TestOp;

typedef struct TestDomain {
    TestDriver *driver;
    char *uid;
    PbDomainState state;
    gint64 started_us;
    VpTimer *ends[3];
    VpTestShutdown shutdown;
    VpTestDevices devices;
    VpTimer *letting_go;
} TestDomain;

typedef struct Verb {
    const char *name;
    void (*begin)(TestOp *op); /* what is seen before a fault can delay the rest; may be NULL */
    VpError *(*apply)(TestOp *op);
} Verb;

/* Belongs to the loop's thread, but for the task's cancel hook, which only posts. */
struct TestOp {
    gint refs;
    TestDriver *driver;
    const Verb *verb;
    VpTask *task; /* NULL once finished */
    VpTimer *timer;
    gboolean starting;  /* has reported STARTING */
    gboolean discards;  /* a start that boots what was saved */
    gboolean waiting;   /* for the guest */
    gboolean times_out; /* the timer is the deadline, not the end of a delay */
    guint percent;      /* how far one is that tells it */
    guint64 step_ms;    /* 0: it does not tell */
};

static const PbDomain *op_spec(const TestOp *op)
{
    return vp_task_domain(op->task);
}

/* ---- domains ---- */

static void domain_free(gpointer data)
{
    TestDomain *domain = data;

    for (guint i = 0; i < G_N_ELEMENTS(domain->ends); i++)
        vp_timer_cancel(domain->ends[i]);
    vp_test_shutdown_clear(&domain->shutdown);
    vp_timer_cancel(domain->letting_go);
    vp_test_devices_clear(&domain->devices);
    g_free(domain->uid);
    g_free(domain);
}

static TestDomain *op_find(const TestOp *op)
{
    return g_hash_table_lookup(op->driver->domains, op_spec(op)->uid);
}

static void report(TestDriver *driver, const char *uid, PbEventType event, PbDomainState state, const char *reason,
                   const char *detail)
{
    const VpObservation observation = {.event = event, .state = state, .reason = reason, .detail = detail};

    driver->host->report(driver->host->data, uid, &observation);
}

static void domain_set(TestDomain *domain, PbEventType event, PbDomainState state, const char *reason)
{
    const VpDriverHost *host = domain->driver->host;
    const VpObservation observation = {.event = event,
                                       .state = state,
                                       .reason = reason,
                                       .shutdown = domain->shutdown.asked};

    domain->state = state;
    host->report(host->data, domain->uid, &observation);
}

/* Whether the task is to bring back what was saved: a start does, unless it is to boot. */
static gboolean op_restores(const TestOp *op)
{
    const PbDomainStatus *status = op_spec(op)->status;

    return status && status->state == PB_DOMAIN_STATE_SAVED;
}

/* The end of a domain's run; frees it. */
static void domain_end(TestDomain *domain, PbEventType event, PbDomainState state, const char *reason,
                       const char *detail)
{
    TestDriver *driver = domain->driver;

    report(driver, domain->uid, event, state, reason, detail);
    g_hash_table_remove(driver->domains, domain->uid);
}

static void on_crash(void *data)
{
    domain_end(data, PB_EVENT_TYPE_DOMAIN_CRASHED, PB_DOMAIN_STATE_CRASHED, "PROCESS_EXITED",
               "the label test.crash_after asked for it");
}

/* As a real guest does, a panic is told first, and what comes of it by the spec. */
static void on_panic(void *data)
{
    TestDomain *domain = data;
    const PbLifecycleAction action = domain->devices.live->on_panic;

    domain_set(domain, PB_EVENT_TYPE_DOMAIN_PANICKED, domain->state, "GUEST_PANICKED");
    if (action == PB_LIFECYCLE_ACTION_PAUSE)
        domain_set(domain, PB_EVENT_TYPE_DOMAIN_PAUSED, PB_DOMAIN_STATE_PAUSED, "GUEST_PANICKED");
    else if (action != PB_LIFECYCLE_ACTION_IGNORE)
        domain_end(domain, PB_EVENT_TYPE_DOMAIN_CRASHED, PB_DOMAIN_STATE_CRASHED, "GUEST_PANICKED", NULL);
}

static void on_poweroff(void *data)
{
    domain_end(data, PB_EVENT_TYPE_DOMAIN_SHUT_DOWN, PB_DOMAIN_STATE_SHUTOFF, "GUEST_REQUEST", NULL);
}

/* How a domain ends by itself, by its labels. */
static const struct {
    const char *what;
    void (*fire)(void *data);
} own_ends[] = {{"crash", on_crash}, {"panic", on_panic}, {"poweroff", on_poweroff}};

static PbDomainState running_state(const TestDomain *domain)
{
    const PbPendingShutdown *asked = domain->shutdown.asked;

    return asked && !asked->reboot ? PB_DOMAIN_STATE_SHUTTING_DOWN : PB_DOMAIN_STATE_RUNNING;
}

/* The guest has shut down or restarted itself, or (`fell_back`) has not in time. */
static void on_asked_done(void *data, gboolean fell_back)
{
    TestDomain *domain = data;
    const gboolean reboot = domain->shutdown.asked->reboot;

    /* One that is paused does not react. */
    if (!fell_back && domain->state == PB_DOMAIN_STATE_PAUSED)
        return;
    if (reboot) {
        vp_test_shutdown_clear(&domain->shutdown);
        domain_set(domain, PB_EVENT_TYPE_DOMAIN_RESET, domain->state, fell_back ? "FALLBACK" : "REBOOT_REQUESTED");
    } else if (fell_back) {
        domain_end(domain, PB_EVENT_TYPE_DOMAIN_POWERED_OFF, PB_DOMAIN_STATE_SHUTOFF, "FALLBACK", NULL);
    } else {
        domain_end(domain, PB_EVENT_TYPE_DOMAIN_SHUT_DOWN, PB_DOMAIN_STATE_SHUTOFF, "REQUESTED", NULL);
    }
}

/* ---- operations ---- */

static void op_unref(TestOp *op)
{
    if (g_atomic_int_dec_and_test(&op->refs))
        g_free(op);
}

static void op_finish(TestOp *op, VpError *error)
{
    vp_timer_cancel(g_steal_pointer(&op->timer));
    if (error && op->starting)
        report(op->driver, op_spec(op)->uid, PB_EVENT_TYPE_DOMAIN_START_FAILED,
               op_restores(op) && !op->discards ? PB_DOMAIN_STATE_SAVED : PB_DOMAIN_STATE_SHUTOFF,
               error->code == VP_CANCELLED ? "CANCELLED" : "START_FAILED", error->message);
    g_ptr_array_remove(op->driver->ops, op);
    vp_task_finish(g_steal_pointer(&op->task), error);
    op_unref(op);
}

static void op_apply(TestOp *op)
{
    VpError *error = op->verb->apply(op);

    if (!op->waiting)
        op_finish(op, error);
}

static VpError *still_pending(const TestOp *op, VpCode code, const char *reason)
{
    const TestDomain *domain = op_find(op);
    g_autofree char *names = domain ? vp_test_devices_pending(&domain->devices) : NULL;

    return vp_error_with(vp_error_new(code, reason, "domain %s: the guest has not let go of %s yet; that stays pending",
                                      op_spec(op)->name, names),
                         "pending", names);
}

static void op_wait(TestOp *op, guint64 delay_ms);

static void op_step(TestOp *op)
{
    vp_timer_cancel(g_steal_pointer(&op->timer));
    op->percent += PERCENT_STEP;
    vp_task_progress(op->task, op->percent, "waiting as the label asks for it");
    if (op->percent < 100)
        op_wait(op, op->step_ms);
    else
        op_apply(op);
}

static void on_op_timer(void *data)
{
    TestOp *op = data;

    if (op->step_ms && !op->times_out && !op->waiting)
        op_step(op);
    else if (op->waiting)
        op_finish(op, still_pending(op, VP_DEADLINE_EXCEEDED, "DETACH_PENDING"));
    else if (op->times_out)
        op_finish(op, vp_error_new(VP_DEADLINE_EXCEEDED, "HYPERVISOR_TIMEOUT", "domain %s: %s did not end in time",
                                   op_spec(op)->name, op->verb->name));
    else
        op_apply(op);
}

static void op_cancelled(void *data)
{
    TestOp *op = data;

    if (op->task && op->waiting)
        op_finish(op, still_pending(op, VP_CANCELLED, "CANCELLED"));
    else if (op->task)
        op_finish(op, vp_error_new(VP_CANCELLED, "CANCELLED", "domain %s: %s was cancelled", op_spec(op)->name,
                                   op->verb->name));
    op_unref(op);
}

static void on_cancel(void *data)
{
    TestOp *op = data;

    g_atomic_int_inc(&op->refs);
    vp_loop_post(op->driver->host->loop, op_cancelled, op);
}

/* Waits for the fault's delay or the deadline, whichever comes first. */
static void op_wait(TestOp *op, guint64 delay_ms)
{
    const guint64 left_ms = (guint64)MAX(0, vp_task_deadline_us(op->task) - vp_now_us()) / 1000;

    op->times_out = delay_ms > left_ms;
    op->timer = vp_timer_start(op->driver->host->loop, MIN(delay_ms, left_ms), on_op_timer, op);
}

static void op_run(void *data)
{
    TestOp *op = data;
    VpFault fault;

    g_ptr_array_add(op->driver->ops, op);
    vp_task_set_cancel_hook(op->task, on_cancel, op);
    VpError *error = vp_fault_of_verb(op_spec(op), op->verb->name, &fault);
    if (error) {
        op_finish(op, error);
        return;
    }
    if (op->verb->begin)
        op->verb->begin(op);
    switch (fault.kind) {
    case VP_FAULT_FAIL:
        op_finish(op, vp_error_new(fault.code, "INJECTED", "domain %s: %s: %s", op_spec(op)->name, op->verb->name,
                                   fault.message));
        break;
    case VP_FAULT_DELAY:
        op_wait(op, fault.delay_ms);
        break;
    case VP_FAULT_PROGRESS:
        op->step_ms = MAX(fault.delay_ms * PERCENT_STEP / 100, 1);
        op_wait(op, op->step_ms);
        break;
    case VP_FAULT_HANG:
        op_wait(op, G_MAXUINT64);
        break;
    case VP_FAULT_NONE:
    case VP_FAULT_IGNORE:
        op_apply(op);
        break;
    }
}

static void op_start(VpDriver *driver, VpTask *task, const Verb *verb)
{
    TestOp *op = g_new0(TestOp, 1);

    op->refs = 1;
    op->driver = (TestDriver *)driver;
    op->verb = verb;
    op->task = task;
    vp_loop_post(op->driver->host->loop, op_run, op);
}

/* ---- the verbs ---- */

static const Verb verb_start;
static const Verb verb_restore;

static VpError *not_running(const TestOp *op)
{
    return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_NOT_RUNNING",
                        "domain %s does not run: %s needs a running domain; start it first", op_spec(op)->name,
                        op->verb->name);
}

static void start_begin(TestOp *op)
{
    const PbStartDomainRequest *request = op->verb == &verb_start ? vp_task_request(op->task) : NULL;

    if (op_find(op))
        return;
    op->discards = request && request->discard_saved;
    if (op->discards && op_restores(op))
        report(op->driver, op_spec(op)->uid, PB_EVENT_TYPE_DOMAIN_SAVED_STATE_DISCARDED, PB_DOMAIN_STATE_SHUTOFF,
               "REQUESTED", NULL);
    op->starting = TRUE;
    report(op->driver, op_spec(op)->uid, PB_EVENT_TYPE_DOMAIN_STARTING, PB_DOMAIN_STATE_STARTING,
           vp_task_reason(op->task), NULL);
}

static VpError *start_apply(TestOp *op)
{
    VpFault ends[G_N_ELEMENTS(own_ends)];
    VpError *error = NULL;

    if (op_find(op))
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_RUNNING", "domain %s runs already", op_spec(op)->name);
    for (guint i = 0; i < G_N_ELEMENTS(own_ends) && !error; i++)
        error = vp_fault_of_end(op_spec(op), own_ends[i].what, &ends[i]);
    if (error)
        return error;

    TestDomain *domain = g_new0(TestDomain, 1);
    domain->driver = op->driver;
    domain->uid = g_strdup(op_spec(op)->uid);
    domain->shutdown = (VpTestShutdown){.host = op->driver->host, .done = on_asked_done, .data = domain};
    vp_test_devices_init(&domain->devices, op_spec(op)->spec);
    domain->started_us = vp_now_us();
    g_hash_table_insert(op->driver->domains, domain->uid, domain);
    const gboolean restores = !op->discards && (op_restores(op) || op->verb == &verb_restore);
    const PbSavedState *saved = restores ? op_spec(op)->status->saved : NULL;
    const gboolean paused = vp_task_paused(op->task) || (saved && saved->paused);
    domain_set(domain, restores ? PB_EVENT_TYPE_DOMAIN_RESTORED : PB_EVENT_TYPE_DOMAIN_STARTED,
               paused ? PB_DOMAIN_STATE_PAUSED : PB_DOMAIN_STATE_RUNNING, vp_task_reason(op->task));
    for (guint i = 0; i < G_N_ELEMENTS(own_ends); i++) {
        if (ends[i].kind == VP_FAULT_DELAY)
            domain->ends[i] = vp_timer_start(op->driver->host->loop, ends[i].delay_ms, own_ends[i].fire, domain);
    }
    return NULL;
}

static VpError *ask_guest(TestOp *op, gboolean reboot)
{
    TestDomain *domain = op_find(op);

    if (!domain)
        return not_running(op);
    if (domain->state == PB_DOMAIN_STATE_PAUSED)
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_PAUSED",
                            "domain %s is paused, its guest cannot react; resume it first", op_spec(op)->name);
    VpError *error = vp_test_shutdown_ask(&domain->shutdown, op_spec(op), reboot, vp_task_request(op->task));
    if (!error)
        domain_set(domain, reboot ? PB_EVENT_TYPE_DOMAIN_REBOOTING : PB_EVENT_TYPE_DOMAIN_SHUTTING_DOWN,
                   running_state(domain), "REQUESTED");
    if (!error && domain->shutdown.at_once)
        on_asked_done(domain, /* fell_back= */ FALSE);
    return error;
}

static VpError *shutdown_apply(TestOp *op)
{
    return ask_guest(op, /* reboot= */ FALSE);
}

static VpError *reboot_apply(TestOp *op)
{
    return ask_guest(op, /* reboot= */ TRUE);
}

static void finish_cancelled(TestOp *op)
{
    op_finish(op, vp_error_new(VP_CANCELLED, "POWERED_OFF", "domain %s: %s ended early, the domain was powered off",
                               op_spec(op)->name, op->verb->name));
}

static VpError *power_off_apply(TestOp *op)
{
    const GPtrArray *ops = op->driver->ops;

    for (guint i = ops->len; i-- > 0;) {
        TestOp *other = g_ptr_array_index(ops, i);

        if (other != op && g_str_equal(op_spec(other)->uid, op_spec(op)->uid))
            finish_cancelled(other);
    }
    TestDomain *domain = op_find(op);
    if (domain)
        domain_end(domain, PB_EVENT_TYPE_DOMAIN_POWERED_OFF, PB_DOMAIN_STATE_SHUTOFF, "REQUESTED", NULL);
    return NULL;
}

static VpError *reset_apply(TestOp *op)
{
    TestDomain *domain = op_find(op);

    if (!domain)
        return not_running(op);
    /* A guest that was to shut down and is reset instead runs on. */
    vp_test_shutdown_clear(&domain->shutdown);
    domain_set(domain, PB_EVENT_TYPE_DOMAIN_RESET,
               domain->state == PB_DOMAIN_STATE_PAUSED ? PB_DOMAIN_STATE_PAUSED : PB_DOMAIN_STATE_RUNNING, "REQUESTED");
    return NULL;
}

static VpError *pause_apply(TestOp *op)
{
    TestDomain *domain = op_find(op);

    if (!domain)
        return not_running(op);
    if (domain->state != PB_DOMAIN_STATE_PAUSED)
        domain_set(domain, PB_EVENT_TYPE_DOMAIN_PAUSED, PB_DOMAIN_STATE_PAUSED, "REQUESTED");
    return NULL;
}

static VpError *resume_apply(TestOp *op)
{
    TestDomain *domain = op_find(op);

    if (!domain)
        return not_running(op);
    if (domain->state == PB_DOMAIN_STATE_PAUSED)
        domain_set(domain, PB_EVENT_TYPE_DOMAIN_RESUMED, running_state(domain), "REQUESTED");
    return NULL;
}

/* There is no memory to write: that it was saved is all that is kept. */
static VpError *save_apply(TestOp *op)
{
    TestDomain *domain = op_find(op);
    const PbSaveDomainRequest *request = vp_task_request(op->task);

    if (!domain)
        return not_running(op);
    vp_pb_auto PbSavedState *saved = vp_pb_new(&pb_saved_state__descriptor);
    vp_pb_set(&saved->path, request->path);
    saved->managed = request->path[0] == '\0';
    saved->paused = request->paused || domain->state == PB_DOMAIN_STATE_PAUSED;
    saved->save_time = vp_pb_timestamp(vp_wall_us());
    const VpObservation observation = {
        .event = PB_EVENT_TYPE_DOMAIN_SAVED,
        .state = PB_DOMAIN_STATE_SAVED,
        .reason = "REQUESTED",
        .saved = saved,
    };

    op->driver->host->report(op->driver->host->data, domain->uid, &observation);
    g_hash_table_remove(op->driver->domains, domain->uid);
    return NULL;
}

static VpError *restore_apply(TestOp *op)
{
    const PbRestoreDomainRequest *request = vp_task_request(op->task);

    if (!op_restores(op) && request->path[0] == '\0')
        return vp_error_new(VP_FAILED_PRECONDITION, "NOT_SAVED", "domain %s is not saved: name the file to restore",
                            op_spec(op)->name);
    return start_apply(op);
}

static VpError *discard_apply(TestOp *op)
{
    if (op_restores(op))
        report(op->driver, op_spec(op)->uid, PB_EVENT_TYPE_DOMAIN_SAVED_STATE_DISCARDED, PB_DOMAIN_STATE_SHUTOFF,
               "REQUESTED", NULL);
    return NULL;
}

static void on_let_go(void *data)
{
    TestDomain *domain = data;
    const GPtrArray *ops = domain->driver->ops;

    vp_timer_cancel(g_steal_pointer(&domain->letting_go));
    vp_test_devices_let_go(&domain->devices, domain->driver->host, domain->uid);
    for (guint i = ops->len; i-- > 0;) {
        TestOp *op = g_ptr_array_index(ops, i);

        if (op->waiting && g_str_equal(op_spec(op)->uid, domain->uid))
            op_finish(op, NULL);
    }
}

static VpError *change_apply(TestOp *op)
{
    TestDomain *domain = op_find(op);
    VpFault guest;

    if (!domain)
        return not_running(op);
    VpError *error = vp_fault_of_guest(op_spec(op), "detach", &guest);
    if (error)
        return error;
    vp_test_devices_change(&domain->devices, op->driver->host, domain->uid, vp_task_request(op->task));
    if (domain->devices.pending->len == 0)
        return NULL;
    if (guest.kind == VP_FAULT_NONE) {
        vp_test_devices_let_go(&domain->devices, op->driver->host, domain->uid);
        return NULL;
    }
    op->waiting = TRUE;
    vp_timer_cancel(g_steal_pointer(&op->timer));
    op_wait(op, G_MAXUINT64);
    if (guest.kind == VP_FAULT_DELAY && !domain->letting_go)
        domain->letting_go = vp_timer_start(op->driver->host->loop, guest.delay_ms, on_let_go, domain);
    return NULL;
}

/* Memory knows no guest: its CPUs count the time since the start, all else is 0. */
static VpError *stats_apply(TestOp *op)
{
    const TestDomain *domain = op_find(op);

    if (!domain)
        return not_running(op);
    const PbDomainSpec *spec = domain->devices.live;
    const guint64 ran_ns = (guint64)(vp_now_us() - domain->started_us) * 1000;
    PbDomainStats *stats = vp_pb_new(&pb_domain_stats__descriptor);
    stats->cpu_time_ns = ran_ns * MAX(spec->vcpus, 1);
    stats->memory = vp_pb_new(&pb_memory_stats__descriptor);
    stats->memory->actual_bytes = spec->memory_bytes;
    for (guint i = 0; i < MAX(spec->vcpus, 1); i++) {
        PbVcpuStats *vcpu = vp_pb_new(&pb_vcpu_stats__descriptor);

        vcpu->index = i;
        vcpu->cpu_time_ns = ran_ns;
        vp_pb_append(&stats->n_vcpus, &stats->vcpus, vcpu);
    }
    for (size_t i = 0; i < spec->n_disks; i++) {
        PbDiskStats *disk = vp_pb_new(&pb_disk_stats__descriptor);

        vp_pb_set(&disk->target, spec->disks[i]->target);
        vp_pb_append(&stats->n_disks, &stats->disks, disk);
    }
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        PbInterfaceStats *interface = vp_pb_new(&pb_interface_stats__descriptor);

        vp_pb_set(&interface->mac, spec->interfaces[i]->mac);
        vp_pb_append(&stats->n_interfaces, &stats->interfaces, interface);
    }
    vp_task_set_answer(op->task, stats);
    return NULL;
}

static VpError *screenshot_apply(TestOp *op)
{
    const PbTakeScreenshotRequest *request = vp_task_request(op->task);
    const TestDomain *domain = op_find(op);

    if (!domain)
        return not_running(op);
    VpError *error = vp_spec_check_screen(domain->devices.live, op_spec(op)->name, request->screen);
    if (error)
        return error;
    error = vp_test_picture(vp_task_output(op->task), op_spec(op)->uid, domain->state == PB_DOMAIN_STATE_PAUSED);
    if (error)
        return vp_error_prefix(error, "domain %s", op_spec(op)->name);
    PbScreenshotHeader *header = vp_pb_new(&pb_screenshot_header__descriptor);
    header->format = PB_SCREENSHOT_FORMAT_PPM;
    vp_task_set_answer(op->task, header);
    return NULL;
}

/* The memory that held the domain went with the former daemon. */
static VpError *adopt_apply(TestOp *op)
{
    const PbDomainStatus *status = op_spec(op)->status;
    PbEventType event = PB_EVENT_TYPE_DOMAIN_CRASHED;

    if (status && status->state == PB_DOMAIN_STATE_STARTING)
        event = PB_EVENT_TYPE_DOMAIN_START_FAILED;
    else if (status && status->state == PB_DOMAIN_STATE_SHUTTING_DOWN)
        event = PB_EVENT_TYPE_DOMAIN_SHUT_DOWN;
    report(op->driver, op_spec(op)->uid, event, PB_DOMAIN_STATE_SHUTOFF, "WHILE_DAEMON_DOWN",
           "domains of the test driver live in the daemon's memory and end with it");
    return NULL;
}

static const Verb verb_start = {"start", start_begin, start_apply};
static const Verb verb_save = {"save", NULL, save_apply};
static const Verb verb_restore = {"restore", start_begin, restore_apply};
static const Verb verb_discard = {"discard", NULL, discard_apply};
static const Verb verb_shutdown = {"shutdown", NULL, shutdown_apply};
static const Verb verb_power_off = {"power_off", NULL, power_off_apply};
static const Verb verb_reboot = {"reboot", NULL, reboot_apply};
static const Verb verb_reset = {"reset", NULL, reset_apply};
static const Verb verb_pause = {"pause", NULL, pause_apply};
static const Verb verb_resume = {"resume", NULL, resume_apply};
static const Verb verb_change = {"change", NULL, change_apply};
static const Verb verb_adopt = {"adopt", NULL, adopt_apply};
static const Verb verb_stats = {"stats", NULL, stats_apply};
static const Verb verb_screenshot = {"screenshot", NULL, screenshot_apply};

static void test_start(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_start);
}

static void test_shutdown(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_shutdown);
}

static void test_power_off(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_power_off);
}

static void test_reboot(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_reboot);
}

static void test_reset(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_reset);
}

static void test_pause(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_pause);
}

static void test_resume(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_resume);
}

static void test_save(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_save);
}

static void test_restore(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_restore);
}

static void test_discard(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_discard);
}

static void test_adopt(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_adopt);
}

static void test_change(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_change);
}

static void test_stats(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_stats);
}

static void test_screenshot(VpDriver *driver, VpTask *task)
{
    op_start(driver, task, &verb_screenshot);
}

/* ---- the driver ---- */

static VpDriver *test_open(const VpDriverHost *host, VpError **error)
{
    TestDriver *driver = g_new0(TestDriver, 1);

    (void)error;
    driver->base.ops = &vp_test_driver;
    driver->host = host;
    driver->domains = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, domain_free);
    driver->ops = g_ptr_array_new();
    pthread_mutex_init(&driver->mutex, NULL);
    vp_cond_init(&driver->closed_cond);
    return &driver->base;
}

static void close_on_loop(void *data)
{
    TestDriver *driver = data;

    while (driver->ops->len > 0) {
        TestOp *op = g_ptr_array_index(driver->ops, 0);

        op->starting = FALSE; /* nothing is reported any more */
        op_finish(op,
                  vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "domain %s: the daemon stops", op_spec(op)->name));
    }
    g_hash_table_remove_all(driver->domains);
    VP_LOCK(&driver->mutex);
    driver->closed = TRUE;
    pthread_cond_signal(&driver->closed_cond);
}

static void test_close(VpDriver *base)
{
    TestDriver *driver = (TestDriver *)base;

    vp_loop_post(driver->host->loop, close_on_loop, driver);
    pthread_mutex_lock(&driver->mutex);
    while (!driver->closed)
        pthread_cond_wait(&driver->closed_cond, &driver->mutex);
    pthread_mutex_unlock(&driver->mutex);

    g_hash_table_unref(driver->domains);
    g_ptr_array_unref(driver->ops);
    pthread_cond_destroy(&driver->closed_cond);
    pthread_mutex_destroy(&driver->mutex);
    g_free(driver);
}

static void test_capabilities(VpDriver *driver, PbDriverCapabilities *capabilities)
{
    (void)driver;
    capabilities->available = TRUE;
    vp_pb_set(&capabilities->detail, "domains in memory, for trying the API and for tests; they end with the daemon");
    vp_pb_set(&capabilities->version, "1");
}

/* There is nothing in a spec that memory could not hold. */
static VpError *test_validate(VpDriver *driver, const PbDomainSpec *spec)
{
    (void)driver;
    (void)spec;
    return NULL;
}

static VpError *test_check_change(VpDriver *driver, const PbDomainStatus *status, const PbDomainSpec *live,
                                  const PbDomainSpec *wanted)
{
    (void)status;
    static const char *const fields[] = {"vcpus", "memory_bytes", NULL};

    (void)driver;
    return vp_spec_check_change(live, wanted, fields);
}

static VpError *test_forget(VpDriver *driver, const char *uid)
{
    (void)driver;
    (void)uid;
    return NULL;
}

const VpDriverOps vp_test_driver = {
    .name = "test",
    .open = test_open,
    .close = test_close,
    .capabilities = test_capabilities,
    .validate = test_validate,
    .check_change = test_check_change,
    .adopt = test_adopt,
    .start = test_start,
    .shutdown = test_shutdown,
    .power_off = test_power_off,
    .reboot = test_reboot,
    .reset = test_reset,
    .pause = test_pause,
    .resume = test_resume,
    .save = test_save,
    .restore = test_restore,
    .discard = test_discard,
    .forget = test_forget,
    .change = test_change,
    .stats = test_stats,
    .screenshot = test_screenshot,
};
