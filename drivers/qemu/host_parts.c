/* vsock, and what is looked at before a start: see host_parts.h. */
#include "host_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/vhost.h>

#include "pinning.h"

/* ---- vsock ---- */

VpError *vp_vsock_open(guint32 cid, int *ret_fd)
{
    const int fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);
    guint64 wanted = cid;

    if (fd < 0)
        return vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED",
                            "/dev/vhost-vsock cannot be opened: %s; load the module: modprobe vhost_vsock",
                            g_strerror(errno));
    if (ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, &wanted) < 0) {
        const int errnum = errno;

        close(fd);
        return vp_error_new(VP_FAILED_PRECONDITION, errnum == EADDRINUSE ? "VSOCK_CID_TAKEN" : "UNSUPPORTED",
                            "the address %u cannot be had: %s", cid, g_strerror(errnum));
    }
    *ret_fd = fd;
    return NULL;
}

/* ---- PCI devices ---- */

static void refuse(VpError **error, const char *field, const char *format, ...) G_GNUC_PRINTF(3, 4);
static void refuse(VpError **error, const char *field, const char *format, ...)
{
    g_autofree char *path = g_strconcat("domain.spec.", field, NULL);
    va_list args;

    va_start(args, format);
    g_autofree char *why = g_strdup_vprintf(format, args);
    va_end(args);
    if (!*error)
        *error = vp_error_new(VP_FAILED_PRECONDITION, "HOST_DEVICE", "%s: %s", path, why);
    vp_error_violation(*error, path, "%s", why);
}

/* The last part of where a link leads; NULL: there is none. Owned by the caller. */
static char *link_name(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *target = g_file_read_link(path, NULL);

    return target ? g_path_get_basename(target) : NULL;
}

static void check_device(const PbDomainSpec *spec, size_t index, const char *sysfs, VpError **error)
{
    const char *address = spec->host_devices[index]->address;
    g_autofree char *field = g_strdup_printf("host_devices[%zu].address", index);
    g_autofree char *low = g_ascii_strdown(address, -1);
    g_autofree char *dir = g_build_filename(sysfs, "bus/pci/devices", low, NULL);
    g_autofree char *driver = link_name(dir, "driver");
    g_autofree char *group = link_name(dir, "iommu_group");

    if (!g_file_test(dir, G_FILE_TEST_IS_DIR))
        refuse(error, field, "there is no PCI device %s on this host", address);
    else if (!group)
        refuse(error, field,
               "%s is in no IOMMU group: the IOMMU has to be switched on in the firmware and by the kernel's command "
               "line (intel_iommu=on)",
               address);
    else if (g_strcmp0(driver, "vfio-pci") != 0)
        refuse(error, field, "%s is bound to %s and not to vfio-pci; bind it: driverctl set-override %s vfio-pci",
               address, driver ? driver : "no driver", low);
}

/* ---- NUMA ---- */

static void check_node(const PbDomainSpec *spec, size_t index, const char *sysfs, VpError **error)
{
    g_autofree char *field = g_strdup_printf("numa_nodes[%zu].host_nodes", index);
    cpu_set_t set;

    if (!spec->numa_nodes[index]->host_nodes[0] || !vp_cpu_set_parse(spec->numa_nodes[index]->host_nodes, &set))
        return;
    for (guint i = 0; i < CPU_SETSIZE; i++) {
        g_autofree char *name = g_strdup_printf("node%u", i);
        g_autofree char *path = g_build_filename(sysfs, "devices/system/node", name, NULL);

        if (CPU_ISSET(i, &set) && !g_file_test(path, G_FILE_TEST_IS_DIR)) {
            refuse(error, field, "this host has no NUMA node %u", i);
            return;
        }
    }
}

VpError *vp_host_parts_check(const PbDomainSpec *spec, const char *sysfs)
{
    VpError *error = NULL;

    for (size_t i = 0; i < spec->n_host_devices; i++)
        check_device(spec, i, sysfs, &error);
    for (size_t i = 0; i < spec->n_numa_nodes; i++)
        check_node(spec, i, sysfs, &error);
    return error;
}
