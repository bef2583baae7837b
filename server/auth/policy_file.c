/*
 * The policy's file: YAML, read by libyaml into a document whose nodes know their lines, and from there into rules. Whatever is not understood refuses the
 * whole file, with its line: a rule that is misspelt would be one that silently grants nothing, or more than was meant.
 */
#include <stdio.h>
#include <string.h>

#include "server/auth/file.h"
#include "server/auth/policy_yaml.h"

#define MAX_FILE_BYTES (1024 * 1024)
#define MAX_BINDINGS 10000

/* ---- roles ---- */

static gboolean names_method(const char *pattern, const char *method)
{
    /* "virtplane.v1.DomainService/GetDomain" is also "DomainService/GetDomain" and "GetDomain". */
    const char *slash = strchr(method, '/');
    const char *service = slash;

    while (service > method && service[-1] != '.')
        service--;
    return g_pattern_match_simple(pattern, method) || g_pattern_match_simple(pattern, service) ||
           (!strchr(pattern, '*') && g_str_equal(pattern, slash + 1));
}

static VpError *read_role_methods(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    VpRole *role = data;
    g_autoptr(GPtrArray) patterns = g_ptr_array_new_with_free_func(g_free);

    VpError *error = vp_policy_texts(reader, node, "methods", patterns);
    for (guint p = 0; !error && p < patterns->len; p++) {
        gboolean any = FALSE;

        for (guint i = 0; i < reader->methods->len; i++) {
            const VpMethod *method = &g_array_index(reader->methods, VpMethod, i);

            if (names_method(patterns->pdata[p], method->method)) {
                g_hash_table_add(role->methods, (gpointer)method->method);
                any = TRUE;
            }
        }
        if (!any)
            error =
                vp_policy_wrong(reader, node, "there is no method \"%s\"; one is written as DomainService/StartDomain",
                                (const char *)patterns->pdata[p]);
    }
    return error;
}

static VpError *read_role_includes(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    VpRole *role = data;
    const char *name = NULL;

    VpError *error = vp_policy_text(reader, node, "includes", &name);
    if (error)
        return error;
    const VpRole *included = vp_policy_find_role(reader->policy, name);
    if (!included || included->methods)
        return vp_policy_wrong(reader, node, "includes is viewer, operator or admin, not \"%s\"", name);
    role->builtin = included->builtin;
    return NULL;
}

static VpError *read_roles(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    static const VpPolicyKey keys[] = {{"methods", read_role_methods}, {"includes", read_role_includes}, {0}};

    (void)data;
    if (node->type != YAML_MAPPING_NODE)
        return vp_policy_wrong(reader, node, "roles must be a map from names to roles");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = vp_policy_node(reader, pair->key);
        const char *name = NULL;

        VpError *error = vp_policy_text(reader, key_node, "a role's name", &name);
        if (error)
            return error;
        if (vp_policy_find_role(reader->policy, name))
            return vp_policy_wrong(reader, key_node, "there is a role \"%s\" already", name);
        VpRole *role = vp_policy_add_role(reader->policy, name, PB_ROLE_UNSPECIFIED);
        role->methods = g_hash_table_new(g_str_hash, g_str_equal);
        error = vp_policy_map(reader, vp_policy_node(reader, pair->value), "a role", keys, role);
        if (error)
            return error;
    }
    return NULL;
}

/* ---- selectors ---- */

static VpError *read_patterns(VpPolicyReader *reader, const yaml_node_t *node, const char *what, GPtrArray **ret_texts)
{
    *ret_texts = g_ptr_array_new_with_free_func(g_free);
    return vp_policy_texts(reader, node, what, *ret_texts);
}

/* A list of known words. */
static VpError *read_words(VpPolicyReader *reader, const yaml_node_t *node, const char *what, char ***ret_words)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);

    VpError *error = vp_policy_texts(reader, node, what, words);
    if (error)
        return error;
    g_ptr_array_add(words, NULL);
    *ret_words = (char **)g_ptr_array_free(g_steal_pointer(&words), FALSE);
    return NULL;
}

static VpError *read_resources(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    static const char *const known[] = {"domain", "pool",       "volume", "secret", "image",
                                        "event",  "connection", "host",   "daemon", NULL};
    VpBinding *binding = data;

    VpError *error = read_words(reader, node, "resources", &binding->resources);
    for (char **word = binding->resources; !error && *word; word++) {
        if (!g_strv_contains(known, *word))
            error = vp_policy_wrong(reader, node, "there are no resources of type \"%s\"", *word);
    }
    return error;
}

static VpError *read_names(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    return read_patterns(reader, node, "names", &((VpBinding *)data)->names);
}

static VpError *read_pools(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    return read_patterns(reader, node, "pools", &((VpBinding *)data)->pools);
}

static VpError *read_drivers(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    return read_words(reader, node, "drivers", &((VpBinding *)data)->drivers);
}

static VpError *read_labels(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    VpBinding *binding = data;

    if (node->type != YAML_MAPPING_NODE || node->data.mapping.pairs.start == node->data.mapping.pairs.top)
        return vp_policy_wrong(reader, node, "labels must be a map that is not empty, as in {tenant: blue}");
    binding->labels = g_ptr_array_new_with_free_func(g_free);
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const char *key = NULL;
        const char *value = NULL;

        VpError *error = vp_policy_text(reader, vp_policy_node(reader, pair->key), "a label", &key);
        if (!error)
            error = vp_policy_text(reader, vp_policy_node(reader, pair->value), "a label's value", &value);
        if (error)
            return error;
        g_ptr_array_add(binding->labels, g_strdup(key));
        g_ptr_array_add(binding->labels, g_strdup(value));
    }
    return NULL;
}

static VpError *read_where(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    static const VpPolicyKey keys[] = {{"resources", read_resources}, {"names", read_names},
                                       {"labels", read_labels},       {"pools", read_pools},
                                       {"drivers", read_drivers},     {0}};

    return vp_policy_map(reader, node, "where", keys, data);
}

/* ---- bindings ---- */

static VpError *read_binding_role(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    VpBinding *binding = data;
    const char *name = NULL;

    VpError *error = vp_policy_text(reader, node, "role", &name);
    if (error)
        return error;
    binding->role = vp_policy_find_role(reader->policy, name);
    return binding->role
               ? NULL
               : vp_policy_wrong(reader, node,
                                 "there is no role \"%s\"; viewer, operator, admin and those in roles are", name);
}

static VpError *read_subjects(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    return vp_policy_subjects(reader, node, ((VpBinding *)data)->subjects);
}

static VpError *read_bindings(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    static const VpPolicyKey keys[] = {{"role", read_binding_role},
                                       {"subjects", read_subjects},
                                       {"where", read_where},
                                       {0}};

    (void)data;
    if (node->type != YAML_SEQUENCE_NODE)
        return vp_policy_wrong(reader, node, "bindings must be a list");
    if (node->data.sequence.items.top - node->data.sequence.items.start > MAX_BINDINGS)
        return vp_policy_wrong(reader, node, "there are more than %d bindings", MAX_BINDINGS);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *value = vp_policy_node(reader, *item);
        g_autofree char *place = g_strdup_printf("%s:%zu", reader->path, value->start_mark.line + 1);
        VpBinding *binding = vp_policy_add_binding(reader->policy, place, NULL);

        VpError *error = vp_policy_map(reader, value, "a binding", keys, binding);
        if (error)
            return error;
        if (!binding->role || binding->subjects->len == 0)
            return vp_policy_wrong(reader, value, "a binding needs a role and subjects");
    }
    return NULL;
}

/* ---- the file ---- */

/* Roles first, wherever they stand: bindings name them. */
static VpError *ignore(VpPolicyReader *reader, const yaml_node_t *node, void *data)
{
    (void)reader;
    (void)node;
    (void)data;
    return NULL;
}

static VpError *read_document(VpPolicyReader *reader)
{
    static const VpPolicyKey roles[] = {{"roles", read_roles}, {"bindings", ignore}, {"limits", ignore}, {0}};
    static const VpPolicyKey bindings[] = {{"roles", ignore},
                                           {"bindings", read_bindings},
                                           {"limits", vp_policy_read_limits},
                                           {0}};
    const yaml_node_t *root = yaml_document_get_root_node(reader->document);

    /* An empty file grants nothing, which is a policy too. */
    if (!root)
        return NULL;
    VpError *error = vp_policy_map(reader, root, "the policy", roles, NULL);
    return error ? error : vp_policy_map(reader, root, "the policy", bindings, NULL);
}

static VpError *read_yaml(VpPolicy *policy, const char *path, const GArray *methods, const char *text, gsize length)
{
    yaml_parser_t parser;
    yaml_document_t document;
    VpError *error = NULL;

    if (!yaml_parser_initialize(&parser))
        return vp_error_new(VP_RESOURCE_EXHAUSTED, "POLICY_INVALID", "%s: there is no memory to read it", path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    if (!yaml_parser_load(&parser, &document)) {
        error = vp_error_new(VP_INVALID_ARGUMENT, "POLICY_INVALID", "%s:%zu: %s", path, parser.problem_mark.line + 1,
                             parser.problem ? parser.problem : "this is no YAML");
    } else {
        VpPolicyReader reader = {.policy = policy, .path = path, .methods = methods, .document = &document};

        error = read_document(&reader);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return error;
}

VpError *vp_policy_read_file(VpPolicy *policy, const char *path, const GArray *methods)
{
    g_autofree char *text = NULL;
    gsize length = 0;

    VpError *error = vp_file_read(path, MAX_FILE_BYTES, VP_FILE_RULES, "POLICY_INVALID", &text, &length);
    return error ? error : read_yaml(policy, path, methods, text, length);
}
