/* virtplane.v1.DomainService. */
#include <string.h>

#include "base/pb.h"
#include "server/services/screenshot.h"
#include "server/services/services.h"
#include "server/services/shutdown.h"
#include "virtplane/v1/domain_service.pb-c.h"

/* ---- reads ---- */

static void get_domain(VpCall *call, const void *message, void *context)
{
    const PbGetDomainRequest *request = message;
    const VpServices *services = context;
    VpError *error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(services->domains, request->name, request->uid, &error);

    if (view)
        vp_call_reply_packed(call, view->get_response);
    else
        vp_call_fail(call, error);
}

/* A page's place, "REVISION NAME": all pages of a list carry the revision of the first, so that a client that watches from there sees whatever has
 * changed while it turned the pages. */
static const char *read_place(const char *place, gint64 *revision)
{
    char *end = NULL;

    *revision = g_ascii_strtoll(place, &end, 10);
    return end + 1;
}

/* A page has no more bytes than clients take. */
#define MAX_PAGE_BYTES (3 * 1024 * 1024)

/* As vp_domains_list(), of what the caller sees. */
static GPtrArray *list_seen(VpDomains *domains, const VpSight *sight, const PbDomainFilter *filter, const char *after,
                            guint limit, gboolean *ret_more)
{
    GPtrArray *seen = g_ptr_array_new_with_free_func((GDestroyNotify)vp_domain_view_unref);
    g_autofree char *place = g_strdup(after);
    gboolean full = FALSE;
    gsize bytes = 0;

    *ret_more = TRUE;
    while (*ret_more && !full) {
        g_autoptr(GPtrArray) views = vp_domains_list(domains, filter, place, limit, ret_more);

        if (views->len == 0)
            break;
        for (guint i = 0; i < views->len && !full; i++) {
            VpDomainView *view = views->pdata[i];

            g_free(place);
            place = g_strdup(view->domain->name);
            if (!vp_sight_sees_domain(sight, view->domain))
                continue;
            g_ptr_array_add(seen, vp_domain_view_ref(view));
            bytes += g_bytes_get_size(view->get_response);
            full = seen->len == limit || bytes > MAX_PAGE_BYTES;
            *ret_more = *ret_more || (full && i + 1 < views->len);
        }
    }
    return seen;
}

static void list_domains(VpCall *call, const void *message, void *context)
{
    const PbListDomainsRequest *request = message;
    const VpServices *services = context;
    g_autofree char *place = NULL;
    g_autofree char *token = NULL;
    gboolean more = FALSE;

    VpError *error =
        vp_page_token_read(&services->page_key, "ListDomains", request->filter, request->page_token, &place);
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    /* Before the list: what changes in between comes as an event, rather once too often than never. */
    gint64 revision = vp_store_revision(services->store);
    const char *after = place ? read_place(place, &revision) : NULL;
    const guint limit = vp_page_size(request->page_size);
    g_auto(VpSight) sight = {0};
    vp_sight_take(call, NULL, &sight);
    g_autoptr(GPtrArray) views = sight.policy
                                     ? list_seen(services->domains, &sight, request->filter, after, limit, &more)
                                     : vp_domains_list(services->domains, request->filter, after, limit, &more);
    g_autofree PbDomain **domains = g_new(PbDomain *, views->len + 1);
    for (guint i = 0; i < views->len; i++)
        domains[i] = ((VpDomainView *)views->pdata[i])->domain;

    PbListDomainsResponse response = PB_LIST_DOMAINS_RESPONSE__INIT;
    response.n_domains = views->len;
    response.domains = domains;
    response.revision = revision;
    if (more && views->len > 0) {
        g_autofree char *next = g_strdup_printf("%" G_GINT64_FORMAT " %s", revision, domains[views->len - 1]->name);

        token = vp_page_token_new(&services->page_key, "ListDomains", request->filter, next);
        response.next_page_token = token;
    }
    vp_call_reply(call, &response);
}

/* ---- changes: answered when they are done, by a callback that holds the call ---- */

/* Who calls, in the words of server/domains; what it points to lives in the struct. */
typedef struct Who {
    VpCaller caller;
    char identity[VP_IDENTITY_MAX_BYTES + 16];
    VpDomainCaller domain_caller;
} Who;

static const VpDomainCaller *who_calls(VpCall *call, const char *request_id, Who *who)
{
    vp_call_caller(call, &who->caller);
    if (who->caller.identity)
        g_strlcpy(who->identity, who->caller.identity, sizeof(who->identity));
    else if (who->caller.local)
        g_snprintf(who->identity, sizeof(who->identity), "uid:%u", who->caller.uid);
    else
        g_strlcpy(who->identity, "anonymous", sizeof(who->identity));
    who->domain_caller =
        (VpDomainCaller){.identity = who->identity, .text = who->caller.text, .request_id = request_id};
    who->domain_caller.most_domains = vp_call_limits(call).domains;
    return &who->domain_caller;
}

static void fail_with(VpCall *call, const VpDomainResult *result)
{
    VpError *error = vp_error_copy(result->error);

    if (result->operation)
        vp_error_with(error, "operation", result->operation->uid);
    vp_call_fail(call, error);
}

static guint64 duration_ms(const Google__Protobuf__Duration *duration)
{
    /* Negative or absurd ones count as unset and as a day. */
    if (!duration || duration->seconds < 0 || duration->nanos < 0)
        return 0;
    if (duration->seconds >= 24 * 60 * 60)
        return 24 * 60 * 60 * 1000;
    return (guint64)duration->seconds * 1000 + (guint64)duration->nanos / 1000000;
}

/* Create and update answer with messages of one shape. */
static void changed(void *data, const VpDomainResult *result)
{
    g_autoptr(VpCall) call = data;
    PbCreateDomainResponse response = PB_CREATE_DOMAIN_RESPONSE__INIT;

    if (result->error) {
        fail_with(call, result);
        return;
    }
    response.domain = (PbDomain *)result->domain;
    vp_call_reply(call, &response);
}

static void create_domain(VpCall *call, const void *message, void *context)
{
    const PbCreateDomainRequest *request = message;
    const VpServices *services = context;
    Who who;

    vp_domains_create(services->domains, request, who_calls(call, request->request_id, &who), changed,
                      vp_call_ref(call));
}

static void update_domain(VpCall *call, const void *message, void *context)
{
    const PbUpdateDomainRequest *request = message;
    const VpServices *services = context;
    Who who;

    vp_domains_update(services->domains, request, who_calls(call, request->request_id, &who),
                      duration_ms(request->timeout), changed, vp_call_ref(call));
}

static void deleted(void *data, const VpDomainResult *result)
{
    g_autoptr(VpCall) call = data;
    PbDeleteDomainResponse response = PB_DELETE_DOMAIN_RESPONSE__INIT;

    if (result->error) {
        fail_with(call, result);
        return;
    }
    response.revision = result->revision;
    vp_call_reply(call, &response);
}

static void delete_domain(VpCall *call, const void *message, void *context)
{
    const PbDeleteDomainRequest *request = message;
    const VpServices *services = context;
    Who who;

    vp_domains_delete(services->domains, request, who_calls(call, request->request_id, &who), deleted,
                      vp_call_ref(call));
}

/* ---- verbs: all requests and all answers have the same shape, whatever their names ---- */

static void verb_done(void *data, const VpDomainResult *result)
{
    g_autoptr(VpCall) call = data;
    /* Field by field the same message as those of the other verbs; the wire does not know the names. */
    PbPauseDomainResponse response = PB_PAUSE_DOMAIN_RESPONSE__INIT;

    if (result->error) {
        fail_with(call, result);
        return;
    }
    response.domain = (PbDomain *)result->domain;
    response.operation = (PbOperation *)result->operation;
    vp_call_reply(call, &response);
}

static void run_verb(VpCall *call, void *context, VpVerbRequest request)
{
    const VpServices *services = context;
    Who who;

    vp_domains_verb(services->domains, &request, who_calls(call, "", &who), verb_done, vp_call_ref(call));
}

#define VERB_REQUEST(what, message)                                                                                    \
    (VpVerbRequest)                                                                                                    \
    {                                                                                                                  \
        .verb = (what), .name = (message)->name, .uid = (message)->uid, .no_wait = (message)->no_wait,                 \
        .timeout_ms = duration_ms((message)->timeout)                                                                  \
    }

/* Of these the answers have that shape as well. */
static void attach_device(VpCall *call, const void *message, void *context)
{
    const PbAttachDeviceRequest *request = message;
    const VpServices *services = context;
    Who who;

    vp_domains_attach(services->domains, request, who_calls(call, request->request_id, &who),
                      duration_ms(request->timeout), verb_done, vp_call_ref(call));
}

static void detach_device(VpCall *call, const void *message, void *context)
{
    const PbDetachDeviceRequest *request = message;
    const VpServices *services = context;
    Who who;

    vp_domains_detach(services->domains, request, who_calls(call, request->request_id, &who),
                      duration_ms(request->timeout), verb_done, vp_call_ref(call));
}

static void start_domain(VpCall *call, const void *message, void *context)
{
    const PbStartDomainRequest *request = message;
    VpVerbRequest verb = VERB_REQUEST(VP_VERB_START, request);

    verb.paused = request->paused;
    verb.message = request;
    run_verb(call, context, verb);
}

static void reboot_domain(VpCall *call, const void *message, void *context)
{
    const PbRebootDomainRequest *request = message;
    VpVerbRequest verb = VERB_REQUEST(VP_VERB_REBOOT, request);
    VpError *error = vp_shutdown_check(request->mode, request->fallback_after);

    if (error) {
        vp_call_fail(call, error);
        return;
    }
    verb.message = request;
    run_verb(call, context, verb);
}

static void save_domain(VpCall *call, const void *message, void *context)
{
    const PbSaveDomainRequest *request = message;
    VpVerbRequest verb = VERB_REQUEST(VP_VERB_SAVE, request);

    verb.paused = request->paused;
    verb.message = request;
    run_verb(call, context, verb);
}

static void restore_domain(VpCall *call, const void *message, void *context)
{
    const PbRestoreDomainRequest *request = message;
    VpVerbRequest verb = VERB_REQUEST(VP_VERB_RESTORE, request);

    verb.paused = request->paused;
    verb.message = request;
    run_verb(call, context, verb);
}

static void discard_saved_state(VpCall *call, const void *message, void *context)
{
    run_verb(call, context, VERB_REQUEST(VP_VERB_DISCARD, (const PbDiscardSavedStateRequest *)message));
}

static void shutdown_domain(VpCall *call, const void *message, void *context)
{
    const PbShutdownDomainRequest *request = message;
    VpVerbRequest verb = VERB_REQUEST(VP_VERB_SHUTDOWN, request);
    Who who;
    VpError *error = vp_shutdown_check(request->mode, request->fallback_after);

    if (!error && request->wait && request->no_wait)
        error = vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                                "wait and no_wait are both set: choose one"),
                                   "wait", "does not go with no_wait");
    if (error) {
        vp_call_fail(call, error);
        return;
    }
    verb.message = request;
    if (request->wait)
        vp_shutdown_and_wait(context, call, &verb, who_calls(call, "", &who));
    else
        run_verb(call, context, verb);
}

static void power_off_domain(VpCall *call, const void *message, void *context)
{
    run_verb(call, context, VERB_REQUEST(VP_VERB_POWER_OFF, (const PbPowerOffDomainRequest *)message));
}

static void reset_domain(VpCall *call, const void *message, void *context)
{
    run_verb(call, context, VERB_REQUEST(VP_VERB_RESET, (const PbResetDomainRequest *)message));
}

static void pause_domain(VpCall *call, const void *message, void *context)
{
    run_verb(call, context, VERB_REQUEST(VP_VERB_PAUSE, (const PbPauseDomainRequest *)message));
}

static void resume_domain(VpCall *call, const void *message, void *context)
{
    run_verb(call, context, VERB_REQUEST(VP_VERB_RESUME, (const PbResumeDomainRequest *)message));
}

/* ---- counters ---- */

static void get_domain_stats(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;

    vp_stats_hub_get(services->stats, call, message);
}

static void watch_domain_stats(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;

    vp_stats_hub_watch(services->stats, call, message);
}

/* ---- streams to a port ---- */

static void open_console(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;

    (void)message;
    vp_lines_open_console(services->lines, call);
}

static void open_screen(VpCall *call, const void *message, void *context)
{
    const VpServices *services = context;

    (void)message;
    vp_lines_open_screen(services->lines, call);
}

static void take_screenshot(VpCall *call, const void *message, void *context)
{
    vp_screenshot_take(context, call, message);
}

const VpMethodHandler vp_domain_handlers[] = {
    {"virtplane.v1.DomainService/CreateDomain", create_domain, VP_RPC_WORKER},
    {"virtplane.v1.DomainService/GetDomain", get_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/ListDomains", list_domains, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/UpdateDomain", update_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/DeleteDomain", delete_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/StartDomain", start_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/ShutdownDomain", shutdown_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/PowerOffDomain", power_off_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/RebootDomain", reboot_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/ResetDomain", reset_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/PauseDomain", pause_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/ResumeDomain", resume_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/SaveDomain", save_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/RestoreDomain", restore_domain, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/DiscardSavedState", discard_saved_state, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/AttachDevice", attach_device, VP_RPC_WORKER},
    {"virtplane.v1.DomainService/DetachDevice", detach_device, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/GetDomainStats", get_domain_stats, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/WatchDomainStats", watch_domain_stats, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/OpenConsole", open_console, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/OpenScreen", open_screen, VP_RPC_INLINE},
    {"virtplane.v1.DomainService/TakeScreenshot", take_screenshot, VP_RPC_INLINE},
    {0},
};
