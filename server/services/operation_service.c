/* virtplane.v1.OperationService. */
#include <pthread.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/services/services.h"
#include "virtplane/v1/operation_service.pb-c.h"

static VpError *unknown(const char *uid)
{
    return vp_error_new(
        VP_NOT_FOUND, "OPERATION_NOT_FOUND",
        "there is no operation %s; ended ones are forgotten after a while, and all of them at a restart of the daemon",
        uid);
}

static void get_operation(VpCall *call, const void *message, void *context)
{
    const PbGetOperationRequest *request = message;
    const VpServices *services = context;
    vp_pb_auto PbOperation *operation = vp_jobs_get_operation(services->jobs, request->uid);
    PbGetOperationResponse response = PB_GET_OPERATION_RESPONSE__INIT;

    if (!operation) {
        vp_call_fail(call, unknown(request->uid));
        return;
    }
    response.operation = operation;
    vp_call_reply(call, &response);
}

/* What a page token is bound to: all of the request but where and how much. */
static PbListOperationsRequest list_scope(const PbListOperationsRequest *request)
{
    PbListOperationsRequest scope = PB_LIST_OPERATIONS_REQUEST__INIT;

    scope.resource_uid = request->resource_uid;
    scope.active_only = request->active_only;
    return scope;
}

/* How many of the first fit on a page, at least one. */
static guint fit_page(const GPtrArray *operations, guint limit)
{
    gsize bytes = 0;
    guint n = 0;

    for (; n < operations->len && n < limit; n++) {
        bytes += pb_operation__get_packed_size(operations->pdata[n]);
        if (n > 0 && bytes > VP_PAGE_MAX_BYTES)
            break;
    }
    return n;
}

static void list_operations(VpCall *call, const void *message, void *context)
{
    const PbListOperationsRequest *request = message;
    const VpServices *services = context;
    const PbListOperationsRequest scope = list_scope(request);
    const guint limit = vp_page_size(request->page_size);
    g_autofree char *after = NULL;
    g_autofree char *token = NULL;

    VpError *error = vp_page_token_read(&services->page_key, "ListOperations", &scope, request->page_token, &after);
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    g_auto(VpSight) sight = {0};
    vp_sight_take(call, NULL, &sight);
    /* One more than asked for tells whether there are more; who does not see all of them needs all to be looked at. */
    g_autoptr(GPtrArray) operations =
        vp_jobs_list_operations(services->jobs, request->resource_uid[0] ? request->resource_uid : NULL,
                                request->active_only, after, sight.policy ? 0 : limit + 1);
    for (guint i = 0; sight.policy && i < operations->len && i <= limit;) {
        if (vp_sight_sees_operation(&sight, services->domains, operations->pdata[i]))
            i++;
        else
            g_ptr_array_remove_index(operations, i);
    }
    PbListOperationsResponse response = PB_LIST_OPERATIONS_RESPONSE__INIT;
    response.n_operations = fit_page(operations, limit);
    response.operations = (PbOperation **)operations->pdata;
    if (operations->len > response.n_operations) {
        const PbOperation *last = operations->pdata[response.n_operations - 1];

        token = vp_page_token_new(&services->page_key, "ListOperations", &scope, last->uid);
        response.next_page_token = token;
    }
    vp_call_reply(call, &response);
}

static void cancel_operation(VpCall *call, const void *message, void *context)
{
    const PbCancelOperationRequest *request = message;
    const VpServices *services = context;
    VpError *error = vp_jobs_cancel(services->jobs, request->uid);

    if (error) {
        vp_call_fail(call, error);
        return;
    }
    vp_pb_auto PbOperation *operation = vp_jobs_get_operation(services->jobs, request->uid);
    PbCancelOperationResponse response = PB_CANCEL_OPERATION_RESPONSE__INIT;
    response.operation = operation;
    vp_call_reply(call, &response);
}

/* ---- WatchOperation: sends the present state; at a change while that is under way, sends again ---- */

typedef struct Watch {
    gint refs;
    VpJobs *jobs;
    VpCall *call; /* a reference */
    char *uid;
    VpJobWatch *watch;

    pthread_mutex_t mutex;
    gboolean sending;
    gboolean changed; /* since the last message */
} Watch;

static void send_if_changed(Watch *watch);

static void watch_unref(Watch *watch)
{
    if (!g_atomic_int_dec_and_test(&watch->refs))
        return;
    vp_call_unref(watch->call);
    pthread_mutex_destroy(&watch->mutex);
    g_free(watch->uid);
    g_free(watch);
}

static void sent(VpCall *call, void *data, gboolean ok)
{
    Watch *watch = data;

    (void)call;
    pthread_mutex_lock(&watch->mutex);
    watch->sending = FALSE;
    pthread_mutex_unlock(&watch->mutex);
    if (ok)
        send_if_changed(watch);
    watch_unref(watch);
}

static gboolean has_ended(const PbOperation *operation)
{
    return operation->state == PB_OPERATION_STATE_SUCCEEDED || operation->state == PB_OPERATION_STATE_FAILED ||
           operation->state == PB_OPERATION_STATE_CANCELLED;
}

static void send_if_changed(Watch *watch)
{
    pthread_mutex_lock(&watch->mutex);
    const gboolean send = watch->changed && !watch->sending;
    if (send) {
        watch->changed = FALSE;
        watch->sending = TRUE;
    }
    pthread_mutex_unlock(&watch->mutex);
    if (!send)
        return;

    vp_pb_auto PbOperation *operation = vp_jobs_get_operation(watch->jobs, watch->uid);
    if (!operation) {
        vp_call_fail(watch->call, unknown(watch->uid));
        return;
    }
    PbWatchOperationResponse response = PB_WATCH_OPERATION_RESPONSE__INIT;
    response.operation = operation;
    g_atomic_int_inc(&watch->refs);
    if (!vp_call_write(watch->call, &response, FALSE, sent, watch))
        watch_unref(watch);
    if (has_ended(operation))
        vp_call_finish(watch->call);
}

static void operation_changed(void *data)
{
    Watch *watch = data;

    pthread_mutex_lock(&watch->mutex);
    watch->changed = TRUE;
    pthread_mutex_unlock(&watch->mutex);
    send_if_changed(watch);
}

static void watch_closed(VpCall *call, void *data)
{
    Watch *watch = data;

    vp_jobs_unwatch(watch->jobs, watch->watch);
    vp_call_finish(call);
    watch_unref(watch);
}

static void watch_operation(VpCall *call, const void *message, void *context)
{
    const PbWatchOperationRequest *request = message;
    const VpServices *services = context;
    Watch *watch = g_new0(Watch, 1);

    watch->refs = 2; /* the call's, given back when it is closed, and ours */
    watch->jobs = services->jobs;
    watch->call = vp_call_ref(call);
    watch->uid = g_strdup(request->uid);
    pthread_mutex_init(&watch->mutex, NULL);
    watch->watch = vp_jobs_watch(services->jobs, request->uid, operation_changed, watch);
    if (!watch->watch)
        vp_call_fail(call, unknown(request->uid));
    else
        operation_changed(watch);
    vp_call_on_close(call, watch_closed, watch);
    watch_unref(watch);
}

const VpMethodHandler vp_operation_handlers[] = {
    {"virtplane.v1.OperationService/GetOperation", get_operation, VP_RPC_INLINE},
    {"virtplane.v1.OperationService/ListOperations", list_operations, VP_RPC_INLINE},
    {"virtplane.v1.OperationService/CancelOperation", cancel_operation, VP_RPC_INLINE},
    {"virtplane.v1.OperationService/WatchOperation", watch_operation, VP_RPC_INLINE},
    {0},
};
