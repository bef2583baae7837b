/*
 * How calls come in: the methods as registered with the core, the requests posted for each of them on each completion queue, and what the queues'
 * threads do. A call takes a request, which is posted again at once.
 */
#include <grpc/grpc.h>
#include <grpc/support/time.h>
#include <string.h>

#include "base/log.h"
#include "server/rpc/internal.h"

#define POSTED_PER_METHOD 4

/* A posted request: for one method, or (endpoint NULL) for methods that we do not know. */
typedef struct Slot {
    VpTag tag;
    VpQueue *queue;
    const VpEndpoint *endpoint;
    grpc_call *call;
    grpc_metadata_array metadata;
    gpr_timespec deadline;
    grpc_byte_buffer *payload;
    grpc_call_details details;
} Slot;

static void slot_free(Slot *slot)
{
    grpc_metadata_array_destroy(&slot->metadata);
    if (!slot->endpoint)
        grpc_call_details_destroy(&slot->details);
    g_free(slot);
}

static void slot_post(Slot *slot)
{
    grpc_server *server = slot->queue->server->server;
    grpc_completion_queue *cq = slot->queue->cq;
    grpc_call_error result;

    slot->metadata.count = 0;
    VP_TAG_RELEASE(&slot->tag);
    if (slot->endpoint)
        result = grpc_server_request_registered_call(server, slot->endpoint->registered, &slot->call, &slot->deadline,
                                                     &slot->metadata,
                                                     slot->endpoint->method->client_streaming ? NULL : &slot->payload,
                                                     cq, cq, &slot->tag);
    else
        result = grpc_server_request_call(server, &slot->call, &slot->details, &slot->metadata, cq, cq, &slot->tag);
    if (result != GRPC_CALL_OK) {
        vp_log(VP_LOG_ERROR, "cannot take calls: %s", grpc_call_error_to_string(result));
        slot_free(slot);
    }
}

/* The header of this name, NULL if there is none. Of several, none can be told to be meant: they make one that is no token. */
static char *find_authorization(const grpc_metadata_array *metadata)
{
    static const char name[] = "authorization";
    char *found = NULL;

    for (size_t i = 0; i < metadata->count; i++) {
        const grpc_metadata *entry = &metadata->metadata[i];

        if (GRPC_SLICE_LENGTH(entry->key) != strlen(name) ||
            memcmp(GRPC_SLICE_START_PTR(entry->key), name, strlen(name)) != 0)
            continue;
        if (found) {
            g_free(found);
            return g_strdup("");
        }
        found = g_strndup((const char *)GRPC_SLICE_START_PTR(entry->value), GRPC_SLICE_LENGTH(entry->value));
    }
    return found;
}

static void slot_fired(VpTag *tag, gboolean ok)
{
    Slot *slot = (Slot *)tag;
    VpRpcServer *server = slot->queue->server;

    /* The server is shutting down. */
    if (!ok) {
        slot_free(slot);
        return;
    }

    grpc_call *call = g_steal_pointer(&slot->call);
    grpc_byte_buffer *payload = g_steal_pointer(&slot->payload);
    const VpEndpoint *endpoint = slot->endpoint;
    gpr_timespec deadline = slot->deadline;
    char *authorization = find_authorization(&slot->metadata);

    if (!endpoint) {
        endpoint = &server->unknown;
        deadline = slot->details.deadline;
        grpc_call_details_destroy(&slot->details);
        grpc_call_details_init(&slot->details);
    }
    slot_post(slot);
    VpCall *arrived = vp_call_arrive(server, endpoint, call, deadline, payload, authorization);
    if (arrived)
        vp_turns_add(slot->queue, arrived);
}

void vp_requests_post(VpQueue *queue, const VpEndpoint *endpoint)
{
    for (guint i = 0; i < POSTED_PER_METHOD; i++) {
        Slot *slot = g_new0(Slot, 1);

        slot->tag.fire = slot_fired;
        slot->queue = queue;
        slot->endpoint = endpoint;
        grpc_metadata_array_init(&slot->metadata);
        if (!endpoint)
            grpc_call_details_init(&slot->details);
        slot_post(slot);
    }
}

void *vp_queue_run(void *data)
{
    VpQueue *queue = data;

    vp_watchdog_watch(queue);
    for (;;) {
        /* With calls that wait it only looks, once, and goes on with those. */
        const grpc_event event =
            grpc_completion_queue_next(queue->cq,
                                       vp_turns_waiting(queue) ? gpr_inf_past(GPR_CLOCK_MONOTONIC)
                                                               : gpr_inf_future(GPR_CLOCK_MONOTONIC),
                                       NULL);

        g_atomic_int_inc(&queue->turns);
        if (event.type == GRPC_QUEUE_TIMEOUT) {
            vp_turns_look(queue);
            continue;
        }
        if (event.type == GRPC_QUEUE_SHUTDOWN) {
            vp_watchdog_unwatch(queue);
            return NULL;
        }
        VpTag *tag = event.tag;
        VP_TAG_ACQUIRE(tag);
        tag->fire(tag, event.success != 0);
        vp_turns_event(queue);
    }
}

static const VpMethodHandler *find_handler(const VpHandlerTable *tables, const char *method, void **ret_context)
{
    for (; tables && tables->handlers; tables++) {
        for (const VpMethodHandler *handler = tables->handlers; handler->method; handler++) {
            if (g_str_equal(handler->method, method)) {
                *ret_context = tables->context;
                return handler;
            }
        }
    }
    return NULL;
}

void vp_requests_build(VpRpcServer *server, const VpHandlerTable *tables)
{
    static const VpHandlerTable own[] = {{vp_health_handlers, NULL}, {vp_reflection_handlers, NULL}, {0}};
    const GArray *methods = vp_contract_methods(server->contract);

    server->endpoints = g_array_sized_new(FALSE, TRUE, sizeof(VpEndpoint), methods->len);
    for (guint i = 0; i < methods->len; i++) {
        VpEndpoint endpoint = {.method = &g_array_index(methods, VpMethod, i)};
        const VpMethodHandler *handler = find_handler(own, endpoint.method->method, &endpoint.context);

        if (!handler)
            handler = find_handler(tables, endpoint.method->method, &endpoint.context);
        if (handler) {
            endpoint.handler = handler->handler;
            endpoint.flags = handler->flags;
        }
        endpoint.registered =
            grpc_server_register_method(server->server, endpoint.method->path, NULL,
                                        endpoint.method->client_streaming ? GRPC_SRM_PAYLOAD_NONE
                                                                          : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
                                        0);
        g_array_append_val(server->endpoints, endpoint);
    }
    server->unknown_method = (VpMethod){.method = "a method that is not in the contract",
                                        .client_streaming = TRUE,
                                        .role = PB_ROLE_ANYONE,
                                        .scope = PB_METHOD_SCOPE_HOST,
                                        .resource = (char *)"daemon"};
    server->unknown.method = &server->unknown_method;
}
