/*
 * The policy's file: YAML, read by libyaml into a document whose nodes know their lines, and from there into rules. Whatever is not understood refuses the
 * whole file, with its line: a rule that is misspelt would be one that silently grants nothing, or more than was meant.
 */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "server/auth/file.h"
#include "server/auth/policy_rules.h"

#define MAX_FILE_BYTES (1024 * 1024)
#define MAX_BINDINGS 10000
#define MAX_LOOKUP_BYTES (1024 * 1024)

typedef struct Reader {
    VpPolicy *policy;
    const char *path;
    const GArray *methods;
    yaml_document_t *document;
} Reader;

static VpError *wrong(const Reader *reader, const yaml_node_t *node, const char *format, ...) G_GNUC_PRINTF(3, 4);

static VpError *wrong(const Reader *reader, const yaml_node_t *node, const char *format, ...)
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

static yaml_node_t *node_at(const Reader *reader, int index)
{
    return yaml_document_get_node(reader->document, index);
}

/* A string, not empty. */
static VpError *read_text(const Reader *reader, const yaml_node_t *node, const char *what, const char **ret_text)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.length == 0)
        return wrong(reader, node, "%s must be a text", what);
    if (!g_utf8_validate_len(text_of(node), node->data.scalar.length, NULL))
        return wrong(reader, node, "%s is no text", what);
    *ret_text = text_of(node);
    return NULL;
}

/* A list of strings, not empty, appended to `texts` (of copies). */
static VpError *read_texts(const Reader *reader, const yaml_node_t *node, const char *what, GPtrArray *texts)
{
    if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.top == node->data.sequence.items.start)
        return wrong(reader, node, "%s must be a list that is not empty, as in [a, b]", what);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const char *text = NULL;

        VpError *error = read_text(reader, node_at(reader, *item), what, &text);
        if (error)
            return error;
        g_ptr_array_add(texts, g_strdup(text));
    }
    return NULL;
}

/* One key of a map and what reads its value. */
typedef struct Key {
    const char *name;
    VpError *(*read)(const Reader *reader, const yaml_node_t *value, void *data);
} Key;

static VpError *read_map(const Reader *reader, const yaml_node_t *node, const char *what, const Key *keys, void *data)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    if (node->type != YAML_MAPPING_NODE)
        return wrong(reader, node, "%s must be a map of keys and values", what);
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = node_at(reader, pair->key);
        const char *name = NULL;
        const Key *key = keys;

        VpError *error = read_text(reader, key_node, "a key", &name);
        if (error)
            return error;
        while (key->name && !g_str_equal(key->name, name))
            key++;
        if (!key->name)
            return wrong(reader, key_node, "%s has no \"%s\"", what, name);
        if (!g_hash_table_add(seen, (gpointer)name))
            return wrong(reader, key_node, "%s has \"%s\" twice", what, name);
        error = key->read(reader, node_at(reader, pair->value), data);
        if (error)
            return error;
    }
    return NULL;
}

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

static VpError *read_role_methods(const Reader *reader, const yaml_node_t *node, void *data)
{
    VpRole *role = data;
    g_autoptr(GPtrArray) patterns = g_ptr_array_new_with_free_func(g_free);

    VpError *error = read_texts(reader, node, "methods", patterns);
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
            error = wrong(reader, node, "there is no method \"%s\"; one is written as DomainService/StartDomain",
                          (const char *)patterns->pdata[p]);
    }
    return error;
}

static VpError *read_role_includes(const Reader *reader, const yaml_node_t *node, void *data)
{
    VpRole *role = data;
    const char *name = NULL;

    VpError *error = read_text(reader, node, "includes", &name);
    if (error)
        return error;
    const VpRole *included = vp_policy_find_role(reader->policy, name);
    if (!included || included->methods)
        return wrong(reader, node, "includes is viewer, operator or admin, not \"%s\"", name);
    role->builtin = included->builtin;
    return NULL;
}

static VpError *read_roles(const Reader *reader, const yaml_node_t *node, void *data)
{
    static const Key keys[] = {{"methods", read_role_methods}, {"includes", read_role_includes}, {0}};

    (void)data;
    if (node->type != YAML_MAPPING_NODE)
        return wrong(reader, node, "roles must be a map from names to roles");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = node_at(reader, pair->key);
        const char *name = NULL;

        VpError *error = read_text(reader, key_node, "a role's name", &name);
        if (error)
            return error;
        if (vp_policy_find_role(reader->policy, name))
            return wrong(reader, key_node, "there is a role \"%s\" already", name);
        VpRole *role = vp_policy_add_role(reader->policy, name, PB_ROLE_UNSPECIFIED);
        role->methods = g_hash_table_new(g_str_hash, g_str_equal);
        error = read_map(reader, node_at(reader, pair->value), "a role", keys, role);
        if (error)
            return error;
    }
    return NULL;
}

/* ---- subjects ---- */

/* Names become numbers when the file is read: the kernel tells numbers. */
static VpError *find_user(const Reader *reader, const yaml_node_t *node, const char *name, char **ret_subject)
{
    g_autofree char *buffer = g_malloc(MAX_LOOKUP_BYTES);
    struct passwd entry;
    struct passwd *found = NULL;

    const int r = getpwnam_r(name, &entry, buffer, MAX_LOOKUP_BYTES, &found);
    if (!found)
        return wrong(reader, node, "there is no user \"%s\" on this host%s%s", name, r ? ": " : "",
                     r ? g_strerror(r) : "");
    *ret_subject = g_strdup_printf("uid:%u", entry.pw_uid);
    return NULL;
}

static VpError *find_group(const Reader *reader, const yaml_node_t *node, const char *name, char **ret_subject)
{
    g_autofree char *buffer = g_malloc(MAX_LOOKUP_BYTES);
    struct group entry;
    struct group *found = NULL;

    const int r = getgrnam_r(name, &entry, buffer, MAX_LOOKUP_BYTES, &found);
    if (!found)
        return wrong(reader, node, "there is no group \"%s\" on this host%s%s", name, r ? ": " : "",
                     r ? g_strerror(r) : "");
    *ret_subject = g_strdup_printf("gid:%u", entry.gr_gid);
    return NULL;
}

static VpError *read_subject(const Reader *reader, const yaml_node_t *node, const char *subject, char **ret_subject)
{
    static const char *const numbers[] = {"uid", "gid", NULL};
    static const char *const texts[] = {"uri", "dns", "cn", "token", "token-group", NULL};
    const char *colon = strchr(subject, ':');

    if (g_str_equal(subject, VP_ANONYMOUS)) {
        *ret_subject = g_strdup(subject);
        return NULL;
    }
    g_autofree char *kind = colon && colon[1] ? g_strndup(subject, (gsize)(colon - subject)) : g_strdup("");
    if (g_str_equal(kind, "user"))
        return find_user(reader, node, colon + 1, ret_subject);
    if (g_str_equal(kind, "group"))
        return find_group(reader, node, colon + 1, ret_subject);
    if (g_strv_contains(numbers, kind)) {
        guint64 number;

        if (!g_ascii_string_to_unsigned(colon + 1, 10, 0, G_MAXUINT32 - 1, &number, NULL))
            return wrong(reader, node, "\"%s\" is no number", colon + 1);
        *ret_subject = g_strdup_printf("%s:%" G_GUINT64_FORMAT, kind, number);
        return NULL;
    }
    if (!g_strv_contains(texts, kind))
        return wrong(
            reader, node,
            "\"%s\" is no subject: user:NAME, group:NAME, uid:N, gid:N, uri:URI, dns:NAME, cn:NAME, token:NAME, "
            "token-group:NAME and anonymous are",
            subject);
    *ret_subject = g_strdup(subject);
    return NULL;
}

static VpError *read_subjects(const Reader *reader, const yaml_node_t *node, void *data)
{
    VpBinding *binding = data;
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);

    VpError *error = read_texts(reader, node, "subjects", texts);
    for (guint i = 0; !error && i < texts->len; i++) {
        char *subject = NULL;

        error = read_subject(reader, node, texts->pdata[i], &subject);
        if (!error)
            g_ptr_array_add(binding->subjects, subject);
    }
    return error;
}

/* ---- selectors ---- */

static VpError *read_patterns(const Reader *reader, const yaml_node_t *node, const char *what, GPtrArray **ret_texts)
{
    *ret_texts = g_ptr_array_new_with_free_func(g_free);
    return read_texts(reader, node, what, *ret_texts);
}

/* A list of known words. */
static VpError *read_words(const Reader *reader, const yaml_node_t *node, const char *what, char ***ret_words)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);

    VpError *error = read_texts(reader, node, what, words);
    if (error)
        return error;
    g_ptr_array_add(words, NULL);
    *ret_words = (char **)g_ptr_array_free(g_steal_pointer(&words), FALSE);
    return NULL;
}

static VpError *read_resources(const Reader *reader, const yaml_node_t *node, void *data)
{
    static const char *const known[] = {"domain", "pool",       "volume", "secret", "image",
                                        "event",  "connection", "host",   "daemon", NULL};
    VpBinding *binding = data;

    VpError *error = read_words(reader, node, "resources", &binding->resources);
    for (char **word = binding->resources; !error && *word; word++) {
        if (!g_strv_contains(known, *word))
            error = wrong(reader, node, "there are no resources of type \"%s\"", *word);
    }
    return error;
}

static VpError *read_names(const Reader *reader, const yaml_node_t *node, void *data)
{
    return read_patterns(reader, node, "names", &((VpBinding *)data)->names);
}

static VpError *read_pools(const Reader *reader, const yaml_node_t *node, void *data)
{
    return read_patterns(reader, node, "pools", &((VpBinding *)data)->pools);
}

static VpError *read_drivers(const Reader *reader, const yaml_node_t *node, void *data)
{
    return read_words(reader, node, "drivers", &((VpBinding *)data)->drivers);
}

static VpError *read_labels(const Reader *reader, const yaml_node_t *node, void *data)
{
    VpBinding *binding = data;

    if (node->type != YAML_MAPPING_NODE || node->data.mapping.pairs.start == node->data.mapping.pairs.top)
        return wrong(reader, node, "labels must be a map that is not empty, as in {tenant: blue}");
    binding->labels = g_ptr_array_new_with_free_func(g_free);
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const char *key = NULL;
        const char *value = NULL;

        VpError *error = read_text(reader, node_at(reader, pair->key), "a label", &key);
        if (!error)
            error = read_text(reader, node_at(reader, pair->value), "a label's value", &value);
        if (error)
            return error;
        g_ptr_array_add(binding->labels, g_strdup(key));
        g_ptr_array_add(binding->labels, g_strdup(value));
    }
    return NULL;
}

static VpError *read_where(const Reader *reader, const yaml_node_t *node, void *data)
{
    static const Key keys[] = {{"resources", read_resources}, {"names", read_names},     {"labels", read_labels},
                               {"pools", read_pools},         {"drivers", read_drivers}, {0}};

    return read_map(reader, node, "where", keys, data);
}

/* ---- bindings ---- */

static VpError *read_binding_role(const Reader *reader, const yaml_node_t *node, void *data)
{
    VpBinding *binding = data;
    const char *name = NULL;

    VpError *error = read_text(reader, node, "role", &name);
    if (error)
        return error;
    binding->role = vp_policy_find_role(reader->policy, name);
    return binding->role
               ? NULL
               : wrong(reader, node, "there is no role \"%s\"; viewer, operator, admin and those in roles are", name);
}

static VpError *read_bindings(const Reader *reader, const yaml_node_t *node, void *data)
{
    static const Key keys[] = {{"role", read_binding_role}, {"subjects", read_subjects}, {"where", read_where}, {0}};

    (void)data;
    if (node->type != YAML_SEQUENCE_NODE)
        return wrong(reader, node, "bindings must be a list");
    if (node->data.sequence.items.top - node->data.sequence.items.start > MAX_BINDINGS)
        return wrong(reader, node, "there are more than %d bindings", MAX_BINDINGS);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *value = node_at(reader, *item);
        g_autofree char *place = g_strdup_printf("%s:%zu", reader->path, value->start_mark.line + 1);
        VpBinding *binding = vp_policy_add_binding(reader->policy, place, NULL);

        VpError *error = read_map(reader, value, "a binding", keys, binding);
        if (error)
            return error;
        if (!binding->role || binding->subjects->len == 0)
            return wrong(reader, value, "a binding needs a role and subjects");
    }
    return NULL;
}

/* ---- the file ---- */

/* Roles first, wherever they stand: bindings name them. */
static VpError *ignore(const Reader *reader, const yaml_node_t *node, void *data)
{
    (void)reader;
    (void)node;
    (void)data;
    return NULL;
}

static VpError *read_document(const Reader *reader)
{
    static const Key roles[] = {{"roles", read_roles}, {"bindings", ignore}, {0}};
    static const Key bindings[] = {{"roles", ignore}, {"bindings", read_bindings}, {0}};
    const yaml_node_t *root = yaml_document_get_root_node(reader->document);

    /* An empty file grants nothing, which is a policy too. */
    if (!root)
        return NULL;
    VpError *error = read_map(reader, root, "the policy", roles, NULL);
    return error ? error : read_map(reader, root, "the policy", bindings, NULL);
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
        const Reader reader = {.policy = policy, .path = path, .methods = methods, .document = &document};

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
