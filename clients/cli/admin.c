/* vpctl admin: see admin.h. */
#include "clients/cli/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "base/pb.h"
#include "clients/cli/text.h"
#include "server/store/offline.h"
#include "virtplane/v1/admin_service.pb-c.h"

/* A backup is made before its first byte comes. */
#define FIRST_BYTE_MS (10 * 60 * 1000)

/* ---- backup ---- */

/* What has come of a backup, in a file beside the one wanted, which it replaces when it is whole. */
typedef struct Copy {
    char *partial;
    int fd;
    guint64 size;
    GChecksum *sum;
} Copy;

static void copy_clear(Copy *copy)
{
    if (copy->fd >= 0)
        close(copy->fd);
    if (copy->partial)
        unlink(copy->partial);
    g_free(copy->partial);
    if (copy->sum)
        g_checksum_free(copy->sum);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Copy, copy_clear)

static VpError *copy_open(Copy *copy, const char *file)
{
    g_autofree char *partial = g_strdup_printf("%s.XXXXXX", file);

    copy->fd = g_mkstemp_full(partial, O_RDWR | O_CLOEXEC, 0600);
    if (copy->fd < 0)
        return vp_error_errno(errno, NULL, "cannot make a file beside '%s'", file);
    copy->partial = g_steal_pointer(&partial);
    copy->sum = g_checksum_new(G_CHECKSUM_SHA256);
    return NULL;
}

static VpError *copy_add(Copy *copy, const ProtobufCBinaryData *data)
{
    for (size_t done = 0; done < data->len;) {
        const ssize_t put = write(copy->fd, data->data + done, data->len - done);

        if (put < 0)
            return vp_error_errno(errno, NULL, "cannot write '%s'", copy->partial);
        done += (size_t)put;
    }
    g_checksum_update(copy->sum, data->data, (gssize)data->len);
    copy->size += data->len;
    return NULL;
}

static VpError *copy_finish(Copy *copy, const PbStoreBackup *backup, const char *file)
{
    if (copy->size != backup->size_bytes || strcmp(g_checksum_get_string(copy->sum), backup->sha256) != 0)
        return vp_error_new(VP_DATA_LOSS, NULL, "what came is not what the daemon sent; try again");
    if (fsync(copy->fd) < 0)
        return vp_error_errno(errno, NULL, "cannot write '%s' to the disk", copy->partial);
    if (g_rename(copy->partial, file) < 0)
        return vp_error_errno(errno, NULL, "cannot put '%s' in its place", file);
    g_clear_pointer(&copy->partial, g_free);
    return NULL;
}

static PbStoreBackup *receive(VpClientStream *stream, Copy *copy, const char *file, VpError **error)
{
    for (;;) {
        vp_pb_auto PbBackupStoreResponse *item = vp_client_stream_read(stream, FIRST_BYTE_MS, error);

        if (!item) {
            if (!*error)
                *error = vp_error_new(VP_DATA_LOSS, NULL, "the daemon ended the stream before the copy was whole");
            return NULL;
        }
        *error = item->backup ? copy_finish(copy, item->backup, file) : copy_add(copy, &item->data);
        if (*error)
            return NULL;
        if (item->backup)
            return g_steal_pointer(&item->backup);
    }
}

int vp_admin_backup(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, NULL, &argc, &argv, &code))
        return code;
    const char *file = argv[1];
    g_auto(Copy) copy = {.fd = -1};
    VpClient *client = vp_cli_client(cli, &error);
    if (client)
        error = copy_open(&copy, file);
    vp_pb_auto PbBackupStoreRequest *request = vp_pb_new(&pb_backup_store_request__descriptor);
    g_autoptr(VpClientStream) stream =
        error ? NULL
              : vp_client_stream_new(client, &pb_admin_service__descriptor, "BackupStore", request,
                                     cli->timeout_given ? cli->timeout_ms : 0, &error);
    vp_pb_auto PbStoreBackup *backup = stream ? receive(stream, &copy, file, &error) : NULL;
    if (!backup)
        return vp_cli_fail(cli, error, "back the store up");

    if (vp_cli_print(cli, backup, /* stream= */ FALSE))
        return VP_EXIT_DONE;
    g_autofree char *name = vp_text_escape(file);
    g_autofree char *size = vp_text_size(backup->size_bytes);
    if (cli->output == VP_OUTPUT_NAME)
        puts(name);
    else
        printf("%s has the store at revision %" G_GINT64_FORMAT " (%s, sha256 %s)\n", name, backup->revision, size,
               backup->sha256);
    return VP_EXIT_DONE;
}

/* ---- check and restore ---- */

static int show_check(VpCli *cli, const PbStoreCheck *check)
{
    const int code = check->n_problems ? VP_EXIT_FAILED : VP_EXIT_DONE;

    if (vp_cli_print(cli, check, /* stream= */ FALSE))
        return code;
    for (size_t i = 0; i < check->n_problems; i++) {
        g_autofree char *safe = vp_text_escape(check->problems[i]);
        puts(safe);
    }
    if (cli->output != VP_OUTPUT_NAME)
        printf("revision %" G_GINT64_FORMAT ": %" G_GUINT64_FORMAT " domains, %" G_GUINT64_FORMAT
               " keys in all, %" G_GUINT64_FORMAT " events: %s\n",
               check->revision, check->domains, check->keys, check->events,
               check->n_problems ? "DAMAGED" : "all is well");
    return code;
}

static int show_report(VpCli *cli, const VpStoreReport *report)
{
    PbStoreCheck check = PB_STORE_CHECK__INIT;

    check.revision = report->revision;
    check.keys = (guint64)report->keys;
    check.domains = (guint64)report->domains;
    check.events = (guint64)report->events;
    check.n_problems = report->problems->len;
    check.problems = (char **)report->problems->pdata;
    return show_check(cli, &check);
}

int vp_admin_check(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *state_dir = NULL;
    const GOptionEntry entries[] = {
        {"state-dir", 0, 0, G_OPTION_ARG_FILENAME, &state_dir, "Look at the store in DIR, which no daemon uses now",
         "DIR"},
        {0},
    };
    VpError *error = NULL;
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    if (state_dir) {
        g_auto(VpStoreReport) report = {0};

        error = vp_store_check_dir(state_dir, &report);
        return error ? vp_cli_fail(cli, error, "check the store") : show_report(cli, &report);
    }
    vp_pb_auto PbCheckStoreRequest *request = vp_pb_new(&pb_check_store_request__descriptor);
    vp_pb_auto PbCheckStoreResponse *answer =
        vp_cli_call(cli, &pb_admin_service__descriptor, "CheckStore", request, &error);
    if (!answer)
        return vp_cli_fail(cli, error, "check the store");
    return answer->check ? show_check(cli, answer->check) : VP_EXIT_FAILED;
}

int vp_admin_restore(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *state_dir = NULL;
    const GOptionEntry entries[] = {
        {"state-dir", 0, 0, G_OPTION_ARG_FILENAME, &state_dir, "The state folder, as in virtplaned --state-dir", "DIR"},
        {0},
    };
    g_auto(VpStoreReport) report = {0};
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    /* No default: it replaces what is there. */
    if (!state_dir)
        return vp_cli_usage(command, "give --state-dir");
    VpError *error = vp_store_restore(state_dir, argv[1], &report);
    return error ? vp_cli_fail(cli, error, "restore the store") : show_report(cli, &report);
}
