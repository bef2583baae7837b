/* Methods of guest.h that set something in the guest: its clock, a password, its unused blocks. */
#include "guest.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "guest_read.h"

static VpError *violation(const char *field, const char *what)
{
    return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "%s %s", field, what), field, "%s",
                              what);
}

/* ---- the clock ---- */

static void on_time_set(VpGuestWork *work, json_t *result)
{
    PbSetGuestTimeResponse *response = vp_pb_new(&pb_set_guest_time_response__descriptor);
    const gint64 *wall_us = work->state;

    (void)result;
    response->time = vp_pb_timestamp(*wall_us);
    vp_guest_reply(work, response);
}

static void set_time(VpGuestWork *work, gint64 wall_us)
{
    *(gint64 *)work->state = wall_us;
    vp_guest_send(work, "guest-set-time", json_pack("{s:I}", "time", (json_int_t)wall_us * 1000), on_time_set);
}

/* It is our turn: the host's time is that of now, not of when the call came. */
static void on_turn(VpGuestWork *work, json_t *result)
{
    (void)result;
    set_time(work, vp_wall_us());
}

void vp_guest_set_time(VpGuestWork *work)
{
    const PbSetGuestTimeRequest *request = work->request;

    work->state = g_new0(gint64, 1);
    work->free_state = g_free;
    if (!request->time) {
        vp_guest_send(work, "guest-ping", NULL, on_turn);
        return;
    }
    /* Nanoseconds since 1970 in 63 bits. */
    if (request->time->seconds < 0 || request->time->seconds > G_MAXINT64 / G_GINT64_CONSTANT(1000000000) - 1 ||
        request->time->nanos < 0 || request->time->nanos > 999999999) {
        vp_guest_finish(work, violation("time", "must be between 1970 and 2262"));
        return;
    }
    set_time(work, vp_pb_timestamp_us(request->time));
}

/* ---- a password ---- */

static void on_password_set(VpGuestWork *work, json_t *result)
{
    (void)result;
    vp_guest_reply(work, vp_pb_new(&pb_set_guest_password_response__descriptor));
}

static void wipe(char *text)
{
    explicit_bzero(text, strlen(text));
    g_free(text);
}

/* Not shown in an error either: the agent's words are a guest's, and may say it back. */
static void on_password(VpGuestWork *work, json_t *result, VpError *error)
{
    if (!error) {
        on_password_set(work, result);
        return;
    }
    if (g_strcmp0(error->reason, "AGENT_ERROR") == 0) {
        vp_error_free(error);
        error =
            vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "AGENT_ERROR",
                                       "the guest's agent refused guest-set-user-password; is there such a user, and "
                                       "is the password one that the guest lets pass?"),
                          "command", "guest-set-user-password");
    }
    vp_guest_finish(work, error);
}

void vp_guest_set_password(VpGuestWork *work)
{
    const PbSetGuestPasswordRequest *request = work->request;

    if (!request->user[0] || strchr(request->user, ':')) {
        vp_guest_finish(work, violation("user", "must be a user's name"));
        return;
    }
    /* What the agent would take for the end of it. */
    if (request->password.len == 0 || memchr(request->password.data, '\n', request->password.len) ||
        memchr(request->password.data, '\0', request->password.len)) {
        if (request->password.len > 0)
            explicit_bzero(request->password.data, request->password.len);
        vp_guest_finish(work, violation("password", "must not be empty, and must not have line ends or NULs"));
        return;
    }
    char *encoded = g_base64_encode(request->password.data, request->password.len);
    json_t *arguments =
        json_pack("{s:s, s:s, s:b}", "username", request->user, "password", encoded, "crypted", (int)request->hashed);
    wipe(encoded);
    explicit_bzero(request->password.data, request->password.len);
    vp_guest_try(work, "guest-set-user-password", arguments, on_password);
}

/* ---- unused blocks ---- */

static void on_trimmed(VpGuestWork *work, json_t *result)
{
    vp_guest_reply_read(work, vp_guest_read_trim(result), "guest-fstrim");
}

void vp_guest_trim(VpGuestWork *work)
{
    const PbTrimGuestFilesystemsRequest *request = work->request;

    vp_guest_send(work, "guest-fstrim", json_pack("{s:I}", "minimum", (json_int_t)request->minimum_bytes), on_trimmed);
}
