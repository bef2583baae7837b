/* See contain_view.h. */
#include "contain_view.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void entry_clear(gpointer data)
{
    VpViewEntry *entry = data;

    g_free(entry->source);
    g_free(entry->target);
}

GArray *vp_view_new(void)
{
    GArray *view = g_array_new(FALSE, TRUE, sizeof(VpViewEntry));

    g_array_set_clear_func(view, entry_clear);
    return view;
}

/* Whether it is there: the same, or within what is shown with all that is below it. */
static gboolean has(const GArray *view, const char *target)
{
    for (guint i = 0; i < view->len; i++) {
        const VpViewEntry *entry = &g_array_index(view, VpViewEntry, i);
        const gsize length = strlen(entry->target);
        const gboolean shows = entry->kind == VP_VIEW_SHOWN || entry->kind == VP_VIEW_WRITABLE;

        if (strcmp(entry->target, target) == 0 ||
            (shows && strncmp(entry->target, target, length) == 0 && target[length] == '/'))
            return TRUE;
    }
    return FALSE;
}

static void add(GArray *view, VpViewKind kind, const char *source, const char *target, const struct stat *status)
{
    const VpViewEntry entry = {
        .kind = kind,
        .source = g_strdup(source),
        .target = g_strdup(target),
        .is_file = status && !S_ISDIR(status->st_mode),
        .device = status ? status->st_rdev : 0,
    };

    g_array_append_val(view, entry);
}

static const char *relative(const char *path)
{
    while (*path == '/')
        path++;
    return path;
}

void vp_view_folder(GArray *view, const char *target)
{
    target = relative(target);
    if (!*target || has(view, target))
        return;
    g_autofree char *parent = g_path_get_dirname(target);
    if (strcmp(parent, ".") != 0)
        vp_view_folder(view, parent);
    add(view, VP_VIEW_FOLDER, NULL, target, NULL);
}

static void add_parent(GArray *view, const char *target)
{
    g_autofree char *parent = g_path_get_dirname(target);

    if (strcmp(parent, ".") != 0)
        vp_view_folder(view, parent);
}

void vp_view_show(GArray *view, const char *source, const char *target, gboolean writable)
{
    struct stat status;

    target = relative(target);
    if (!*target || has(view, target) || stat(source, &status) < 0)
        return;
    add_parent(view, target);
    add(view, writable ? VP_VIEW_WRITABLE : VP_VIEW_SHOWN, source, target, &status);
}

void vp_view_device(GArray *view, const char *path)
{
    struct stat status;
    const char *target = relative(path);

    if (has(view, target) || stat(path, &status) < 0 || !S_ISCHR(status.st_mode))
        return;
    add_parent(view, target);
    add(view, VP_VIEW_DEVICE, path, target, &status);
}

/* On most hosts these lead into /usr. */
static void add_top(GArray *view, const char *path)
{
    struct stat status;
    g_autofree char *link = g_file_read_link(path, NULL);

    if (link)
        add(view, VP_VIEW_LINK, link, relative(path), NULL);
    else if (stat(path, &status) == 0)
        vp_view_show(view, path, path, FALSE);
}

void vp_view_system(GArray *view)
{
    static const char *const tops[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};

    vp_view_show(view, "/usr", "/usr", FALSE);
    for (gsize i = 0; i < G_N_ELEMENTS(tops); i++)
        add_top(view, tops[i]);
    vp_view_show(view, "/etc/ld.so.cache", "/etc/ld.so.cache", FALSE);
    vp_view_show(view, "/etc/localtime", "/etc/localtime", FALSE);
    for (gsize i = 0; i < G_N_ELEMENTS(devices); i++)
        vp_view_device(view, devices[i]);
    /* Its own descriptors by their numbers, and no process beside it. Bound by the child itself, which "self" then is. */
    vp_view_folder(view, "/dev");
    add(view, VP_VIEW_WRITABLE, "/proc/self/fd", "dev/fd", NULL);
}

void vp_view_program(GArray *view, const char *binary)
{
    g_autofree char *real = realpath(binary, NULL);

    vp_view_show(view, binary, binary, FALSE);
    if (real)
        vp_view_show(view, real, real, FALSE);
}

void vp_view_network(GArray *view)
{
    static const char *const files[] = {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf",
                                        "/etc/gai.conf"};

    for (gsize i = 0; i < G_N_ELEMENTS(files); i++)
        vp_view_show(view, files[i], files[i], FALSE);
}
