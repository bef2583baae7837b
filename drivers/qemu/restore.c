/* See restore.h. */
#include "restore.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "domain_parts.h"
#include "save_folder.h"
#include "save_read.h"
#include "spec.h"

#define POLL_MS 100
#define FD_NAME "restore"
#define MIB (1024.0 * 1024.0)

/* The domain's. */
struct VpQemuRestore {
    char *uid;
    char *path;
    char *dir;
    gboolean managed;    /* it is the file that the daemon keeps, and not of an earlier use */
    gboolean was_saved;  /* the domain; else it is shut off if this fails */
    VpSaveReader reader; /* of the start's threads until the process is made, then the loop's */

    gboolean marking; /* a thread puts the file aside */
    gboolean marked;  /* it has: the thread's until `marking` is over */
    VpError *mark_error;
    gboolean runs;  /* the CPUs may have run */
    gboolean asked; /* a query-migrate is under way */
    VpTimer *poll;
    void (*loaded)(VpQemuDomain *domain);
    void (*ended)(void *domain);
};

/* ---- life ---- */

static const char *wanted_path(const VpQemuOp *op)
{
    const PbDomainStatus *status = vp_task_domain(op->task)->status;
    const PbSavedState *saved = status ? status->saved : NULL;
    const PbRestoreDomainRequest *request = op->kind == VP_OP_RESTORE ? vp_task_request(op->task) : NULL;

    if (request && request->path[0])
        return request->path;
    return saved ? saved->path : NULL;
}

VpError *vp_qemu_restore_new(VpQemuDomain *domain, const VpQemuOp *op)
{
    const PbDomainStatus *status = vp_task_domain(op->task)->status;
    const PbSavedState *saved = status ? status->saved : NULL;
    const PbStartDomainRequest *start = op->kind == VP_OP_START ? vp_task_request(op->task) : NULL;
    const gboolean was_saved = status && status->state == PB_DOMAIN_STATE_SAVED;
    const char *path = wanted_path(op);

    if (op->kind == VP_OP_START && (!was_saved || (start && start->discard_saved)))
        return NULL;
    if (!path)
        return vp_error_new(VP_FAILED_PRECONDITION, "NOT_SAVED",
                            "domain %s is not saved: name the file to restore it from", domain->name);
    if (was_saved && saved && saved->managed && strcmp(saved->path, path) != 0)
        return vp_error_new(
            VP_FAILED_PRECONDITION, "SAVED_ELSEWHERE",
            "domain %s is saved in the file that the daemon keeps, which would be lost: restore that, or "
            "give it up first (DiscardSavedState)",
            domain->name);
    VpQemuRestore *restore = g_new0(VpQemuRestore, 1);
    g_autofree char *kept = vp_save_kept_path(domain->dir);
    restore->uid = g_strdup(domain->uid);
    restore->path = g_strdup(path);
    restore->dir = g_strdup(domain->dir);
    restore->managed = strcmp(path, kept) == 0;
    restore->was_saved = was_saved;
    restore->reader.fd = -1;
    domain->restore = restore;
    return NULL;
}

void vp_qemu_restore_free(VpQemuRestore *restore)
{
    if (!restore)
        return;
    vp_save_reader_clear(&restore->reader);
    vp_error_free(restore->mark_error);
    g_free(restore->uid);
    g_free(restore->path);
    g_free(restore->dir);
    g_free(restore);
}

/* ---- the file ---- */

static VpError *check_head(const VpQemuRestore *restore)
{
    const PbSaveFileHead *head = restore->reader.head;

    if (strcmp(head->domain_uid, restore->uid) != 0)
        return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "SAVE_FILE_OF_ANOTHER",
                                          "it is of the domain %s with the uid %s", head->domain_name,
                                          head->domain_uid),
                             "uid", head->domain_uid);
    return vp_spec_validate(head->live_spec);
}

VpError *vp_qemu_restore_open(VpQemuRestore *restore, const VpDriverHost *host, PbDomainSpec **spec, gboolean *paused)
{
    guint8 key[VP_SAVE_KEY_BYTES];
    VpError *error = vp_save_key(host->state_dir, key);

    if (error)
        return error;
    error = vp_save_reader_open(&restore->reader, restore->path, restore->dir, host->images);
    if (error)
        return error;
    error = vp_save_reader_read(&restore->reader, key);
    if (!error) {
        vp_spec_complete_qemu(restore->reader.head->live_spec);
        error = check_head(restore);
    }
    if (error)
        return vp_error_with(vp_error_prefix(error, "cannot restore from %s", restore->path), "path", restore->path);
    vp_pb_free(*spec);
    *spec = vp_pb_dup(restore->reader.head->live_spec);
    /* What runs the CPUs may be left open in there, but not here. */
    (*spec)->accelerator = restore->reader.head->accelerator;
    *paused = *paused || restore->reader.head->paused;
    return NULL;
}

VpError *vp_qemu_restore_check(const VpQemuRestore *restore, const PbDomainSpec *spec, const VpProof *proof)
{
    return vp_save_check_files(restore->reader.head, spec, proof, restore->dir);
}

void vp_qemu_restore_proven(VpQemuDomain *domain, const PbDomainSpec *spec, gboolean paused)
{
    vp_pb_free(domain->live);
    domain->live = vp_pb_dup(domain->restore->reader.head->live_spec);
    vp_pb_free(domain->pinning);
    domain->pinning = vp_pb_dup(spec->pinning);
    json_decref(domain->before_run);
    domain->before_run = vp_commands_before_run(spec);
    domain->paused = paused;
    domain->tainted = spec->n_arguments > 0;
}

/* ---- QEMU reads it ---- */

static gboolean is_loading(const VpQemuDomain *domain)
{
    return domain->phase == VP_PHASE_STARTING && !domain->start_error && !domain->exit_how && domain->restore &&
           !domain->restore->marking && !domain->restore->marked;
}

static VpError *failed(const VpQemuDomain *domain, const char *why)
{
    const PbSaveFileHead *head = domain->restore->reader.head;
    VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "RESTORE_FAILED",
                                  "domain %s: QEMU could not take what was saved in %s (by QEMU %s): %s", domain->name,
                                  domain->restore->path, head->hypervisor_version, why);

    return vp_error_with(error, "path", domain->restore->path);
}

VpError *vp_qemu_restore_error(const VpQemuDomain *domain, const VpError *error)
{
    return failed(domain, error->message);
}

static void tell_ended(VpQemuDomain *domain)
{
    void (*ended)(void *domain) = domain->restore->ended;

    domain->restore->ended = NULL;
    ended(domain);
}

static void on_marked(void *data)
{
    VpQemuDomain *domain = data;
    VpQemuRestore *restore = domain->restore;
    VpError *error = g_steal_pointer(&restore->mark_error);

    restore->marking = FALSE;
    if (restore->ended) {
        vp_error_free(error);
        tell_ended(domain);
    } else if (error) {
        vp_qemu_domain_abort_start(domain, vp_error_prefix(error, "domain %s", domain->name));
    } else if (domain->phase == VP_PHASE_STARTING && !domain->start_error) {
        restore->loaded(domain);
    }
    vp_qemu_domain_unref(domain);
}

/* On a pool's thread. First the file, then the record of the process: a later daemon that finds the record as it was knows that the guest never ran. */
static void mark(void *data)
{
    VpQemuDomain *domain = data;
    VpQemuRestore *restore = domain->restore;

    if (restore->managed) {
        restore->mark_error = vp_save_mark_used(restore->dir);
        restore->marked = !restore->mark_error;
    }
    if (!restore->mark_error)
        restore->mark_error = vp_folder_note_loaded(restore->dir);
    vp_loop_post(domain->driver->host->loop, on_marked, domain);
}

static void on_loaded(VpQemuDomain *domain)
{
    domain->restore->marking = TRUE;
    if (vp_pool_submit(domain->driver->host->pool, mark, vp_qemu_domain_ref(domain)))
        return;
    vp_qemu_domain_unref(domain);
    domain->restore->marking = FALSE;
    vp_qemu_domain_abort_start(domain,
                               vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "WORKERS_BUSY",
                                                           "domain %s: the daemon has too much to do", domain->name),
                                              1000));
}

static void on_poll(void *data);

static void poll_later(VpQemuDomain *domain)
{
    domain->restore->poll = vp_timer_start(domain->driver->host->loop, POLL_MS, on_poll, vp_qemu_domain_ref(domain));
}

/* A refusal ends the start; with the connection gone the process will be gone in a moment, and its last words say more. */
static gboolean goes_on(VpQemuDomain *domain, VpError *error)
{
    if (is_loading(domain) && error && error->code == VP_FAILED_PRECONDITION)
        vp_qemu_domain_abort_start(domain, failed(domain, error->message));
    const gboolean well = !error && is_loading(domain);
    vp_error_free(error);
    return well;
}

static void on_status(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;
    const char *status = json_string_value(json_object_get(result, "status"));

    if (domain->restore)
        domain->restore->asked = FALSE;
    if (goes_on(domain, error)) {
        if (g_strcmp0(status, "completed") == 0) {
            on_loaded(domain);
        } else if (g_strcmp0(status, "failed") == 0) {
            const char *why = json_string_value(json_object_get(result, "error-desc"));

            vp_qemu_domain_abort_start(domain, failed(domain, why ? why : "it does not say why"));
        }
    }
    vp_qemu_domain_unref(domain);
}

static void tell_progress(const VpQemuDomain *domain)
{
    const VpSaveReader *reader = &domain->restore->reader;
    const off_t at = lseek(reader->fd, 0, SEEK_CUR);
    const double total = (double)reader->frame.stream_bytes;
    const double read = (double)at - (double)reader->frame.stream_offset;

    if (!domain->first_op || !domain->first_op->task || read < 0 || total <= 0)
        return;
    g_autofree char *text = g_strdup_printf("%.0f of %.0f MiB read", read / MIB, total / MIB);
    vp_task_progress(domain->first_op->task, (guint)CLAMP(read * 100 / total, 0, 99), text);
}

/* While QEMU reads it answers nothing. How far it is, the place of the descriptor tells, which is ours as well. */
static void on_poll(void *data)
{
    VpQemuDomain *domain = data;

    if (domain->restore)
        vp_timer_cancel(g_steal_pointer(&domain->restore->poll));
    if (is_loading(domain)) {
        tell_progress(domain);
        if (!domain->restore->asked && domain->qmp) {
            domain->restore->asked = TRUE;
            vp_qmp_execute(domain->qmp, "query-migrate", NULL, 0, on_status, vp_qemu_domain_ref(domain));
        }
        poll_later(domain);
    }
    vp_qemu_domain_unref(domain);
}

static void on_step(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;

    (void)result;
    goes_on(domain, error);
    vp_qemu_domain_unref(domain);
}

void vp_qemu_restore_begin(VpQemuDomain *domain, void (*loaded)(VpQemuDomain *domain))
{
    VpQemuRestore *restore = domain->restore;
    json_t *capabilities = json_pack("[{s:s, s:b}]", "capability", "events", "state", 1);

    /* Until the guest runs its disks are not written to, not even to mark them as open. One that stays halted has them at once. */
    if (!domain->paused)
        json_array_append_new(capabilities, json_pack("{s:s, s:b}", "capability", "late-block-activate", "state", 1));
    restore->loaded = loaded;
    vp_qmp_execute(domain->qmp, "migrate-set-capabilities", json_pack("{s:o}", "capabilities", capabilities), 0,
                   on_step, vp_qemu_domain_ref(domain));
    vp_qmp_execute_with_fd(domain->qmp, "getfd", json_pack("{s:s}", "fdname", FD_NAME), restore->reader.fd, 0, on_step,
                           vp_qemu_domain_ref(domain));
    vp_qmp_execute(domain->qmp, "migrate-incoming", json_pack("{s:s}", "uri", "fd:" FD_NAME), 0, on_step,
                   vp_qemu_domain_ref(domain));
    poll_later(domain);
}

/* ---- it runs ---- */

void vp_qemu_restore_runs(VpQemuDomain *domain)
{
    if (domain->restore)
        domain->restore->runs = TRUE;
}

void vp_qemu_restore_refused(VpQemuDomain *domain)
{
    if (domain->restore)
        domain->restore->runs = FALSE;
}

/* On a pool's thread. */
static void remove_used(void *data)
{
    VpQemuDomain *domain = data;

    vp_save_remove_used(domain->dir);
    vp_qemu_domain_unref(domain);
}

/* That it runs is in the store, or a later daemon will find that it does. */
static void on_settled(void *data, VpError *error)
{
    VpQemuDomain *domain = data;

    if (error || !vp_pool_submit(domain->driver->host->slow_pool, remove_used, domain))
        vp_qemu_domain_unref(domain);
}

void vp_qemu_restore_remove_used(VpQemuDomain *domain)
{
    const VpDriverHost *host = domain->driver->host;

    host->settle(host->data, domain->uid, on_settled, vp_qemu_domain_ref(domain));
}

void vp_qemu_restore_done(VpQemuDomain *domain)
{
    VpQemuRestore *restore = g_steal_pointer(&domain->restore);

    if (restore && vp_timer_cancel(g_steal_pointer(&restore->poll)))
        vp_qemu_domain_unref(domain);
    if (restore && restore->managed)
        vp_qemu_restore_remove_used(domain);
    vp_qemu_restore_free(restore);
}

/* ---- it does not ---- */

static void on_unmarked(void *data)
{
    VpQemuDomain *domain = data;

    domain->restore->marked = FALSE;
    tell_ended(domain);
    vp_qemu_domain_unref(domain);
}

/* On a pool's thread. */
static void unmark(void *data)
{
    VpQemuDomain *domain = data;
    g_autoptr(VpError) error = vp_save_unmark_used(domain->dir);

    if (error)
        vp_log(VP_LOG_ERROR, "domain %s: %s", domain->name, error->message);
    vp_loop_post(domain->driver->host->loop, on_unmarked, domain);
}

gboolean vp_qemu_restore_defers_end(VpQemuDomain *domain, void (*told)(void *domain))
{
    VpQemuRestore *restore = domain->restore;

    if (!restore || (!restore->marking && (!restore->marked || restore->runs)))
        return FALSE;
    restore->ended = told;
    if (restore->marking)
        return TRUE;
    if (vp_pool_submit(domain->driver->host->slow_pool, unmark, vp_qemu_domain_ref(domain)))
        return TRUE;
    vp_qemu_domain_unref(domain);
    restore->ended = NULL;
    return FALSE;
}

PbDomainState vp_qemu_restore_failed_state(const VpQemuDomain *domain)
{
    const VpQemuRestore *restore = domain->restore;
    const gboolean here = restore && restore->was_saved && !restore->runs;

    return here || (domain->half_restored && domain->was_saved) ? PB_DOMAIN_STATE_SAVED : PB_DOMAIN_STATE_SHUTOFF;
}
