/* See shutdown.h. */
#include "server/services/shutdown.h"

#include "base/pb.h"
#include "base/thread.h"

#define DAY_SECONDS (24 * 60 * 60)
/* For QEMU to be gone, and for a call without a limit of its own. */
#define AFTER_FALLBACK_US (60 * G_USEC_PER_SEC)
#define DEFAULT_WAIT_US (10 * 60 * G_USEC_PER_SEC)

VpError *vp_shutdown_check(PbShutdownMode mode, const Google__Protobuf__Duration *fallback_after)
{
    VpError *error = NULL;
    const gboolean bad_mode = !protobuf_c_enum_descriptor_get_value(&pb_shutdown_mode__descriptor, (int)mode);
    const gboolean bad_time = fallback_after && (fallback_after->seconds < 0 || fallback_after->nanos < 0 ||
                                                 fallback_after->seconds > DAY_SECONDS ||
                                                 fallback_after->seconds * 1000 + fallback_after->nanos / 1000000 < 1);

    if (!bad_mode && !bad_time)
        return NULL;
    error = vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "%s",
                         bad_mode ? "mode: is no value that is known" : "fallback_after: must be from 1 ms to a day");
    if (bad_mode)
        vp_error_violation(error, "mode", "is no value that is known");
    if (bad_time)
        vp_error_violation(error, "fallback_after", "must be from 1 ms to a day");
    return error;
}

/* A call that waits. Held by the wait, until it is told or let go, and until the call is over. */
typedef struct Ending {
    gint refs;
    VpCall *call;
    VpDomains *domains;
    gint64 deadline_us;
    char *uid;
    PbOperation *operation;
    VpOffWait *wait;
} Ending;

static void ending_unref(Ending *ending)
{
    if (!g_atomic_int_dec_and_test(&ending->refs))
        return;
    vp_call_unref(ending->call);
    vp_pb_free(ending->operation);
    g_free(ending->uid);
    g_free(ending);
}

static void reply(const Ending *ending, const PbDomain *domain)
{
    PbShutdownDomainResponse response = PB_SHUTDOWN_DOMAIN_RESPONSE__INIT;

    response.domain = (PbDomain *)domain;
    response.operation = ending->operation;
    vp_call_reply(ending->call, &response);
}

static void ended(void *data, const VpError *error)
{
    Ending *ending = data;
    g_autoptr(VpError) gone = NULL;
    g_autoptr(VpDomainView) view = error ? NULL : vp_domains_get(ending->domains, NULL, ending->uid, &gone);

    if (error)
        vp_call_fail(ending->call, vp_error_copy(error));
    else /* of one that was deleted since there is nothing to show */
        reply(ending, view ? view->domain : NULL);
    ending_unref(ending);
}

static void closed(VpCall *call, void *data)
{
    Ending *ending = data;

    (void)call;
    if (vp_off_wait_end(ending->wait))
        ending_unref(ending);
    ending_unref(ending);
}

static void asked(void *data, const VpDomainResult *result)
{
    Ending *ending = data;

    if (result->error) {
        VpError *error = vp_error_copy(result->error);

        if (result->operation)
            vp_error_with(error, "operation", result->operation->uid);
        vp_call_fail(ending->call, error);
        ending_unref(ending);
        return;
    }
    if (!result->domain) {
        reply(ending, NULL);
        ending_unref(ending);
        return;
    }
    ending->operation = vp_pb_dup(result->operation);
    ending->uid = g_strdup(result->domain->uid);
    g_atomic_int_inc(&ending->refs);
    ending->wait = vp_domains_wait_off(ending->domains, ending->uid, ending->deadline_us, ended, ending);
    vp_call_on_close(ending->call, closed, ending);
}

static gint64 wait_us(const VpVerbRequest *verb)
{
    const PbShutdownDomainRequest *request = verb->message;
    const Google__Protobuf__Duration *after = request->fallback_after;

    if (verb->timeout_ms)
        return (gint64)verb->timeout_ms * 1000;
    return after ? after->seconds * G_USEC_PER_SEC + after->nanos / 1000 + AFTER_FALLBACK_US : DEFAULT_WAIT_US;
}

void vp_shutdown_and_wait(const VpServices *services, VpCall *call, const VpVerbRequest *verb,
                          const VpDomainCaller *caller)
{
    Ending *ending = g_new0(Ending, 1);

    ending->refs = 1;
    ending->call = vp_call_ref(call);
    ending->domains = services->domains;
    ending->deadline_us = vp_now_us() + wait_us(verb);
    vp_domains_verb(services->domains, verb, caller, asked, ending);
}
