/*
 * Freezing and thawing a guest's file systems; see guest.h. What is known is in domain->agent_told, which is stored with the domain, and so survives the
 * daemon. They are thawed when their time is up, by the next daemon if need be, and at once where nobody was told that they are frozen: a call that was
 * given up, a daemon that was killed before it could write it down.
 */
#include "guest.h"

#include "base/log.h"
#include "base/pb.h"
#include "base/thread.h"
#include "guest_read.h"

#define DEFAULT_THAW_AFTER_MS (60 * 1000)
#define MAX_THAW_AFTER_MS (60 * 60 * 1000)
#define THAW_US (30 * G_USEC_PER_SEC)
/* An agent that could not thaw, or does not answer, is asked again. */
#define RETRY_MS 1000

static void thaw_soon(VpQemuDomain *domain, gint64 delay_ms);

/* ---- what is known ---- */

VpError *vp_guest_check_thawed(const VpQemuDomain *domain)
{
    const gint64 thaw_us = vp_pb_timestamp_us(domain->agent_told.thaw_time);
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(thaw_us / G_USEC_PER_SEC);

    if (!domain->agent_told.frozen)
        return NULL;
    g_autofree char *text = when ? g_date_time_format_iso8601(when) : g_strdup("some time");
    return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "GUEST_FROZEN",
                                      "domain %s: its guest's file systems are frozen, until %s at the latest; thaw "
                                      "them first",
                                      domain->name, text),
                         "thaw_time", text);
}

static void set_frozen(VpQemuDomain *domain, guint32 count, gint64 thaw_wall_us)
{
    domain->agent_told.frozen = count > 0;
    domain->agent_told.frozen_file_systems = count;
    vp_pb_free(domain->agent_told.thaw_time);
    domain->agent_told.thaw_time = count > 0 ? vp_pb_timestamp(thaw_wall_us) : NULL;
}

static void stop_timer(VpQemuDomain *domain)
{
    if (domain->guest && vp_timer_cancel(g_steal_pointer(&domain->guest->thaw_timer)))
        vp_qemu_domain_unref(domain);
}

static void note_thawed(VpQemuDomain *domain, const char *reason)
{
    stop_timer(domain);
    if (!domain->agent_told.frozen)
        return;
    set_frozen(domain, 0, 0);
    vp_qemu_agent_tell(domain, PB_EVENT_TYPE_GUEST_THAWED, reason);
}

/* ---- thawing by ourselves ---- */

static void on_thawed_alone(void *data, json_t *result, VpError *owned)
{
    VpQemuDomain *domain = data;
    g_autoptr(VpError) error = owned;

    (void)result;
    if (domain->guest) {
        domain->guest->thawing = FALSE;
        if (!error) {
            note_thawed(domain,
                        vp_wall_us() < vp_pb_timestamp_us(domain->agent_told.thaw_time) ? "CALL_ENDED" : "TIMEOUT");
        } else if (error->code == VP_UNIMPLEMENTED) {
            vp_log(VP_LOG_WARNING, "domain %s: its guest's file systems cannot be thawed: %s", domain->name,
                   error->message);
        } else if (vp_agent_is_open(domain->agent)) {
            /* Else it is looked at when an agent answers again. */
            thaw_soon(domain, RETRY_MS);
        }
    }
    vp_qemu_domain_unref(domain);
}

static void thaw_now(VpQemuDomain *domain)
{
    if (domain->guest->thawing)
        return;
    domain->guest->thawing = TRUE;
    vp_qemu_agent_execute(domain, "guest-fsfreeze-thaw", NULL, vp_now_us() + THAW_US, on_thawed_alone,
                          vp_qemu_domain_ref(domain));
}

static void on_time(void *data)
{
    VpQemuDomain *domain = data;

    if (domain->guest) {
        vp_timer_cancel(g_steal_pointer(&domain->guest->thaw_timer));
        thaw_now(domain);
    }
    vp_qemu_domain_unref(domain);
}

static void thaw_soon(VpQemuDomain *domain, gint64 delay_ms)
{
    stop_timer(domain);
    domain->guest->thaw_timer =
        vp_timer_start(domain->driver->host->loop, (guint64)MAX(0, delay_ms), on_time, vp_qemu_domain_ref(domain));
}

static void thaw_in_time(VpQemuDomain *domain)
{
    thaw_soon(domain, (vp_pb_timestamp_us(domain->agent_told.thaw_time) - vp_wall_us()) / 1000);
}

/* ---- what an agent that has just begun to answer tells ---- */

static void on_status(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;
    const char *status = json_string_value(result);

    if (domain->guest)
        domain->guest->checking = FALSE;
    if (domain->guest && !domain->guest->settling) {
        if (g_strcmp0(status, "thawed") == 0)
            note_thawed(domain, "FOUND_THAWED");
        else if (domain->agent_told.frozen)
            thaw_in_time(domain);
        else if (g_strcmp0(status, "frozen") == 0)
            thaw_now(domain);
    }
    vp_error_free(error);
    vp_qemu_domain_unref(domain);
}

void vp_guest_check_frozen(VpQemuDomain *domain)
{
    /* A call is about to know better. */
    if (domain->guest->checking || domain->guest->settling)
        return;
    domain->guest->checking = TRUE;
    vp_qemu_agent_execute(domain, "guest-fsfreeze-status", NULL, vp_now_us() + THAW_US, on_status,
                          vp_qemu_domain_ref(domain));
}

/* ---- what was done is on the disk before it is told ---- */

static void reply_settled(void *data)
{
    VpQemuOp *op = data;

    if (op->task) {
        VpGuestWork *work = op->ended_data;

        vp_guest_reply(work, g_steal_pointer(&work->answer));
    }
    vp_qemu_op_unref(op);
}

/* That the store could not take it now changes nothing about the guest: it is told later. */
static void on_settled(void *data, VpError *error)
{
    VpQemuOp *op = data;

    vp_error_free(error);
    vp_loop_post(op->driver->host->loop, reply_settled, op);
}

static void settle(VpGuestWork *work)
{
    const VpDriverHost *host = work->domain->driver->host;

    host->settle(host->data, work->domain->uid, on_settled, vp_qemu_op_ref(work->op));
}

/* ---- freeze ---- */

static VpError *read_thaw_after(const Google__Protobuf__Duration *duration, gint64 *ret_ms)
{
    *ret_ms = DEFAULT_THAW_AFTER_MS;
    if (!duration)
        return NULL;
    const gboolean sane = duration->seconds >= 0 && duration->seconds <= MAX_THAW_AFTER_MS && duration->nanos >= 0 &&
                          duration->nanos < 1000000000;
    const gint64 ms = sane ? duration->seconds * 1000 + duration->nanos / 1000000 : 0;
    *ret_ms = ms;
    if (ms >= 1000 && ms <= MAX_THAW_AFTER_MS)
        return NULL;
    return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                           "thaw_after is not between 1 s and an hour"),
                              "thaw_after", "must be between 1 s and an hour");
}

static void on_frozen(VpGuestWork *work, json_t *result, VpError *error)
{
    VpQemuDomain *domain = work->domain;
    const gint64 *thaw_after_ms = work->state;
    guint32 count = 0;

    if (domain->guest)
        domain->guest->settling = FALSE;
    if (!error && !vp_guest_read_count(result, &count))
        error = vp_guest_garbage_error("guest-fsfreeze-freeze");
    if (error || !domain->guest) {
        /* Some of them may be: an agent that says that it has failed has thawed what it froze, others may have frozen all. */
        if (error && domain->guest && error->code != VP_FAILED_PRECONDITION && error->code != VP_UNIMPLEMENTED)
            thaw_soon(domain, 0);
        vp_guest_finish(work, error ? error : vp_error_new(VP_UNAVAILABLE, "AGENT_DISCONNECTED", "the domain ended"));
        return;
    }
    PbFreezeGuestFilesystemsResponse *response = vp_pb_new(&pb_freeze_guest_filesystems_response__descriptor);
    work->answer = response;
    response->file_systems = count;
    if (count > 0) {
        set_frozen(domain, count, vp_wall_us() + *thaw_after_ms * 1000);
        response->thaw_time = vp_pb_dup(domain->agent_told.thaw_time);
        thaw_in_time(domain);
        vp_qemu_agent_tell(domain, PB_EVENT_TYPE_GUEST_FROZEN, "REQUESTED");
    }
    settle(work);
}

/* Nobody knows that they are frozen. */
static void on_frozen_late(VpGuestWork *work, const char *command, json_t *result)
{
    (void)command;
    (void)result;
    thaw_soon(work->domain, 0);
}

static void on_freeze_ended(VpGuestWork *work)
{
    if (!work->domain->guest)
        return;
    work->domain->guest->settling = FALSE;
    /* They are, and the call was given up before it could be told. */
    if (work->answer && work->domain->agent_told.frozen)
        thaw_soon(work->domain, 0);
}

void vp_guest_freeze(VpGuestWork *work)
{
    const PbFreezeGuestFilesystemsRequest *request = work->request;
    gint64 *thaw_after_ms = g_new0(gint64, 1);
    json_t *mount_points = NULL;

    work->state = thaw_after_ms;
    work->free_state = g_free;
    VpError *error = read_thaw_after(request->thaw_after, thaw_after_ms);
    if (!error && work->domain->guest->settling)
        error = vp_error_retry(vp_error_new(VP_FAILED_PRECONDITION, "GUEST_FROZEN",
                                            "another call is freezing the guest's file systems"),
                               1000);
    if (error) {
        vp_guest_finish(work, error);
        return;
    }
    for (gsize i = 0; i < request->n_mount_points; i++) {
        if (!mount_points)
            mount_points = json_pack("{s:[]}", "mountpoints");
        json_array_append_new(json_object_get(mount_points, "mountpoints"), json_string(request->mount_points[i]));
    }
    work->domain->guest->settling = TRUE;
    work->ended = on_freeze_ended;
    work->late = on_frozen_late;
    vp_guest_try(work, mount_points ? "guest-fsfreeze-freeze-list" : "guest-fsfreeze-freeze", mount_points, on_frozen);
}

/* ---- thaw ---- */

static void on_thawed(VpGuestWork *work, json_t *result)
{
    PbThawGuestFilesystemsResponse *response = vp_pb_new(&pb_thaw_guest_filesystems_response__descriptor);

    work->answer = response;
    if (!vp_guest_read_count(result, &response->file_systems)) {
        vp_guest_garbage(work, "guest-fsfreeze-thaw");
        return;
    }
    note_thawed(work->domain, "REQUESTED");
    settle(work);
}

void vp_guest_thaw(VpGuestWork *work)
{
    vp_guest_send(work, "guest-fsfreeze-thaw", NULL, on_thawed);
}
