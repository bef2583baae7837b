/* Reading YAML for the policy: see policy_yaml.h. */
#include "server/auth/policy_yaml.h"

#define MAX_TEXTS 200000

VpError *vp_policy_wrong(const VpPolicyReader *reader, const yaml_node_t *node, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    return vp_error_new(VP_INVALID_ARGUMENT, "POLICY_INVALID", "%s:%zu: %s", reader->path, node->start_mark.line + 1,
                        what);
}

static const char *text_of(const yaml_node_t *node)
{
    /* libyaml's scalars end with a NUL; one that has another in it is cut, and then matches nothing. */
    return (const char *)node->data.scalar.value;
}

yaml_node_t *vp_policy_node(const VpPolicyReader *reader, int index)
{
    return yaml_document_get_node(reader->document, index);
}

VpError *vp_policy_text(VpPolicyReader *reader, const yaml_node_t *node, const char *what, const char **ret_text)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.length == 0)
        return vp_policy_wrong(reader, node, "%s must be a text", what);
    if (!g_utf8_validate_len(text_of(node), node->data.scalar.length, NULL))
        return vp_policy_wrong(reader, node, "%s is no text", what);
    *ret_text = text_of(node);
    return NULL;
}

VpError *vp_policy_texts(VpPolicyReader *reader, const yaml_node_t *node, const char *what, GPtrArray *texts)
{
    if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.top == node->data.sequence.items.start)
        return vp_policy_wrong(reader, node, "%s must be a list that is not empty, as in [a, b]", what);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const char *text = NULL;

        VpError *error = vp_policy_text(reader, vp_policy_node(reader, *item), what, &text);
        if (error)
            return error;
        if (++reader->texts > MAX_TEXTS)
            return vp_policy_wrong(
                reader, node, "the file has more than %d names, those that are repeated by an anchor counted each time",
                MAX_TEXTS);
        g_ptr_array_add(texts, g_strdup(text));
    }
    return NULL;
}

VpError *vp_policy_map(VpPolicyReader *reader, const yaml_node_t *node, const char *what, const VpPolicyKey *keys,
                       void *data)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    if (node->type != YAML_MAPPING_NODE)
        return vp_policy_wrong(reader, node, "%s must be a map of keys and values", what);
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = vp_policy_node(reader, pair->key);
        const char *name = NULL;
        const VpPolicyKey *key = keys;

        VpError *error = vp_policy_text(reader, key_node, "a key", &name);
        if (error)
            return error;
        while (key->name && !g_str_equal(key->name, name))
            key++;
        if (!key->name)
            return vp_policy_wrong(reader, key_node, "%s has no \"%s\"", what, name);
        if (!g_hash_table_add(seen, (gpointer)name))
            return vp_policy_wrong(reader, key_node, "%s has \"%s\" twice", what, name);
        error = key->read(reader, vp_policy_node(reader, pair->value), data);
        if (error)
            return error;
    }
    return NULL;
}
