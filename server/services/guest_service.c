/* virtplane.v1.GuestService, and DomainService.RunGuestCommand. */
#include "server/services/guest_call.h"
#include "virtplane/v1/guest_service.pb-c.h"
#include <string.h>

#define S(seconds) ((guint64)(seconds)*1000)
#define DAY S(24 * 60 * 60)

/* What a method has if its request says nothing else: as the contract says. */
static void within_5_s(VpCall *call, const void *message, void *context)
{
    vp_guest_call(context, call, message, S(5));
}

static void within_10_s(VpCall *call, const void *message, void *context)
{
    vp_guest_call(context, call, message, S(10));
}

static void within_30_s(VpCall *call, const void *message, void *context)
{
    vp_guest_call(context, call, message, S(30));
}

static void within_60_s(VpCall *call, const void *message, void *context)
{
    vp_guest_call(context, call, message, S(60));
}

static void within_10_minutes(VpCall *call, const void *message, void *context)
{
    vp_guest_call(context, call, message, S(10 * 60));
}

static void set_guest_password(VpCall *call, const void *message, void *context)
{
    const PbSetGuestPasswordRequest *request = message;

    vp_guest_call(context, call, message, S(30));
    /* The driver has a copy of its own. This one is ours until the call goes, and is not looked at again. */
    if (request->password.len > 0)
        explicit_bzero(request->password.data, request->password.len);
}

static void read_guest_file(VpCall *call, const void *message, void *context)
{
    vp_guest_stream(context, call, message, NULL, DAY);
}

static void write_guest_file(VpCall *call, const void *message, void *context)
{
    (void)message;
    vp_guest_stream(context, call, NULL, "open", DAY);
}

static void exec_guest(VpCall *call, const void *message, void *context)
{
    (void)message;
    vp_guest_stream(context, call, NULL, "start", DAY);
}

static void run_guest_command(VpCall *call, const void *message, void *context)
{
    vp_guest_call(context, call, message, DAY);
}

const VpMethodHandler vp_guest_handlers[] = {
    {"virtplane.v1.GuestService/PingGuest", within_5_s, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/GetGuestInfo", within_10_s, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/ListGuestInterfaces", within_10_s, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/ListGuestUsers", within_10_s, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/GetGuestTime", within_5_s, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/SetGuestTime", within_30_s, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/SetGuestPassword", set_guest_password, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/FreezeGuestFilesystems", within_60_s, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/ThawGuestFilesystems", within_60_s, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/TrimGuestFilesystems", within_10_minutes, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/ExecGuest", exec_guest, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/ReadGuestFile", read_guest_file, VP_RPC_INLINE},
    {"virtplane.v1.GuestService/WriteGuestFile", write_guest_file, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/RunGuestCommand", run_guest_command, VP_RPC_INLINE},
    {0},
};
