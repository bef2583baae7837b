/* virtplane.v1.AdminService. */
#include <unistd.h>

#include "base/pb.h"
#include "server/services/services.h"
#include "virtplane/v1/admin_service.pb-c.h"

static void get_daemon(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;
    PbGetDaemonResponse response = PB_GET_DAEMON_RESPONSE__INIT;
    PbDaemon daemon = PB_DAEMON__INIT;
    vp_pb_auto Google__Protobuf__Timestamp *start_time = vp_pb_timestamp(services->start_wall_us);

    (void)message;
    daemon.version = (char *)VP_VERSION;
    daemon.pid = getpid();
    daemon.start_time = start_time;
    daemon.n_addresses = g_strv_length((char **)services->addresses);
    daemon.addresses = (char **)services->addresses;
    daemon.state_dir = (char *)services->state_dir;
    daemon.revision = vp_store_revision(services->store);
    daemon.oldest_revision = vp_store_oldest_revision(services->store);
    response.daemon = &daemon;
    vp_call_reply(call, &response);
}

const VpMethodHandler vp_admin_handlers[] = {
    {"virtplane.v1.AdminService/GetDaemon", get_daemon, VP_RPC_INLINE},
    {0},
};
