/* virtplane.v1.AdminService. */
#include <errno.h>
#include <unistd.h>

#include "base/pb.h"
#include "server/services/admin.h"

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
    /* The first calls come before the daemon has written it. */
    daemon.addresses = (char **)g_atomic_pointer_get(&services->addresses);
    daemon.n_addresses = g_strv_length(daemon.addresses);
    daemon.state_dir = (char *)services->state_dir;
    /* Not vp_store_revision(): who was answered a change asks next, and finds it counted. */
    daemon.revision = vp_store_journal_end(services->store);
    daemon.oldest_revision = vp_store_oldest_revision(services->store);
    response.daemon = &daemon;
    vp_call_reply(call, &response);
}

static gboolean is_cancelled(void *data)
{
    return vp_call_cancelled(data);
}

/* ---- BackupStore, on a worker ---- */

#define BACKUP_CHUNK (256u << 10)

/* Sends the file and sums it up. *ret_gone: the client reads no more. */
static VpError *send_file(VpCall *call, int fd, GChecksum *sum, guint64 *ret_size, gboolean *ret_gone)
{
    g_autofree guint8 *buffer = g_malloc(BACKUP_CHUNK);
    off_t at = 0;
    ssize_t got;

    while ((got = pread(fd, buffer, BACKUP_CHUNK, at)) > 0) {
        PbBackupStoreResponse response = PB_BACKUP_STORE_RESPONSE__INIT;

        response.data = (ProtobufCBinaryData){.data = buffer, .len = (size_t)got};
        g_checksum_update(sum, buffer, got);
        if (!vp_call_write_wait(call, &response)) {
            *ret_gone = TRUE;
            return NULL;
        }
        at += got;
    }
    *ret_size = (guint64)at;
    return got < 0 ? vp_error_errno(errno, "STORE_FAILED", "cannot read the copy of the store") : NULL;
}

static VpError *enter(VpServices *services)
{
    return vp_slow_enter(&services->copying, VP_MAX_COPYING, "backups and checks of the store are under way");
}

static VpError *send_backup(VpCall *call, VpServices *services)
{
    PbBackupStoreResponse last = PB_BACKUP_STORE_RESPONSE__INIT;
    PbStoreBackup backup = PB_STORE_BACKUP__INIT;
    VpError *error = NULL;
    gboolean gone = FALSE;
    const int fd = vp_store_backup(services->store, is_cancelled, call, &backup.revision, &error);

    if (fd < 0)
        return error;
    GChecksum *sum = g_checksum_new(G_CHECKSUM_SHA256);

    error = send_file(call, fd, sum, &backup.size_bytes, &gone);
    close(fd);
    backup.sha256 = (char *)g_checksum_get_string(sum);
    last.backup = &backup;
    if (!error && (gone || !vp_call_write_wait(call, &last)))
        error = vp_error_new(VP_CANCELLED, "BACKUP_CANCELLED", "the client does not read the copy");
    g_checksum_free(sum);
    return error;
}

static void backup_store(VpCall *call, const void *message, void *context)
{
    VpServices *services = context;

    (void)message;
    VpError *error = enter(services);
    if (!error) {
        error = send_backup(call, services);
        vp_slow_leave(&services->copying);
    }
    if (error)
        vp_call_fail(call, error);
    else
        vp_call_finish(call);
}

/* ---- CheckStore, on a worker ---- */

static void check_store(VpCall *call, const void *message, void *context)
{
    VpServices *services = context;
    PbCheckStoreResponse response = PB_CHECK_STORE_RESPONSE__INIT;
    PbStoreCheck check = PB_STORE_CHECK__INIT;
    g_auto(VpStoreReport) report = {0};

    (void)message;
    VpError *error = enter(services);
    if (!error) {
        error = vp_store_check(services->store, is_cancelled, call, &report);
        vp_slow_leave(&services->copying);
    }
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    check.revision = report.revision;
    check.keys = (guint64)report.keys;
    check.domains = (guint64)report.domains;
    check.events = (guint64)report.events;
    check.n_problems = report.problems->len;
    check.problems = (char **)report.problems->pdata;
    response.check = &check;
    vp_call_reply(call, &response);
}

/* ---- SetLogLevel ---- */

#define MOST_SECONDS (30 * 24 * 3600)

static const VpLogLevel levels[] = {
    [PB_LOG_LEVEL_ERROR] = VP_LOG_ERROR,
    [PB_LOG_LEVEL_WARNING] = VP_LOG_WARNING,
    [PB_LOG_LEVEL_INFO] = VP_LOG_INFO,
    [PB_LOG_LEVEL_DEBUG] = VP_LOG_DEBUG,
};

static PbLogLevel level_of(VpLogLevel level)
{
    for (PbLogLevel i = PB_LOG_LEVEL_ERROR; i < (PbLogLevel)G_N_ELEMENTS(levels); i++) {
        if (levels[i] == level)
            return i;
    }
    return PB_LOG_LEVEL_UNSPECIFIED;
}

static VpError *invalid(const char *field, const char *what)
{
    return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "%s %s", field, what), field, "%s",
                              what);
}

static VpError *check_log_level(const PbSetLogLevelRequest *request, guint64 *ret_ms)
{
    const Google__Protobuf__Duration *duration = request->duration;

    if (request->level <= PB_LOG_LEVEL_UNSPECIFIED || request->level >= (PbLogLevel)G_N_ELEMENTS(levels))
        return invalid("level", "is not one of error, warning, info and debug");
    *ret_ms = 0;
    if (!duration)
        return NULL;
    if (duration->seconds < 0 || duration->seconds > MOST_SECONDS || duration->nanos < 0 || duration->nanos > 999999999)
        return invalid("duration", "is not between a millisecond and 30 days");
    *ret_ms = (guint64)duration->seconds * 1000 + (guint64)duration->nanos / 1000000;
    return *ret_ms ? NULL : invalid("duration", "is not between a millisecond and 30 days");
}

static void set_log_level(VpCall *call, const void *message, void *context)
{
    const PbSetLogLevelRequest *request = message;
    VpServices *services = context;
    PbSetLogLevelResponse response = PB_SET_LOG_LEVEL_RESPONSE__INIT;
    guint64 ms = 0;
    VpCaller caller;

    VpError *error = check_log_level(request, &ms);
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    vp_call_caller(call, &caller);
    response.previous_level = level_of(vp_log_switch_set(&services->log_level, levels[request->level], ms));
    vp_log(VP_LOG_INFO, "the log's level was set to %s by %s",
           protobuf_c_enum_descriptor_get_value(&pb_log_level__descriptor, (int)request->level)->name, caller.text);
    vp_call_reply(call, &response);
}

const VpMethodHandler vp_admin_handlers[] = {
    {"virtplane.v1.AdminService/GetDaemon", get_daemon, VP_RPC_INLINE},
    {"virtplane.v1.AdminService/BackupStore", backup_store, VP_RPC_SLOW},
    {"virtplane.v1.AdminService/ListConnections", vp_admin_list_connections, VP_RPC_WORKER},
    {"virtplane.v1.AdminService/CloseConnection", vp_admin_close_connection, VP_RPC_WORKER},
    {"virtplane.v1.AdminService/SetLogLevel", set_log_level, VP_RPC_INLINE},
    {"virtplane.v1.AdminService/CheckStore", check_store, VP_RPC_SLOW},
    {0},
};
