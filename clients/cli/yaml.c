/* YAML over libyaml: see yaml.h. */
#include "clients/cli/yaml.h"

#include <string.h>
#include <yaml.h>

#include "clients/cli/text.h"

enum {
    MAX_NODES = 100000, /* aliases count each time they are used: a small document could else grow without end */
    MAX_DEPTH = 64,
};

/* ---- printing ---- */

static int write_string(void *data, unsigned char *buffer, size_t size)
{
    g_string_append_len(data, (const char *)buffer, (gssize)size);
    return 1;
}

/* Whether some reader of YAML, 1.1 or 1.2, takes the plain text for a number, a date, a boolean or nothing. */
static gboolean reads_as_other(const char *text)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "=", "<<", NULL};

    if (!*text || g_ascii_isdigit(*text) || strchr("+-.~", *text))
        return TRUE;
    for (const char *const *word = words; *word; word++) {
        if (g_ascii_strcasecmp(text, *word) == 0)
            return TRUE;
    }
    return FALSE;
}

static int add_scalar(yaml_document_t *document, const char *text, gboolean is_string)
{
    yaml_scalar_style_t style = YAML_ANY_SCALAR_STYLE;

    if (is_string) {
        /* What would be read back as something else than a string, or hides something, is quoted. */
        g_autofree char *escaped = vp_text_escape(text);

        if (reads_as_other(text))
            style = YAML_SINGLE_QUOTED_SCALAR_STYLE;
        if (!g_str_equal(escaped, text))
            style = YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    }
    return yaml_document_add_scalar(document, NULL, (const yaml_char_t *)text, (int)strlen(text), style);
}

static int add_value(yaml_document_t *document, const json_t *json)
{
    const char *key;
    json_t *value;

    if (json_is_object(json)) {
        const int map =
            yaml_document_add_mapping(document, NULL,
                                      json_object_size(json) ? YAML_BLOCK_MAPPING_STYLE : YAML_FLOW_MAPPING_STYLE);
        json_object_foreach((json_t *)json, key, value)
        {
            const int key_node = add_scalar(document, key, /* is_string= */ TRUE);
            yaml_document_append_mapping_pair(document, map, key_node, add_value(document, value));
        }
        return map;
    }
    if (json_is_array(json)) {
        const int list = yaml_document_add_sequence(document, NULL, YAML_BLOCK_SEQUENCE_STYLE);
        for (size_t i = 0; i < json_array_size(json); i++)
            yaml_document_append_sequence_item(document, list, add_value(document, json_array_get(json, i)));
        return list;
    }
    if (json_is_string(json))
        return add_scalar(document, json_string_value(json), /* is_string= */ TRUE);

    char *text = json_dumps(json, JSON_ENCODE_ANY);
    const int node = add_scalar(document, text, /* is_string= */ FALSE);
    free(text);
    return node;
}

char *vp_yaml_print(const json_t *json)
{
    g_autoptr(GString) out = g_string_new(NULL);
    yaml_emitter_t emitter;
    yaml_document_t document;

    yaml_emitter_initialize(&emitter);
    yaml_emitter_set_output(&emitter, write_string, out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    yaml_document_initialize(&document, NULL, NULL, NULL, 1, 1);
    add_value(&document, json);
    yaml_emitter_open(&emitter);
    yaml_emitter_dump(&emitter, &document); /* frees the document */
    yaml_emitter_close(&emitter);
    yaml_emitter_delete(&emitter);
    return vp_text_escape_json(out->str);
}

/* ---- parsing ---- */

typedef struct Reader {
    yaml_document_t *document;
    guint nodes;
    guint depth;
    VpError *error;
} Reader;

static json_t *read_node(Reader *reader, int index);

static json_t *resolve_scalar(const char *text)
{
    gint64 integer;
    char *end;

    if (g_str_equal(text, "") || g_str_equal(text, "~") || g_ascii_strcasecmp(text, "null") == 0)
        return json_null();
    if (g_ascii_strcasecmp(text, "true") == 0)
        return json_true();
    if (g_ascii_strcasecmp(text, "false") == 0)
        return json_false();
    if (g_ascii_string_to_signed(text, 10, G_MININT64, G_MAXINT64, &integer, NULL))
        return json_integer(integer);
    if (g_ascii_isdigit(*text) || (strchr("+-.", *text) && g_ascii_isdigit(text[1]))) {
        const double real = g_ascii_strtod(text, &end);
        json_t *json = *end == '\0' && !strpbrk(text, "xX") ? json_real(real) : NULL;
        if (json)
            return json;
    }
    return json_string(text);
}

static json_t *fail_at(Reader *reader, const yaml_node_t *node, const char *what)
{
    if (!reader->error)
        reader->error =
            vp_error_new(VP_INVALID_ARGUMENT, "YAML_INVALID", "line %zu: %s", node->start_mark.line + 1, what);
    return NULL;
}

static json_t *read_scalar(Reader *reader, const yaml_node_t *node)
{
    const char *text = (const char *)node->data.scalar.value;

    if (strlen(text) != node->data.scalar.length)
        return fail_at(reader, node, "a text holds a NUL");
    return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? resolve_scalar(text) : json_string(text);
}

static json_t *read_list(Reader *reader, const yaml_node_t *node)
{
    json_t *list = json_array();

    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        json_t *value = read_node(reader, *item);

        if (!value) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, value);
    }
    return list;
}

static json_t *read_map(Reader *reader, const yaml_node_t *node)
{
    json_t *map = json_object();

    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
        json_t *value = NULL;

        if (key->type != YAML_SCALAR_NODE)
            fail_at(reader, key, "the key of a map must be a text");
        else if (json_object_get(map, (const char *)key->data.scalar.value))
            fail_at(reader, key, "this key is there twice");
        else
            value = read_node(reader, pair->value);
        if (!value) {
            json_decref(map);
            return NULL;
        }
        json_object_set_new(map, (const char *)key->data.scalar.value, value);
    }
    return map;
}

static json_t *read_node(Reader *reader, int index)
{
    const yaml_node_t *node = yaml_document_get_node(reader->document, index);
    json_t *json = NULL;

    if (++reader->nodes > MAX_NODES)
        return fail_at(reader, node, "the document is too large");
    if (reader->depth >= MAX_DEPTH)
        return fail_at(reader, node, "the document is nested too deeply");
    reader->depth++;
    if (node->type == YAML_SCALAR_NODE)
        json = read_scalar(reader, node);
    else if (node->type == YAML_SEQUENCE_NODE)
        json = read_list(reader, node);
    else if (node->type == YAML_MAPPING_NODE)
        json = read_map(reader, node);
    reader->depth--;
    return json;
}

static VpError *syntax_error(const yaml_parser_t *parser)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "YAML_INVALID", "line %zu: %s", parser->problem_mark.line + 1,
                        parser->problem ? parser->problem : "this is no YAML");
}

static json_t *read_document(yaml_parser_t *parser, VpError **error)
{
    yaml_document_t document;

    if (!yaml_parser_load(parser, &document)) {
        *error = syntax_error(parser);
        return NULL;
    }

    Reader reader = {.document = &document};
    json_t *json = yaml_document_get_root_node(&document) ? read_node(&reader, 1) : json_null();
    yaml_document_delete(&document);
    if (!json)
        *error = reader.error;
    return json;
}

/* Whether nothing follows the first document; an error if what follows is malformed or another one. */
static VpError *expect_end(yaml_parser_t *parser)
{
    yaml_document_t document;

    if (!yaml_parser_load(parser, &document))
        return syntax_error(parser);
    const gboolean another = yaml_document_get_root_node(&document) != NULL;
    yaml_document_delete(&document);
    return another ? vp_error_new(VP_INVALID_ARGUMENT, "YAML_INVALID", "there is more than one document") : NULL;
}

json_t *vp_yaml_parse(const char *text, gsize length, VpError **error)
{
    yaml_parser_t parser;

    yaml_parser_initialize(&parser);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);

    json_t *json = read_document(&parser, error);
    VpError *failure = json && !json_is_null(json) ? expect_end(&parser) : NULL;
    yaml_parser_delete(&parser);
    if (failure) {
        *error = failure;
        json_decref(json);
        return NULL;
    }
    return json;
}
