/* How far an operation is: its operation shows each step, the journal is told of some. See internal.h. */
#include "base/thread.h"
#include "server/domains/internal.h"

/* Of one operation at most one event in this time, none in the first of it, and none without news: a consumer sees long work go on, and the journal does not
 * fill with it. */
#define EVERY_US G_USEC_PER_SEC

typedef struct Told {
    const char *type;
    char *operation_uid;
    char *detail;
} Told;

void vp_progress_init(VpProgress *progress)
{
    pthread_mutex_init(&progress->mutex, NULL);
    progress->next_us = vp_now_us() + EVERY_US;
}

void vp_progress_clear(VpProgress *progress)
{
    pthread_mutex_destroy(&progress->mutex);
    g_clear_pointer(&progress->message, g_free);
}

/* Whether the journal is to have this. */
static gboolean is_due(VpProgress *progress, guint percent, const char *message)
{
    const gint64 now_us = vp_now_us();

    VP_LOCK(&progress->mutex);
    if (now_us < progress->next_us || (percent == progress->percent && g_strcmp0(message, progress->message) == 0))
        return FALSE;
    progress->next_us = now_us + EVERY_US;
    progress->percent = percent;
    g_free(progress->message);
    progress->message = g_strdup(message);
    return TRUE;
}

static VpError *apply_told(VpRecord *record, PbDomain *draft, VpTxn *txn, void *data)
{
    const Told *told = data;
    const VpOperationEvent event = {
        .event = PB_EVENT_TYPE_OPERATION_PROGRESS,
        .type = told->type,
        .uid = told->operation_uid,
        .detail = told->detail,
    };

    (void)record;
    vp_operation_event(txn, draft, &event);
    return NULL;
}

static void told_free(void *data)
{
    Told *told = data;

    g_free(told->operation_uid);
    g_free(told->detail);
    g_free(told);
}

void vp_record_progress(VpRecord *record, VpJob *job, VpProgress *progress, const char *type, guint percent,
                        const char *message)
{
    vp_job_progress(job, percent, message);
    if (!is_due(progress, percent, message))
        return;
    Told *told = g_new0(Told, 1);
    const VpMutation mutation = {
        .apply = apply_told,
        .destroy = told_free,
        .data = told,
        .event_only = TRUE,
        /* Old news: let go if the store does not take it. */
        .impatient = TRUE,
    };

    told->type = type;
    told->operation_uid = g_strdup(vp_job_uid(job));
    told->detail = g_strdup_printf("%u %%: %s", percent, message);
    vp_record_mutate(record, &mutation);
}
