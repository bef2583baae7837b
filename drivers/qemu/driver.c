/* The operations of the QEMU driver and its table of domains: see qemu.h. */
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "command_line.h"
#include "devices.h"
#include "domain.h"
#include "qemu.h"
#include "recover.h"
#include "restore.h"
#include "save_folder.h"

#define PING_INTERVAL_MS 5000
#define UNRESPONSIVE_AFTER_MS 10000

/* ---- the table ---- */

void vp_qemu_driver_live(VpQemuDriver *driver, gint change)
{
    VP_LOCK(&driver->mutex);
    driver->live += (guint)change;
    if (driver->live == 0)
        pthread_cond_broadcast(&driver->changed);
}

VpQemuDomain *vp_qemu_driver_find(VpQemuDriver *driver, const char *uid)
{
    VP_LOCK(&driver->mutex);
    return g_hash_table_lookup(driver->domains, uid);
}

void vp_qemu_driver_remove(VpQemuDriver *driver, VpQemuDomain *domain)
{
    pthread_mutex_lock(&driver->mutex);
    g_hash_table_remove(driver->domains, domain->uid);
    pthread_mutex_unlock(&driver->mutex);
    vp_qemu_domain_unref(domain);
}

static VpError *table_add(VpQemuDriver *driver, VpQemuDomain *domain)
{
    VP_LOCK(&driver->mutex);
    if (g_hash_table_contains(driver->domains, domain->uid))
        return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_RUNNING",
                            "domain %s has a QEMU process already, or one is being looked for", domain->name);
    g_hash_table_insert(driver->domains, domain->uid, domain);
    return NULL;
}

VpError *vp_qemu_driver_check_arguments(const VpQemuDriver *driver, const PbDomainSpec *spec)
{
    if (spec->n_arguments == 0 || driver->allow_arguments)
        return NULL;
    return vp_error_violation(vp_error_new(VP_PERMISSION_DENIED, "ARGUMENTS_NOT_ALLOWED",
                                           "domain.spec.arguments: arguments of one's own are not allowed here; "
                                           "allow_arguments=true in the daemon's [qemu] settings allows them"),
                              "domain.spec.arguments", "are not allowed on this daemon");
}

/* ---- coming and going of worker threads ---- */

/* FALSE: the driver is being closed; the task was ended. */
static gboolean worker_enter(VpQemuDriver *driver, VpTask *task)
{
    pthread_mutex_lock(&driver->mutex);
    const gboolean closing = driver->closing;
    if (!closing)
        driver->workers++;
    pthread_mutex_unlock(&driver->mutex);
    if (closing)
        vp_task_finish(task, vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon stops"));
    return !closing;
}

static void worker_leave(VpQemuDriver *driver)
{
    VP_LOCK(&driver->mutex);
    if (--driver->workers == 0)
        pthread_cond_broadcast(&driver->changed);
}

/* ---- start ---- */

/* What was saved is given up, if anything was. */
static void discard_saved(VpQemuDriver *driver, const PbDomain *model)
{
    g_autofree char *dir = g_build_filename(driver->host->state_dir, model->uid, NULL);
    const VpObservation observation = {
        .event = PB_EVENT_TYPE_DOMAIN_SAVED_STATE_DISCARDED,
        .state = PB_DOMAIN_STATE_SHUTOFF,
        .reason = "REQUESTED",
    };

    if (!model->status || model->status->state != PB_DOMAIN_STATE_SAVED)
        return;
    vp_save_remove_all(dir);
    driver->host->report(driver->host->data, model->uid, &observation);
}

static gboolean wants_discard(const VpQemuOp *op)
{
    const PbStartDomainRequest *request = op->kind == VP_OP_START ? vp_task_request(op->task) : NULL;

    return request && request->discard_saved;
}

static void start(VpQemuDriver *driver, VpTask *task, VpOpKind kind)
{
    const PbDomain *model = vp_task_domain(task);
    VpQemuOp *op = vp_qemu_op_new(driver, kind, task);
    VpQemuDomain *domain = vp_qemu_domain_new(driver, model, VP_PHASE_STARTING);

    domain->paused = vp_task_paused(task);
    domain->first_op = op;
    domain->before_run = vp_commands_before_run(domain->live);
    domain->tainted = model->spec->n_arguments > 0;
    VpError *error = vp_qemu_restore_new(domain, op);
    if (!error)
        error = table_add(driver, domain);
    if (error) {
        vp_qemu_domain_unref(domain);
        vp_qemu_op_finish(op, error);
        return;
    }
    if (wants_discard(op))
        discard_saved(driver, model);
    vp_qemu_domain_report(domain, PB_EVENT_TYPE_DOMAIN_STARTING, PB_DOMAIN_STATE_STARTING, vp_task_reason(task), NULL);
    vp_loop_post(driver->host->loop, vp_qemu_domain_arrive, domain);
}

static void qemu_start(VpDriver *base, VpTask *task)
{
    VpQemuDriver *driver = (VpQemuDriver *)base;

    if (!worker_enter(driver, task))
        return;
    start(driver, task, VP_OP_START);
    worker_leave(driver);
}

static void qemu_restore(VpDriver *base, VpTask *task)
{
    VpQemuDriver *driver = (VpQemuDriver *)base;

    if (!worker_enter(driver, task))
        return;
    start(driver, task, VP_OP_RESTORE);
    worker_leave(driver);
}

static void qemu_discard(VpDriver *base, VpTask *task)
{
    VpQemuDriver *driver = (VpQemuDriver *)base;

    if (!worker_enter(driver, task))
        return;
    discard_saved(driver, vp_task_domain(task));
    vp_task_finish(task, NULL);
    worker_leave(driver);
}

/* ---- adoption ---- */

/* A process that the store knows but the folder does not, say because someone has cleaned up: it is ours if its arguments name the domain. */
static VpError *find_unrecorded(const PbDomain *model, VpRecord *ret_record)
{
    const PbDomainStatus *status = model->status;
    g_autofree char *text = NULL;
    gsize length = 0;

    if (status) {
        g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", status->pid);

        g_file_get_contents(path, &text, &length, NULL);
    }
    if (!text || !memmem(text, length, model->uid, strlen(model->uid)))
        return vp_error_new(VP_NOT_FOUND, "PROCESS_GONE", "domain %s has no process", model->name);
    *ret_record = (VpRecord){
        .pid = status->pid,
        .start_ticks = status->pid_start_ticks,
        .accelerator = status->accelerator,
        .paused = status->state == PB_DOMAIN_STATE_PAUSED,
    };
    return NULL;
}

static VpError *look(const PbDomain *model, const char *dir, VpRecord *record, VpProcess *process)
{
    VpError *error = vp_folder_read_record(dir, record);

    if (error) {
        vp_error_free(error);
        error = find_unrecorded(model, record);
    }
    return error ? error : vp_process_open(record->pid, record->start_ticks, process);
}

/* Fills in what there is to take up. The domain is in the table, so that nobody starts one in the same folder. */
static void find_process(VpQemuDomain *domain, const PbDomain *model)
{
    VpProcess process;
    VpRecord record;

    domain->state = model->status ? model->status->state : PB_DOMAIN_STATE_SHUTOFF;
    domain->look_error = look(model, domain->dir, &record, &process);
    if (!domain->look_error) {
        domain->process = process;
        domain->has_process = TRUE;
        domain->paused = record.paused;
        domain->accelerator = record.accelerator;
        vp_qemu_recover(domain, model, &record);
        domain->contained = vp_contain_look(process.pid, NULL);
        vp_qemu_devices_read(domain);
    } else if (domain->look_error->code == VP_NOT_FOUND) {
        vp_qemu_recover(domain, model, NULL);
        domain->exit_log = vp_folder_log_tail(domain->dir, 5);
        vp_folder_ended(domain->dir);
    }
}

/* FALSE: the driver has the domain already, and the operation is not begun. */
static gboolean take_up(VpQemuDriver *driver, VpQemuOp *op)
{
    const PbDomain *model = vp_task_domain(op->task);
    VpQemuDomain *domain = vp_qemu_domain_new(driver, model, VP_PHASE_ADOPTING);
    g_autoptr(VpError) there = NULL;

    domain->first_op = op;
    there = table_add(driver, domain);
    if (there) {
        vp_qemu_domain_unref(domain);
        return FALSE;
    }
    find_process(domain, model);
    vp_loop_post(driver->host->loop, vp_qemu_domain_arrive, domain);
    return TRUE;
}

static void adopt(VpQemuDriver *driver, VpTask *task)
{
    VpQemuOp *op = vp_qemu_op_new(driver, VP_OP_ADOPT, task);

    if (!take_up(driver, op))
        vp_qemu_op_finish(op, NULL);
}

static void qemu_adopt(VpDriver *base, VpTask *task)
{
    VpQemuDriver *driver = (VpQemuDriver *)base;

    if (!worker_enter(driver, task))
        return;
    adopt(driver, task);
    worker_leave(driver);
}

static void qemu_find_running(VpDriver *base, void (*found)(void *data, const char *uid, gint32 pid), void *data)
{
    const char *state_dir = ((VpQemuDriver *)base)->host->state_dir;
    g_autoptr(GDir) entries = g_dir_open(state_dir, 0, NULL);

    for (const char *uid = entries ? g_dir_read_name(entries) : NULL; uid; uid = g_dir_read_name(entries)) {
        g_autofree char *dir = g_build_filename(state_dir, uid, NULL);
        const pid_t pid = vp_folder_running(dir);

        if (pid > 0)
            found(data, uid, pid);
    }
}

/* ---- the others: on the loop's thread ---- */

static void begin_on_loop(void *data)
{
    VpQemuOp *op = data;
    VpQemuDomain *domain = vp_qemu_driver_find(op->driver, vp_task_domain(op->task)->uid);

    if (domain)
        vp_qemu_domain_begin(domain, op);
    else if (op->kind == VP_OP_POWER_OFF)
        vp_qemu_op_finish(op, NULL);
    else
        vp_qemu_op_finish(op, vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_NOT_RUNNING",
                                           "domain %s does not run: a %s needs a running domain; start it first",
                                           vp_task_domain(op->task)->name, vp_qemu_op_verb(op)));
}

static void begin(VpDriver *base, VpTask *task, VpOpKind kind)
{
    VpQemuDriver *driver = (VpQemuDriver *)base;

    if (!worker_enter(driver, task))
        return;
    vp_loop_post(driver->host->loop, begin_on_loop, vp_qemu_op_new(driver, kind, task));
    worker_leave(driver);
}

static void qemu_shutdown(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_SHUTDOWN);
}

static void qemu_reboot(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_REBOOT);
}

/* Of a domain that the driver does not have, a process may live all the same: whatever is stored, the folder is looked at. */
static void power_off(VpQemuDriver *driver, VpTask *task)
{
    VpQemuOp *op = vp_qemu_op_new(driver, VP_OP_POWER_OFF, task);

    if (!take_up(driver, op))
        vp_loop_post(driver->host->loop, begin_on_loop, op);
}

static void qemu_power_off(VpDriver *base, VpTask *task)
{
    VpQemuDriver *driver = (VpQemuDriver *)base;

    if (!worker_enter(driver, task))
        return;
    power_off(driver, task);
    worker_leave(driver);
}

static void qemu_reset(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_RESET);
}

static void qemu_pause(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_PAUSE);
}

static void qemu_resume(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_RESUME);
}

static void qemu_save(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_SAVE);
}

static void qemu_stats(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_STATS);
}

static void qemu_screenshot(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_SCREENSHOT);
}

static void qemu_guest(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_GUEST);
}

static void qemu_change(VpDriver *driver, VpTask *task)
{
    begin(driver, task, VP_OP_CHANGE);
}

/* ---- the driver ---- */

/* A setting in milliseconds, at least 10. */
static guint64 setting_ms(const VpDriverHost *host, const char *key, guint64 otherwise)
{
    const guint64 value = host->config ? g_key_file_get_uint64(host->config, "qemu", key, NULL) : 0;

    return value >= 10 ? MIN(value, 3600000) : otherwise;
}

static VpDriver *qemu_open(const VpDriverHost *host, VpError **error)
{
    VpQemuDriver *driver = g_new0(VpQemuDriver, 1);
    g_autofree char *memory = g_build_filename(host->state_dir, "capabilities.json", NULL);

    driver->contain = vp_contain_new(host->config, host->state_dir, host->run_dir, error);
    if (!driver->contain) {
        g_free(driver);
        return NULL;
    }
    driver->base.ops = &vp_qemu_driver;
    driver->host = host;
    driver->probe = vp_qemu_probe_new(host->config, memory);
    driver->ping_interval_ms = setting_ms(host, "ping_interval_ms", PING_INTERVAL_MS);
    driver->unresponsive_after_ms = setting_ms(host, "unresponsive_after_ms", UNRESPONSIVE_AFTER_MS);
    driver->save_bytes_per_second =
        host->config ? g_key_file_get_uint64(host->config, "qemu", "save_bytes_per_second", NULL) : 0;
    driver->allow_arguments = host->config && g_key_file_get_boolean(host->config, "qemu", "allow_arguments", NULL);
    driver->cgroup = host->config ? g_key_file_get_string(host->config, "qemu", "cgroup", NULL) : NULL;
    if (!driver->cgroup)
        driver->cgroup = g_strdup("virtplane");
    driver->domains = g_hash_table_new(g_str_hash, g_str_equal);
    pthread_mutex_init(&driver->mutex, NULL);
    vp_cond_init(&driver->changed);
    return &driver->base;
}

/* After the posts of all workers, so that every domain has arrived. */
static void close_on_loop(void *data)
{
    VpQemuDriver *driver = data;

    pthread_mutex_lock(&driver->mutex);
    g_autoptr(GList) domains = g_hash_table_get_values(driver->domains);
    pthread_mutex_unlock(&driver->mutex);
    for (GList *link = domains; link; link = link->next)
        vp_qemu_domain_let_go(link->data);
    vp_qemu_driver_live(driver, -1);
}

static void qemu_close(VpDriver *base)
{
    VpQemuDriver *driver = (VpQemuDriver *)base;

    pthread_mutex_lock(&driver->mutex);
    driver->closing = TRUE;
    while (driver->workers > 0)
        pthread_cond_wait(&driver->changed, &driver->mutex);
    driver->live++; /* the post's */
    pthread_mutex_unlock(&driver->mutex);
    vp_loop_post(driver->host->loop, close_on_loop, driver);
    pthread_mutex_lock(&driver->mutex);
    while (driver->live > 0)
        pthread_cond_wait(&driver->changed, &driver->mutex);
    pthread_mutex_unlock(&driver->mutex);

    g_hash_table_unref(driver->domains);
    vp_qemu_probe_free(driver->probe);
    vp_contain_free(driver->contain);
    g_free(driver->cgroup);
    pthread_cond_destroy(&driver->changed);
    pthread_mutex_destroy(&driver->mutex);
    g_free(driver);
}

static void qemu_capabilities(VpDriver *driver, PbDriverCapabilities *capabilities)
{
    vp_qemu_probe_capabilities(((VpQemuDriver *)driver)->probe, capabilities);
    vp_contain_capabilities(((VpQemuDriver *)driver)->contain, capabilities);
}

static void qemu_complete(VpDriver *driver, PbDomainSpec *spec)
{
    vp_qemu_probe_set_machine(((VpQemuDriver *)driver)->probe, spec);
    vp_spec_complete_qemu(spec);
}

static VpError *qemu_validate(VpDriver *driver, const PbDomainSpec *spec)
{
    VpError *error = vp_qemu_driver_check_arguments((VpQemuDriver *)driver, spec);

    return error ? error : vp_spec_validate(spec);
}

static VpError *qemu_forget(VpDriver *driver, const char *uid)
{
    VpQemuDriver *qemu = (VpQemuDriver *)driver;
    g_autofree char *dir = g_build_filename(qemu->host->state_dir, uid, NULL);
    VpError *error = vp_folder_remove(dir);

    if (!error)
        vp_contain_forget(qemu->contain, uid);
    return error;
}

const VpDriverOps vp_qemu_driver = {
    .name = "qemu",
    .open = qemu_open,
    .close = qemu_close,
    .capabilities = qemu_capabilities,
    .complete = qemu_complete,
    .validate = qemu_validate,
    .check_change = vp_qemu_check_change,
    .find_running = qemu_find_running,
    .adopt = qemu_adopt,
    .start = qemu_start,
    .shutdown = qemu_shutdown,
    .power_off = qemu_power_off,
    .reboot = qemu_reboot,
    .reset = qemu_reset,
    .pause = qemu_pause,
    .resume = qemu_resume,
    .save = qemu_save,
    .restore = qemu_restore,
    .discard = qemu_discard,
    .forget = qemu_forget,
    .stats = qemu_stats,
    .screenshot = qemu_screenshot,
    .guest = qemu_guest,
    .change = qemu_change,
};
