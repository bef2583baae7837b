/* See reference.h. */
#include "storage/chain/reference.h"

#include <jansson.h>
#include <string.h>

#include "storage/chain/text.h"
#include "storage/probe/formats.h"

static void unsupported(VpReference *ret, char *why)
{
    *ret = (VpReference){.kind = VP_REFERENCE_UNSUPPORTED, .why = why};
}

static void take_path(VpReference *ret, const char *path, PbImageFormat format)
{
    *ret = (VpReference){.kind = VP_REFERENCE_FILE, .path = g_strdup(path), .format = format};
}

static gboolean is_remote(const char *protocol, gsize length)
{
    static const char *const remote[] = {"nbd",          "nbd+tcp",      "nbd+unix",    "nbd+tls",      "rbd",
                                         "iscsi",        "iser",         "gluster",     "ssh",          "http",
                                         "https",        "ftp",          "ftps",        "tftp",         "nfs",
                                         "sheepdog",     "vxhs",         "gluster+tcp", "gluster+unix", "gluster+rdma",
                                         "sheepdog+tcp", "sheepdog+unix"};
    for (gsize i = 0; i < G_N_ELEMENTS(remote); i++) {
        if (strlen(remote[i]) == length && strncmp(remote[i], protocol, length) == 0) {
            return TRUE;
        }
    }
    return FALSE;
}

/* The strings that a json reference may hold; anything else in it is not taken. */
typedef struct JsonParts {
    const char *driver;
    const char *file_driver;
    const char *filename;
} JsonParts;

/* FALSE: `value` is no string, or the field is set twice (flat and nested). */
static gboolean take_string(const char **field, const json_t *value)
{
    if (*field || !json_is_string(value)) {
        return FALSE;
    }
    *field = json_string_value(value);
    return TRUE;
}

static gboolean take_file_object(JsonParts *parts, json_t *file)
{
    const char *key;
    json_t *value;
    json_object_foreach(file, key, value)
    {
        gboolean taken = strcmp(key, "driver") == 0     ? take_string(&parts->file_driver, value)
                         : strcmp(key, "filename") == 0 ? take_string(&parts->filename, value)
                                                        : FALSE;
        if (!taken) {
            return FALSE;
        }
    }
    return json_is_object(file);
}

static gboolean take_json(JsonParts *parts, json_t *root)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        gboolean taken = strcmp(key, "driver") == 0          ? take_string(&parts->driver, value)
                         : strcmp(key, "file.driver") == 0   ? take_string(&parts->file_driver, value)
                         : strcmp(key, "file.filename") == 0 ? take_string(&parts->filename, value)
                         : strcmp(key, "file") == 0          ? take_file_object(parts, value)
                                                             : FALSE;
        if (!taken) {
            return FALSE;
        }
    }
    return json_is_object(root);
}

static void parse_json(const char *text, VpReference *ret)
{
    JsonParts parts = {0};
    PbImageFormat format = PB_IMAGE_FORMAT_UNSPECIFIED;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

    if (!root) {
        unsupported(ret, g_strdup("a json reference that cannot be parsed"));
        return;
    }
    gboolean taken = take_json(&parts, root);
    if (parts.driver) {
        format = vp_format_from_qemu_name(parts.driver, strlen(parts.driver));
    }
    if (!taken || !parts.filename || (parts.driver && format == PB_IMAGE_FORMAT_UNSPECIFIED) ||
        (parts.file_driver && strcmp(parts.file_driver, "file") != 0)) {
        unsupported(ret, g_strdup("a json reference that says more than an image format and the path of a file"));
    } else if (parts.filename[0] != '/') {
        /* QEMU takes it from its working directory. */
        unsupported(ret, g_strdup("a json reference to a relative path"));
    } else {
        take_path(ret, parts.filename, format);
    }
    json_decref(root);
}

static void parse_relative(const char *name, const char *overlay, VpReference *ret)
{
    const char *slash = overlay ? strrchr(overlay, '/') : NULL;
    if (!slash) {
        unsupported(ret, g_strdup("a relative path, which QEMU would take from its working directory"));
        return;
    }
    g_autofree char *path = g_strdup_printf("%.*s%s", (int)(slash - overlay + 1), overlay, name);
    take_path(ret, path, PB_IMAGE_FORMAT_UNSPECIFIED);
}

void vp_reference_parse(const char *name, const char *overlay, VpReference *ret)
{
    gsize prefix = strcspn(name, ":/");
    gboolean has_protocol = name[prefix] == ':';

    if (name[0] == '/') {
        take_path(ret, name, PB_IMAGE_FORMAT_UNSPECIFIED);
    } else if (g_str_has_prefix(name, "json:")) {
        parse_json(name + strlen("json:"), ret);
    } else if (g_str_has_prefix(name, "file:")) {
        if (name[strlen("file:")] == '/') {
            take_path(ret, name + strlen("file:"), PB_IMAGE_FORMAT_UNSPECIFIED);
        } else {
            unsupported(ret,
                        g_strdup("a `file:` reference with a relative path, which QEMU would take from its working "
                                 "directory"));
        }
    } else if (!has_protocol) {
        parse_relative(name, overlay, ret);
    } else if (is_remote(name, prefix)) {
        *ret = (VpReference){.kind = VP_REFERENCE_REMOTE, .why = vp_text_escape(name, (gssize)prefix)};
    } else {
        g_autofree char *protocol = vp_text_escape(name, (gssize)prefix);
        unsupported(ret, g_strdup_printf("a reference of the kind \"%s:\"", protocol));
    }
}

void vp_reference_clear(VpReference *reference)
{
    g_clear_pointer(&reference->path, g_free);
    g_clear_pointer(&reference->why, g_free);
}
