/*
 * Server reflection, v1 and v1alpha: hands out the embedded descriptors, with their comments, as they lie in the program. What is where is looked up in an
 * index (reflection_index.h) that is made at the first question.
 */
#include "base/pb.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "server/rpc/internal.h"
#include "server/rpc/reflection_index.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

#define QUESTION(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define ANSWER(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

/* Appends a file and all that it imports, each once. */
static void append_file(const VpReflectedFile *file, Grpc__Reflection__V1__FileDescriptorResponse *files,
                        GHashTable *seen)
{
    if (!g_hash_table_add(seen, (gpointer)file))
        return;

    files->file_descriptor_proto =
        g_realloc_n(files->file_descriptor_proto, files->n_file_descriptor_proto + 1, sizeof(ProtobufCBinaryData));
    files->file_descriptor_proto[files->n_file_descriptor_proto++] =
        (ProtobufCBinaryData){.data = g_memdup2(file->bytes, file->size), .len = file->size};
    for (guint i = 0; i < file->imports->len; i++)
        append_file(file->imports->pdata[i], files, seen);
}

static void answer_error(Response *response, VpCode code, const char *what, const char *name)
{
    response->message_response_case = ANSWER(ERROR_RESPONSE);
    response->error_response = vp_pb_new(&grpc__reflection__v1__error_response__descriptor);
    response->error_response->error_code = (gint32)code;
    vp_pb_printf(&response->error_response->error_message, "%s: %s", what, name);
}

static void answer_file(Response *response, const VpReflectedFile *file, const char *name)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    if (!file) {
        answer_error(response, VP_NOT_FOUND, "not found", name);
        return;
    }
    response->message_response_case = ANSWER(FILE_DESCRIPTOR_RESPONSE);
    response->file_descriptor_response = vp_pb_new(&grpc__reflection__v1__file_descriptor_response__descriptor);
    append_file(file, response->file_descriptor_response, seen);
}

static void answer_extensions(Response *response, const VpReflectionIndex *index, const char *type)
{
    const GArray *extensions = vp_reflection_extensions(index, type);

    if (!extensions && !vp_reflection_by_symbol(index, type)) {
        answer_error(response, VP_NOT_FOUND, "not found", type);
        return;
    }
    Grpc__Reflection__V1__ExtensionNumberResponse *numbers =
        vp_pb_new(&grpc__reflection__v1__extension_number_response__descriptor);
    vp_pb_set(&numbers->base_type_name, type);
    numbers->n_extension_number = extensions ? extensions->len : 0;
    numbers->extension_number = g_new(gint32, numbers->n_extension_number + 1);
    for (size_t i = 0; i < numbers->n_extension_number; i++)
        numbers->extension_number[i] = g_array_index(extensions, VpReflectedExtension, i).number;
    response->message_response_case = ANSWER(ALL_EXTENSION_NUMBERS_RESPONSE);
    response->all_extension_numbers_response = numbers;
}

/* The file that declares an extension, or NULL. */
static const VpReflectedFile *by_extension(const VpReflectionIndex *index,
                                           const Grpc__Reflection__V1__ExtensionRequest *asked)
{
    const GArray *extensions = vp_reflection_extensions(index, asked->containing_type);

    for (guint i = 0; extensions && i < extensions->len; i++) {
        const VpReflectedExtension *extension = &g_array_index(extensions, VpReflectedExtension, i);

        if (extension->number == asked->extension_number)
            return extension->file;
    }
    return NULL;
}

static void answer_services(Response *response, const VpContract *contract)
{
    Grpc__Reflection__V1__ListServiceResponse *list =
        vp_pb_new(&grpc__reflection__v1__list_service_response__descriptor);

    for (const char *const *name = vp_contract_services(contract); *name; name++) {
        Grpc__Reflection__V1__ServiceResponse *service = vp_pb_new(&grpc__reflection__v1__service_response__descriptor);

        vp_pb_set(&service->name, *name);
        vp_pb_append(&list->n_service, &list->service, service);
    }
    response->message_response_case = ANSWER(LIST_SERVICES_RESPONSE);
    response->list_services_response = list;
}

static void answer(Response *response, const Request *request, VpRpcServer *server)
{
    const VpReflectionIndex *index = vp_server_reflection(server);

    switch (request->message_request_case) {
    case QUESTION(FILE_BY_FILENAME):
        answer_file(response, vp_reflection_by_name(index, request->file_by_filename), request->file_by_filename);
        return;
    case QUESTION(FILE_CONTAINING_SYMBOL):
        answer_file(response, vp_reflection_by_symbol(index, request->file_containing_symbol),
                    request->file_containing_symbol);
        return;
    case QUESTION(FILE_CONTAINING_EXTENSION):
        answer_file(response, by_extension(index, request->file_containing_extension),
                    request->file_containing_extension->containing_type);
        return;
    case QUESTION(ALL_EXTENSION_NUMBERS_OF_TYPE):
        answer_extensions(response, index, request->all_extension_numbers_of_type);
        return;
    case QUESTION(LIST_SERVICES):
        answer_services(response, vp_server_contract(server));
        return;
    default:
        answer_error(response, VP_INVALID_ARGUMENT, "no question", "message_request is not set");
    }
}

static void got_request(VpCall *call, void *data, void *message);

static void written(VpCall *call, void *data, gboolean ok)
{
    if (ok) {
        vp_call_read(call, got_request, data);
        return;
    }
    vp_call_finish(call);
    vp_call_unref(call);
}

static void got_request(VpCall *call, void *data, void *message)
{
    vp_pb_auto Request *request = message;
    vp_pb_auto Response *response = NULL;

    if (!request) {
        vp_call_finish(call);
        vp_call_unref(call);
        return;
    }
    response = vp_pb_new(&grpc__reflection__v1__server_reflection_response__descriptor);
    vp_pb_set(&response->valid_host, request->host);
    answer(response, request, call->server);
    response->original_request = g_steal_pointer(&request);
    if (!vp_call_write(call, response, FALSE, written, data))
        written(call, data, FALSE);
}

static void info(VpCall *call, const void *message, void *context)
{
    (void)message;
    (void)context;
    vp_call_read(vp_call_ref(call), got_request, NULL);
}

const VpMethodHandler vp_reflection_handlers[] = {
    {"grpc.reflection.v1.ServerReflection/ServerReflectionInfo", info, VP_RPC_INLINE},
    {"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", info, VP_RPC_INLINE},
    {0},
};
