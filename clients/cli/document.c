/* A file that a person wrote, as a message: see document.h. */
#include "clients/cli/document.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "clients/cli/yaml.h"
#include "clients/json/json.h"

enum {
    MAX_BYTES = 4 * 1024 * 1024,
};

static GString *read_all(const char *path, VpError **error)
{
    const gboolean is_stdin = g_str_equal(path, "-");
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    char buffer[16384];
    size_t got;

    if (!file) {
        *error = vp_error_errno(errno, "FILE_UNREADABLE", "cannot read %s", path);
        return NULL;
    }
    GString *text = g_string_new(NULL);
    while (text->len <= MAX_BYTES && (got = fread(buffer, 1, sizeof(buffer), file)) > 0)
        g_string_append_len(text, buffer, (gssize)got);

    const int failure = ferror(file) ? errno : 0;
    if (!is_stdin)
        fclose(file);
    if (failure)
        *error = vp_error_errno(failure, "FILE_UNREADABLE", "cannot read %s", path);
    else if (text->len > MAX_BYTES)
        *error = vp_error_new(VP_INVALID_ARGUMENT, "FILE_TOO_LARGE", "%s has more than 4 MiB", path);
    else
        return text;
    g_string_free(text, TRUE);
    return NULL;
}

/* JSON is read by the JSON parser, whose errors name line and column; everything else is YAML. */
static json_t *read_text(const GString *text, VpError **error)
{
    json_error_t wrong;

    const char first = text->str[strspn(text->str, " \t\r\n")];
    if (first == '<') {
        *error = vp_error_new(VP_INVALID_ARGUMENT, "NO_XML",
                              "this is XML; a domain is written in YAML or JSON here, as \"vpctl domain show NAME "
                              "--output yaml\" prints one");
        return NULL;
    }
    if (first != '{')
        return vp_yaml_parse(text->str, text->len, error);

    json_t *json = json_loadb(text->str, text->len, JSON_REJECT_DUPLICATES, &wrong);
    if (!json)
        *error = vp_error_new(VP_INVALID_ARGUMENT, "JSON_INVALID", "line %d, column %d: %s", wrong.line, wrong.column,
                              wrong.text);
    return json;
}

void *vp_document_read(const char *path, const ProtobufCMessageDescriptor *descriptor, const char *wrapper,
                       VpError **error)
{
    GString *text = read_all(path, error);

    if (!text)
        return NULL;
    json_t *json = read_text(text, error);
    void *message = NULL;
    if (json) {
        const json_t *wrapped = json_object_size(json) == 1 ? json_object_get(json, wrapper) : NULL;

        message = vp_json_parse(descriptor, wrapped ? wrapped : json, error);
        json_decref(json);
    }
    g_string_free(text, TRUE);
    if (!message)
        vp_error_prefix(*error, "%s", path);
    return message;
}
