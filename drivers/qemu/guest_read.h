/*
 * What a guest's agent answers, from its JSON into messages. Pure. The guest is hostile: numbers and addresses are checked, texts and lists cut to their
 * bounds, and an answer of another shape is none. FALSE or NULL: it is none. `result` is what "return" held; never NULL.
 */
#pragma once

#include <glib.h>
#include <jansson.h>

#include "virtplane/v1/domain_guest.pb-c.h"
#include "virtplane/v1/guest.pb-c.h"
#include "virtplane/v1/guest_service.pb-c.h"

/* Of a list that a guest tells; what is beyond is left out. */
#define VP_GUEST_MAX_LIST 512
/* Of a text, in bytes. */
#define VP_GUEST_MAX_TEXT 1024

/* The text at `key`, cut to VP_GUEST_MAX_TEXT; empty where there is none. Owned by the caller. */
char *vp_guest_read_text(json_t *object, const char *key);
/* The bytes at `key`, in base64; at most `max`. `*ret_bytes` (owned by the caller) may be NULL if there are none. FALSE: there is something else. */
gboolean vp_guest_read_bytes(json_t *object, const char *key, gsize max, guint8 **ret_bytes, gsize *ret_size);

/* guest-exec; guest-file-open. */
gboolean vp_guest_read_pid(json_t *result, gint64 *ret_pid);
gboolean vp_guest_read_handle(json_t *result, gint64 *ret_handle);
/* guest-exec-status: whether it has ended, and how. FALSE: that is no answer. */
gboolean vp_guest_read_status(json_t *result, gboolean *ret_exited, gint32 *ret_exit_code, gint32 *ret_signal);
/* The same of one that has ended, with its output, cut to `max` bytes each. */
PbRunGuestCommandResponse *vp_guest_read_run(json_t *result, gsize max);
/* guest-file-read, of at most `max` bytes. */
gboolean vp_guest_read_chunk(json_t *result, gsize max, guint8 **ret_bytes, gsize *ret_size, gboolean *ret_at_end);
/* guest-file-write: how much it has taken of `size` bytes, at least one. */
gboolean vp_guest_read_written(json_t *result, gsize size, gsize *ret_written);
/* A count, as of file systems. */
gboolean vp_guest_read_count(json_t *result, guint32 *ret_count);

/* guest-info: fills in version and commands. */
gboolean vp_guest_read_agent(json_t *result, PbPingGuestResponse *response);
/* guest-get-osinfo, guest-get-host-name, guest-get-timezone, guest-get-fsinfo: fill in their parts of it. */
gboolean vp_guest_read_system(json_t *result, PbGuestInfo *info);
gboolean vp_guest_read_host_name(json_t *result, PbGuestInfo *info);
gboolean vp_guest_read_zone(json_t *result, PbGuestInfo *info);
gboolean vp_guest_read_filesystems(json_t *result, PbGuestInfo *info);
/* guest-network-get-interfaces; guest-get-users; guest-fstrim. */
PbListGuestInterfacesResponse *vp_guest_read_interfaces(json_t *result);
PbListGuestUsersResponse *vp_guest_read_users(json_t *result);
PbTrimGuestFilesystemsResponse *vp_guest_read_trim(json_t *result);
/* guest-get-time: in microseconds since 1970. */
gboolean vp_guest_read_time(json_t *result, gint64 *ret_wall_us);
