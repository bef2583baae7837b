/* See equipment.h. */
#include "equipment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pb.h"
#include "firmware.h"
#include "folder.h"
#include "helper_process.h"
#include "helpers.h"
#include "host_parts.h"
#include "ids.h"
#include "nic.h"
#include "process.h"
#include "storage/chain/open.h"

void vp_equipment_init(VpEquipment *equipment)
{
    equipment->fds = g_array_new(FALSE, FALSE, sizeof(int));
    equipment->serial_ports = g_array_new(FALSE, FALSE, sizeof(VpPortFds));
    equipment->endpoints = g_ptr_array_new_with_free_func(vp_pb_free);
    equipment->secrets = g_array_new(FALSE, FALSE, sizeof(int));
    equipment->nics = g_array_new(FALSE, FALSE, sizeof(VpNicFds));
    equipment->folders = g_array_new(FALSE, FALSE, sizeof(int));
    equipment->vsock_fd = -1;
    equipment->helpers = g_array_new(FALSE, FALSE, sizeof(VpProcess));
    equipment->agent = (VpPortFds){-1, -1};
    equipment->kernel_fd = -1;
    equipment->initrd_fd = -1;
    equipment->firmware = (VpFirmwareFds){-1, -1, FALSE};
    equipment->template_fd = -1;
    equipment->screen_fd = -1;
    equipment->tpm_fd = -1;
}

void vp_equipment_close(VpEquipment *equipment)
{
    for (guint i = 0; i < equipment->fds->len; i++)
        close(g_array_index(equipment->fds, int, i));
    g_array_set_size(equipment->fds, 0);
}

void vp_equipment_clear(VpEquipment *equipment)
{
    vp_equipment_close(equipment);
    g_array_unref(equipment->fds);
    g_array_unref(equipment->serial_ports);
    g_array_unref(equipment->secrets);
    g_array_unref(equipment->nics);
    g_array_unref(equipment->folders);
    vp_helpers_end(equipment->helpers);
    g_array_unref(equipment->helpers);
    g_clear_pointer(&equipment->endpoints, g_ptr_array_unref);
    g_clear_pointer(&equipment->screen_path, g_free);
}

static int keep(VpEquipment *equipment, int fd)
{
    g_array_append_val(equipment->fds, fd);
    return fd;
}

/* ---- files that the spec names ---- */

static VpError *refused(const char *field, const char *path, const char *why)
{
    VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "FILE_REFUSED", "%s: %s %s", field, path, why);

    return vp_error_violation(vp_error_with(error, "path", path), field, "%s %s", path, why);
}

static VpError *open_file(VpEquipment *equipment, VpOpener *opener, const char *field, const char *path, int *ret_fd)
{
    VpOpenRefusal refusal = {0};
    VpOpened opened = {.fd = -1};
    VpError *error = vp_opener_open(opener, path, /* write= */ FALSE, &opened, &refusal);

    if (!error && opened.fd < 0)
        error = refused(field, path, refusal.why ? refusal.why : "cannot be opened");
    g_free(refusal.why);
    if (error)
        return error;
    keep(equipment, opened.fd);
    if (!S_ISREG(opened.st.st_mode))
        return refused(field, path, "is not a regular file");
    *ret_fd = opened.fd;
    return NULL;
}

/* A file of the host's own, that its packages installed. */
static VpError *open_installed(VpEquipment *equipment, const char *path, int *ret_fd)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return vp_error_errno(errno, "FIRMWARE", "cannot open %s", path);
    *ret_fd = keep(equipment, fd);
    return NULL;
}

static VpError *open_firmware(VpEquipment *equipment, const PbDomainSpec *spec, const char *architecture)
{
    const VpFirmwareWish wish = {
        .architecture = architecture,
        .machine = spec->machine,
        .secure_boot = spec->firmware->secure_boot,
    };
    VpFirmware firmware = {0};
    VpError *error = vp_firmware_find(&wish, &firmware);

    if (!error)
        error = open_installed(equipment, firmware.code_path, &equipment->firmware.code_fd);
    if (!error)
        error = open_installed(equipment, firmware.template_path, &equipment->template_fd);
    equipment->firmware.secure = firmware.secure;
    vp_firmware_clear(&firmware);
    return error;
}

static VpError *open_kernel(VpEquipment *equipment, const PbKernelBoot *kernel, const VpImagePolicy *policy)
{
    g_auto(VpOpener) opener;

    vp_opener_init(&opener, policy ? policy : &vp_image_policy_default);
    VpError *error =
        open_file(equipment, &opener, "domain.spec.kernel.kernel_path", kernel->kernel_path, &equipment->kernel_fd);
    if (!error && kernel->initrd_path[0])
        error =
            open_file(equipment, &opener, "domain.spec.kernel.initrd_path", kernel->initrd_path, &equipment->initrd_fd);
    return error;
}

/* ---- shared folders ---- */

/* What is the daemon's own is not for guests: the state folder, and what holds it. */
static gboolean holds_state(int fd, const char *state_dir)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *path = g_file_read_link(link, NULL);
    g_autofree char *daemon = g_path_get_dirname(state_dir);
    g_autofree char *state = realpath(daemon, NULL);

    if (!path || !state)
        return TRUE;
    const gsize length = strlen(path);
    const gsize state_length = strlen(state);
    const gboolean above = strncmp(state, path, length) == 0 && (state[length] == '/' || !state[length] || length == 1);
    return above || (strncmp(path, state, state_length) == 0 && path[state_length] == '/');
}

static VpError *open_folder(VpEquipment *equipment, VpOpener *opener, const char *field, const char *path,
                            const char *state_dir)
{
    VpOpenRefusal refusal = {0};
    int fd = -1;
    VpError *error = vp_opener_open_folder(opener, path, &fd, &refusal);

    if (!error && fd < 0)
        error = refused(field, path, refusal.why ? refusal.why : "cannot be opened");
    g_free(refusal.why);
    if (error)
        return error;
    keep(equipment, fd);
    if (holds_state(fd, state_dir))
        return refused(field, path, "has the daemon's own files in it");
    g_array_append_val(equipment->folders, fd);
    return NULL;
}

static VpError *open_folders(VpEquipment *equipment, const PbDomainSpec *spec, const VpDriverHost *host)
{
    g_auto(VpOpener) opener;
    VpError *error = NULL;

    vp_opener_init(&opener, host->images ? host->images : &vp_image_policy_default);
    for (size_t i = 0; i < spec->n_shared_folders && !error; i++) {
        g_autofree char *field = g_strdup_printf("domain.spec.shared_folders[%zu].path", i);

        error = open_folder(equipment, &opener, field, spec->shared_folders[i]->path, host->state_dir);
    }
    return error;
}

/* Puts the connection in the place of the folder. */
static VpError *serve_folders(VpEquipment *equipment, const PbDomainSpec *spec, const char *dir)
{
    for (guint i = 0; i < spec->n_shared_folders; i++) {
        g_autofree char *field = g_strdup_printf("domain.spec.shared_folders[%u].path", i);
        int *fd = &g_array_index(equipment->folders, int, i);
        VpError *error = vp_virtiofs_start(dir, i, *fd, equipment->helpers, fd);

        if (error)
            return vp_error_violation(vp_error_prefix(error, "%s", field), field, "cannot be shared");
        keep(equipment, *fd);
    }
    return NULL;
}

static VpError *open_vsock(VpEquipment *equipment, const PbVsock *vsock)
{
    VpError *error = vp_vsock_open(vsock->cid, &equipment->vsock_fd);

    if (!error) {
        keep(equipment, equipment->vsock_fd);
        return NULL;
    }
    g_autofree char *why = g_strdup(error->message);
    return vp_error_violation(vp_error_prefix(error, "domain.spec.vsock"), "domain.spec.vsock", "%s", why);
}

/* ---- secrets ---- */

/* The value goes into a pipe, which holds all that a secret may have. What QEMU has read is gone from it. */
static VpError *fill_pipe(void *data, const void *value, gsize length)
{
    int *ends = data;

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return vp_error_errno(errno, "SPAWN_FAILED", "cannot make a pipe");
    const ssize_t n = write(ends[1], value, length);
    close(ends[1]);
    if (n == (ssize_t)length)
        return NULL;
    close(ends[0]);
    ends[0] = -1;
    return vp_error_new(VP_RESOURCE_EXHAUSTED, "SPAWN_FAILED",
                        "a pipe has no room for a secret of %" G_GSIZE_FORMAT " bytes", length);
}

VpError *vp_secret_pipe(const VpDriverHost *host, const char *secret, int *ret_fd)
{
    int ends[2] = {-1, -1};
    VpError *error = host->secret(host->data, secret, fill_pipe, ends);

    if (!error)
        *ret_fd = ends[0];
    return error;
}

static VpError *open_secrets(VpEquipment *equipment, const PbDomainSpec *spec, const VpDriverHost *host)
{
    for (size_t i = 0; i < spec->n_disks; i++) {
        g_autofree char *field = g_strdup_printf("domain.spec.disks[%zu].secret", i);
        int fd = -1;

        if (spec->disks[i]->secret[0]) {
            VpError *error = vp_secret_pipe(host, spec->disks[i]->secret, &fd);

            if (error)
                return vp_error_violation(vp_error_prefix(error, "%s", field), field, "%s cannot be used",
                                          spec->disks[i]->secret);
            keep(equipment, fd);
        }
        g_array_append_val(equipment->secrets, fd);
    }
    return NULL;
}

VpError *vp_equipment_open(VpEquipment *equipment, const PbDomainSpec *spec, const char *architecture,
                           const VpDriverHost *host)
{
    VpError *error = NULL;

    if (spec->kernel && spec->kernel->kernel_path[0])
        error = open_kernel(equipment, spec->kernel, host->images);
    if (!error && spec->firmware && spec->firmware->type == PB_FIRMWARE_TYPE_UEFI)
        error = open_firmware(equipment, spec, architecture);
    if (!error)
        error = vp_host_parts_check(spec, "/sys");
    if (!error)
        error = open_folders(equipment, spec, host);
    if (!error)
        error = open_secrets(equipment, spec, host);
    return error;
}

/* ---- what lies in the domain's folder ---- */

static PbDomainEndpoint *add_endpoint(VpEquipment *equipment, const char *device, const char *dir, const char *socket)
{
    PbDomainEndpoint *endpoint = vp_pb_new(&pb_domain_endpoint__descriptor);

    vp_pb_set(&endpoint->device, device);
    vp_pb_printf(&endpoint->socket_path, "%s/%s", dir, socket);
    g_ptr_array_add(equipment->endpoints, endpoint);
    return endpoint;
}

/* The socket of the guest's agent: the daemon's own, no endpoint for others. */
static VpError *make_agent(VpEquipment *equipment, const char *dir)
{
    VpError *error = vp_folder_listen_at(dir, VP_ID_AGENT ".sock", &equipment->agent.socket_fd);

    if (!error)
        keep(equipment, equipment->agent.socket_fd);
    return error;
}

/* The socket and the log of a port. */
static VpError *make_port(VpEquipment *equipment, const char *dir, const char *device, gboolean log, VpPortFds *ret)
{
    g_autofree char *socket = g_strconcat(device, ".sock", NULL);
    g_autofree char *log_name = g_strconcat(device, ".log", NULL);
    VpPortFds fds = {-1, -1};
    VpError *error = vp_folder_listen_at(dir, socket, &fds.socket_fd);

    if (error)
        return error;
    keep(equipment, fds.socket_fd);
    if (log) {
        error = vp_folder_open_log_at(dir, log_name, &fds.log_fd);
        if (error)
            return error;
        keep(equipment, fds.log_fd);
    }
    PbDomainEndpoint *endpoint = add_endpoint(equipment, device, dir, socket);
    if (log)
        vp_pb_printf(&endpoint->log_path, "%s/%s", dir, log_name);
    *ret = fds;
    return NULL;
}

/* The firmware's variables: a copy of the template, made once and kept for as long as the domain is. */
static VpError *make_variables(VpEquipment *equipment, const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "variables.fd", NULL);
    VpError *error = NULL;

    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        error = vp_copy_file(equipment->template_fd, path);
    if (error)
        return error;
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return vp_error_errno(errno, "STATE_DIR", "cannot open %s", path);
    equipment->firmware.variables_fd = keep(equipment, fd);
    return NULL;
}

/* QEMU makes these sockets itself, in the one folder of the domain's that it can write to. Where that is not shown at its own place it is reached by its
 * descriptor, by which a path is short, too. */
static VpError *make_screens(VpEquipment *equipment, const PbDomainSpec *spec, const char *dir,
                             const VpContainment *containment)
{
    g_autofree char *folder = g_build_filename(dir, "screen", NULL);
    VpError *error = vp_containment_make_folder(containment, "screen", /* for_helper= */ FALSE);

    if (error)
        return error;
    if (containment->own_root) {
        equipment->screen_path = vp_containment_path(containment, "screen");
    } else {
        const int fd = open(folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0)
            return vp_error_errno(errno, "STATE_DIR", "cannot open the folder %s", folder);
        equipment->screen_fd = keep(equipment, fd);
    }
    for (size_t i = 0; i < spec->n_graphics; i++) {
        if (spec->graphics[i] == PB_GRAPHICS_TYPE_VNC)
            add_endpoint(equipment, "vnc", folder, "vnc.sock");
        else
            add_endpoint(equipment, "spice", folder, "spice.sock");
    }
    return NULL;
}

static VpError *make_serial_ports(VpEquipment *equipment, const PbDomainSpec *spec, const char *dir)
{
    for (size_t i = 0; i < spec->n_serial_ports; i++) {
        g_autofree char *device = g_strdup_printf("serial%zu", i);
        VpPortFds fds;
        VpError *error = make_port(equipment, dir, device, !spec->serial_ports[i]->no_log, &fds);

        if (error)
            return error;
        g_array_append_val(equipment->serial_ports, fds);
    }
    return NULL;
}

static void keep_all(VpEquipment *equipment, const VpNicFds *fds)
{
    for (guint i = 0; i < VP_MAX_QUEUES; i++) {
        if (fds->tap_fds[i] >= 0)
            keep(equipment, fds->tap_fds[i]);
        if (fds->vhost_fds[i] >= 0)
            keep(equipment, fds->vhost_fds[i]);
    }
    if (fds->stream_fd >= 0)
        keep(equipment, fds->stream_fd);
}

static VpError *make_nics(VpEquipment *equipment, const PbDomainSpec *spec, PbAccelerator accelerator, const char *uid,
                          const char *dir, const VpContainment *containment)
{
    const VpNicMaking making = {
        .accelerator = accelerator,
        .uid = uid,
        .dir = dir,
        .helpers = equipment->helpers,
        .containment = containment,
    };

    for (size_t i = 0; i < spec->n_interfaces; i++) {
        VpNicFds fds;
        VpError *error = vp_nic_open(&making, spec->interfaces[i], i, &fds);

        keep_all(equipment, &fds);
        if (error)
            return error;
        g_array_append_val(equipment->nics, fds);
    }
    return NULL;
}

/* What QEMU opens by a path below /dev/fd. */
static VpError *let_open(VpEquipment *equipment, const VpContainment *containment)
{
    VpError *error = vp_containment_open_again(containment, &equipment->kernel_fd);

    if (!error)
        error = vp_containment_open_again(containment, &equipment->initrd_fd);
    for (guint i = 0; i < equipment->secrets->len && !error; i++)
        error = vp_containment_open_again(containment, &g_array_index(equipment->secrets, int, i));
    return error;
}

VpError *vp_equipment_make(VpEquipment *equipment, const PbDomainSpec *spec, PbAccelerator accelerator, const char *uid,
                           const char *dir, const VpContainment *containment)
{
    VpError *error = let_open(equipment, containment);

    if (!error)
        error = make_serial_ports(equipment, spec, dir);
    if (!error && spec->guest_agent)
        error = make_agent(equipment, dir);
    if (!error && equipment->template_fd >= 0)
        error = make_variables(equipment, dir);
    if (!error && spec->n_graphics > 0)
        error = make_screens(equipment, spec, dir, containment);
    if (!error)
        error = make_nics(equipment, spec, accelerator, uid, dir, containment);
    if (!error)
        error = serve_folders(equipment, spec, dir);
    if (!error && spec->vsock)
        error = open_vsock(equipment, spec->vsock);
    if (!error && spec->tpm) {
        error = vp_swtpm_start(dir, containment, &equipment->tpm_fd);
        if (!error)
            keep(equipment, equipment->tpm_fd);
    }
    return error;
}

/* ---- into the process ---- */

static int give(GArray *fds, int fd)
{
    if (fd < 0)
        return -1;
    g_array_append_val(fds, fd);
    return VP_PROCESS_FIRST_FD + (int)fds->len - 1;
}

void vp_equipment_give(VpEquipment *equipment, GArray *fds, VpCommandLine *line)
{
    for (guint i = 0; i < equipment->serial_ports->len; i++) {
        VpPortFds *port = &g_array_index(equipment->serial_ports, VpPortFds, i);

        port->socket_fd = give(fds, port->socket_fd);
        port->log_fd = give(fds, port->log_fd);
    }
    line->serial_ports = (const VpPortFds *)equipment->serial_ports->data;
    for (guint i = 0; i < equipment->secrets->len; i++)
        g_array_index(equipment->secrets, int, i) = give(fds, g_array_index(equipment->secrets, int, i));
    line->secret_fds = (const int *)equipment->secrets->data;
    for (guint i = 0; i < equipment->nics->len; i++) {
        VpNicFds *nic = &g_array_index(equipment->nics, VpNicFds, i);

        for (guint queue = 0; queue < nic->n_queues; queue++) {
            nic->tap_fds[queue] = give(fds, nic->tap_fds[queue]);
            nic->vhost_fds[queue] = give(fds, nic->vhost_fds[queue]);
        }
        nic->stream_fd = give(fds, nic->stream_fd);
    }
    for (guint i = 0; i < equipment->folders->len; i++)
        g_array_index(equipment->folders, int, i) = give(fds, g_array_index(equipment->folders, int, i));
    line->folder_fds = (const int *)equipment->folders->data;
    line->vsock_fd = give(fds, equipment->vsock_fd);
    line->nics = (const VpNicFds *)equipment->nics->data;
    line->agent = (VpPortFds){give(fds, equipment->agent.socket_fd), -1};
    line->firmware = equipment->firmware;
    line->firmware.code_fd = give(fds, equipment->firmware.code_fd);
    line->firmware.variables_fd = give(fds, equipment->firmware.variables_fd);
    if (equipment->screen_fd >= 0)
        equipment->screen_path = g_strdup_printf("/dev/fd/%d", give(fds, equipment->screen_fd));
    line->screen_path = equipment->screen_path;
    line->tpm_fd = give(fds, equipment->tpm_fd);
    line->kernel_fd = give(fds, equipment->kernel_fd);
    line->initrd_fd = give(fds, equipment->initrd_fd);
}
