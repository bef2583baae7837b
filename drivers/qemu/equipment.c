/* See equipment.h. */
#include "equipment.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/pb.h"
#include "folder.h"
#include "process.h"
#include "storage/chain/open.h"

void vp_equipment_init(VpEquipment *equipment)
{
    equipment->fds = g_array_new(FALSE, FALSE, sizeof(int));
    equipment->serial_ports = g_array_new(FALSE, FALSE, sizeof(VpPortFds));
    equipment->endpoints = g_ptr_array_new_with_free_func(vp_pb_free);
    equipment->kernel_fd = -1;
    equipment->initrd_fd = -1;
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
    g_clear_pointer(&equipment->endpoints, g_ptr_array_unref);
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

VpError *vp_equipment_open(VpEquipment *equipment, const PbDomainSpec *spec, const VpImagePolicy *policy)
{
    g_auto(VpOpener) opener;
    VpError *error = NULL;

    vp_opener_init(&opener, policy ? policy : &vp_image_policy_default);
    if (!spec->kernel || !spec->kernel->kernel_path[0])
        return NULL;
    error = open_file(equipment, &opener, "domain.spec.kernel.kernel_path", spec->kernel->kernel_path,
                      &equipment->kernel_fd);
    if (!error && spec->kernel->initrd_path[0])
        error = open_file(equipment, &opener, "domain.spec.kernel.initrd_path", spec->kernel->initrd_path,
                          &equipment->initrd_fd);
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

VpError *vp_equipment_make(VpEquipment *equipment, const PbDomainSpec *spec, const char *dir)
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
    line->kernel_fd = give(fds, equipment->kernel_fd);
    line->initrd_fd = give(fds, equipment->initrd_fd);
}
