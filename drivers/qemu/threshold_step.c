/* The mark of a disk changes while its domain runs: see change_parts.h and threshold.h. */
#include "base/pb.h"
#include "change_parts.h"
#include "drivers/spec_change.h"
#include "threshold.h"

typedef struct Mark {
    VpQemuChange *change; /* a reference */
    guint index;
} Mark;

static const PbDisk *wanted_of(const Mark *mark)
{
    return mark->change->wanted->disks[mark->index];
}

static void mark_end(Mark *mark, VpError *error)
{
    VpQemuChange *change = mark->change;

    if (error)
        vp_error_prefix(error, "disk %s: its write threshold", wanted_of(mark)->target);
    g_free(mark);
    vp_qemu_change_step_done(change, error);
    vp_qemu_change_unref(change);
}

static void on_set(void *data, VpError *error)
{
    Mark *mark = data;
    VpQemuDomain *domain = mark->change->domain;
    const PbDisk *wanted = wanted_of(mark);
    PbDisk *live = vp_spec_find_disk(domain->live, wanted->target);

    mark->change->script = NULL;
    if (!error && live && domain->phase == VP_PHASE_UP) {
        g_autofree char *detail = g_strdup_printf("%s: write threshold", wanted->target);

        live->write_threshold_bytes = wanted->write_threshold_bytes;
        vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_CHANGED, "REQUESTED", detail, NULL);
    }
    mark_end(mark, error);
}

static void on_nodes(void *data, json_t *result, VpError *error)
{
    Mark *mark = data;
    VpQemuChange *change = mark->change;

    if (error || vp_qemu_change_is_over(change))
        mark_end(mark, error);
    else
        change->script = vp_script_run(change->domain, vp_threshold_commands_of(wanted_of(mark), result), on_set, mark);
}

void vp_step_threshold(VpQemuChange *change, guint index)
{
    VpQmp *qmp = change->domain->qmp;
    Mark *mark = g_new(Mark, 1);

    *mark = (Mark){.change = vp_qemu_change_ref(change), .index = index};
    if (qmp)
        vp_qmp_execute(qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), 0, on_nodes, mark);
    else
        mark_end(mark, vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE", "QEMU does not answer"));
}
