/* What requests are about: see access_target.h. */
#include "server/services/access_target.h"

#include <string.h>

#include "base/pb.h"
#include "server/services/access.h"

/* ---- fields by their names ---- */

static const void *field_at(const ProtobufCMessage *message, const char *name, ProtobufCType type)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
    const char *bytes = (const char *)message;

    if (!field || field->type != type || field->label == PROTOBUF_C_LABEL_REPEATED)
        return NULL;
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
        *(const guint32 *)(bytes + field->quantifier_offset) != field->id)
        return NULL;
    return bytes + field->offset;
}

/* NULL: there is no such field, or it is empty. */
static const char *text_at(const ProtobufCMessage *message, const char *name)
{
    const char *const *text = message ? field_at(message, name, PROTOBUF_C_TYPE_STRING) : NULL;

    return text && *text && (*text)[0] ? *text : NULL;
}

static const ProtobufCMessage *message_at(const ProtobufCMessage *message, const char *name)
{
    ProtobufCMessage *const *found = message ? field_at(message, name, PROTOBUF_C_TYPE_MESSAGE) : NULL;

    return found ? *found : NULL;
}

static void labels_at(const ProtobufCMessage *message, VpResource *resource)
{
    const ProtobufCFieldDescriptor *field =
        message ? protobuf_c_message_descriptor_get_field_by_name(message->descriptor, "labels") : NULL;
    const char *bytes = (const char *)message;

    if (!field || field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return;
    resource->n_labels = *(const size_t *)(bytes + field->quantifier_offset);
    resource->labels = *(void *const *const *)(bytes + field->offset);
}

/* The part of a request that names its resource: the request itself, the resource's new form, or (of a client's stream) what its first message holds. */
static const ProtobufCMessage *naming_part(const ProtobufCMessage *request, const char *type)
{
    const ProtobufCMessageDescriptor *descriptor = request->descriptor;
    const ProtobufCMessage *whole = message_at(request, type);

    if (protobuf_c_message_descriptor_get_field_by_name(descriptor, "name") ||
        protobuf_c_message_descriptor_get_field_by_name(descriptor, "uid"))
        return request;
    if (whole)
        return whole;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCMessage *part = message_at(request, descriptor->fields[i].name);

        if (part && protobuf_c_message_descriptor_get_field_by_name(part->descriptor, "name"))
            return part;
    }
    return request;
}

/* ---- what is known of it ---- */

VpResource vp_resource_of_domain(const PbDomain *domain)
{
    return (VpResource){
        .type = "domain",
        .name = domain->name,
        .uid = domain->uid,
        .driver = domain->spec && domain->spec->driver[0] ? domain->spec->driver : NULL,
        .n_labels = domain->n_labels,
        .labels = (void *const *)domain->labels,
    };
}

static void find_domain(VpDomains *domains, const char *name, const char *uid, VpTarget *target)
{
    VpResource *resource = &target->resources[0];
    g_autoptr(VpError) error = NULL;

    target->view = vp_domains_get(domains, name ? name : "", uid ? uid : "", &error);
    target->missing = !target->view;
    if (target->view)
        *resource = vp_resource_of_domain(target->view->domain);
}

/* An operation is judged by what it works on. */
static void find_operation(VpDomains *domains, VpJobs *jobs, const char *uid, VpTarget *target)
{
    VpResource *resource = &target->resources[0];
    g_autoptr(VpError) error = NULL;

    target->operation = uid ? vp_jobs_get_operation(jobs, uid) : NULL;
    target->missing = !target->operation;
    if (target->missing)
        return;
    *resource = (VpResource){.type = target->operation->resource_type, .name = target->operation->resource_name};
    if (!g_str_equal(resource->type, "domain"))
        return;
    target->view = vp_domains_get(domains, "", target->operation->resource_uid, &error);
    if (target->view)
        *resource = vp_resource_of_domain(target->view->domain);
}

static void find_secret(VpSecrets *secrets, const char *name, const char *uid, VpTarget *target)
{
    VpResource *resource = &target->resources[0];
    g_autoptr(VpError) error = NULL;

    target->secret = vp_secrets_get(secrets, name ? name : "", uid ? uid : "", &error);
    target->missing = !target->secret;
    if (target->secret)
        *resource = (VpResource){.type = "secret",
                                 .name = target->secret->name,
                                 .uid = target->secret->uid,
                                 .n_labels = target->secret->n_labels,
                                 .labels = (void *const *)target->secret->labels};
}

static gboolean names_path(const Google__Protobuf__FieldMask *mask, const char *path)
{
    const gsize length = strlen(path);

    for (size_t i = 0; mask && i < mask->n_paths; i++) {
        if (g_str_equal(mask->paths[i], path) ||
            (g_str_has_prefix(mask->paths[i], path) && mask->paths[i][length] == '.'))
            return TRUE;
    }
    return FALSE;
}

/* Whether the label is one that the update leaves as it is. */
static gboolean keeps_label(const Google__Protobuf__FieldMask *mask, const char *key)
{
    g_autofree char *path = g_strdup_printf("labels.%s", key);

    for (size_t i = 0; mask && i < mask->n_paths; i++) {
        if (g_str_equal(mask->paths[i], "labels") || g_str_equal(mask->paths[i], path))
            return FALSE;
    }
    return TRUE;
}

/* What an update would make of a domain: who may change it may not change it into one that others own. */
static void add_updated(const PbUpdateDomainRequest *request, VpTarget *target)
{
    const PbDomain *wanted = request->domain;
    VpResource *result = &target->resources[1];

    if (!wanted || !target->view)
        return;
    *result = target->resources[0];
    if (names_path(request->update_mask, "spec") && wanted->spec && wanted->spec->driver[0])
        result->driver = wanted->spec->driver;
    if (names_path(request->update_mask, "name"))
        result->name = wanted->name;
    if (names_path(request->update_mask, "labels")) {
        target->labels = g_ptr_array_new();
        for (size_t i = 0; i < target->view->domain->n_labels; i++) {
            PbDomain__LabelsEntry *entry = target->view->domain->labels[i];

            if (keeps_label(request->update_mask, entry->key))
                g_ptr_array_add(target->labels, entry);
        }
        for (size_t i = 0; i < wanted->n_labels; i++) {
            if (!keeps_label(request->update_mask, wanted->labels[i]->key))
                g_ptr_array_add(target->labels, wanted->labels[i]);
        }
        result->n_labels = target->labels->len;
        result->labels = (void *const *)target->labels->pdata;
    }
    target->n_resources = 2;
}

/* A clone is made in another pool, under another name. */
static void add_clone(const ProtobufCMessage *request, VpTarget *target)
{
    const ProtobufCMessage *volume = message_at(request, "volume");
    VpResource *made = &target->resources[1];
    const char *pool = text_at(request, "destination_pool_name");

    *made = (VpResource){.type = "volume",
                         .name = text_at(volume, "name"),
                         .pool = pool ? pool : target->resources[0].pool};
    labels_at(volume, made);
    target->n_resources = 2;
}

/* ---- all together ---- */

static void find(const VpAccessContext *context, const char *name, const char *uid, VpTarget *target)
{
    const char *type = target->resources[0].type;

    if (g_str_equal(type, "domain"))
        find_domain(context->domains, name, uid, target);
    else if (g_str_equal(type, "operation"))
        find_operation(context->domains, context->jobs, uid, target);
    else if (g_str_equal(type, "secret"))
        find_secret(context->secrets, name, uid, target);
}

static void set_text(VpTarget *target, const char *type, const char *name)
{
    const char *pool = target->resources[0].pool;

    target->text = g_strdup_printf("%s/%s%s%s", type, pool ? pool : "", pool ? "/" : "", name ? name : "");
}

void vp_target_find(const VpAccessContext *context, const VpMethod *method, const void *message, VpTarget *ret_target)
{
    const ProtobufCMessage *request = message;
    const ProtobufCMessage *part = naming_part(request, method->resource);
    const char *name = g_str_equal(method->resource, "image") ? text_at(request, "path") : text_at(part, "name");
    const char *uid = text_at(part, "uid");
    VpResource *resource = &ret_target->resources[0];
    const char *pool = text_at(request, "pool_name");

    memset(ret_target, 0, sizeof(*ret_target));
    ret_target->n_resources = 1;
    *resource = (VpResource){.type = method->resource,
                             .name = name,
                             .uid = uid,
                             .pool = pool ? pool : text_at(part, "pool_name")};
    if (!name && g_str_equal(method->resource, "volume"))
        resource->name = name = text_at(message_at(request, "volume"), "name");
    /* Pools are selected by their own names. */
    if (g_str_equal(method->resource, "pool"))
        resource->pool = name;
    set_text(ret_target, method->resource, name ? name : uid);
    if (method->scope == PB_METHOD_SCOPE_NEW) {
        const ProtobufCMessage *whole = message_at(request, method->resource);

        resource->driver = text_at(message_at(whole, "spec"), "driver");
        labels_at(whole, resource);
        return;
    }
    find(context, name, uid, ret_target);
    if (request->descriptor == &pb_update_domain_request__descriptor)
        add_updated(message, ret_target);
    else if (g_str_equal(method->resource, "volume") && message_at(request, "volume"))
        add_clone(request, ret_target);
}

void vp_target_find_named(const VpAccessContext *context, const char *type, const char *name, VpTarget *ret_target)
{
    VpResource *resource = &ret_target->resources[0];
    const char *slash = g_str_equal(type, "volume") ? strchr(name, '/') : NULL;

    memset(ret_target, 0, sizeof(*ret_target));
    ret_target->n_resources = 1;
    ret_target->text = slash ? g_strndup(name, (gsize)(slash - name)) : NULL;
    *resource = (VpResource){.type = type, .name = slash ? slash + 1 : name, .pool = ret_target->text};
    if (g_str_equal(type, "pool"))
        resource->pool = name;
    find(context, name, NULL, ret_target);
    if (ret_target->missing) {
        ret_target->missing = FALSE;
        find(context, NULL, name, ret_target);
    }
}

void vp_target_clear(VpTarget *target)
{
    g_clear_pointer(&target->view, vp_domain_view_unref);
    g_clear_pointer(&target->operation, vp_pb_free);
    g_clear_pointer(&target->secret, vp_pb_free);
    g_clear_pointer(&target->labels, g_ptr_array_unref);
    g_clear_pointer(&target->text, g_free);
}
