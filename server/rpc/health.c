/* grpc.health.v1: SERVING for each service of the contract until the server drains. Owns the list of open watches. */
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "grpc/health/v1/health.pb-c.h"
#include "server/rpc/internal.h"

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

struct VpHealth {
    pthread_mutex_t mutex;
    gboolean draining;
};

VpHealth *vp_health_new(void)
{
    VpHealth *health = g_new0(VpHealth, 1);

    pthread_mutex_init(&health->mutex, NULL);
    return health;
}

void vp_health_drain(VpHealth *health)
{
    VP_LOCK(&health->mutex);
    health->draining = TRUE;
}

void vp_health_free(VpHealth *health)
{
    if (!health)
        return;
    pthread_mutex_destroy(&health->mutex);
    g_free(health);
}

static gboolean known(VpCall *call, const char *service)
{
    const char *const *services = vp_contract_services(vp_server_contract(call->server));

    return service[0] == '\0' || g_strv_contains(services, service);
}

static Grpc__Health__V1__HealthCheckResponse answer(VpCall *call, const char *service)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    VpHealth *health = vp_server_health(call->server);

    VP_LOCK(&health->mutex);
    response.status = !known(call, service) ? SERVICE_UNKNOWN : health->draining ? NOT_SERVING : SERVING;
    return response;
}

static void check(VpCall *call, const void *message, void *context)
{
    const Grpc__Health__V1__HealthCheckRequest *request = message;
    const Grpc__Health__V1__HealthCheckResponse response = answer(call, request->service);

    (void)context;
    if (response.status == SERVICE_UNKNOWN)
        vp_call_fail(call,
                     vp_error_new(VP_NOT_FOUND, "UNKNOWN_SERVICE", "there is no service \"%s\"", request->service));
    else
        vp_call_reply(call, &response);
}

static void watch_closed(VpCall *call, void *data)
{
    (void)data;
    vp_call_finish(call);
    vp_call_unref(call);
}

static void watch_drained(VpCall *call, void *data)
{
    const char *service = data;
    const Grpc__Health__V1__HealthCheckResponse response = answer(call, service);

    vp_call_write(call, &response, FALSE, NULL, NULL);
    vp_call_fail(call, vp_error_new(VP_UNAVAILABLE, "DAEMON_STOPPING", "the daemon is stopping; connect again later"));
}

/* Sends the state now and at its only change: the drain. */
static void watch(VpCall *call, const void *message, void *context)
{
    const Grpc__Health__V1__HealthCheckRequest *request = message;
    const Grpc__Health__V1__HealthCheckResponse response = answer(call, request->service);

    (void)context;
    vp_call_ref(call);
    /* The request lives as long as the call. */
    vp_call_on_drain(call, watch_drained, request->service);
    vp_call_write(call, &response, FALSE, NULL, NULL);
    vp_call_on_close(call, watch_closed, NULL);
}

const VpMethodHandler vp_health_handlers[] = {
    {"grpc.health.v1.Health/Check", check, VP_RPC_INLINE},
    {"grpc.health.v1.Health/Watch", watch, VP_RPC_INLINE},
    {0},
};
