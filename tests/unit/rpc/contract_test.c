/* The tables read from the descriptors: every method of every service, its messages, its streaming flags, and the bounds of fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/pb.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "proto/descriptors.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event_service.pb-c.h"
#include "virtplane/v1/image_service.pb-c.h"
#include "wire.h"

static VpContract *contract;

static int setup(void **state)
{
    VpError *error = NULL;

    (void)state;
    contract = vp_contract_new(&error);
    return contract ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    vp_contract_free(contract);
    return 0;
}

static const VpMethod *find(const char *path)
{
    const GArray *methods = vp_contract_methods(contract);
    const VpMethod *found = NULL;

    for (guint i = 0; i < methods->len; i++) {
        const VpMethod *method = &g_array_index(methods, VpMethod, i);

        if (g_str_equal(method->path, path)) {
            assert_null(found);
            found = method;
        }
    }
    return found;
}

/* protobuf-c's name of a message, from ".virtplane.v1.Domain"; v1alpha's reflection is served by v1's messages. */
static char *message_name(const char *name)
{
    g_auto(GStrv) parts = g_strsplit(name + 1, ".v1alpha.", 2);

    return g_strjoinv(".v1.", parts);
}

/* The descriptors are the truth; here they are read in another way than the contract does. */
static void has_each_method_of_the_descriptors(void **state)
{
    vp_pb_auto Google__Protobuf__FileDescriptorSet *set =
        google__protobuf__file_descriptor_set__unpack(NULL, vp_descriptors_commented_size, vp_descriptors_commented);
    guint methods = 0;
    guint streams = 0;

    (void)state;
    assert_non_null(set);
    for (size_t f = 0; f < set->n_file; f++) {
        const Google__Protobuf__FileDescriptorProto *file = set->file[f];

        for (size_t s = 0; s < file->n_service; s++) {
            for (size_t m = 0; m < file->service[s]->n_method; m++) {
                const Google__Protobuf__MethodDescriptorProto *proto = file->service[s]->method[m];
                g_autofree char *path =
                    g_strdup_printf("/%s.%s/%s", file->package, file->service[s]->name, proto->name);
                g_autofree char *input = message_name(proto->input_type);
                g_autofree char *output = message_name(proto->output_type);
                const VpMethod *method = find(path);

                assert_non_null(method);
                assert_string_equal(method->method, path + 1);
                assert_string_equal(method->input->name, input);
                assert_string_equal(method->output->name, output);
                assert_int_equal(method->client_streaming, proto->client_streaming);
                assert_int_equal(method->server_streaming, proto->server_streaming);
                methods++;
                streams += method->client_streaming || method->server_streaming;
            }
        }
    }
    assert_int_equal(vp_contract_methods(contract)->len, methods);
    assert_true(methods > 70);
    assert_true(streams >= 9);
}

static void streams_are_known_as_such(void **state)
{
    static const struct {
        const char *path;
        gboolean client;
        gboolean server;
    } methods[] = {
        {"/virtplane.v1.DomainService/GetDomain", FALSE, FALSE},
        {"/virtplane.v1.DomainService/OpenConsole", TRUE, TRUE},
        {"/virtplane.v1.DomainService/WatchDomainStats", FALSE, TRUE},
        {"/virtplane.v1.StorageService/UploadVolume", TRUE, FALSE},
        {"/virtplane.v1.StorageService/DownloadVolume", FALSE, TRUE},
        {"/virtplane.v1.EventService/WatchEvents", FALSE, TRUE},
        {"/virtplane.v1.EventService/ListEvents", FALSE, FALSE},
        {"/virtplane.v1.ImageService/InspectChain", FALSE, TRUE},
        {"/virtplane.v1.OperationService/WatchOperation", FALSE, TRUE},
        {"/grpc.health.v1.Health/Check", FALSE, FALSE},
        {"/grpc.health.v1.Health/Watch", FALSE, TRUE},
        {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", TRUE, TRUE},
        {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", TRUE, TRUE},
    };

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(methods); i++) {
        const VpMethod *method = find(methods[i].path);

        assert_non_null(method);
        assert_int_equal(method->client_streaming, methods[i].client);
        assert_int_equal(method->server_streaming, methods[i].server);
    }
}

static void lists_all_services(void **state)
{
    static const char *const names[] = {
        "virtplane.v1.AdminService",
        "virtplane.v1.AuthService",
        "virtplane.v1.DomainService",
        "virtplane.v1.EventService",
        "virtplane.v1.GuestService",
        "virtplane.v1.HostService",
        "virtplane.v1.ImageService",
        "virtplane.v1.OperationService",
        "virtplane.v1.SecretService",
        "virtplane.v1.StorageService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    };
    const char *const *services = vp_contract_services(contract);

    (void)state;
    assert_int_equal(g_strv_length((char **)services), G_N_ELEMENTS(names));
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++)
        assert_true(g_strv_contains(services, names[i]));
}

static const VpFieldBounds *bounds_of(const ProtobufCMessageDescriptor *descriptor, const char *field)
{
    const VpFieldBounds *bounds = vp_contract_bounds(contract, descriptor);
    const ProtobufCFieldDescriptor *found = protobuf_c_message_descriptor_get_field_by_name(descriptor, field);

    assert_non_null(bounds);
    assert_non_null(found);
    return &bounds[found - descriptor->fields];
}

static void reads_the_bounds_of_fields(void **state)
{
    (void)state;
    const VpFieldBounds *name = bounds_of(&pb_domain__descriptor, "name");
    assert_int_equal(name->form, PB_STRING_FORM_NAME);
    assert_int_equal(name->max_bytes, 63);
    assert_int_equal(name->max_items, 0);

    assert_int_equal(bounds_of(&pb_domain__descriptor, "uid")->form, PB_STRING_FORM_UUID);
    assert_int_equal(bounds_of(&pb_domain_spec__descriptor, "vcpus")->max_value, 1024);
    assert_int_equal(bounds_of(&pb_domain_spec__descriptor, "memory_bytes")->max_value, 17592186044416);
    assert_int_equal(bounds_of(&pb_domain_spec__descriptor, "disks")->max_items, 64);
    assert_int_equal(bounds_of(&pb_disk__descriptor, "path")->form, PB_STRING_FORM_ABSOLUTE_PATH);
    assert_int_equal(bounds_of(&pb_list_domains_request__descriptor, "page_size")->max_value, 1000);
    assert_int_equal(bounds_of(&pb_create_domain_request__descriptor, "request_id")->form, PB_STRING_FORM_LINE);
    assert_int_equal(bounds_of(&pb_create_domain_request__descriptor, "request_id")->max_bytes, 128);
    /* What a form implies, the entries of a map, a message as a whole, and a message of others. */
    assert_int_equal(bounds_of(&pb_domain__descriptor, "uid")->max_bytes, 36);
    assert_int_equal(bounds_of(&pb_disk__descriptor, "path")->max_bytes, 4096);
    assert_int_equal(bounds_of(&pb_domain__descriptor, "labels")->max_items, 64);
    assert_int_equal(bounds_of(&pb_domain__labels_entry__descriptor, "key")->max_bytes, 4096);
    assert_int_equal(bounds_of(&pb_domain__labels_entry__descriptor, "value")->max_bytes, 4096);
    assert_int_equal(bounds_of(&pb_watch_events_request__descriptor, "filter")->max_bytes, 16384);
    assert_int_equal(bounds_of(&google__protobuf__field_mask__descriptor, "paths")->max_items, 128);
    assert_int_equal(bounds_of(&google__protobuf__field_mask__descriptor, "paths")->max_bytes, 256);
}

/* What is only ever answered is not bounded. */
static void answers_have_no_bounds(void **state)
{
    (void)state;
    assert_null(vp_contract_bounds(contract, &pb_get_domain_response__descriptor));
}

/* Whatever a client can make the daemon hold has a bound that was thought of; a stream's request is held for as long as it is open. */
static void expect_bounds(const ProtobufCMessageDescriptor *descriptor, GHashTable *seen)
{
    const VpFieldBounds *bounds = vp_contract_bounds(contract, descriptor);

    if (!g_hash_table_add(seen, (gpointer)descriptor))
        return;
    if (!bounds)
        fail_msg("%s has no bounds", descriptor->name);
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        const gboolean text = field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES;

        if (text && (bounds[i].max_bytes == 0 || bounds[i].max_bytes > 1 << 20))
            fail_msg("%s.%s: at most %u bytes", descriptor->name, field->name, bounds[i].max_bytes);
        if (field->label == PROTOBUF_C_LABEL_REPEATED && (bounds[i].max_items == 0 || bounds[i].max_items > 1024))
            fail_msg("%s.%s: at most %u items", descriptor->name, field->name, bounds[i].max_items);
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            expect_bounds(field->descriptor, seen);
    }
}

static void each_field_of_a_request_is_bounded(void **state)
{
    const GArray *methods = vp_contract_methods(contract);
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    (void)state;
    for (guint i = 0; i < methods->len; i++)
        expect_bounds(g_array_index(methods, VpMethod, i).input, seen);
    assert_true(g_hash_table_size(seen) > 90);
}

/* protobuf-c recurses: no request may have a message that reaches itself. */
static void expect_no_recursion(const ProtobufCMessageDescriptor *descriptor, GPtrArray *above)
{
    for (guint i = 0; i < above->len; i++)
        assert_ptr_not_equal(above->pdata[i], descriptor);
    g_ptr_array_add(above, (gpointer)descriptor);
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        if (descriptor->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            expect_no_recursion(descriptor->fields[i].descriptor, above);
    }
    g_ptr_array_remove_index(above, above->len - 1);
}

static void no_request_is_recursive(void **state)
{
    const GArray *methods = vp_contract_methods(contract);
    g_autoptr(GPtrArray) above = g_ptr_array_new();

    (void)state;
    for (guint i = 0; i < methods->len; i++)
        expect_no_recursion(g_array_index(methods, VpMethod, i).input, above);
}

/* The build checks the same: a daemon with a method that anyone may call by oversight is not built. */
static void each_method_says_who_may_call_it(void **state)
{
    static const char *const resources[] = {"domain", "pool",       "volume",   "secret", "image",  "operation",
                                            "event",  "connection", "identity", "host",   "daemon", NULL};
    const GArray *methods = vp_contract_methods(contract);

    (void)state;
    for (guint i = 0; i < methods->len; i++) {
        const VpMethod *method = &g_array_index(methods, VpMethod, i);

        assert_in_range(method->role, PB_ROLE_ANYONE, PB_ROLE_ADMIN);
        assert_in_range(method->scope, PB_METHOD_SCOPE_ONE, PB_METHOD_SCOPE_HOST);
        assert_true(g_strv_contains(resources, method->resource));
        /* What only looks need not be written down; what changes something must be. */
        const char *name = strrchr(method->method, '/') + 1;
        const gboolean looks =
            g_str_has_prefix(name, "Get") || g_str_has_prefix(name, "List") || g_str_has_prefix(name, "Watch");
        if (looks)
            assert_false(method->audited);
        if (g_str_has_prefix(name, "Create") || g_str_has_prefix(name, "Delete") || g_str_has_prefix(name, "Set"))
            assert_true(method->audited && method->role >= PB_ROLE_OPERATOR);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_method_says_who_may_call_it),   cmocka_unit_test(has_each_method_of_the_descriptors),
        cmocka_unit_test(streams_are_known_as_such),          cmocka_unit_test(lists_all_services),
        cmocka_unit_test(reads_the_bounds_of_fields),         cmocka_unit_test(answers_have_no_bounds),
        cmocka_unit_test(each_field_of_a_request_is_bounded), cmocka_unit_test(no_request_is_recursive),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
