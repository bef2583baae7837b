/* Secrets that domains use: which they name, and their values for drivers. */
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/internal.h"

VpError *vp_domains_secret(void *data, const char *name, VpSecretUse use, void *use_data)
{
    const VpDomains *domains = data;
    VpError *error = NULL;
    g_autoptr(VpSecretValue) value = vp_secrets_value(domains->secrets, name, &error);

    return value ? use(use_data, value->bytes, value->length) : error;
}

/* ---- by name ---- */

static gboolean is_named_secret(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_STRING && field->label != PROTOBUF_C_LABEL_REPEATED &&
           g_str_equal(field->name, "secret");
}

static gboolean is_set(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *bytes = (const char *)message;

    return !(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
           *(const guint32 *)(const void *)(bytes + field->quantifier_offset) == field->id;
}

static void look_into(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, GPtrArray *names)
{
    const char *at = (const char *)message + field->offset;

    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        const size_t n = *(const size_t *)(const void *)((const char *)message + field->quantifier_offset);
        ProtobufCMessage *const *parts = *(ProtobufCMessage *const *const *)(const void *)at;

        for (size_t i = 0; i < n; i++)
            vp_secret_names(parts[i], names);
    } else if (is_set(message, field)) {
        vp_secret_names(*(ProtobufCMessage *const *)(const void *)at, names);
    }
}

/* No message of the contract that is reachable from a request holds itself, so that this ends. */
void vp_secret_names(const ProtobufCMessage *message, GPtrArray *names)
{
    for (unsigned i = 0; message && i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];

        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            look_into(message, field, names);
        if (!is_named_secret(field) || !is_set(message, field))
            continue;
        char *name = *(char *const *)(const void *)((const char *)message + field->offset);
        if (name && name[0])
            g_ptr_array_add(names, name);
    }
}

/* ---- by whom ---- */

typedef struct Search {
    const char *secret;
    char *user;
} Search;

static gboolean look_at(gpointer key, gpointer value, gpointer data)
{
    const VpRecord *record = value;
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    Search *search = data;

    (void)key;
    if (!record->committed || !record->committed->spec)
        return FALSE;
    vp_secret_names(&record->committed->spec->base, names);
    for (guint i = 0; i < names->len && !search->user; i++) {
        if (strcmp(names->pdata[i], search->secret) == 0)
            search->user = g_strdup(record->name);
    }
    return search->user != NULL;
}

char *vp_domains_find_secret_user(VpDomains *domains, const char *secret)
{
    Search search = {.secret = secret};

    VP_LOCK(&domains->mutex);
    g_tree_foreach(domains->by_name, look_at, &search);
    return search.user;
}
