/* The connection and unary calls: see client.h. */
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <string.h>

#include "base/pb.h"
#include "clients/c/internal.h"

enum {
    MAX_ANSWER_BYTES = 64 * 1024 * 1024,
};

static void drop_log(gpr_log_func_args *args)
{
    (void)args;
}

void vp_client_library_init(void)
{
    if (!g_getenv("GRPC_VERBOSITY"))
        gpr_set_log_function(drop_log);
    grpc_init();
}

void vp_client_library_shutdown(void)
{
    grpc_shutdown_blocking();
}

static grpc_arg int_arg(const char *key, int value)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

VpClient *vp_client_new(const char *address, VpError **error)
{
    const VpClientSecurity none = {0};

    return vp_client_new_secure(address, &none, error);
}

VpClient *vp_client_new_secure(const char *address, const VpClientSecurity *security, VpError **error)
{
    g_autofree char *normal = vp_client_normalize_address(address, error);

    if (!normal)
        return NULL;
    grpc_channel_credentials *credentials = vp_client_credentials(normal, security, error);
    if (!credentials)
        return NULL;

    /* Every client has a connection of its own; no proxy from the environment stands between it and its daemon, and no
     * service configuration is looked for in DNS. */
    grpc_arg args[] = {
        int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
        int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
        int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, MAX_ANSWER_BYTES),
    };
    const grpc_channel_args channel_args = {G_N_ELEMENTS(args), args};
    VpClient *client = g_new0(VpClient, 1);

    client->channel = grpc_channel_create(normal, credentials, &channel_args);
    client->tls = !g_str_has_prefix(normal, "unix:") && !security->insecure_tcp;
    client->address = g_strdup(g_str_has_prefix(normal, "unix:") ? normal : address);
    grpc_channel_credentials_release(credentials);
    return client;
}

const char *vp_client_address(const VpClient *client)
{
    return client->address;
}

gboolean vp_client_no_answer(const VpError *error)
{
    return g_strcmp0(error->reason, VP_CLIENT_NO_DAEMON) == 0;
}

const ProtobufCMethodDescriptor *vp_client_find_method(const ProtobufCServiceDescriptor *service, const char *method,
                                                       const void *request, VpError **error)
{
    const ProtobufCMethodDescriptor *found = protobuf_c_service_descriptor_get_method_by_name(service, method);

    if (!found) {
        *error = vp_error_new(VP_INTERNAL, "NO_SUCH_METHOD", "%s has no method %s", service->name, method);
        return NULL;
    }
    if (((const ProtobufCMessage *)request)->descriptor != found->input) {
        *error = vp_error_new(VP_INTERNAL, "WRONG_REQUEST", "%s takes a %s", method, found->input->name);
        return NULL;
    }
    return found;
}

grpc_call *vp_client_start(VpClient *client, grpc_completion_queue *queue, const ProtobufCServiceDescriptor *service,
                           const char *method, gint64 timeout_ms)
{
    g_autofree char *path = g_strdup_printf("/%s/%s", service->name, method);
    const gpr_timespec deadline =
        timeout_ms > 0 ? gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN))
                       : gpr_inf_future(GPR_CLOCK_MONOTONIC);

    grpc_slice slice = grpc_slice_from_copied_string(path);
    grpc_call *call =
        grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue, slice, NULL, deadline, NULL);

    grpc_slice_unref(slice);
    return call;
}

grpc_byte_buffer *vp_client_pack(const void *message)
{
    const size_t size = protobuf_c_message_get_packed_size(message);
    grpc_slice slice = grpc_slice_malloc(size);

    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

void *vp_client_unpack(const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer, VpError **error)
{
    grpc_byte_buffer_reader reader;
    void *message = NULL;

    if (grpc_byte_buffer_reader_init(&reader, buffer)) {
        grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);

        /* protobuf-c recurses as deep as the type does, and no answer's type is recursive. */
        message = protobuf_c_message_unpack(descriptor, NULL, GRPC_SLICE_LENGTH(slice), GRPC_SLICE_START_PTR(slice));
        grpc_slice_unref(slice);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    if (!message)
        *error = vp_error_new(VP_INTERNAL, VP_CLIENT_BAD_ANSWER, "the answer is no %s", descriptor->name);
    return message;
}

void *vp_client_call(VpClient *client, const ProtobufCServiceDescriptor *service, const char *method,
                     const void *request, gint64 timeout_ms, VpError **error)
{
    const ProtobufCMethodDescriptor *found = vp_client_find_method(service, method, request, error);
    grpc_metadata_array initial;
    grpc_byte_buffer *answer = NULL;
    VpClientStatus status;
    void *message = NULL;

    if (!found)
        return NULL;

    grpc_completion_queue *queue = grpc_completion_queue_create_for_pluck(NULL);
    grpc_call *call = vp_client_start(client, queue, service, method, timeout_ms);
    grpc_byte_buffer *packed = vp_client_pack(request);

    grpc_metadata_array_init(&initial);
    vp_client_status_init(&status);
    const grpc_op ops[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = packed},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &answer},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &status.trailing,
                                        .status = &status.code,
                                        .status_details = &status.details}},
    };

    /* The call's deadline ends the wait. */
    GPR_ASSERT(grpc_call_start_batch(call, ops, G_N_ELEMENTS(ops), call, NULL) == GRPC_CALL_OK);
    grpc_completion_queue_pluck(queue, call, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

    VpError *failure = vp_client_status_error(client, &status);
    if (!failure && answer)
        message = vp_client_unpack(found->output, answer, &failure);
    else if (!failure)
        failure = vp_error_new(VP_INTERNAL, VP_CLIENT_BAD_ANSWER, "the call ended well, with no answer");
    if (failure)
        *error = failure;

    grpc_byte_buffer_destroy(answer);
    grpc_byte_buffer_destroy(packed);
    grpc_metadata_array_destroy(&initial);
    vp_client_status_clear(&status);
    grpc_call_unref(call);
    grpc_completion_queue_shutdown(queue);
    grpc_completion_queue_destroy(queue);
    return message;
}

void vp_client_free(VpClient *client)
{
    if (!client)
        return;
    grpc_channel_destroy(client->channel);
    g_free(client->address);
    g_free(client);
}
