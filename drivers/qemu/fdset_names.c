/* See fdset_names.h. */
#include "fdset_names.h"

#include <glib.h>
#include <string.h>

#define FDSET "/dev/fdset/"

/* The paths in the order of the sets, borrowed: command_line.c adds each disk from its base to its top, a data file after its image. */
static GPtrArray *paths_of_sets(PbDiskStatus *const *disks, size_t n_disks)
{
    GPtrArray *paths = g_ptr_array_new();

    for (size_t i = 0; i < n_disks; i++) {
        for (size_t depth = disks[i]->n_layers; depth-- > 0;) {
            const PbImageLayer *layer = disks[i]->layers[depth];

            if (layer->is_remote)
                continue;
            g_ptr_array_add(paths, layer->path);
            if (layer->data_file[0])
                g_ptr_array_add(paths, layer->data_file);
        }
    }
    return paths;
}

char *vp_qemu_name_fdsets(const char *text, PbDiskStatus *const *disks, size_t n_disks, guint64 first)
{
    g_autoptr(GPtrArray) paths = paths_of_sets(disks, n_disks);

    if (!text)
        return NULL;
    GString *named = g_string_new(NULL);
    for (const char *at = text; *at;) {
        const char *found = strstr(at, FDSET);
        if (!found) {
            g_string_append(named, at);
            break;
        }
        char *end = NULL;
        const guint64 set = g_ascii_strtoull(found + strlen(FDSET), &end, 10);

        g_string_append_len(named, at, found - at);
        if (set >= first && set - first < paths->len)
            g_string_append(named, paths->pdata[set - first]);
        else
            g_string_append_len(named, found, end - found);
        at = end;
    }
    return g_string_free(named, FALSE);
}
