/*
 * Server reflection, v1 and v1alpha: hands out the embedded descriptors with their comments. Asked seldom, so it keeps no index: each question reads
 * the descriptors anew.
 */
#include <string.h>

#include "base/pb.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "proto/descriptors.h"
#include "server/rpc/internal.h"

typedef Google__Protobuf__FileDescriptorSet FileSet;
typedef Google__Protobuf__FileDescriptorProto File;
typedef Google__Protobuf__DescriptorProto Message;
typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

#define QUESTION(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define ANSWER(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

static const File *file_by_name(const FileSet *set, const char *name)
{
    for (size_t i = 0; i < set->n_file; i++) {
        if (g_str_equal(set->file[i]->name, name))
            return set->file[i];
    }
    return NULL;
}

static gboolean is_symbol(const char *scope, const char *name, const char *symbol)
{
    const size_t length = strlen(scope);

    return strncmp(symbol, scope, length) == 0 && symbol[length] == '.' && g_str_equal(symbol + length + 1, name);
}

static gboolean enum_declares(const Google__Protobuf__EnumDescriptorProto *proto, const char *scope, const char *symbol)
{
    if (is_symbol(scope, proto->name, symbol))
        return TRUE;
    for (size_t i = 0; i < proto->n_value; i++) {
        /* A value's scope is that of its enum. */
        if (is_symbol(scope, proto->value[i]->name, symbol))
            return TRUE;
    }
    return FALSE;
}

static gboolean message_declares(const Message *message, const char *scope, const char *symbol)
{
    g_autofree char *own = g_strdup_printf("%s.%s", scope, message->name);

    if (g_str_equal(own, symbol))
        return TRUE;
    for (size_t i = 0; i < message->n_field; i++) {
        if (is_symbol(own, message->field[i]->name, symbol))
            return TRUE;
    }
    for (size_t i = 0; i < message->n_enum_type; i++) {
        if (enum_declares(message->enum_type[i], own, symbol))
            return TRUE;
    }
    for (size_t i = 0; i < message->n_nested_type; i++) {
        if (message_declares(message->nested_type[i], own, symbol))
            return TRUE;
    }
    return FALSE;
}

static gboolean service_declares(const Google__Protobuf__ServiceDescriptorProto *service, const char *scope,
                                 const char *symbol)
{
    g_autofree char *own = g_strdup_printf("%s.%s", scope, service->name);

    if (g_str_equal(own, symbol))
        return TRUE;
    for (size_t i = 0; i < service->n_method; i++) {
        if (is_symbol(own, service->method[i]->name, symbol))
            return TRUE;
    }
    return FALSE;
}

static gboolean file_declares(const File *file, const char *symbol)
{
    for (size_t i = 0; i < file->n_message_type; i++) {
        if (message_declares(file->message_type[i], file->package, symbol))
            return TRUE;
    }
    for (size_t i = 0; i < file->n_enum_type; i++) {
        if (enum_declares(file->enum_type[i], file->package, symbol))
            return TRUE;
    }
    for (size_t i = 0; i < file->n_service; i++) {
        if (service_declares(file->service[i], file->package, symbol))
            return TRUE;
    }
    for (size_t i = 0; i < file->n_extension; i++) {
        if (is_symbol(file->package, file->extension[i]->name, symbol))
            return TRUE;
    }
    return FALSE;
}

static const File *file_by_symbol(const FileSet *set, const char *symbol)
{
    for (size_t i = 0; i < set->n_file; i++) {
        if (file_declares(set->file[i], symbol))
            return set->file[i];
    }
    return NULL;
}

/* The extensions of a type; `ret_file` is the file that declares number `number`. */
static size_t extensions_of(const FileSet *set, const char *type, gint32 number,
                            Grpc__Reflection__V1__ExtensionNumberResponse *ret_numbers, const File **ret_file)
{
    size_t found = 0;

    for (size_t f = 0; f < set->n_file; f++) {
        const File *file = set->file[f];

        for (size_t e = 0; e < file->n_extension; e++) {
            const Google__Protobuf__FieldDescriptorProto *extension = file->extension[e];

            if (extension->extendee[0] != '.' || !g_str_equal(extension->extendee + 1, type))
                continue;
            found++;
            if (ret_numbers) {
                ret_numbers->extension_number = g_realloc_n(ret_numbers->extension_number, found, sizeof(gint32));
                ret_numbers->extension_number[ret_numbers->n_extension_number++] = extension->number;
            }
            if (ret_file && extension->number == number)
                *ret_file = file;
        }
    }
    return found;
}

/* Appends a file and all that it imports, each once. Descriptors survive packing by protobuf-c byte for byte, options that it does not know included. */
static void append_file(const FileSet *set, const File *file, Grpc__Reflection__V1__FileDescriptorResponse *files,
                        GHashTable *seen)
{
    if (!file || !g_hash_table_add(seen, (gpointer)file))
        return;

    ProtobufCBinaryData packed = {.len = google__protobuf__file_descriptor_proto__get_packed_size(file)};
    packed.data = g_malloc(packed.len);
    google__protobuf__file_descriptor_proto__pack(file, packed.data);
    files->file_descriptor_proto =
        g_realloc_n(files->file_descriptor_proto, files->n_file_descriptor_proto + 1, sizeof(ProtobufCBinaryData));
    files->file_descriptor_proto[files->n_file_descriptor_proto++] = packed;
    for (size_t i = 0; i < file->n_dependency; i++)
        append_file(set, file_by_name(set, file->dependency[i]), files, seen);
}

static void answer_error(Response *response, VpCode code, const char *what, const char *name)
{
    response->message_response_case = ANSWER(ERROR_RESPONSE);
    response->error_response = vp_pb_new(&grpc__reflection__v1__error_response__descriptor);
    response->error_response->error_code = (gint32)code;
    vp_pb_printf(&response->error_response->error_message, "%s: %s", what, name);
}

static void answer_file(Response *response, const FileSet *set, const File *file, const char *name)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    if (!file) {
        answer_error(response, VP_NOT_FOUND, "not found", name);
        return;
    }
    response->message_response_case = ANSWER(FILE_DESCRIPTOR_RESPONSE);
    response->file_descriptor_response = vp_pb_new(&grpc__reflection__v1__file_descriptor_response__descriptor);
    append_file(set, file, response->file_descriptor_response, seen);
}

static void answer_extensions(Response *response, const FileSet *set, const char *type)
{
    Grpc__Reflection__V1__ExtensionNumberResponse *numbers =
        vp_pb_new(&grpc__reflection__v1__extension_number_response__descriptor);

    vp_pb_set(&numbers->base_type_name, type);
    if (extensions_of(set, type, 0, numbers, NULL) == 0 && !file_by_symbol(set, type)) {
        vp_pb_free(numbers);
        answer_error(response, VP_NOT_FOUND, "not found", type);
        return;
    }
    response->message_response_case = ANSWER(ALL_EXTENSION_NUMBERS_RESPONSE);
    response->all_extension_numbers_response = numbers;
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

static void answer(Response *response, const Request *request, const VpContract *contract)
{
    vp_pb_auto FileSet *set =
        google__protobuf__file_descriptor_set__unpack(NULL, vp_descriptors_commented_size, vp_descriptors_commented);
    const File *file = NULL;

    switch (request->message_request_case) {
    case QUESTION(FILE_BY_FILENAME):
        answer_file(response, set, file_by_name(set, request->file_by_filename), request->file_by_filename);
        return;
    case QUESTION(FILE_CONTAINING_SYMBOL):
        answer_file(response, set, file_by_symbol(set, request->file_containing_symbol),
                    request->file_containing_symbol);
        return;
    case QUESTION(FILE_CONTAINING_EXTENSION):
        extensions_of(set, request->file_containing_extension->containing_type,
                      request->file_containing_extension->extension_number, NULL, &file);
        answer_file(response, set, file, request->file_containing_extension->containing_type);
        return;
    case QUESTION(ALL_EXTENSION_NUMBERS_OF_TYPE):
        answer_extensions(response, set, request->all_extension_numbers_of_type);
        return;
    case QUESTION(LIST_SERVICES):
        answer_services(response, contract);
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
    answer(response, request, vp_server_contract(call->server));
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
