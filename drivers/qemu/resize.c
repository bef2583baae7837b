/* Limits, virtual CPUs and memory of a domain that runs: see change_parts.h. */
#include "change_parts.h"

#include "base/pb.h"
#include "domain_parts.h"
#include "drivers/spec_change.h"
#include "live_commands.h"
#include "sizes.h"

/* Memory comes in the pieces in which Linux takes it. */
#define PIECE_BYTES (G_GUINT64_CONSTANT(128) << 20)

guint32 vp_resize_vcpus_of(const PbDomainSpec *spec)
{
    return MAX(spec->vcpus, 1);
}

guint64 vp_resize_memory_of(const PbDomainSpec *spec)
{
    return spec->memory_bytes ? spec->memory_bytes : VP_DEFAULT_MEMORY_BYTES;
}

static VpError *no_answer(void)
{
    return vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE", "QEMU does not answer");
}

/* ---- limits ---- */

typedef struct Limits {
    VpQemuChange *change;
    guint index;
} Limits;

static void on_limited(void *data, VpError *error)
{
    g_autofree Limits *limits = data;
    VpQemuChange *change = limits->change;
    VpQemuDomain *domain = change->domain;
    const PbDisk *wanted = change->wanted->disks[limits->index];
    PbDisk *live = vp_spec_find_disk(domain->live, wanted->target);

    if (!error && live && domain->phase == VP_PHASE_UP) {
        g_autofree char *detail = g_strdup_printf("%s: limits", wanted->target);

        vp_pb_free(live->throttle);
        live->throttle = vp_pb_dup(wanted->throttle);
        vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_CHANGED, "REQUESTED", detail, NULL);
    }
    vp_qemu_change_step_done(change, error ? vp_error_prefix(error, "disk %s", wanted->target) : NULL);
    vp_qemu_change_unref(change);
}

void vp_step_throttle(VpQemuChange *change, guint index)
{
    const PbDisk *wanted = change->wanted->disks[index];
    const PbDisk *live = vp_spec_find_disk(change->domain->live, wanted->target);
    Limits *limits = g_new(Limits, 1);

    *limits = (Limits){.change = vp_qemu_change_ref(change), .index = index};
    change->script =
        vp_script_run(change->domain, live ? vp_live_throttle(live, wanted) : json_array(), on_limited, limits);
}

/* ---- CPUs and memory: both are asked for, changed, and asked for again ---- */

/* What goes from callback to callback. Holds a reference to the change. */
typedef struct Resize {
    VpQemuChange *change;
    json_t *devices; /* attached memory */
    VpError *error;  /* of the change of size */
} Resize;

static Resize *resize_new(VpQemuChange *change)
{
    Resize *resize = g_new0(Resize, 1);

    resize->change = vp_qemu_change_ref(change);
    return resize;
}

static void resize_end(Resize *resize, VpError *error)
{
    VpQemuChange *change = resize->change;

    if (error)
        vp_error_free(resize->error);
    else
        error = resize->error;
    json_decref(resize->devices);
    g_free(resize);
    vp_qemu_change_step_done(change, error);
    vp_qemu_change_unref(change);
}

/* Asks QEMU; without a connection the step ends. */
static void ask(Resize *resize, const char *command, VpQmpDone done)
{
    VpQmp *qmp = resize->change->domain->qmp;

    if (qmp)
        vp_qmp_execute(qmp, command, NULL, 0, done, resize);
    else
        resize_end(resize, no_answer());
}

/* ---- CPUs ---- */

static void tell_vcpus(VpQemuDomain *domain, guint vcpus, const char *reason)
{
    g_autofree char *detail = g_strdup_printf("vcpus: %u", vcpus);

    if (vp_resize_vcpus_of(domain->live) == vcpus)
        return;
    domain->live->vcpus = vcpus;
    vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_CHANGED, reason, detail, NULL);
}

static void on_pinned(VpQemuDomain *domain, VpError *error)
{
    if (error)
        vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_CHANGED, "PINNING_FAILED", error->message, NULL);
    vp_error_free(error);
}

static void on_counted(void *data, json_t *result, VpError *error)
{
    Resize *resize = data;
    VpQemuDomain *domain = resize->change->domain;

    if (!error && domain->phase == VP_PHASE_UP) {
        tell_vcpus(domain, vp_sizes_vcpus(result), "REQUESTED");
        if (domain->pinning && domain->qmp)
            vp_qemu_domain_pin(domain, on_pinned);
    }
    resize_end(resize, error);
}

static void on_vcpus_added(void *data, VpError *error)
{
    Resize *resize = data;

    resize->change->script = NULL;
    resize->error = error;
    ask(resize, "query-hotpluggable-cpus", on_counted);
}

static void add_vcpus(Resize *resize, json_t *cpus, guint n)
{
    g_autoptr(GPtrArray) free_ones = vp_sizes_free_vcpus(cpus, n);
    json_t *commands = json_array();

    for (guint i = 0; i < free_ones->len; i++) {
        json_t *added = vp_live_add_cpu(free_ones->pdata[i]);

        json_array_extend(commands, added);
        json_decref(added);
    }
    if (free_ones->len < n) {
        json_decref(commands);
        resize_end(resize, vp_error_new(VP_FAILED_PRECONDITION, "NO_FREE_SLOT",
                                        "the machine that runs has room for %u more virtual CPUs alone; cpu.max_vcpus "
                                        "says how many from the next start on",
                                        free_ones->len));
        return;
    }
    resize->change->script = vp_script_run(resize->change->domain, commands, on_vcpus_added, resize);
}

static void remove_vcpus(Resize *resize, json_t *cpus, guint n)
{
    VpQemuChange *change = resize->change;
    g_autoptr(GPtrArray) paths = vp_sizes_last_vcpus(cpus, n);

    /* The CPU goes, and QEMU 7.2 dies when the next one comes. */
    if (change->domain->accelerator == PB_ACCELERATOR_TCG) {
        resize_end(resize, vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED",
                                        "QEMU does not survive it when virtual CPUs that it emulates (TCG) are taken "
                                        "away; with CHANGE_SCOPE_STORED there are fewer from the next start on"));
        return;
    }
    PbPendingDetach *detach = vp_pb_new(&pb_pending_detach__descriptor);

    detach->device_case = PB_PENDING_DETACH__DEVICE_VCPUS;
    detach->vcpus = vp_resize_vcpus_of(change->wanted);
    vp_detach_ask(change, (const char *const *)paths->pdata, paths->len, detach);
    vp_qemu_change_unref(change);
    g_free(resize);
}

static void on_cpus(void *data, json_t *result, VpError *error)
{
    Resize *resize = data;
    const guint now = vp_sizes_vcpus(result);
    const guint wanted = vp_resize_vcpus_of(resize->change->wanted);

    if (error || vp_qemu_change_is_over(resize->change) || now == wanted)
        resize_end(resize, error);
    else if (now < wanted)
        add_vcpus(resize, result, wanted - now);
    else
        remove_vcpus(resize, result, now - wanted);
}

void vp_step_vcpus(VpQemuChange *change)
{
    ask(resize_new(change), "query-hotpluggable-cpus", on_cpus);
}

/* ---- memory ---- */

static void tell_memory(VpQemuDomain *domain, guint64 bytes, const char *reason)
{
    g_autofree char *detail = g_strdup_printf("memory: %" G_GUINT64_FORMAT " bytes", bytes);

    if (vp_resize_memory_of(domain->live) == bytes)
        return;
    domain->live->memory_bytes = bytes;
    vp_qemu_devices_report(domain, PB_EVENT_TYPE_DEVICE_CHANGED, reason, detail, NULL);
}

static gboolean has_balloon(const VpQemuDomain *domain)
{
    return !domain->live->memory || !domain->live->memory->no_balloon;
}

static void append_balloon(json_t *commands, guint64 bytes)
{
    json_array_append_new(commands,
                          json_pack("{s:s, s:{s:I}}", "execute", "balloon", "arguments", "value", (json_int_t)bytes));
}

static void on_memory_done(void *data, VpError *error)
{
    Resize *resize = data;
    VpQemuDomain *domain = resize->change->domain;

    resize->change->script = NULL;
    if (!error && domain->phase == VP_PHASE_UP)
        tell_memory(domain, vp_resize_memory_of(resize->change->wanted), "REQUESTED");
    resize_end(resize, error);
}

static void run(Resize *resize, json_t *commands)
{
    resize->change->script = vp_script_run(resize->change->domain, commands, on_memory_done, resize);
}

static void add_memory(Resize *resize, guint64 bytes)
{
    VpQemuDomain *domain = resize->change->domain;
    const guint64 wanted = vp_resize_memory_of(resize->change->wanted);
    const guint slots = domain->live->memory ? domain->live->memory->slots : 0;
    guint n = 0;
    const guint number = vp_sizes_free_dimm(resize->devices, &n);

    if (n >= slots) {
        resize_end(resize, vp_error_new(VP_FAILED_PRECONDITION, "NO_FREE_SLOT",
                                        "the machine that runs has no free slot for memory, of %u; memory.slots says "
                                        "how many there are from the next start on",
                                        slots));
        return;
    }
    if (bytes % PIECE_BYTES != 0) {
        resize_end(resize, vp_error_new(VP_FAILED_PRECONDITION, "MEMORY_PIECES",
                                        "memory is attached in pieces of 128 MiB, and %" G_GUINT64_FORMAT
                                        " bytes more are none",
                                        bytes));
        return;
    }
    json_t *commands = vp_live_add_dimm(domain->live, number, bytes);
    /* Whatever the guest gave back before, it gets it again. */
    if (has_balloon(domain))
        append_balloon(commands, wanted);
    run(resize, commands);
}

static void set_balloon(Resize *resize)
{
    json_t *commands = json_array();

    if (!has_balloon(resize->change->domain)) {
        json_decref(commands);
        resize_end(resize, vp_error_new(VP_FAILED_PRECONDITION, "NO_BALLOON",
                                        "the guest has no balloon (memory.no_balloon), and no attached memory of that "
                                        "size to let go of"));
        return;
    }
    append_balloon(commands, vp_resize_memory_of(resize->change->wanted));
    run(resize, commands);
}

static void remove_memory(Resize *resize, guint64 bytes)
{
    VpQemuChange *change = resize->change;
    guint64 leaving = 0;
    g_autoptr(GPtrArray) ids = vp_sizes_leaving_dimms(resize->devices, bytes, &leaving);

    if (ids->len == 0) {
        set_balloon(resize);
        return;
    }
    if (leaving < bytes && !has_balloon(change->domain)) {
        set_balloon(resize);
        return;
    }
    PbPendingDetach *detach = vp_pb_new(&pb_pending_detach__descriptor);
    detach->device_case = PB_PENDING_DETACH__DEVICE_MEMORY_BYTES;
    detach->memory_bytes = vp_resize_memory_of(change->wanted);
    vp_detach_ask(change, (const char *const *)ids->pdata, ids->len, detach);
    vp_qemu_change_unref(change);
    json_decref(resize->devices);
    g_free(resize);
}

static void on_summary(void *data, json_t *result, VpError *error)
{
    Resize *resize = data;
    const guint64 now = vp_sizes_memory(result);
    const guint64 wanted = vp_resize_memory_of(resize->change->wanted);

    if (error || vp_qemu_change_is_over(resize->change))
        resize_end(resize, error);
    else if (now < wanted)
        add_memory(resize, wanted - now);
    else if (now > wanted)
        remove_memory(resize, now - wanted);
    else
        set_balloon(resize);
}

static void on_devices(void *data, json_t *result, VpError *error)
{
    Resize *resize = data;

    if (error || vp_qemu_change_is_over(resize->change)) {
        resize_end(resize, error);
        return;
    }
    resize->devices = json_incref(result);
    ask(resize, "query-memory-size-summary", on_summary);
}

void vp_step_memory(VpQemuChange *change)
{
    ask(resize_new(change), "query-memory-devices", on_devices);
}

/* ---- what the guest has let go of ---- */

/* One look at what there is, after a device has gone that is no disk and no interface. */
typedef struct Recount {
    VpQemuDomain *domain; /* a reference */
    json_t *devices;
} Recount;

static PbPendingDetach *pending_of(const VpQemuDomain *domain, PbPendingDetach__DeviceCase kind)
{
    const GPtrArray *pending = domain->devices->pending;

    for (guint i = 0; i < pending->len; i++) {
        PbPendingDetach *detach = pending->pdata[i];

        if (detach->device_case == kind)
            return detach;
    }
    return NULL;
}

void vp_resize_vcpus_are(VpQemuDomain *domain, guint vcpus, const char *reason)
{
    const PbPendingDetach *detach = pending_of(domain, PB_PENDING_DETACH__DEVICE_VCPUS);
    const gboolean through = detach && vcpus <= detach->vcpus;

    if (through)
        g_ptr_array_remove(domain->devices->pending, (gpointer)detach);
    tell_vcpus(domain, vcpus, reason);
    if (through)
        vp_detach_settle(domain, PB_PENDING_DETACH__DEVICE_VCPUS, "vcpus", NULL);
}

void vp_resize_memory_is(VpQemuDomain *domain, guint64 bytes, json_t *dimms, const char *reason)
{
    const PbPendingDetach *detach = pending_of(domain, PB_PENDING_DETACH__DEVICE_MEMORY_BYTES);
    guint64 leaving = 0;

    if (!detach) {
        if (bytes < vp_resize_memory_of(domain->live))
            tell_memory(domain, bytes, reason);
        return;
    }
    const guint64 wanted = detach->memory_bytes;
    g_autoptr(GPtrArray) left = vp_sizes_leaving_dimms(dimms, bytes > wanted ? bytes - wanted : 0, &leaving);
    if (left->len > 0) {
        tell_memory(domain, bytes, reason);
        return;
    }
    /* What is no piece of its own the balloon takes. */
    if (bytes > wanted && domain->qmp) {
        json_t *commands = json_array();

        append_balloon(commands, wanted);
        vp_script_try(domain, commands, NULL, NULL);
    }
    g_ptr_array_remove(domain->devices->pending, (gpointer)detach);
    tell_memory(domain, wanted, reason);
    vp_detach_settle(domain, PB_PENDING_DETACH__DEVICE_MEMORY_BYTES, "memory", NULL);
}

static void recount_end(Recount *recount)
{
    json_decref(recount->devices);
    vp_qemu_domain_unref(recount->domain);
    g_free(recount);
}

static void on_recounted_memory(void *data, json_t *result, VpError *error)
{
    Recount *recount = data;

    if (!error && recount->domain->phase == VP_PHASE_UP)
        vp_resize_memory_is(recount->domain, vp_sizes_memory(result), recount->devices, "REQUESTED");
    vp_error_free(error);
    recount_end(recount);
}

static void on_recounted_dimms(void *data, json_t *result, VpError *error)
{
    Recount *recount = data;

    if (error || !recount->domain->qmp) {
        vp_error_free(error);
        recount_end(recount);
        return;
    }
    recount->devices = json_incref(result);
    vp_qmp_execute(recount->domain->qmp, "query-memory-size-summary", NULL, 0, on_recounted_memory, recount);
}

static void on_recounted_vcpus(void *data, json_t *result, VpError *error)
{
    Recount *recount = data;

    if (!error && recount->domain->phase == VP_PHASE_UP)
        vp_resize_vcpus_are(recount->domain, vp_sizes_vcpus(result), "REQUESTED");
    vp_error_free(error);
    recount_end(recount);
}

static void recount(VpQemuDomain *domain, const char *command, VpQmpDone done)
{
    Recount *recount = g_new0(Recount, 1);

    recount->domain = vp_qemu_domain_ref(domain);
    vp_qmp_execute(domain->qmp, command, NULL, 0, done, recount);
}

void vp_resize_recount(VpQemuDomain *domain, const char *dimm)
{
    if (!domain->qmp)
        return;
    if (!dimm) {
        recount(domain, "query-hotpluggable-cpus", on_recounted_vcpus);
        return;
    }
    vp_script_try(domain, vp_live_remove_dimm_memory(dimm), NULL, NULL);
    recount(domain, "query-memory-devices", on_recounted_dimms);
}
