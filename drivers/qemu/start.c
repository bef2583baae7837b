/*
 * The way of a start to its process: see start.h. Two things go on at once: the images are proven on the slow pool, where a disk that hangs holds up
 * starts alone, and STARTING is being committed. When both are done the process is made on the driver's pool: so there is none that the next daemon
 * would not look for.
 */
#include "start.h"

#include <sys/resource.h>
#include <unistd.h>

#include "base/pb.h"
#include "cgroup.h"
#include "command_line.h"
#include "contain.h"
#include "domain.h"
#include "equipment.h"
#include "helper_process.h"
#include "pinning.h"
#include "proof.h"
#include "remote.h"
#include "restore.h"
#include "save_folder.h"

/* Each of the threads that has to do with it holds a reference. */
struct VpQemuStart {
    gint refs;
    VpQemuDriver *driver;
    VpTask *task;
    char *dir;
    gboolean paused;
    gint abort; /* atomic: given up */

    /* The loop's. */
    VpQemuDomain *domain; /* a reference; NULL once given up, or made */
    guint waits_for;      /* of the proof and the commit */
    gboolean making;

    /* Of the thread that is at work, handed on by way of the loop. */
    VpError *error;
    VpQemuFound found;
    PbDomainSpec *spec;     /* complete */
    VpQemuDomain *restored; /* a reference, if it is a restore; of it the thread has `restore` */
    VpContainment *containment;
    PbContainment *contained; /* as the kernel tells it */
    VpEquipment equipment;
    VpProof proof;
    GArray *server_fds; /* of int; connections of QEMU's to servers on this host */
    GArray *fds;        /* in the order of their numbers in the child, from VP_PROCESS_FIRST_FD on; owned elsewhere */
    int listen_fd;
    int log_fd;
    char **argv;
    gboolean has_process;
    VpProcess process;

    VpError *settle_error; /* of the commit */
};

static const PbDomain *model_of(const VpQemuStart *start)
{
    return vp_task_domain(start->task);
}

/* ---- life ---- */

static VpQemuStart *start_new(VpQemuDomain *domain, VpTask *task)
{
    VpQemuStart *start = g_new0(VpQemuStart, 1);

    start->refs = 1;
    start->driver = domain->driver;
    start->task = vp_task_ref(task);
    start->dir = g_strdup(domain->dir);
    start->paused = domain->paused;
    start->domain = vp_qemu_domain_ref(domain);
    start->restored = domain->restore ? vp_qemu_domain_ref(domain) : NULL;
    start->spec = vp_pb_dup(vp_task_domain(task)->spec);
    vp_spec_complete_qemu(start->spec);
    vp_equipment_init(&start->equipment);
    vp_proof_init(&start->proof, start->driver->host->images, &start->abort);
    start->fds = g_array_new(FALSE, FALSE, sizeof(int));
    start->server_fds = g_array_new(FALSE, FALSE, sizeof(int));
    start->listen_fd = -1;
    start->log_fd = -1;
    start->process.pidfd = -1;
    vp_qemu_driver_live(start->driver, 1);
    return start;
}

static void close_servers(VpQemuStart *start)
{
    for (guint i = 0; i < start->server_fds->len; i++)
        close(g_array_index(start->server_fds, int, i));
    g_array_set_size(start->server_fds, 0);
}

static VpQemuStart *start_ref(VpQemuStart *start)
{
    g_atomic_int_inc(&start->refs);
    return start;
}

static void start_unref(VpQemuStart *start)
{
    if (!g_atomic_int_dec_and_test(&start->refs))
        return;
    VpQemuDriver *driver = start->driver;

    vp_proof_clear(&start->proof, driver->host);
    vp_equipment_clear(&start->equipment);
    vp_pb_free(start->spec);
    if (start->restored)
        vp_qemu_domain_unref(start->restored);
    vp_containment_free(start->containment);
    vp_pb_free(start->contained);
    close_servers(start);
    g_array_unref(start->server_fds);
    g_array_unref(start->fds);
    g_strfreev(start->argv);
    vp_qemu_found_clear(&start->found);
    vp_process_clear(&start->process);
    vp_error_free(start->error);
    vp_error_free(start->settle_error);
    vp_task_unref(start->task);
    g_free(start->dir);
    g_free(start);
    vp_qemu_driver_live(driver, -1);
}

static VpError *check_abort(const VpQemuStart *start)
{
    if (!g_atomic_int_get(&start->abort))
        return NULL;
    return vp_error_new(VP_CANCELLED, "CANCELLED", "domain %s: the start was given up", model_of(start)->name);
}

static VpError *workers_busy(const VpQemuStart *start)
{
    return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "WORKERS_BUSY",
                                       "domain %s: too many starts wait for their turn; try again",
                                       model_of(start)->name),
                          1000);
}

/* ---- the chains ---- */

static VpError *prove_disks(VpQemuStart *start)
{
    const PbDomainSpec *spec = start->spec;

    for (size_t i = 0; i < spec->n_disks; i++) {
        VpError *error = check_abort(start);

        if (!error)
            error = vp_proof_disk(&start->proof, spec->disks[i]);
        if (error)
            return error;
    }
    return NULL;
}

/* ---- the command line ---- */

/* Gives a descriptor its number in the child. */
static int give_fd(void *data, int fd)
{
    VpQemuStart *start = data;

    g_array_append_val(start->fds, fd);
    return VP_PROCESS_FIRST_FD + (int)start->fds->len - 1;
}

static VpError *make_command_line(VpQemuStart *start)
{
    g_autoptr(GPtrArray) owned = g_ptr_array_new_with_free_func(g_free);
    g_autofree VpDiskFds *disks = g_new0(VpDiskFds, start->proof.chains->len + 1);
    VpCommandLine line = {
        .binary = start->found.binary,
        .uid = model_of(start)->uid,
        .name = model_of(start)->name,
        .spec = start->spec,
        .architecture = start->found.architecture,
        .accelerator = start->found.accelerator,
        .cpu = start->found.cpu,
        .qmp_fd = give_fd(start, start->listen_fd),
        .disks = disks,
        .incoming = start->restored != NULL,
    };
    guint next_server = 0;

    vp_equipment_give(&start->equipment, start->fds, &line);
    for (guint i = 0; i < start->proof.chains->len; i++) {
        const VpChain *chain = g_ptr_array_index(start->proof.chains, i);
        if (!chain)
            continue;
        VpLayerFds *layers = vp_proof_layers(chain, give_fd, start);

        vp_remote_give(chain, layers, start->server_fds, &next_server, give_fd, start);
        g_ptr_array_add(owned, layers);
        disks[i] = (VpDiskFds){.layers = layers, .n_layers = chain->files->len};
    }
    return vp_command_line(&line, &start->argv);
}

/* ---- the process ---- */

static VpError *record_process(void *data, pid_t pid, guint64 start_ticks)
{
    const VpQemuStart *start = data;
    const PbPinning *pinning = start->spec->pinning;
    const struct rlimit any = {RLIM_INFINITY, RLIM_INFINITY};
    cpu_set_t set;
    const VpRecord record = {
        .pid = pid,
        .start_ticks = start_ticks,
        .paused = start->paused,
        .accelerator = start->found.accelerator,
        .restore = start->restored ? VP_RESTORE_READING : VP_RESTORE_NONE,
    };

    VpError *error = vp_folder_write_record(start->dir, &record);
    if (!error && start->spec->limits)
        error = vp_cgroup_enter(start->dir, pid);
    /* VFIO locks the guest's memory. Without the right to allow that QEMU says so itself. */
    if (!error && start->spec->n_host_devices)
        prlimit(pid, RLIMIT_MEMLOCK, &any, NULL);
    /* All that QEMU makes starts where it is itself; virtual CPUs and I/O threads are bound when it tells which they are. */
    if (!error && pinning && vp_cpu_set_parse(pinning->emulator_cpus, &set))
        error = vp_pinning_bind(pid, &set);
    return error;
}

static VpError *make_cgroup(VpQemuStart *start)
{
    g_autofree char *mounts = NULL;
    g_auto(VpCgroupHost) host = {0};

    if (!start->spec->limits)
        return NULL;
    g_file_get_contents("/proc/self/mountinfo", &mounts, NULL, NULL);
    vp_cgroup_host_read(mounts ? mounts : "", &host);
    return vp_cgroup_make(&host, start->driver->cgroup, model_of(start)->uid, start->spec->limits, start->dir);
}

static VpError *make_process(VpQemuStart *start)
{
    VpError *error = check_abort(start);

    if (error)
        return error;
    g_autoptr(VpConfinement) confinement =
        vp_containment_qemu(start->containment, start->found.binary, start->spec, start->found.accelerator);
    const VpProcessSpec spec = {
        .argv = (const char *const *)start->argv,
        .fds = (const int *)start->fds->data,
        .n_fds = start->fds->len,
        .output_fd = start->log_fd,
        .record = record_process,
        .data = start,
        .confine = &confinement->confine,
    };
    error = vp_process_spawn(&spec, &start->process);
    start->has_process = !error;
    if (!error)
        start->contained = vp_contain_look(start->process.pid, start->containment->missing);
    return error;
}

static VpError *make_in_folder(VpQemuStart *start)
{
    VpError *error =
        vp_contain_domain(start->driver->contain, model_of(start)->uid, start->dir, start->found.accelerator,
                          vp_remote_needs_network(start->spec, start->proof.chains), &start->containment);

    if (!error)
        error = vp_folder_open_log(start->dir, &start->log_fd);
    if (!error)
        error = vp_folder_listen(start->dir, &start->listen_fd);
    if (!error)
        error = vp_equipment_make(&start->equipment, start->spec, start->found.accelerator, model_of(start)->uid,
                                  start->dir, start->containment);
    if (!error)
        error = make_cgroup(start);
    if (!error)
        error = make_command_line(start);
    if (!error)
        error = make_process(start);
    if (error)
        vp_folder_ended(start->dir);
    return error;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- the steps ---- */

/* It is over, with a process or without: the domain is told. */
static void start_end(VpQemuStart *start, VpError *error)
{
    VpQemuDomain *domain = g_steal_pointer(&start->domain);

    domain->start = NULL;
    if (error)
        vp_error_with(error, "domain", domain->name);
    if (start->has_process) {
        domain->process = start->process;
        domain->has_process = TRUE;
        domain->accelerator = start->found.accelerator;
        start->process.pidfd = -1;
        vp_pb_free(domain->contained);
        domain->contained = g_steal_pointer(&start->contained);
        g_array_append_vals(domain->helpers, start->equipment.helpers->data, start->equipment.helpers->len);
        g_array_set_size(start->equipment.helpers, 0);
        g_ptr_array_extend_and_steal(domain->disks, g_steal_pointer(&start->proof.disks));
        g_ptr_array_extend_and_steal(domain->findings, g_steal_pointer(&start->proof.findings));
        g_ptr_array_extend_and_steal(domain->endpoints, g_steal_pointer(&start->equipment.endpoints));
    }
    vp_qemu_domain_made(domain, error);
    vp_qemu_domain_unref(domain);
    start_unref(start);
}

static void on_made(void *data)
{
    VpQemuStart *start = data;

    start_end(start, g_steal_pointer(&start->error));
    start_unref(start);
}

/* On a thread of the driver's pool. */
static void make(void *data)
{
    VpQemuStart *start = data;

    start->error = vp_folder_make(start->dir);
    /* What was saved does not fit the disks any more once the domain has run; and a save that is done is not to be completed again. */
    if (!start->error && start->restored)
        vp_save_note_drop(start->dir);
    else if (!start->error)
        vp_save_remove_all(start->dir);
    if (!start->error)
        start->error = make_in_folder(start);
    /* QEMU has its own descriptors now. Ours must go: the image locks hang on them, and the end of its socket is seen by them. */
    close_fd(&start->listen_fd);
    close_fd(&start->log_fd);
    close_servers(start);
    g_ptr_array_set_size(start->proof.chains, 0);
    vp_equipment_close(&start->equipment);
    if (!start->has_process)
        vp_helpers_end(start->equipment.helpers);
    vp_loop_post(start->driver->host->loop, on_made, start);
}

/* The proof or the commit is through, with `error` or without. */
static void step_done(VpQemuStart *start, VpError *error)
{
    if (!start->domain) {
        vp_error_free(error);
        return;
    }
    if (error) {
        start_end(start, error);
        return;
    }
    if (--start->waits_for > 0)
        return;
    start->making = TRUE;
    if (!vp_pool_submit(start->driver->host->pool, make, start_ref(start))) {
        start_unref(start);
        start_end(start, workers_busy(start));
    }
}

static void on_proven(void *data)
{
    VpQemuStart *start = data;

    if (start->domain && start->restored && !start->error)
        vp_qemu_restore_proven(start->domain, start->spec, start->paused);
    step_done(start, g_steal_pointer(&start->error));
    start_unref(start);
}

/* On a thread of the slow pool. */
static void prove(void *data)
{
    VpQemuStart *start = data;

    start->error = check_abort(start);
    if (!start->error && start->restored)
        start->error =
            vp_qemu_restore_open(start->restored->restore, start->driver->host, &start->spec, &start->paused);
    if (!start->error)
        start->error = vp_qemu_driver_check_arguments(start->driver, start->spec);
    if (!start->error)
        start->error = vp_qemu_probe_find(start->driver->probe, start->spec->accelerator, &start->found);
    if (!start->error)
        start->error = vp_qemu_probe_fit(start->driver->probe, &start->found, start->spec);
    if (!start->error)
        start->error = vp_pinning_check(start->spec);
    if (!start->error)
        start->error = prove_disks(start);
    if (!start->error && start->restored)
        start->error = vp_qemu_restore_check(start->restored->restore, start->spec, &start->proof);
    if (!start->error)
        start->error = vp_remote_connect(start->proof.chains, start->server_fds);
    if (!start->error)
        start->error =
            vp_equipment_open(&start->equipment, start->spec, start->found.architecture, start->driver->host);
    if (start->error)
        g_ptr_array_set_size(start->proof.chains, 0);
    vp_loop_post(start->driver->host->loop, on_proven, start);
}

static void on_committed(void *data)
{
    VpQemuStart *start = data;

    step_done(start, g_steal_pointer(&start->settle_error));
    start_unref(start);
}

/* On any thread. */
static void on_settled(void *data, VpError *error)
{
    VpQemuStart *start = data;

    start->settle_error = error ? vp_error_prefix(error, "domain %s is not started, since that could not be recorded",
                                                  model_of(start)->name)
                                : NULL;
    vp_loop_post(start->driver->host->loop, on_committed, start);
}

void vp_qemu_start_begin(VpQemuDomain *domain, VpTask *task)
{
    VpQemuStart *start = start_new(domain, task);
    const VpDriverHost *host = start->driver->host;

    domain->start = start;
    start->waits_for = 2;
    if (!vp_pool_submit(host->slow_pool, prove, start_ref(start))) {
        start_unref(start);
        start_end(start, workers_busy(start));
        return;
    }
    host->settle(host->data, domain->uid, on_settled, start_ref(start));
}

gboolean vp_qemu_start_give_up(VpQemuDomain *domain)
{
    VpQemuStart *start = domain->start;

    g_atomic_int_set(&start->abort, 1);
    if (start->making)
        return FALSE;
    start->domain = NULL;
    domain->start = NULL;
    vp_qemu_domain_unref(domain);
    start_unref(start);
    return TRUE;
}
