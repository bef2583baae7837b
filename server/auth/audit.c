/* The audit log: see audit.h. */
#include "server/auth/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

#define MAX_QUEUED 8192
/* Where the library sends entries, without a word if nobody is there. */
#define JOURNAL_SOCKET "/run/systemd/journal/socket"
/* Refusals that are told on: so many at once, and so many a second after that. */
#define REFUSALS_AT_ONCE 50
#define REFUSALS_A_SECOND 10

/* One line on its way. */
typedef struct Line {
    char *text;
    char *identity;
    char *method;
    char *detail; /* of a refused call; NULL otherwise */
} Line;

struct VpAudit {
    char *file;
    gboolean journal;
    guint64 max_bytes;
    guint keep;
    void (*refused)(void *data, const char *identity, const char *method, const char *detail);
    void *data;
    pthread_t thread;
    gboolean running;

    /* The thread's. */
    int fd;
    guint64 size;
    gint64 tokens_us; /* refusals may be told while this is not in the future; see may_tell() */
    gboolean failed;
    gboolean journal_failed;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    GQueue lines;
    guint64 lost;
    gboolean stopping;
};

static void line_free(Line *line)
{
    free(line->text);
    g_free(line->identity);
    g_free(line->method);
    g_free(line->detail);
    g_free(line);
}

/* ---- the file ---- */

static VpError *open_file(VpAudit *audit)
{
    struct stat status;

    audit->fd = open(audit->file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (audit->fd < 0)
        return vp_error_errno(errno, "AUDIT_UNUSABLE", "cannot open the audit log %s", audit->file);
    if (fstat(audit->fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        close(audit->fd);
        audit->fd = -1;
        return vp_error_new(VP_FAILED_PRECONDITION, "AUDIT_UNUSABLE", "the audit log %s is no regular file",
                            audit->file);
    }
    audit->size = (guint64)status.st_size;
    return NULL;
}

/* Each name takes the one before it; the oldest goes. */
static void rotate(VpAudit *audit)
{
    for (guint i = audit->keep; i > 0; i--) {
        g_autofree char *to = g_strdup_printf("%s.%u", audit->file, i);
        g_autofree char *from = i > 1 ? g_strdup_printf("%s.%u", audit->file, i - 1) : g_strdup(audit->file);

        if (rename(from, to) < 0 && errno != ENOENT)
            vp_log(VP_LOG_WARNING, "cannot rename %s: %s", from, g_strerror(errno));
    }
    if (audit->keep == 0)
        unlink(audit->file);
    close(audit->fd);
    g_autoptr(VpError) error = open_file(audit);
    if (error)
        vp_log(VP_LOG_ERROR, "%s", error->message);
}

static void put_file(VpAudit *audit, const char *text)
{
    const gsize length = strlen(text);
    g_autofree char *line = g_strconcat(text, "\n", NULL);

    if (audit->fd >= 0 && audit->size > 0 && audit->size + length + 1 > audit->max_bytes)
        rotate(audit);
    const gboolean failed = audit->fd < 0 || write(audit->fd, line, length + 1) != (ssize_t)length + 1;
    /* Told once, and again when it has worked in between. */
    if (failed && !audit->failed)
        vp_log(VP_LOG_ERROR, "the audit log %s cannot be written: %s", audit->file, g_strerror(errno));
    audit->failed = failed;
    if (!failed)
        audit->size += length + 1;
}

/* `line` NULL: of no call. */
static void put_journal(VpAudit *audit, const char *text, const Line *line)
{
    const int result =
        line ? sd_journal_send("MESSAGE=%s", text, "PRIORITY=%d", line->detail ? VP_LOG_WARNING : VP_LOG_INFO,
                               "SYSLOG_IDENTIFIER=virtplaned-audit", "VIRTPLANE_IDENTITY=%s", line->identity,
                               "VIRTPLANE_METHOD=%s", line->method, NULL)
             : sd_journal_send("MESSAGE=%s", text, "PRIORITY=%d", VP_LOG_WARNING, "SYSLOG_IDENTIFIER=virtplaned-audit",
                               NULL);

    if (result < 0 && !audit->journal_failed)
        vp_log(VP_LOG_ERROR, "the audit log cannot be written to systemd's journal: %s", g_strerror(-result));
    audit->journal_failed = result < 0;
}

static void put(VpAudit *audit, const char *text, const Line *line)
{
    if (audit->file)
        put_file(audit, text);
    if (audit->journal)
        put_journal(audit, text, line);
}

/* ---- the thread ---- */

/* A bucket of REFUSALS_AT_ONCE that fills by REFUSALS_A_SECOND, kept as the time at which it was empty. */
static gboolean may_tell(VpAudit *audit)
{
    const gint64 each_us = G_USEC_PER_SEC / REFUSALS_A_SECOND;
    const gint64 now_us = vp_now_us();

    audit->tokens_us = MAX(audit->tokens_us, now_us - REFUSALS_AT_ONCE * each_us);
    if (audit->tokens_us + each_us > now_us)
        return FALSE;
    audit->tokens_us += each_us;
    return TRUE;
}

static void write_line(VpAudit *audit, const Line *line)
{
    put(audit, line->text, line);
    if (line->detail && audit->refused && may_tell(audit))
        audit->refused(audit->data, line->identity, line->method, line->detail);
}

static void write_lost(VpAudit *audit, guint64 lost)
{
    g_autofree char *text = g_strdup_printf("{\"lost\":%" G_GUINT64_FORMAT "}", lost);

    put(audit, text, NULL);
}

static void *run(void *data)
{
    VpAudit *audit = data;

    for (;;) {
        pthread_mutex_lock(&audit->mutex);
        while (audit->lines.length == 0 && audit->lost == 0 && !audit->stopping)
            pthread_cond_wait(&audit->changed, &audit->mutex);
        Line *line = g_queue_pop_head(&audit->lines);
        const guint64 lost = line ? 0 : audit->lost;
        if (!line)
            audit->lost = 0;
        const gboolean end = !line && !lost;
        pthread_mutex_unlock(&audit->mutex);

        if (end)
            return NULL;
        if (lost)
            write_lost(audit, lost);
        if (line) {
            write_line(audit, line);
            line_free(line);
        }
    }
}

/* ---- from outside ---- */

VpAudit *vp_audit_new(const VpAuditOptions *options, VpError **error)
{
    VpAudit *audit = g_new0(VpAudit, 1);

    audit->file = g_strdup(options->file);
    audit->journal = options->journal;
    audit->max_bytes = options->max_bytes;
    audit->keep = options->keep;
    audit->refused = options->refused;
    audit->data = options->data;
    audit->fd = -1;
    pthread_mutex_init(&audit->mutex, NULL);
    pthread_cond_init(&audit->changed, NULL);
    VpError *failure = audit->file ? open_file(audit) : NULL;
    if (!failure && audit->journal && access(JOURNAL_SOCKET, F_OK) < 0)
        failure = vp_error_errno(errno, "AUDIT_UNUSABLE", "[audit] to: there is no journal of systemd's");
    if (!failure)
        failure = vp_thread_start(&audit->thread, "vp-audit", run, audit);
    audit->running = !failure;
    if (failure) {
        *error = failure;
        vp_audit_free(audit);
        return NULL;
    }
    return audit;
}

static char *format_line(const VpAuditRecord *record)
{
    const gint64 wall_us = vp_wall_us();
    g_autoptr(GDateTime) seconds = g_date_time_new_from_unix_utc(wall_us / G_USEC_PER_SEC);
    g_autoptr(GDateTime) moment = g_date_time_add(seconds, wall_us % G_USEC_PER_SEC);
    g_autofree char *time = g_date_time_format(moment, "%Y-%m-%dT%H:%M:%S.%fZ");
    /* A name that was cut within a character would be no text, and its record lost. */
    g_autofree char *identity = g_utf8_make_valid(record->identity, -1);
    g_autofree char *caller = g_utf8_make_valid(record->caller, -1);
    /* JSON's escapes keep what others chose within its line. */
    json_t *line = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "time", time, "identity", identity, "caller",
                             caller, "method", record->method, "outcome",
                             record->refused ? "REFUSED"
                             : record->error ? "FAILED"
                                             : "DONE",
                             "code", record->error ? vp_code_name(record->error->code) : "OK", "duration_us",
                             (json_int_t)record->duration_us);

    if (record->resource)
        json_object_set_new(line, "resource", json_string(record->resource));
    if (record->error && record->error->reason)
        json_object_set_new(line, "reason", json_string(record->error->reason));
    if (record->left_out)
        json_object_set_new(line, "left_out", json_integer((json_int_t)record->left_out));
    if (record->revision)
        json_object_set_new(line, "revision", json_integer(record->revision));
    char *text = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    return text;
}

void vp_audit_write(VpAudit *audit, const VpAuditRecord *record)
{
    Line *line = g_new0(Line, 1);

    line->text = format_line(record);
    line->identity = g_strdup(record->identity);
    line->method = g_strdup(record->method);
    if (record->refused)
        line->detail = g_strdup_printf("%s%s%s, by %s: %s", record->method, record->resource ? " on " : "",
                                       record->resource ? record->resource : "", record->caller,
                                       record->error ? record->error->message : "refused");
    pthread_mutex_lock(&audit->mutex);
    const gboolean taken = line->text && audit->lines.length < MAX_QUEUED;
    if (taken)
        g_queue_push_tail(&audit->lines, line);
    else
        audit->lost++;
    pthread_cond_signal(&audit->changed);
    pthread_mutex_unlock(&audit->mutex);
    if (!taken)
        line_free(line);
}

void vp_audit_stop(VpAudit *audit)
{
    pthread_mutex_lock(&audit->mutex);
    audit->stopping = TRUE;
    pthread_cond_signal(&audit->changed);
    pthread_mutex_unlock(&audit->mutex);
    if (audit->running)
        pthread_join(audit->thread, NULL);
    audit->running = FALSE;
}

void vp_audit_free(VpAudit *audit)
{
    if (!audit)
        return;
    vp_audit_stop(audit);
    g_queue_clear_full(&audit->lines, (GDestroyNotify)line_free);
    if (audit->fd >= 0)
        close(audit->fd);
    pthread_cond_destroy(&audit->changed);
    pthread_mutex_destroy(&audit->mutex);
    g_free(audit->file);
    g_free(audit);
}
