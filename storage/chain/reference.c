/* See reference.h: names as QEMU's path_has_protocol() takes them apart. What is behind `json:` is reference_json.c's. */
#include "storage/chain/reference.h"

#include <string.h>

#include "storage/chain/reference_json.h"
#include "storage/chain/text.h"

const char *vp_reference_protocol(const char *name, gsize length)
{
    static const struct {
        const char *name;
        const char *protocol;
    } remote[] = {
        {"nbd", "nbd"},
        {"nbd+tcp", "nbd"},
        {"nbd+unix", "nbd"},
        {"nbd+tls", "nbd"},
        {"nbds", "nbd"},
        {"nbds+unix", "nbd"},
        {"rbd", "rbd"},
        {"iscsi", "iscsi"},
        {"iser", "iscsi"},
        {"gluster", "gluster"},
        {"gluster+tcp", "gluster"},
        {"gluster+unix", "gluster"},
        {"ssh", "ssh"},
        {"gluster+rdma", "gluster"},
        {"http", "http"},
        {"https", "https"},
        {"ftp", "ftp"},
        {"ftps", "ftps"},
        {"tftp", "tftp"},
        {"nfs", "nfs"},
        {"sheepdog", "sheepdog"},
        {"vxhs", "vxhs"},
        {"sheepdog+tcp", "sheepdog"},
        {"sheepdog+unix", "sheepdog"},
    };
    for (gsize i = 0; i < G_N_ELEMENTS(remote); i++) {
        if (strlen(remote[i].name) == length && strncmp(remote[i].name, name, length) == 0) {
            return remote[i].protocol;
        }
    }
    return NULL;
}

static void unsupported(VpReference *ret, char *why)
{
    *ret = (VpReference){.kind = VP_REFERENCE_UNSUPPORTED, .why = why};
}

static void take_path(VpReference *ret, const char *path)
{
    *ret = (VpReference){.kind = VP_REFERENCE_FILE, .path = g_strdup(path)};
}

static void parse_relative(const char *name, const char *overlay, VpReference *ret)
{
    const char *slash = overlay ? strrchr(overlay, '/') : NULL;
    if (!slash) {
        unsupported(ret, g_strdup("a relative path, which QEMU would take from its working directory"));
        return;
    }
    g_autofree char *path = g_strdup_printf("%.*s%s", (int)(slash - overlay + 1), overlay, name);
    take_path(ret, path);
}

/* What follows `file:` or `host_device:`. */
static void parse_local(const char *prefix, const char *path, VpReference *ret)
{
    if (path[0] != '/') {
        unsupported(ret,
                    g_strdup_printf("a `%s` reference with a relative path, which QEMU would take from its working "
                                    "directory",
                                    prefix));
        return;
    }
    take_path(ret, path);
}

static void parse_protocol(const char *name, gsize prefix, VpReference *ret)
{
    const char *remote = vp_reference_protocol(name, prefix);
    if (remote) {
        *ret = (VpReference){.kind = VP_REFERENCE_REMOTE, .protocol = g_strdup(remote), .nbd = vp_nbd_parse(name)};
        return;
    }
    g_autofree char *protocol = vp_text_escape(name, (gssize)prefix);
    unsupported(ret, g_strdup_printf("a reference of the kind \"%s:\"", protocol));
}

void vp_reference_parse(const char *name, const char *overlay, VpReference *ret)
{
    gsize prefix = strcspn(name, ":/");
    gboolean has_protocol = name[prefix] == ':';

    if (name[0] == '/') {
        take_path(ret, name);
    } else if (g_str_has_prefix(name, "json:")) {
        vp_reference_parse_json(name + strlen("json:"), ret);
    } else if (g_str_has_prefix(name, "file:")) {
        parse_local("file:", name + strlen("file:"), ret);
    } else if (g_str_has_prefix(name, "host_device:")) {
        parse_local("host_device:", name + strlen("host_device:"), ret);
        ret->is_device = ret->kind == VP_REFERENCE_FILE;
    } else if (has_protocol) {
        parse_protocol(name, prefix, ret);
    } else if (name[0] == '\0') {
        unsupported(ret, g_strdup("an empty name"));
    } else {
        parse_relative(name, overlay, ret);
    }
}

void vp_reference_clear(VpReference *reference)
{
    g_clear_pointer(&reference->path, g_free);
    g_clear_pointer(&reference->protocol, g_free);
    g_clear_pointer(&reference->nbd, vp_nbd_free);
    g_clear_pointer(&reference->why, g_free);
}
