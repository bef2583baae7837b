/*
 * What devices there are, by QEMU's word: its events, and what it is asked when the connection is there anew, after a daemon or a connection was gone. QEMU
 * alone knows what came of a change that was under way then; what it was given is written down (change_prepare.c). See change_parts.h.
 */
#include "change_parts.h"

#include <string.h>

#include "base/pb.h"
#include "drivers/spec_change.h"
#include "folder.h"
#include "ids.h"
#include "live_commands.h"
#include "live_read.h"
#include "sizes.h"

/* ---- events ---- */

/* Of a CPU that is emulated QEMU tells the end of its parts alone. */
static gboolean is_of_cpu(const char *path)
{
    return path && (g_str_has_prefix(path, "/machine/unattached/") ||
                    g_str_has_prefix(path, "/machine/peripheral/" VP_ID_CPU "-"));
}

static gboolean on_deleted(VpQemuDomain *domain, const char *device, const char *path)
{
    if (device && vp_detach_gone(domain, device, NULL))
        return TRUE;
    if (device && g_str_has_prefix(device, VP_ID_DIMM))
        vp_resize_recount(domain, device);
    else if (is_of_cpu(path))
        vp_resize_recount(domain, NULL);
    return FALSE;
}

/* What the guest's ACPI says to a request to let go of a CPU, by the numbers of the ACPI specification. */
static void on_answer_of_guest(VpQemuDomain *domain, json_t *info)
{
    enum { EJECTION = 3, DONE = 0, FAILED = 1, UNKNOWN = 2, FIRST_REFUSAL = 0x80, LAST_REFUSAL = 0x83 };
    const char *kind = json_string_value(json_object_get(info, "slot-type"));
    const json_int_t source = json_integer_value(json_object_get(info, "source"));
    const json_int_t status = json_integer_value(json_object_get(info, "status"));

    if (g_strcmp0(kind, "CPU") != 0 || source != EJECTION)
        return;
    if (status == DONE)
        vp_resize_recount(domain, NULL);
    else if (status == FAILED || status == UNKNOWN || (status >= FIRST_REFUSAL && status <= LAST_REFUSAL))
        vp_detach_refused(domain, VP_ID_CPU);
}

gboolean vp_qemu_devices_on_event(VpQemuDomain *domain, const char *name, json_t *arguments)
{
    const char *device = json_string_value(json_object_get(arguments, "device"));
    const char *path = json_string_value(json_object_get(arguments, "path"));
    const char *id = json_string_value(json_object_get(arguments, "id"));

    if (strcmp(name, "DEVICE_DELETED") == 0)
        return on_deleted(domain, device, path);
    if (strcmp(name, "ACPI_DEVICE_OST") == 0)
        on_answer_of_guest(domain, json_object_get(arguments, "info"));
    if (strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR") == 0 || strcmp(name, "MEM_UNPLUG_ERROR") == 0)
        return device && vp_detach_refused(domain, device);
    /* A change of the medium is told when it is made, not by each move of the tray. */
    return strcmp(name, "DEVICE_TRAY_MOVED") == 0 && g_strcmp0(domain->devices->swapping, id) == 0 && id;
}

/* ---- looking ---- */

void vp_qemu_devices_read(VpQemuDomain *domain)
{
    g_autoptr(GBytes) bytes = vp_folder_read_intent(domain->dir);

    if (bytes)
        domain->devices->intent = vp_pb_unpack(&pb_domain__descriptor, bytes);
}

enum {
    PERIPHERALS,
    BLOCKS,
    NODES,
    FDSETS,
    CPUS,
    DIMMS,
    MEMORY,
    QUESTIONS,
};

typedef struct Look Look;

typedef struct Question {
    Look *look;
    guint index;
} Question;

struct Look {
    VpQemuDomain *domain; /* a reference */
    const char *reason;
    guint left;
    Question questions[QUESTIONS];
    json_t *answers[QUESTIONS]; /* NULL: a refusal */
    json_t *leftovers;          /* commands */
};

static void look_end(Look *look)
{
    VpQemuDomain *domain = look->domain;

    domain->devices->looks--;
    for (guint i = 0; i < QUESTIONS; i++)
        json_decref(look->answers[i]);
    json_decref(look->leftovers);
    g_free(look);
    vp_qemu_devices_go_on(domain);
    vp_qemu_domain_unref(domain);
}

/* ---- what came, or was to come ---- */

static void add_leftover_nodes(Look *look, const PbDisk *disk, guint side)
{
    g_autofree char *nodes = vp_id_disk_nodes(disk, side);
    json_t *commands = vp_live_remove_nodes(look->answers[NODES], look->answers[FDSETS], nodes);

    json_array_extend(look->leftovers, commands);
    json_decref(commands);
}

static void add_leftover(Look *look, const char *command, const char *id)
{
    json_array_append_new(look->leftovers, json_pack("{s:s, s:{s:s}}", "execute", command, "arguments", "id", id));
}

static gboolean has_nodes_like(const PbDomainSpec *live, const PbDisk *disk)
{
    g_autofree char *nodes = vp_id_disk_nodes(disk, 0);

    for (size_t i = 0; i < live->n_disks; i++) {
        g_autofree char *own = vp_id_disk_nodes(live->disks[i], 0);

        if (g_str_equal(own, nodes))
            return TRUE;
    }
    return FALSE;
}

static void take_disk(Look *look, const PbDisk *disk)
{
    VpQemuDomain *domain = look->domain;
    const PbDomainStatus *status = domain->devices->intent->status;

    vp_pb_append(&domain->live->n_disks, &domain->live->disks, vp_pb_dup(disk));
    for (size_t i = 0; i < status->n_disks; i++) {
        if (g_str_equal(status->disks[i]->target, disk->target))
            vp_qemu_devices_set_status(domain, disk->target, vp_pb_dup(status->disks[i]));
    }
    vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_ADDED, look->reason, disk->target, NULL);
}

static void look_for_new_disk(Look *look, const PbDisk *disk)
{
    const PbDomainSpec *live = look->domain->live;
    g_autofree char *id = vp_id_disk(disk);
    g_autofree char *secret = vp_id_secret(disk);

    if (vp_spec_find_disk(live, disk->target))
        return;
    if (vp_live_has(look->answers[PERIPHERALS], id)) {
        take_disk(look, disk);
    } else if (!has_nodes_like(live, disk)) {
        add_leftover_nodes(look, disk, 0);
        add_leftover_nodes(look, disk, 1);
        if (disk->secret[0])
            add_leftover(look, "object-del", secret);
    }
}

static gboolean has_slot(const PbDomainSpec *live, guint32 slot)
{
    for (size_t i = 0; i < live->n_interfaces; i++) {
        if (live->interfaces[i]->slot == slot)
            return TRUE;
    }
    return FALSE;
}

static void look_for_new_interface(Look *look, const PbInterface *interface)
{
    PbDomainSpec *live = look->domain->live;
    g_autofree char *id = vp_id_nic(interface);
    g_autofree char *netdev = vp_id_netdev(interface);

    if (vp_spec_find_interface(live, interface->mac) || has_slot(live, interface->slot))
        return;
    if (!vp_live_has(look->answers[PERIPHERALS], id)) {
        add_leftover(look, "netdev_del", netdev);
        return;
    }
    vp_pb_append(&live->n_interfaces, &live->interfaces, vp_pb_dup(interface));
    vp_qemu_devices_report(look->domain, PB_EVENT_TYPE_DEVICE_ADDED, look->reason, interface->mac, NULL);
}

/* What was written down of the last change: whether it was made is seen by its devices. */
static void look_for_new(Look *look)
{
    const PbDomain *intent = look->domain->devices->intent;

    if (!intent || !intent->spec || !intent->status)
        return;
    for (size_t i = 0; i < intent->spec->n_disks; i++)
        look_for_new_disk(look, intent->spec->disks[i]);
    for (size_t i = 0; i < intent->spec->n_interfaces; i++)
        look_for_new_interface(look, intent->spec->interfaces[i]);
}

/* ---- what went ---- */

static void look_for_gone(Look *look)
{
    const PbDomainSpec *live = look->domain->live;
    g_autoptr(GPtrArray) gone = g_ptr_array_new_with_free_func(g_free);

    for (size_t i = 0; i < live->n_disks; i++)
        g_ptr_array_add(gone, vp_id_disk(live->disks[i]));
    for (size_t i = 0; i < live->n_interfaces; i++)
        g_ptr_array_add(gone, vp_id_nic(live->interfaces[i]));
    for (guint i = 0; i < gone->len; i++) {
        if (!vp_live_has(look->answers[PERIPHERALS], gone->pdata[i]))
            vp_detach_gone(look->domain, gone->pdata[i], look->reason);
    }
}

/* ---- media and limits ---- */

/* Whether the side of the drive's medium is that of one which was on its way when it was written down. */
static gboolean was_swapped(const PbDomain *intent, const char *target, guint side)
{
    for (size_t i = 0; intent && i < intent->n_labels; i++) {
        if (g_str_equal(intent->labels[i]->key, target))
            return g_str_equal(intent->labels[i]->value, side ? "1" : "0");
    }
    return FALSE;
}

static gboolean was_to_be_swapped(const PbDomain *intent, const char *target)
{
    return was_swapped(intent, target, 0) || was_swapped(intent, target, 1);
}

static void set_medium(Look *look, PbDisk *drive, const PbDisk *medium)
{
    const PbDomainStatus *status = look->domain->devices->intent->status;
    const char *path = medium ? medium->path : "";

    if (g_str_equal(drive->path, path))
        return;
    vp_pb_set(&drive->path, path);
    drive->format = medium ? medium->format : PB_IMAGE_FORMAT_UNSPECIFIED;
    vp_qemu_devices_set_status(look->domain, drive->target, NULL);
    for (size_t i = 0; medium && i < status->n_disks; i++) {
        if (g_str_equal(status->disks[i]->target, drive->target))
            vp_qemu_devices_set_status(look->domain, drive->target, vp_pb_dup(status->disks[i]));
    }
    vp_qemu_devices_report(look->domain, PB_EVENT_TYPE_DEVICE_CHANGED, look->reason, drive->target, NULL);
}

static void look_at_drive(Look *look, PbDisk *drive, const char *node)
{
    const PbDomain *intent = look->domain->devices->intent;
    const guint side = node ? vp_id_disk_side(drive, node) : 0;

    if (was_to_be_swapped(intent, drive->target)) {
        const PbDisk *wanted = vp_spec_find_disk(intent->spec, drive->target);

        /* Between the two it is empty. */
        if (!node)
            set_medium(look, drive, NULL);
        else if (wanted && was_swapped(intent, drive->target, side))
            set_medium(look, drive, wanted);
        add_leftover_nodes(look, drive, 1 - side);
        if (!node)
            add_leftover_nodes(look, drive, side);
    }
    vp_medium_set_side(look->domain, drive->target, side);
}

static void look_at_disks(Look *look)
{
    PbDomainSpec *live = look->domain->live;

    for (size_t i = 0; i < live->n_disks; i++) {
        PbDisk *disk = live->disks[i];
        json_t *block = vp_live_find_block(look->answers[BLOCKS], disk);
        const char *node = vp_live_node(block);

        if (!block)
            continue;
        if (disk->device == PB_DISK_DEVICE_CDROM)
            look_at_drive(look, disk, node);
        if (!node || vp_live_same_throttle(block, disk))
            continue;
        vp_live_read_throttle(block, disk);
        g_autofree char *detail = g_strdup_printf("%s: limits", disk->target);
        vp_qemu_devices_report(look->domain, PB_EVENT_TYPE_DEVICE_CHANGED, look->reason, detail, NULL);
    }
}

/* ---- all of it ---- */

static void on_cleaned(void *data, VpError *error)
{
    vp_error_free(error);
    look_end(data);
}

static void conclude(Look *look)
{
    VpQemuDomain *domain = look->domain;

    if (domain->phase != VP_PHASE_UP || !look->answers[PERIPHERALS]) {
        look_end(look);
        return;
    }
    look_for_new(look);
    look_at_disks(look);
    look_for_gone(look);
    if (look->answers[CPUS])
        vp_resize_vcpus_are(domain, vp_sizes_vcpus(look->answers[CPUS]), look->reason);
    if (look->answers[MEMORY] && look->answers[DIMMS])
        vp_resize_memory_is(domain, vp_sizes_memory(look->answers[MEMORY]), look->answers[DIMMS], look->reason);
    const VpPresent present = {
        .peripherals = look->answers[PERIPHERALS],
        .cpus = look->answers[CPUS],
        .dimms = look->answers[DIMMS],
        .memory = look->answers[MEMORY],
    };
    vp_detach_ask_again(domain, &present);
    vp_script_try(domain, json_incref(look->leftovers), on_cleaned, look);
}

static void on_answer(void *data, json_t *result, VpError *error)
{
    const Question *question = data;
    Look *look = question->look;

    look->answers[question->index] = json_incref(result);
    vp_error_free(error);
    if (--look->left == 0)
        conclude(look);
}

static void ask(Look *look, guint index, const char *command, json_t *arguments)
{
    look->questions[index] = (Question){.look = look, .index = index};
    vp_qmp_execute(look->domain->qmp, command, arguments, 0, on_answer, &look->questions[index]);
}

void vp_qemu_devices_look(VpQemuDomain *domain, const char *reason)
{
    Look *look = g_new0(Look, 1);

    *look =
        (Look){.domain = vp_qemu_domain_ref(domain), .reason = reason, .left = QUESTIONS, .leftovers = json_array()};
    domain->devices->looks++;
    vp_qmp_hold(domain->qmp);
    ask(look, PERIPHERALS, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"));
    ask(look, BLOCKS, "query-block", NULL);
    ask(look, NODES, "query-named-block-nodes", json_pack("{s:b}", "flat", 1));
    ask(look, FDSETS, "query-fdsets", NULL);
    ask(look, CPUS, "query-hotpluggable-cpus", NULL);
    ask(look, DIMMS, "query-memory-devices", NULL);
    ask(look, MEMORY, "query-memory-size-summary", NULL);
    vp_qmp_send(domain->qmp);
}
