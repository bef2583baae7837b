/* Reads the embedded descriptors into tables of methods and field bounds: see contract.h. */
#include "server/rpc/contract.h"

#include <string.h>

#include "base/pb.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "proto/descriptors.h"
#include "server/rpc/bounds.h"
#include "virtplane/v1/admin_service.pb-c.h"
#include "virtplane/v1/auth_service.pb-c.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"
#include "virtplane/v1/guest_service.pb-c.h"
#include "virtplane/v1/host_service.pb-c.h"
#include "virtplane/v1/image_service.pb-c.h"
#include "virtplane/v1/operation_service.pb-c.h"
#include "virtplane/v1/secret_service.pb-c.h"
#include "virtplane/v1/storage_service.pb-c.h"

/* The field number of `extend google.protobuf.MethodOptions` in rules.proto. */
#define ACCESS_FIELD_NUMBER 50732

struct VpContract {
    GArray *methods;     /* of VpMethod */
    GPtrArray *services; /* of char *, NULL at the end */
    GHashTable *bounds;  /* ProtobufCMessageDescriptor * -> VpFieldBounds[] */
};

/* protobuf-c's generated service descriptors know the messages, not the streaming flags; the embedded descriptors know these. */
static const struct {
    const char *name;
    const ProtobufCServiceDescriptor *descriptor;
} services[] = {
    {"virtplane.v1.AdminService", &pb_admin_service__descriptor},
    {"virtplane.v1.AuthService", &pb_auth_service__descriptor},
    {"virtplane.v1.DomainService", &pb_domain_service__descriptor},
    {"virtplane.v1.EventService", &pb_event_service__descriptor},
    {"virtplane.v1.GuestService", &pb_guest_service__descriptor},
    {"virtplane.v1.HostService", &pb_host_service__descriptor},
    {"virtplane.v1.ImageService", &pb_image_service__descriptor},
    {"virtplane.v1.OperationService", &pb_operation_service__descriptor},
    {"virtplane.v1.SecretService", &pb_secret_service__descriptor},
    {"virtplane.v1.StorageService", &pb_storage_service__descriptor},
    {"grpc.health.v1.Health", &grpc__health__v1__health__descriptor},
    {"grpc.reflection.v1.ServerReflection", &grpc__reflection__v1__server_reflection__descriptor},
    /* The same messages on the wire under the older package name, so the same code serves both. */
    {"grpc.reflection.v1alpha.ServerReflection", &grpc__reflection__v1__server_reflection__descriptor},
};

static const ProtobufCServiceDescriptor *find_service(const char *name)
{
    for (gsize i = 0; i < G_N_ELEMENTS(services); i++) {
        if (g_str_equal(services[i].name, name))
            return services[i].descriptor;
    }
    return NULL;
}

/* Who may call a method. A method of ours that does not say so must not be served: what is not asked for would be let pass. */
static VpError *read_access(const char *package, const Google__Protobuf__MethodDescriptorProto *proto, VpMethod *method)
{
    if (g_str_has_prefix(package, "grpc.")) {
        /* Health and reflection tell nothing that is not public. */
        method->role = PB_ROLE_ANYONE;
        method->scope = PB_METHOD_SCOPE_HOST;
        method->resource = g_strdup("daemon");
        return NULL;
    }
    vp_pb_auto PbMethodRules *rules = vp_bounds_extension(proto->options ? &proto->options->base : NULL,
                                                          ACCESS_FIELD_NUMBER, &pb_method_rules__descriptor);
    if (!rules || !rules->role || !rules->scope || !rules->resource[0])
        return vp_error_new(VP_INTERNAL, "CONTRACT_MISMATCH",
                            "%s does not say who may call it: add `option (access)` with role, resource and scope",
                            method->method);
    method->role = rules->role;
    method->scope = rules->scope;
    method->resource = g_strdup(rules->resource);
    method->audited = rules->audited;
    return NULL;
}

static VpError *add_service(VpContract *contract, const char *package,
                            const Google__Protobuf__ServiceDescriptorProto *proto)
{
    g_autofree char *name = g_strdup_printf("%s.%s", package, proto->name);
    const ProtobufCServiceDescriptor *descriptor = find_service(name);

    if (!descriptor)
        return vp_error_new(VP_INTERNAL, "CONTRACT_MISMATCH",
                            "the service %s is in no table: add it to server/rpc/contract.c", name);
    for (size_t i = 0; i < proto->n_method; i++) {
        const Google__Protobuf__MethodDescriptorProto *method = proto->method[i];
        const ProtobufCMethodDescriptor *found =
            protobuf_c_service_descriptor_get_method_by_name(descriptor, method->name);

        if (!found)
            return vp_error_new(VP_INTERNAL, "CONTRACT_MISMATCH", "%s has no method %s in the generated code", name,
                                method->name);
        const char *path = g_strdup_printf("/%s/%s", name, method->name);
        VpMethod entry = {
            .path = (char *)path,
            .method = path + 1,
            .input = found->input,
            .output = found->output,
            .client_streaming = method->has_client_streaming && method->client_streaming,
            .server_streaming = method->has_server_streaming && method->server_streaming,
        };
        VpError *error = read_access(package, method, &entry);
        g_array_append_val(contract->methods, entry);
        if (error)
            return error;
    }
    g_ptr_array_add(contract->services, g_steal_pointer(&name));
    return NULL;
}

static void method_clear(gpointer data)
{
    VpMethod *method = data;

    g_free(method->path);
    g_free(method->resource);
}

VpContract *vp_contract_new(VpError **error)
{
    g_autoptr(VpContract) contract = g_new0(VpContract, 1);

    contract->methods = g_array_new(FALSE, FALSE, sizeof(VpMethod));
    g_array_set_clear_func(contract->methods, method_clear);
    contract->services = g_ptr_array_new_with_free_func(g_free);
    contract->bounds = g_hash_table_new_full(NULL, NULL, NULL, g_free);

    vp_pb_auto Google__Protobuf__FileDescriptorSet *set =
        google__protobuf__file_descriptor_set__unpack(NULL, vp_descriptors_bare_size, vp_descriptors_bare);
    if (!set) {
        *error = vp_error_new(VP_INTERNAL, "CONTRACT_MISMATCH", "the embedded descriptors cannot be read");
        return NULL;
    }
    for (size_t f = 0; f < set->n_file; f++) {
        const Google__Protobuf__FileDescriptorProto *file = set->file[f];

        for (size_t s = 0; s < file->n_service; s++) {
            VpError *failure = add_service(contract, file->package, file->service[s]);
            if (failure) {
                *error = failure;
                return NULL;
            }
        }
    }
    for (guint m = 0; m < contract->methods->len; m++) {
        VpError *failure = vp_bounds_add(contract->bounds, set, g_array_index(contract->methods, VpMethod, m).input);
        if (failure) {
            *error = failure;
            return NULL;
        }
    }
    g_ptr_array_add(contract->services, NULL);
    return g_steal_pointer(&contract);
}

const GArray *vp_contract_methods(const VpContract *contract)
{
    return contract->methods;
}

const char *const *vp_contract_services(const VpContract *contract)
{
    return (const char *const *)contract->services->pdata;
}

const VpFieldBounds *vp_contract_bounds(const VpContract *contract, const ProtobufCMessageDescriptor *descriptor)
{
    return g_hash_table_lookup(contract->bounds, descriptor);
}

void vp_contract_free(VpContract *contract)
{
    if (!contract)
        return;
    g_array_unref(contract->methods);
    g_ptr_array_unref(contract->services);
    g_hash_table_unref(contract->bounds);
    g_free(contract);
}
