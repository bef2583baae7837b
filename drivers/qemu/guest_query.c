/* Methods of guest.h that ask the guest's agent and change nothing. */
#include "guest.h"

#include "base/pb.h"
#include "base/thread.h"
#include "guest_read.h"

static Google__Protobuf__Duration *new_duration(gint64 us)
{
    Google__Protobuf__Duration *duration = vp_pb_new(&google__protobuf__duration__descriptor);

    duration->seconds = us / G_USEC_PER_SEC;
    duration->nanos = (gint32)(us % G_USEC_PER_SEC) * 1000;
    return duration;
}

/* ---- ping ---- */

static void on_agent_info(VpGuestWork *work, json_t *result)
{
    if (vp_guest_read_agent(result, work->answer))
        vp_guest_reply(work, g_steal_pointer(&work->answer));
    else
        vp_guest_garbage(work, "guest-info");
}

static void on_second_ping(VpGuestWork *work, json_t *result)
{
    const gint64 *begun_us = work->state;
    PbPingGuestResponse *response = work->answer;

    (void)result;
    response->latency = new_duration(vp_now_us() - *begun_us);
    vp_guest_send(work, "guest-info", NULL, on_agent_info);
}

/* It was our turn: the next one comes with no wait for others'. */
static void on_ping(VpGuestWork *work, json_t *result)
{
    gint64 *begun_us = work->state;

    (void)result;
    *begun_us = vp_now_us();
    vp_guest_send(work, "guest-ping", NULL, on_second_ping);
}

void vp_guest_ping(VpGuestWork *work)
{
    work->answer = vp_pb_new(&pb_ping_guest_response__descriptor);
    work->state = g_new0(gint64, 1);
    work->free_state = g_free;
    vp_guest_send(work, "guest-ping", NULL, on_ping);
}

/* ---- the operating system ---- */

static const struct Part {
    const char *command;
    gboolean (*read)(json_t *result, PbGuestInfo *info);
} parts[] = {
    {"guest-get-osinfo", vp_guest_read_system},
    {"guest-get-host-name", vp_guest_read_host_name},
    {"guest-get-timezone", vp_guest_read_zone},
    {"guest-get-fsinfo", vp_guest_read_filesystems},
};

static void ask_part(VpGuestWork *work);

static void add_gap(PbGuestInfo *info, const char *command, const VpError *error)
{
    PbGuestInfoGap *gap = vp_pb_new(&pb_guest_info_gap__descriptor);

    vp_pb_set(&gap->command, command);
    vp_pb_set(&gap->reason, error->reason);
    vp_pb_set(&gap->message, error->message);
    vp_pb_append(&info->n_gaps, &info->gaps, gap);
}

static void on_part(VpGuestWork *work, json_t *result, VpError *owned)
{
    guint *at = work->state;
    const struct Part *part = &parts[*at];
    PbGuestInfo *info = ((PbGetGuestInfoResponse *)work->answer)->info;
    g_autoptr(VpError) error = owned;

    if (!error && !part->read(result, info))
        error = vp_guest_garbage_error(part->command);
    /* What this agent does not tell is a gap; one that does not answer is none. */
    if (error && error->code != VP_UNIMPLEMENTED && error->code != VP_FAILED_PRECONDITION &&
        g_strcmp0(error->reason, "AGENT_GARBAGE") != 0 && g_strcmp0(error->reason, "AGENT_ANSWER_TOO_LARGE") != 0) {
        vp_guest_finish(work, g_steal_pointer(&error));
        return;
    }
    if (error && g_strcmp0(error->reason, "AGENT_NOT_CONNECTED") == 0) {
        vp_guest_finish(work, g_steal_pointer(&error));
        return;
    }
    if (error)
        add_gap(info, part->command, error);
    (*at)++;
    ask_part(work);
}

static void ask_part(VpGuestWork *work)
{
    const guint *at = work->state;

    if (*at < G_N_ELEMENTS(parts))
        vp_guest_try(work, parts[*at].command, NULL, on_part);
    else
        vp_guest_reply(work, g_steal_pointer(&work->answer));
}

void vp_guest_info(VpGuestWork *work)
{
    PbGetGuestInfoResponse *response = vp_pb_new(&pb_get_guest_info_response__descriptor);

    response->info = vp_pb_new(&pb_guest_info__descriptor);
    work->answer = response;
    work->state = g_new0(guint, 1);
    work->free_state = g_free;
    ask_part(work);
}

/* ---- interfaces, users, time ---- */

static void on_interfaces(VpGuestWork *work, json_t *result)
{
    vp_guest_reply_read(work, vp_guest_read_interfaces(result), "guest-network-get-interfaces");
}

void vp_guest_interfaces(VpGuestWork *work)
{
    vp_guest_send(work, "guest-network-get-interfaces", NULL, on_interfaces);
}

static void on_users(VpGuestWork *work, json_t *result)
{
    vp_guest_reply_read(work, vp_guest_read_users(result), "guest-get-users");
}

void vp_guest_users(VpGuestWork *work)
{
    vp_guest_send(work, "guest-get-users", NULL, on_users);
}

static void on_time(VpGuestWork *work, json_t *result)
{
    gint64 wall_us;

    if (!vp_guest_read_time(result, &wall_us)) {
        vp_guest_garbage(work, "guest-get-time");
        return;
    }
    PbGetGuestTimeResponse *response = vp_pb_new(&pb_get_guest_time_response__descriptor);
    response->time = vp_pb_timestamp(wall_us);
    response->host_time = vp_pb_timestamp(vp_wall_us());
    vp_guest_reply(work, response);
}

void vp_guest_get_time(VpGuestWork *work)
{
    vp_guest_send(work, "guest-get-time", NULL, on_time);
}
