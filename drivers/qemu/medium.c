/* Another medium for a cd-rom drive: see change_parts.h. */
#include "change_parts.h"

#include <string.h>

#include "base/pb.h"
#include "drivers/spec_change.h"
#include "fdset_names.h"
#include "ids.h"
#include "live_commands.h"

/* One swap: what goes from callback to callback. Holds a reference to the change. */
typedef struct Swap {
    VpQemuChange *change;
    guint index;
    guint new_side;
    json_t *named_nodes;
    guint fd_sets; /* those that there were before */
} Swap;

static const PbDisk *drive_of(const Swap *swap)
{
    return swap->change->wanted->disks[swap->index];
}

static void swap_end(Swap *swap, VpError *error)
{
    VpQemuChange *change = swap->change;

    g_clear_pointer(&change->domain->devices->swapping, g_free);
    json_decref(swap->named_nodes);
    g_free(swap);
    vp_qemu_change_step_done(change, error);
    vp_qemu_change_unref(change);
}

guint vp_medium_side(const VpQemuDomain *domain, const char *target)
{
    return GPOINTER_TO_UINT(g_hash_table_lookup(domain->devices->sides, target));
}

void vp_medium_set_side(VpQemuDomain *domain, const char *target, guint side)
{
    g_hash_table_insert(domain->devices->sides, g_strdup(target), GUINT_TO_POINTER(side));
}

/* ---- it is in ---- */

static PbDiskStatus *new_status(const Swap *swap)
{
    const GPtrArray *disks = swap->change->prepared.proof.disks;

    for (guint i = 0; i < disks->len; i++) {
        const PbDiskStatus *status = disks->pdata[i];

        if (g_str_equal(status->target, drive_of(swap)->target))
            return vp_pb_dup(status);
    }
    return NULL;
}

/* The old medium's nodes are gone, too. */
static void on_cleaned(void *data, VpError *error)
{
    Swap *swap = data;
    VpQemuDomain *domain = swap->change->domain;
    const PbDisk *drive = drive_of(swap);
    PbDisk *live = vp_spec_find_disk(domain->live, drive->target);
    GPtrArray *findings = swap->change->prepared.proof.findings;

    vp_error_free(error);
    if (live && domain->phase == VP_PHASE_UP) {
        vp_pb_set(&live->path, drive->path);
        live->format = drive->format;
        vp_qemu_devices_set_status(domain, drive->target, new_status(swap));
        vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_CHANGED, "REQUESTED", drive->target, findings);
        g_ptr_array_set_size(findings, 0);
    }
    swap_end(swap, NULL);
}

static void on_fdsets_after(void *data, json_t *result, VpError *error)
{
    Swap *swap = data;
    g_autofree char *nodes = vp_id_disk_nodes(drive_of(swap), 1 - swap->new_side);

    vp_error_free(error);
    vp_script_try(swap->change->domain, vp_live_remove_nodes(swap->named_nodes, result, nodes), on_cleaned, swap);
}

static void on_nodes_after(void *data, json_t *result, VpError *error)
{
    Swap *swap = data;
    VpQmp *qmp = swap->change->domain->qmp;

    swap->named_nodes = json_incref(result);
    if (error || !qmp)
        on_cleaned(swap, error);
    else
        vp_qmp_execute(qmp, "query-fdsets", NULL, 0, on_fdsets_after, swap);
}

static VpError *explain(const Swap *swap, VpError *error)
{
    g_autoptr(VpError) why = error;
    const char *target = drive_of(swap)->target;
    vp_pb_auto PbDiskStatus *status = new_status(swap);
    g_autofree char *said =
        status ? vp_qemu_name_fdsets(why->message, &status, 1, swap->fd_sets + 1) : g_strdup(why->message);

    /* Unless forced QEMU only asks the guest to open a locked tray; that it is shut is said when the medium is to be taken out. */
    if (strstr(said, "is locked") || (strstr(said, "Tray of device") && strstr(said, "is not open")))
        return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "TRAY_LOCKED",
                                          "the guest has locked the tray of %s, and was asked to open it: unmount the "
                                          "medium there and try again, or take it out by force",
                                          target),
                             "disk", target);
    return vp_error_with(vp_error_new(why->code, why->reason, "disk %s: %s", target, said), "disk", target);
}

static void on_swapped(void *data, VpError *error)
{
    Swap *swap = data;
    VpQemuDomain *domain = swap->change->domain;

    swap->change->script = NULL;
    if (error || domain->phase != VP_PHASE_UP || !domain->qmp) {
        swap_end(swap, error ? explain(swap, error) : NULL);
        return;
    }
    if (drive_of(swap)->path[0])
        vp_medium_set_side(domain, drive_of(swap)->target, swap->new_side);
    vp_qmp_execute(domain->qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), 0, on_nodes_after, swap);
}

/* ---- before ---- */

static VpError *make_commands(Swap *swap, json_t **ret_commands)
{
    VpQemuChange *change = swap->change;
    const PbDisk *drive = drive_of(swap);
    const PbDisk *live = vp_spec_find_disk(change->domain->live, drive->target);
    const VpCommandLine line = {.spec = change->wanted, .disks = change->prepared.disks, .architecture = ""};
    const gboolean has_old = live && live->path[0];
    const gboolean has_new = drive->path[0] != '\0';
    json_t *commands = NULL;
    VpError *error = NULL;

    change->prepared.disks[swap->index].side = swap->new_side;
    if (has_new)
        error = vp_live_add_medium(&line, swap->index, swap->fd_sets, &commands);
    if (error)
        return error;
    json_t *swapping = vp_live_swap_medium(drive, has_old ? (int)(1 - swap->new_side) : -1,
                                           has_new ? (int)swap->new_side : -1, change->force);
    if (commands) {
        json_array_extend(commands, swapping);
        json_decref(swapping);
    } else {
        commands = swapping;
    }
    *ret_commands = commands;
    return NULL;
}

static void on_fdsets(void *data, json_t *result, VpError *error)
{
    Swap *swap = data;
    VpQemuDomain *domain = swap->change->domain;
    json_t *commands = NULL;

    swap->fd_sets = vp_live_last_fd_set(result);
    if (!error && !vp_qemu_change_is_over(swap->change))
        error = make_commands(swap, &commands);
    if (!commands) {
        swap_end(swap, error);
        return;
    }
    domain->devices->swapping = vp_id_disk(drive_of(swap));
    swap->change->script = vp_script_run(domain, commands, on_swapped, swap);
}

void vp_step_medium(VpQemuChange *change, guint index, guint side)
{
    Swap *swap = g_new0(Swap, 1);

    *swap = (Swap){.change = vp_qemu_change_ref(change), .index = index, .new_side = side};
    if (change->domain->qmp)
        vp_qmp_execute(change->domain->qmp, "query-fdsets", NULL, 0, on_fdsets, swap);
    else
        swap_end(swap, vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE", "QEMU does not answer"));
}
