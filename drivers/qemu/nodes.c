/* See nodes.h. */
#include "nodes.h"

VpError *vp_qemu_check_nodes(json_t *nodes)
{
    json_t *node;
    size_t i;

    json_array_foreach(nodes, i, node)
    {
        const char *name = json_string_value(json_object_get(node, "node-name"));
        const char *file = json_string_value(json_object_get(node, "file"));

        /* QEMU's own names begin so, and no other name may. */
        if (name && name[0] != '#')
            continue;
        return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "IMAGE_CHANGED",
                                          "QEMU opened %s, which no image named when the chains were checked: somebody "
                                          "has written to an image since. Inspect the chains and start it again",
                                          file ? file : "a file"),
                             "path", file ? file : "");
    }
    return NULL;
}
