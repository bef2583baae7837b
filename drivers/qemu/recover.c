/* See recover.h. */
#include "recover.h"

#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "domain_parts.h"
#include "restore.h"
#include "save.h"
#include "save_folder.h"

/* It was being restored, and nothing tells that it got further. */
static gboolean was_restoring(const PbDomain *model)
{
    const PbDomainStatus *status = model->status;

    return status && status->saved &&
           (status->state == PB_DOMAIN_STATE_STARTING || status->state == PB_DOMAIN_STATE_UNRESPONSIVE);
}

static void put_back(const VpQemuDomain *domain)
{
    g_autoptr(VpError) error = vp_save_is_used(domain->dir) ? vp_save_unmark_used(domain->dir) : NULL;

    if (error)
        vp_log(VP_LOG_ERROR, "domain %s: %s", domain->name, error->message);
}

/* A save that was under way is done, or it is taken back. */
static void recover_save(VpQemuDomain *domain, gboolean has_process)
{
    g_autoptr(VpError) error = NULL;
    guint8 key[VP_SAVE_KEY_BYTES];
    VpSaveNote note;

    if (!vp_save_note_read(domain->dir, &note)) {
        vp_save_note_drop(domain->dir);
        return;
    }
    error = vp_save_key(domain->driver->host->state_dir, key);
    PbSavedState *saved = error ? NULL : vp_save_note_done(&note, domain->dir, key);
    if (has_process) {
        vp_qemu_save_adopt(domain, &note, saved);
        return;
    }
    domain->found_saved = saved;
    if (!saved)
        vp_save_note_drop(domain->dir);
    vp_save_note_clear(&note);
}

static void recover_without_process(VpQemuDomain *domain, const PbDomain *model)
{
    const VpRestorePhase phase = vp_folder_restore_phase(domain->dir);

    /* Its CPUs never ran. */
    if (phase == VP_RESTORE_READING)
        put_back(domain);
    if (was_restoring(model)) {
        g_autofree char *kept = vp_save_kept_path(domain->dir);

        domain->half_restored =
            model->status->saved->managed ? g_file_test(kept, G_FILE_TEST_EXISTS) : phase != VP_RESTORE_LOADED;
        domain->was_saved = domain->half_restored;
        domain->found_used = !domain->half_restored;
    } else if (model->status && model->status->state != PB_DOMAIN_STATE_SAVED) {
        vp_save_remove_used(domain->dir);
    }
}

void vp_qemu_recover(VpQemuDomain *domain, const PbDomain *model, const VpRecord *record)
{
    if (model->status && model->status->state == PB_DOMAIN_STATE_SAVED && !record)
        return;
    recover_save(domain, record != NULL);
    if (!record) {
        recover_without_process(domain, model);
        return;
    }
    if (record->restore == VP_RESTORE_READING) {
        put_back(domain);
        domain->half_restored = TRUE;
        domain->was_saved = model->status && model->status->saved;
    } else if (record->restore == VP_RESTORE_LOADED) {
        domain->lets_run = !record->paused && model->status && model->status->state == PB_DOMAIN_STATE_STARTING;
        domain->found_used = vp_save_is_used(domain->dir);
    }
}

/* ---- on the loop's thread ---- */

static void on_cont(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;

    (void)result;
    if (error)
        vp_log(VP_LOG_ERROR, "domain %s was restored, but does not run: %s", domain->name, error->message);
    else if (domain->phase == VP_PHASE_UP)
        vp_qemu_domain_resumed(domain);
    vp_error_free(error);
    vp_qemu_domain_unref(domain);
}

void vp_qemu_recover_adopted(VpQemuDomain *domain)
{
    if (domain->lets_run && domain->state == PB_DOMAIN_STATE_PAUSED && domain->qmp)
        vp_qmp_execute(domain->qmp, "cont", NULL, 0, on_cont, vp_qemu_domain_ref(domain));
    domain->lets_run = FALSE;
    if (domain->found_used)
        vp_qemu_restore_remove_used(domain);
    domain->found_used = FALSE;
}

gboolean vp_qemu_recover_tell_gone(const VpQemuDomain *domain)
{
    VpObservation observation = {.reason = "WHILE_DAEMON_DOWN", .unless_off = TRUE};
    g_autofree char *detail = NULL;

    if (domain->found_saved) {
        observation.event = PB_EVENT_TYPE_DOMAIN_SAVED;
        observation.state = PB_DOMAIN_STATE_SAVED;
        observation.saved = domain->found_saved;
        observation.detail = domain->found_saved->path;
    } else if (domain->half_restored) {
        observation.event = PB_EVENT_TYPE_DOMAIN_START_FAILED;
        observation.state = PB_DOMAIN_STATE_SAVED;
        observation.detail = "the daemon ended in the midst of the restore; it is saved as before";
    } else if (domain->found_used) {
        detail =
            g_strdup_printf("its process ended in the midst of the restore, and may have run; what was saved is not "
                            "used again by itself. If it is sure that it has not run, RestoreDomain takes it from "
                            "%s/" VP_SAVE_USED " until the next start",
                            domain->dir);
        observation.event = PB_EVENT_TYPE_DOMAIN_START_FAILED;
        observation.state = PB_DOMAIN_STATE_SHUTOFF;
        observation.detail = detail;
    } else {
        return FALSE;
    }
    domain->driver->host->report(domain->driver->host->data, domain->uid, &observation);
    return TRUE;
}
