/*
 * Questions to a domain's driver: what changes nothing about the domain's state and so waits behind no job, however long that takes. A new question is a row
 * in the table here, a value of VpQuestion and an operation in drivers/driver.h.
 */
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"

/* Questions of one kind about one domain that may be under way: a hypervisor that does not answer shall not gather them. */
#define MAX_QUESTIONS 16

#define STATE(name) (1u << PB_DOMAIN_STATE_##name)
#define ANSWERS (STATE(RUNNING) | STATE(PAUSED) | STATE(SHUTTING_DOWN))
/* A hypervisor is there; whether it answers is for it to show. */
#define RUNS (ANSWERS | STATE(UNRESPONSIVE))
/* And its guest can answer. */
#define GUEST_RUNS (STATE(RUNNING) | STATE(SHUTTING_DOWN) | STATE(UNRESPONSIVE))

static const struct QuestionRule {
    const char *method; /* NULL: that of the request */
    const char *words;  /* "cannot ... the domain" */
    gsize op_offset;
    guint states;
    guint64 timeout_ms;
} rules[] = {
    [VP_QUESTION_STATS] = {"GetDomainStats", "read the counters of", offsetof(VpDriverOps, stats), RUNS, 1000},
    [VP_QUESTION_SCREENSHOT] = {"TakeScreenshot", "take a picture of", offsetof(VpDriverOps, screenshot), ANSWERS,
                                10000},
    [VP_QUESTION_GUEST] = {NULL, "ask the guest of", offsetof(VpDriverOps, guest), GUEST_RUNS, 30000},
};

/* One question under way. */
typedef struct Asking {
    VpRecord *record;
    VpQuestion question;
    VpDriverOp op;
    VpTask *task;
    VpAnswered done;
    void *data;
} Asking;

static VpDriverOp driver_op(const VpDriver *driver, const struct QuestionRule *rule)
{
    VpDriverOp op;

    memcpy(&op, (const char *)driver->ops + rule->op_offset, sizeof(op));
    return op;
}

static void asking_free(Asking *asking)
{
    VpDomains *domains = asking->record->domains;

    pthread_mutex_lock(&domains->mutex);
    asking->record->questions[asking->question]--;
    pthread_mutex_unlock(&domains->mutex);
    vp_task_unref(asking->task);
    vp_record_unref(asking->record);
    g_free(asking);
    vp_domains_leave(domains);
}

static void answered(void *data, VpError *owned)
{
    Asking *asking = data;
    g_autoptr(VpError) error = owned;

    asking->done(asking->data, error, error ? NULL : vp_task_answer(asking->task));
    asking_free(asking);
}

/* Before the drivers are closed, all that was queued is in their hands. */
static void handed_over(VpDomains *domains)
{
    VP_LOCK(&domains->mutex);
    if (--domains->handing_over == 0)
        pthread_cond_broadcast(&domains->idle);
}

static void run(void *data)
{
    Asking *asking = data;
    VpDomains *domains = asking->record->domains;

    /* The last thing that is done with it here: an answer may come, and free it, before this returns. */
    asking->op(asking->record->driver, vp_task_ref(asking->task));
    handed_over(domains);
}

/* "PingGuest" of a PingGuestRequest. */
static char *method_of(const struct QuestionRule *rule, const VpAsk *question)
{
    const ProtobufCMessage *request = question->request;

    if (rule->method)
        return g_strdup(rule->method);
    return g_strndup(request->descriptor->short_name, strlen(request->descriptor->short_name) - strlen("Request"));
}

static VpError *check(const struct QuestionRule *rule, const VpAsk *question, VpRecord *record,
                      const VpDomainView *view)
{
    g_autofree char *method = method_of(rule, question);

    if (!driver_op(record->driver, rule))
        return vp_domain_cannot(record->driver, method);
    if (!view)
        return vp_error_new(VP_NOT_FOUND, "DOMAIN_NOT_FOUND", "the domain %s was deleted", record->name);
    return vp_domain_check_state(view->domain, rule->states, rule->words);
}

/* Counts it in. */
static VpError *enter(VpRecord *record, VpQuestion question)
{
    VpDomains *domains = record->domains;

    VP_LOCK(&domains->mutex);
    if (domains->stopping)
        return vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon stops");
    if (record->questions[question] >= MAX_QUESTIONS)
        return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_MANY_QUESTIONS",
                                           "%d questions to the domain %s are under way; it is slow to answer",
                                           MAX_QUESTIONS, record->name),
                              1000);
    record->questions[question]++;
    domains->inside++;
    domains->handing_over++;
    return NULL;
}

static VpError *ask(VpDomains *domains, const VpAsk *question, VpAnswered done, void *data, VpTask **ret_task)
{
    const struct QuestionRule *rule = &rules[question->question];
    VpError *error = NULL;
    g_autoptr(VpRecord) record = vp_registry_find(domains, question->name, question->uid, &error);

    if (!record)
        return error;
    g_autoptr(VpDomainView) view = vp_record_view(record);
    error = check(rule, question, record, view);
    if (!error)
        error = enter(record, question->question);
    if (error)
        return error;

    const guint64 timeout_ms = question->timeout_ms ? question->timeout_ms : rule->timeout_ms;
    Asking *asking = g_new0(Asking, 1);
    asking->record = g_steal_pointer(&record);
    asking->question = question->question;
    asking->op = driver_op(asking->record->driver, rule);
    asking->task = vp_task_new(view->domain, vp_now_us() + (gint64)timeout_ms * 1000, answered, asking);
    asking->done = done;
    asking->data = data;
    vp_task_set_request(asking->task, question->request);
    vp_task_set_output(asking->task, question->has_output ? question->output : -1);
    vp_task_set_stream(asking->task, question->stream);
    g_autoptr(VpTask) task = vp_task_ref(asking->task);
    if (!vp_pool_submit(domains->pool, run, asking)) {
        handed_over(domains);
        asking_free(asking);
        return vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY", "the daemon has too much to do"), 1000);
    }
    *ret_task = g_steal_pointer(&task);
    return NULL;
}

VpTask *vp_domains_ask(VpDomains *domains, const VpAsk *question, VpAnswered done, void *data)
{
    VpTask *task = NULL;
    g_autoptr(VpError) error = ask(domains, question, done, data, &task);

    if (error)
        done(data, error, NULL);
    return task;
}
