/*
 * See reference_json.h. QEMU flattens the objects to dotted keys ("file.filename") and opens one node for each level; so is it done here, and then
 * the levels are taken from the top down:
 *
 *     an image format, perhaps a window (raw with offset and size)  ->  more windows  ->  a file, a block device or something remote
 *
 * Every key has to be known. Those that change how the bytes are read but not which bytes are left aside: the nodes that the QEMU driver makes are
 * its own. Anything else (a backing file that overrides the header's, a node by its name, a filter, a debug driver) is not taken.
 */
#include "storage/chain/reference_json.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "storage/chain/text.h"
#include "storage/probe/formats.h"

#define MAX_LEVELS 4 /* of nested nodes; QEMU's names are at most 1,023 bytes, which hold no more that make sense */
#define MAX_KEYS 64

/* The options, flat: dotted key -> json_t, borrowed from the document. */
typedef struct Options {
    GHashTable *flat;
    char *why; /* not taken, and why */
} Options;

static void refuse(Options *options, const char *why)
{
    if (!options->why) {
        options->why = g_strdup(why);
    }
}

static void flatten(Options *options, json_t *object, const char *prefix, guint level)
{
    const char *key;
    json_t *value;
    if (level > MAX_LEVELS) {
        refuse(options, "a json reference that is nested too deeply");
        return;
    }
    json_object_foreach(object, key, value)
    {
        g_autofree char *full = g_strconcat(prefix, key, NULL);
        if (json_is_object(value) && json_object_size(value) == 0) {
            refuse(options, "a json reference with an empty object");
        } else if (json_is_object(value)) {
            g_autofree char *below = g_strconcat(full, ".", NULL);
            flatten(options, value, below, level + 1);
        } else if (json_is_array(value)) {
            refuse(options, "a json reference with a list");
        } else if (g_hash_table_size(options->flat) >= MAX_KEYS) {
            refuse(options, "a json reference with too many keys");
        } else if (!g_hash_table_insert(options->flat, g_steal_pointer(&full), value)) {
            refuse(options, "a json reference that says something twice");
        }
    }
}

/* Takes the option PREFIX.NAME out; NULL if it is not there. */
static const json_t *take(Options *options, const char *prefix, const char *name)
{
    g_autofree char *key = g_strconcat(prefix, name, NULL);
    const json_t *value = g_hash_table_lookup(options->flat, key);
    if (value) {
        g_hash_table_remove(options->flat, key);
    }
    return value;
}

static const char *take_string(Options *options, const char *prefix, const char *name)
{
    const json_t *value = take(options, prefix, name);
    if (value && !json_is_string(value)) {
        refuse(options, "a json reference with a value of the wrong type");
    }
    return value ? json_string_value(value) : NULL;
}

/* QEMU takes a size as a number, or as text with a unit. */
static gboolean parse_size(const json_t *value, guint64 *ret)
{
    static const char units[] = "bkmgtpe";
    char *end = NULL;
    if (json_is_integer(value)) {
        *ret = (guint64)json_integer_value(value);
        return json_integer_value(value) >= 0;
    }
    const char *text = json_string_value(value);
    if (!text || !g_ascii_isdigit(text[0])) {
        return FALSE;
    }
    errno = 0;
    guint64 number = g_ascii_strtoull(text, &end, 10);
    if (errno || number > G_MAXINT64) {
        return FALSE;
    }
    const char *unit = *end ? strchr(units, g_ascii_tolower(*end)) : units;
    guint shift = unit ? 10 * (guint)(unit - units) : 0;
    if (!unit || (*end && end[1]) || (shift > 0 && number > (guint64)G_MAXINT64 >> shift)) {
        return FALSE;
    }
    *ret = number << shift;
    return TRUE;
}

/* Reads the window of the raw node at `prefix` and puts it inside the one that is known already. */
static void take_window(Options *options, const char *prefix, VpReference *ret)
{
    const json_t *offset = take(options, prefix, "offset");
    const json_t *size = take(options, prefix, "size");
    guint64 inner_offset = 0;
    guint64 inner_size = 0;

    if (!offset && !size) {
        return;
    }
    if ((offset && !parse_size(offset, &inner_offset)) || (size && !parse_size(size, &inner_size)) ||
        inner_offset > (guint64)G_MAXINT64 - ret->offset) {
        refuse(options, "a json reference with an offset or a size that is none");
        return;
    }
    if (size && (inner_size == 0 || inner_size % 512)) {
        refuse(options, "a json reference to a window whose size is no multiple of 512");
        return;
    }
    /* The outer window counts from where this one begins, and lies within it. */
    if (ret->is_window && inner_size > 0 &&
        (ret->offset > inner_size || (ret->size > 0 ? ret->size > inner_size - ret->offset : FALSE))) {
        refuse(options, "a json reference to a window that reaches out of another");
        return;
    }
    if (ret->size == 0 && inner_size > 0) {
        ret->size = inner_size - ret->offset;
        if (ret->size == 0) {
            refuse(options, "a json reference to a window of no bytes");
            return;
        }
    }
    ret->is_window = TRUE;
    ret->offset += inner_offset;
    if (ret->size > (guint64)G_MAXINT64 - ret->offset) {
        refuse(options, "a json reference to a window beyond the end of any file");
    }
}

static gboolean is_harmless(const char *name)
{
    static const char *const names[] = {"read-only",     "auto-read-only",       "discard",
                                        "detect-zeroes", "cache.direct",         "cache.no-flush",
                                        "aio",           "aio-max-batch",        "locking",
                                        "drop-cache",    "x-check-cache-dropped"};
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return TRUE;
        }
    }
    return FALSE;
}

static void drop_harmless(Options *options, const char *prefix)
{
    GHashTableIter iter;
    gpointer key;
    g_hash_table_iter_init(&iter, options->flat);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        const char *full = key;
        if (g_str_has_prefix(full, prefix) && is_harmless(full + strlen(prefix))) {
            g_hash_table_iter_remove(&iter);
        }
    }
}

static gboolean has_level(const Options *options, const char *prefix)
{
    GHashTableIter iter;
    gpointer key;
    g_hash_table_iter_init(&iter, options->flat);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        if (g_str_has_prefix(key, prefix)) {
            return TRUE;
        }
    }
    return FALSE;
}

/* A text, or a number as text; NULL for anything else. Owned by the caller. */
static char *take_scalar(Options *options, const char *prefix, const char *name)
{
    const json_t *value = take(options, prefix, name);
    return json_is_integer(value) ? g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value))
                                  : g_strdup(json_string_value(value));
}

/* Where an NBD export is; what else is said of it (TLS, how to reconnect) makes it one that nobody is told of. */
static VpNbd *take_nbd(Options *options, const char *prefix)
{
    g_autofree char *server = g_strconcat(prefix, "server.", NULL);
    g_autofree char *type = take_scalar(options, server, "type");
    g_autofree char *host = take_scalar(options, server, "host");
    g_autofree char *port = take_scalar(options, server, "port");
    g_autofree char *socket = take_scalar(options, server, "path");
    g_autofree char *name = take_scalar(options, prefix, "export");

    if (g_hash_table_size(options->flat) > 0 || !type || strcmp(type, host ? "inet" : "unix") != 0 || (host && !port)) {
        return NULL;
    }
    return vp_nbd_new(host, port, socket, name);
}

/* The node that holds the bytes: a file, a device, or something remote, whose own options say nothing to us. */
static void take_bytes(Options *options, const char *prefix, const char *driver, VpReference *ret)
{
    const char *remote = driver ? vp_reference_protocol(driver, strlen(driver)) : NULL;
    if (remote) {
        ret->kind = VP_REFERENCE_REMOTE;
        ret->protocol = g_strdup(remote);
        ret->nbd = strcmp(driver, "nbd") == 0 ? take_nbd(options, prefix) : NULL;
        if (ret->is_window) {
            refuse(options, "a json reference to a window of something remote");
        }
        return;
    }
    gboolean device = driver && strcmp(driver, "host_device") == 0;
    if (driver && !device && strcmp(driver, "file") != 0) {
        g_autofree char *shown = vp_text_escape(driver, -1);
        g_autofree char *why = g_strdup_printf("a json reference with the driver \"%s\"", shown);
        refuse(options, why);
        return;
    }
    const char *path = take_string(options, prefix, "filename");
    if (!path) {
        refuse(options, "a json reference without the name of a file");
    } else if (path[0] != '/') {
        /* QEMU takes it from its working directory. */
        refuse(options, "a json reference to a relative path");
    } else if (g_hash_table_size(options->flat) > 0) {
        refuse(options, "a json reference that says more than an image format, a window and a file");
    } else {
        ret->path = g_strdup(path);
        ret->is_device = device;
    }
}

static void take_nodes(Options *options, VpReference *ret)
{
    g_autofree char *prefix = g_strdup("");
    const char *driver = take_string(options, "", "driver");

    if (!has_level(options, "file.")) {
        const char *remote = driver ? vp_reference_protocol(driver, strlen(driver)) : NULL;
        if (remote) {
            take_bytes(options, "", driver, ret);
        } else {
            /* QEMU refuses it too where the format is recorded: a format has to lie above the file. */
            refuse(options, "a json reference without an image format over a file");
        }
        return;
    }
    if (driver) {
        ret->format = vp_format_from_qemu_name(driver, strlen(driver));
        if (ret->format == PB_IMAGE_FORMAT_UNSPECIFIED) {
            g_autofree char *shown = vp_text_escape(driver, -1);
            g_autofree char *why = g_strdup_printf("a json reference with the driver \"%s\"", shown);
            refuse(options, why);
            return;
        }
    }
    gboolean raw = ret->format == PB_IMAGE_FORMAT_RAW;
    for (guint level = 0; level < MAX_LEVELS && !options->why; level++) {
        if (raw) {
            take_window(options, prefix, ret);
        }
        drop_harmless(options, prefix);
        char *below = g_strconcat(prefix, "file.", NULL);
        g_free(prefix);
        prefix = below;
        driver = take_string(options, prefix, "driver");
        raw = driver && strcmp(driver, "raw") == 0;
        if (!raw) {
            drop_harmless(options, prefix);
            take_bytes(options, prefix, driver, ret);
            return;
        }
    }
    refuse(options, "a json reference that is nested too deeply");
}

void vp_reference_parse_json(const char *text, VpReference *ret)
{
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    Options options = {.flat = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};

    *ret = (VpReference){.kind = VP_REFERENCE_FILE};
    if (json_is_object(root)) {
        flatten(&options, root, "", 0);
    } else {
        refuse(&options, "a json reference that cannot be parsed");
    }
    if (!options.why) {
        take_nodes(&options, ret);
    }
    if (options.why) {
        vp_reference_clear(ret);
        *ret = (VpReference){.kind = VP_REFERENCE_UNSUPPORTED, .why = options.why};
    }
    g_hash_table_unref(options.flat);
    json_decref(root);
}
