/* Disks and interfaces that come to a domain that runs: see change_parts.h. */
#include "change_parts.h"

#include <string.h>

#include "base/pb.h"
#include "drivers/spec_change.h"
#include "fdset_names.h"
#include "ids.h"
#include "layout.h"
#include "live_commands.h"
#include "threshold.h"

/* One attach: what goes from callback to callback. Holds a reference to the change. */
typedef struct Attach {
    VpQemuChange *change;
    guint index;
    gboolean is_disk;
    guint questions; /* that are under way */
    VpError *error;
    guint fd_sets; /* those that there were before */
} Attach;

static const PbDisk *disk_of(const Attach *attach)
{
    return attach->change->wanted->disks[attach->index];
}

static const PbInterface *interface_of(const Attach *attach)
{
    return attach->change->wanted->interfaces[attach->index];
}

static const char *name_of(const Attach *attach)
{
    return attach->is_disk ? disk_of(attach)->target : interface_of(attach)->mac;
}

static void attach_end(Attach *attach, VpError *error)
{
    VpQemuChange *change = attach->change;

    vp_error_free(attach->error);
    g_free(attach);
    vp_qemu_change_step_done(change, error);
    vp_qemu_change_unref(change);
}

/* ---- it is there ---- */

static void add_to_live(Attach *attach)
{
    VpQemuChange *change = attach->change;
    VpQemuDomain *domain = change->domain;
    PbDomainSpec *live = domain->live;

    if (!attach->is_disk) {
        vp_pb_append(&live->n_interfaces, &live->interfaces, vp_pb_dup(interface_of(attach)));
        g_array_append_vals(domain->helpers, change->prepared.helpers->data, change->prepared.helpers->len);
        g_array_set_size(change->prepared.helpers, 0);
        vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_ADDED, "REQUESTED", name_of(attach), NULL);
        return;
    }
    const VpProof *proof = &change->prepared.proof;
    PbDisk *disk = vp_pb_dup(disk_of(attach));
    vp_pb_append(&live->n_disks, &live->disks, disk);
    for (guint i = 0; i < proof->disks->len; i++) {
        const PbDiskStatus *status = proof->disks->pdata[i];

        if (g_str_equal(status->target, disk->target))
            vp_qemu_devices_set_status(domain, disk->target, vp_pb_dup(status));
    }
    vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_ADDED, "REQUESTED", disk->target, proof->findings);
    g_ptr_array_set_size(proof->findings, 0);
}

/* It has come, but not all of it: that is how it runs. */
static void on_finished(void *data, VpError *error)
{
    Attach *attach = data;
    VpQemuDomain *domain = attach->change->domain;

    attach->change->script = NULL;
    if (error && attach->is_disk && domain->phase == VP_PHASE_UP) {
        PbDisk *disk = vp_spec_find_disk(domain->live, disk_of(attach)->target);

        if (disk)
            g_clear_pointer(&disk->throttle, vp_pb_free);
        vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_CHANGED, "FAILED", name_of(attach), NULL);
    }
    attach_end(attach,
               error ? vp_error_prefix(error, "%s was attached, but could not be set up", name_of(attach)) : NULL);
}

/* ---- the errors of QEMU ---- */

static VpError *explain(const Attach *attach, VpError *error)
{
    const GPtrArray *disks = attach->change->prepared.proof.disks;
    const char *kind = attach->is_disk ? "disk" : "interface";
    g_autofree char *said = NULL;

    if (!attach->is_disk)
        return vp_error_prefix(error, "%s %s", kind, name_of(attach));
    /* A passphrase goes in a set of its own, before those of the images. */
    for (guint i = 0; i < disks->len; i++) {
        PbDiskStatus *const status = disks->pdata[i];

        if (g_str_equal(status->target, name_of(attach)))
            said = vp_qemu_name_fdsets(error->message, &status, 1,
                                       attach->fd_sets + 1 + (disk_of(attach)->secret[0] ? 1 : 0));
    }
    const gboolean wrong = strstr(error->message, "Invalid password, cannot unlock any keyslot") != NULL;
    VpError *told = vp_error_new(error->code, wrong ? "SECRET_WRONG" : error->reason, "%s %s: %s%s", kind,
                                 name_of(attach), wrong ? "the passphrase in its secret does not open its image: " : "",
                                 said ? said : error->message);

    vp_error_free(error);
    return vp_error_with(told, kind, name_of(attach));
}

static void on_attached(void *data, VpError *error)
{
    Attach *attach = data;
    VpQemuChange *change = attach->change;
    VpQemuDomain *domain = change->domain;

    change->script = NULL;
    if (error || domain->phase != VP_PHASE_UP) {
        attach_end(attach, error ? explain(attach, error) : NULL);
        return;
    }
    json_t *rest = json_array();

    add_to_live(attach);
    if (attach->is_disk)
        vp_commands_for_disk(rest, disk_of(attach));
    else
        vp_commands_for_interface(rest, interface_of(attach));
    change->script = vp_script_run(domain, rest, on_finished, attach);
}

/* ---- before it comes ---- */

/* The controller or the port that it needs; owned by the caller. NULL: none. */
static char *needs(const Attach *attach)
{
    const PbDomainSpec *wanted = attach->change->wanted;
    const VpSlotBus bus = attach->is_disk ? vp_layout_disk_bus(disk_of(attach)) : VP_SLOT_BUS_PCI;
    const guint slot = attach->is_disk ? disk_of(attach)->slot : interface_of(attach)->slot;

    switch (bus) {
    case VP_SLOT_BUS_SCSI:
        return g_strdup("scsi0");
    case VP_SLOT_BUS_USB:
        return g_strdup("usb");
    default:
        return vp_layout_has_pcie(wanted->machine) ? g_strdup_printf("slot%u", slot) : NULL;
    }
}

static VpError *check_place(const Attach *attach, json_t *peripherals)
{
    g_autofree char *needed = needs(attach);
    json_t *item;
    size_t i;

    if (!needed)
        return NULL;
    json_array_foreach(peripherals, i, item)
    {
        if (g_strcmp0(json_string_value(json_object_get(item, "name")), needed) == 0)
            return NULL;
    }
    if (g_str_has_prefix(needed, "slot"))
        return vp_error_new(VP_FAILED_PRECONDITION, "NO_FREE_SLOT",
                            "%s: the machine that runs has no free PCI slot %s; hotplug_slots says how many there are "
                            "from the next start on",
                            name_of(attach), needed + strlen("slot"));
    return vp_error_new(VP_FAILED_PRECONDITION, "NO_CONTROLLER",
                        "%s: the machine that runs has no %s controller, which comes with a device that is there at "
                        "the start",
                        name_of(attach), g_str_equal(needed, "usb") ? "USB" : "SCSI");
}

/* Before the last command, that by which the device comes, as it is written to at once. */
static void add_threshold(json_t *commands, const VpCommandLine *line, guint index)
{
    const PbDisk *disk = line->spec->disks[index];
    const VpDiskFds *fds = &line->disks[index];

    if (disk->write_threshold_bytes == 0 || fds->n_layers == 0)
        return;
    g_autofree char *node = vp_id_disk_written(disk, fds->layers[0].data_fd >= 0);
    json_array_insert_new(commands, json_array_size(commands) - 1,
                          vp_threshold_command(node, disk->write_threshold_bytes));
}

static void send_commands(Attach *attach)
{
    VpQemuChange *change = attach->change;
    const VpPrepared *prepared = &change->prepared;
    const VpCommandLine line = {
        .uid = change->domain->uid,
        .name = change->domain->name,
        .spec = change->wanted,
        .architecture = "",
        .accelerator = change->domain->accelerator,
        .disks = prepared->disks,
        .secret_fds = prepared->secret_fds,
        .nics = prepared->nics,
    };
    json_t *commands = NULL;
    VpError *error = NULL;

    if (attach->is_disk)
        error = vp_live_attach_disk(&line, attach->index, attach->fd_sets, &commands);
    else
        commands = vp_live_attach_interface(&line, attach->index);
    if (!error && attach->is_disk)
        add_threshold(commands, &line, attach->index);
    if (error)
        attach_end(attach, error);
    else
        change->script = vp_script_run(change->domain, commands, on_attached, attach);
}

/* One of the questions is answered; of the first error the attach dies. */
static void answered(Attach *attach, VpError *error)
{
    if (!attach->error)
        attach->error = error;
    else
        vp_error_free(error);
    if (--attach->questions > 0)
        return;
    if (attach->error || vp_qemu_change_is_over(attach->change))
        attach_end(attach, g_steal_pointer(&attach->error));
    else
        send_commands(attach);
}

static void on_fdsets(void *data, json_t *result, VpError *error)
{
    Attach *attach = data;

    attach->fd_sets = vp_live_last_fd_set(result);
    answered(attach, error);
}

static void on_peripherals(void *data, json_t *result, VpError *error)
{
    Attach *attach = data;

    answered(attach, error ? error : check_place(attach, result));
}

static void begin(VpQemuChange *change, guint index, gboolean is_disk)
{
    VpQmp *qmp = change->domain->qmp;
    Attach *attach = g_new0(Attach, 1);

    *attach = (Attach){.change = vp_qemu_change_ref(change), .index = index, .is_disk = is_disk, .questions = 2};
    if (!qmp) {
        attach_end(attach, vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE", "QEMU does not answer"));
        return;
    }
    vp_qmp_hold(qmp);
    vp_qmp_execute(qmp, "query-fdsets", NULL, 0, on_fdsets, attach);
    vp_qmp_execute(qmp, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), 0, on_peripherals, attach);
    vp_qmp_send(qmp);
}

void vp_step_attach_disk(VpQemuChange *change, guint index)
{
    begin(change, index, /* is_disk= */ TRUE);
}

void vp_step_attach_interface(VpQemuChange *change, guint index)
{
    begin(change, index, /* is_disk= */ FALSE);
}
