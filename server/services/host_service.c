/* virtplane.v1.HostService. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/pb.h"
#include "server/services/services.h"
#include "storage/probe/formats.h"
#include "storage/probe/probe.h"
#include "virtplane/v1/host_service.pb-c.h"

/* /proc/meminfo's value of `key`, in bytes; 0 if it is not there. */
static guint64 meminfo(const char *key)
{
    g_autofree char *text = NULL;
    unsigned long long kib = 0;

    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL))
        return 0;
    const char *line = strstr(text, key);
    if (!line || sscanf(line + strlen(key), " %llu", &kib) != 1)
        return 0;
    return kib * 1024;
}

static void get_host(VpCall *call, const void *message, void *context)
{
    PbGetHostResponse response = PB_GET_HOST_RESPONSE__INIT;
    PbHost host = PB_HOST__INIT;
    struct utsname names;

    (void)message;
    (void)context;
    if (uname(&names) < 0) {
        vp_call_fail(call, vp_error_errno(errno, "HOST", "cannot ask for the host's name"));
        return;
    }
    host.name = names.nodename;
    host.architecture = names.machine;
    host.kernel_release = names.release;
    host.cpus = (guint32)sysconf(_SC_NPROCESSORS_ONLN);
    host.memory_bytes = meminfo("MemTotal:");
    host.memory_available_bytes = meminfo("MemAvailable:");

    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    g_autofree char *detail = kvm < 0 ? g_strdup_printf("/dev/kvm: %s", g_strerror(errno)) : g_strdup("");
    host.kvm_available = kvm >= 0;
    host.kvm_detail = detail;
    if (kvm >= 0)
        close(kvm);
    response.host = &host;
    vp_call_reply(call, &response);
}

/* The formats that the probe reads, by the names that QEMU has for them. */
static void add_image_formats(PbGetCapabilitiesResponse *response)
{
    const ProtobufCEnumDescriptor *formats = &pb_image_format__descriptor;

    for (unsigned i = 0; i < formats->n_values; i++) {
        const PbImageFormat format = (PbImageFormat)formats->values[i].value;

        if (vp_probe_reads(format))
            vp_pb_append(&response->n_image_formats, &response->image_formats, g_strdup(vp_format_qemu_name(format)));
    }
}

static void get_capabilities(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;
    vp_pb_auto PbGetCapabilitiesResponse *response = vp_pb_new(&pb_get_capabilities_response__descriptor);

    (void)message;
    vp_domains_capabilities(services->domains, response);
    add_image_formats(response);
    vp_pb_set(&response->daemon_version, VP_VERSION);
    vp_call_reply(call, response);
}

const VpMethodHandler vp_host_handlers[] = {
    {"virtplane.v1.HostService/GetHost", get_host, VP_RPC_WORKER},
    {"virtplane.v1.HostService/GetCapabilities", get_capabilities, VP_RPC_WORKER},
    {0},
};
