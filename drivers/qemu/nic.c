/* See nic.h. */
#include "nic.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "folder.h"
#include "helper_process.h"
#include "tap.h"

#define TC_TIMEOUT_MS 5000

/* ---- bandwidth ---- */

static VpError *run_tc(const char *const *words)
{
    g_autofree char *binary = vp_helper_find("tc");
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    if (!binary)
        return vp_error_new(
            VP_FAILED_PRECONDITION, "UNSUPPORTED",
            "there is no tc in the daemon's PATH, which limits need; install it: apt-get install iproute2");
    g_ptr_array_add(argv, binary);
    for (; *words; words++)
        g_ptr_array_add(argv, (char *)*words);
    g_ptr_array_add(argv, NULL);
    return vp_helper_run((const char *const *)argv->pdata, -1, NULL, TC_TIMEOUT_MS, "BANDWIDTH");
}

static char *rate_of(const PbBandwidth *bandwidth)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT "bit", bandwidth->bytes_per_second * 8);
}

/* A device sends packets of 64 KiB, which must fit. */
static char *burst_of(const PbBandwidth *bandwidth)
{
    const guint64 burst = bandwidth->burst_bytes ? bandwidth->burst_bytes : bandwidth->bytes_per_second / 20;

    return g_strdup_printf("%" G_GUINT64_FORMAT, MAX(burst, 65536));
}

/* What goes to the guest leaves the host by the device: it waits for its turn. */
static VpError *limit_inbound(const char *tap, const PbBandwidth *bandwidth)
{
    g_autofree char *rate = rate_of(bandwidth);
    g_autofree char *burst = burst_of(bandwidth);
    const char *const words[] = {"qdisc", "replace", "dev", tap,       "root",  "tbf", "rate",
                                 rate,    "burst",   burst, "latency", "100ms", NULL};

    return run_tc(words);
}

/* What comes from the guest is dropped beyond the limit, and it sends slower. */
static VpError *limit_outbound(const char *tap, const PbBandwidth *bandwidth)
{
    g_autofree char *rate = rate_of(bandwidth);
    g_autofree char *burst = burst_of(bandwidth);
    const char *const ingress[] = {"qdisc", "replace", "dev", tap, "handle", "ffff:", "ingress", NULL};
    const char *const police[] = {"filter", "replace", "dev",   tap,     "parent", "ffff:",  "protocol", "all",
                                  "prio",   "1",       "u32",   "match", "u32",    "0",      "0",        "police",
                                  "rate",   rate,      "burst", burst,   "drop",   "flowid", ":1",       NULL};
    VpError *error = run_tc(ingress);

    return error ? error : run_tc(police);
}

/* ---- tap ---- */

static VpError *join_bridge(const char *tap, const char *bridge)
{
    struct ifreq request = {0};
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    VpError *error = NULL;

    if (fd < 0)
        return vp_error_errno(errno, "BRIDGE", "cannot make a socket");
    request.ifr_ifindex = (int)if_nametoindex(tap);
    g_strlcpy(request.ifr_name, bridge, sizeof(request.ifr_name));
    if (if_nametoindex(bridge) == 0)
        error = vp_error_new(VP_NOT_FOUND, "BRIDGE", "there is no bridge %s on the daemon's host", bridge);
    else if (ioctl(fd, SIOCBRADDIF, &request) < 0)
        error = vp_error_errno(errno, "BRIDGE", "cannot put %s on the bridge %s", tap, bridge);
    memset(&request, 0, sizeof(request));
    g_strlcpy(request.ifr_name, tap, sizeof(request.ifr_name));
    if (!error && ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
        request.ifr_flags |= IFF_UP;
        if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
            error = vp_error_errno(errno, "BRIDGE", "cannot bring %s up", tap);
    }
    close(fd);
    return error;
}

/* A queue of the device `name`, which is made with its first one and told there. */
static VpError *open_queue(char *name, gboolean many, int *ret_fd)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return vp_error_errno(errno, "TAP", "cannot open /dev/net/tun");
    if (many)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    g_strlcpy(request.ifr_name, name, sizeof(request.ifr_name));
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        VpError *error = vp_error_errno(errno, "TAP", "cannot make a tap device");

        close(fd);
        return error;
    }
    g_strlcpy(name, request.ifr_name, IFNAMSIZ);
    *ret_fd = fd;
    return NULL;
}

/* Gone with its last descriptor. */
static VpError *open_tap(const VpNicMaking *making, const PbInterface *interface, VpNicFds *fds)
{
    char name[IFNAMSIZ] = "vptap%d";
    const guint queues = CLAMP(interface->queues, 1, VP_MAX_QUEUES);
    VpError *error = NULL;

    for (guint i = 0; i < queues && !error; i++) {
        error = open_queue(name, queues > 1, &fds->tap_fds[i]);
        if (!error)
            fds->n_queues++;
    }
    if (!error) {
        vp_tap_mark(name, interface->mac, making->uid);
        error = join_bridge(name, interface->bridge);
    }
    if (!error && interface->inbound)
        error = limit_inbound(name, interface->inbound);
    if (!error && interface->outbound)
        error = limit_outbound(name, interface->outbound);
    return error;
}

/* ---- vhost ---- */

static gboolean wants_vhost(const VpNicMaking *making, const PbInterface *interface)
{
    if (interface->vhost != PB_VHOST_MODE_UNSPECIFIED)
        return interface->vhost == PB_VHOST_MODE_ON;
    return making->accelerator == PB_ACCELERATOR_KVM && interface->model != PB_INTERFACE_MODEL_E1000;
}

/* Where it goes without saying it goes without. */
static VpError *open_vhost(const PbInterface *interface, VpNicFds *fds)
{
    for (guint i = 0; i < fds->n_queues; i++) {
        fds->vhost_fds[i] = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
        if (fds->vhost_fds[i] >= 0)
            continue;
        if (interface->vhost == PB_VHOST_MODE_ON)
            return vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED",
                                "/dev/vhost-net cannot be opened: %s; load the module: modprobe vhost_net",
                                g_strerror(errno));
        /* All queues or none. */
        for (guint done = 0; done < i; done++) {
            close(fds->vhost_fds[done]);
            fds->vhost_fds[done] = -1;
        }
        return NULL;
    }
    return NULL;
}

/* ---- passt ---- */

static VpError *run_passt(const VpNicMaking *making, const char *binary, size_t index, int fd)
{
    g_autofree char *log = g_strdup_printf("passt%zu.log", index);
    const VpContainment *containment = making->containment;
    g_autofree char *user = g_strdup_printf("%u:%u", containment->uid, containment->gid);
    /* It has to be root where it makes its namespaces, and is this user from then on; without, it were "nobody", as those of all domains. */
    const char *const argv[] =
        {binary, "--quiet", "--foreground", "--stderr", "--fd", "3", containment->change_user ? "--runas" : NULL,
         user,   NULL};
    VpProcess process;
    int log_fd = -1;
    VpError *error = vp_folder_open_log_at(making->dir, log, &log_fd);

    if (error)
        return error;
    error = vp_helper_start(argv, &fd, 1, log_fd, &process);
    close(log_fd);
    if (!error)
        g_array_append_val(making->helpers, process);
    return error;
}

/* It ends with the connection, and so with QEMU. */
static VpError *open_passt(const VpNicMaking *making, size_t index, VpNicFds *fds)
{
    g_autofree char *binary = vp_helper_find("passt");
    int sockets[2];

    if (!binary)
        return vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED",
                            "there is no passt in the daemon's PATH; install it: apt-get install passt");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        return vp_error_errno(errno, "PASST", "cannot make sockets for passt");
    fds->stream_fd = sockets[0];
    VpError *error = run_passt(making, binary, index, sockets[1]);
    close(sockets[1]);
    return error;
}

/* ---- all together ---- */

static const char *field_of(const PbInterface *interface, const VpError *error)
{
    if (interface->type == PB_INTERFACE_TYPE_PASST)
        return "type";
    if (g_strcmp0(error->reason, "BANDWIDTH") == 0)
        return interface->outbound ? "outbound" : "inbound";
    return g_strcmp0(error->reason, "UNSUPPORTED") == 0 && interface->vhost == PB_VHOST_MODE_ON ? "vhost" : "bridge";
}

VpError *vp_nic_open(const VpNicMaking *making, const PbInterface *interface, size_t index, VpNicFds *ret_fds)
{
    VpError *error = NULL;

    *ret_fds = (VpNicFds){.stream_fd = -1};
    for (guint i = 0; i < VP_MAX_QUEUES; i++)
        ret_fds->tap_fds[i] = ret_fds->vhost_fds[i] = -1;
    if (interface->type == PB_INTERFACE_TYPE_BRIDGE) {
        error = open_tap(making, interface, ret_fds);
        if (!error && wants_vhost(making, interface))
            error = open_vhost(interface, ret_fds);
    } else if (interface->type == PB_INTERFACE_TYPE_PASST) {
        error = open_passt(making, index, ret_fds);
    }
    if (!error)
        return NULL;
    g_autofree char *field = g_strdup_printf("domain.spec.interfaces[%zu].%s", index, field_of(interface, error));
    g_autofree char *why = g_strdup(error->message);
    return vp_error_violation(vp_error_prefix(error, "%s", field), field, "cannot be used: %s", why);
}
